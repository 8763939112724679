"""Foreign weight formats: one file each, names and layouts only."""
