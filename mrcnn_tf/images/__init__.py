"""Image files in, drawings out."""
