"""Data sets for TensorFlow Datasets, a folder each in its own layout; docs/tfds.md."""
