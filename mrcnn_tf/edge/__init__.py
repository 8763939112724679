"""A trained network as a LiteRT or ONNX file, and what runs such a file where no TensorFlow is."""
