"""From the graph to a .tflite file, in the runtime's built-in operations only.

What `quantize` may be:

    none      float32
    float16   weights as float16, computed in float32: half the size
    dynamic   weights of convolutions and matrix products as int8, activations made int8 as they
              come: a quarter of the size, and faster on processors
    full      convolutions and matrix products in int8 throughout, see `calibration.py`
"""

import io
import zipfile
from collections.abc import Iterable

import tensorflow as tf

from mrcnn_tf.edge import calibration, device, graph


def convert(
    network: graph.Graph, quantize: str, pictures: Iterable[calibration.Picture] = ()
) -> bytes:
    """Convert.

    Args:
      network: the graph.
      quantize: one of `formats.QUANTIZE`.
      pictures: for "full": where the ranges of activations are measured.

    Returns:
      The file, without its description.

    Raises:
      ValueError: LiteRT has no operation for something in the graph.
    """
    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.function], network)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantize in ("float16", "dynamic"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        content = converter.convert()
        return calibration.to_int8(content, pictures) if quantize == "full" else content
    except Exception as error:  # of classes that TensorFlow does not name publicly
        raise ValueError(f"LiteRT cannot express this network: {_told(error)}") from error


def describe(content: bytes, description: str) -> bytes:
    """Put a description behind a file.

    It stands in a ZIP archive at the end, where TensorFlow Lite's metadata keep their associated
    files: runtimes do not look there, and any tool that opens archives does.

    Args:
      content: the file.
      description: JSON.
    """
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(device.DESCRIPTION, description)
    return file.getvalue()


def _told(error: Exception) -> str:
    """Return what a converter's error says, without the place of each operation in the graph."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line or "is neither" in line]
    return (telling or lines or [type(error).__name__])[0][:300]
