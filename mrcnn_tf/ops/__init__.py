"""Pure tensor functions on boxes, anchors, features and masks; no variables."""
