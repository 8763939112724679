"""From the graph to a .tflite file, in the runtime's built-in operations only.

What `quantize` may be:

    none      float32
    float16   weights as float16, computed in float32: half the size
    dynamic   weights of convolutions and matrix products as int8, activations made int8 as they
              come: a quarter of the size, and faster on processors
    full      convolutions and matrix products in int8 throughout, with ranges from given pictures;
              boxes, scores and what is made of them stay float32, whose 256 steps would be too few
"""

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from mrcnn_tf.edge import device, graph

_Operator = schema.BuiltinOperator
_WITH_WEIGHTS = (
    _Operator.CONV_2D,
    _Operator.DEPTHWISE_CONV_2D,
    _Operator.TRANSPOSE_CONV,
    _Operator.FULLY_CONNECTED,
)
# Between those, so that maps need not become float and int8 again.
_ON_MAPS = (
    _Operator.ADD,
    _Operator.MAX_POOL_2D,
    _Operator.PAD,
    _Operator.RELU,
    _Operator.RELU6,
    _Operator.RESIZE_NEAREST_NEIGHBOR,
)

QUANTIZE = ("none", "float16", "dynamic", "full")
Picture = tuple[np.ndarray, np.ndarray]  # what `device.fit` returns


def convert(network: graph.Graph, quantize: str, pictures: Iterable[Picture] = ()) -> bytes:
    """Convert.

    Args:
      network: the graph.
      quantize: one of `QUANTIZE`.
      pictures: for "full": where the ranges of activations are measured.

    Returns:
      The file, without its description.

    Raises:
      ValueError: LiteRT has no operation for something in the graph.
    """
    converter = _converter(network)
    if quantize in ("float16", "dynamic"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        content = converter.convert()
        return _calibrated(network, content, pictures) if quantize == "full" else content
    except Exception as error:  # of classes that TensorFlow does not name publicly
        raise ValueError(f"LiteRT cannot express this network: {_told(error)}") from error


def _converter(network: graph.Graph) -> Any:
    """Return a converter, which is good for one conversion."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.function], network)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _calibrated(network: graph.Graph, content: bytes, pictures: Iterable[Picture]) -> bytes:
    """Convert once more, to int8 where `_in_float` does not forbid it."""

    def samples() -> Iterator[dict[str, np.ndarray]]:
        for image, size_hw in pictures:
            yield {"image": image, "image_size": size_hw}

    converter = _converter(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    # TensorFlow's public way to leave parts in float.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=_in_float(content))
    quantizer = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=samples, debug_options=options
    )
    return quantizer.get_nondebug_quantized_model()


def _in_float(content: bytes) -> list[str]:
    """Name what must not become int8: the outputs of all operations but those on feature maps.

    A box of a picture of 640 pixels has no place in 256 steps, and neither have IoUs and scores.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    names = []
    for graph_index, subgraph in enumerate(model.subgraphs):
        for operator in subgraph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            kind = max(code.builtinCode, code.deprecatedBuiltinCode)
            outputs = [subgraph.tensors[index] for index in operator.outputs]
            is_map = all(len(tensor.shape) == 4 for tensor in outputs)
            on_maps = graph_index == 0 and is_map and kind in _ON_MAPS  # others are loops' bodies
            if not (on_maps or kind in _WITH_WEIGHTS):
                names += [tensor.name.decode("utf-8") for tensor in outputs]
    return names


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
