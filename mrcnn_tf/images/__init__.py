"""Picture files in, drawings out."""
