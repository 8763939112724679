"""What goes into an exported SavedModel around the network."""
