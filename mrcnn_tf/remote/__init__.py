"""Calling a network that a TensorFlow Serving holds; nothing here imports TensorFlow."""
