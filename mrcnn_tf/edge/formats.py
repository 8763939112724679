"""Names of what can be written. Imports nothing: who lists them need not have a converter."""

NAMES = {"litert": "model.tflite", "onnx": "model.onnx"}
FORMATS = tuple(NAMES)
QUANTIZE = ("none", "float16", "dynamic", "full")
INT8 = ("dynamic", "full")
