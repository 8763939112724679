"""What was found in an image, and the forms in which other tools take it. No TensorFlow."""
