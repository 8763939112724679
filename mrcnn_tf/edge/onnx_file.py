"""From the graph to an .onnx file, by tf2onnx. Experimental: tf2onnx looks for a maintainer.

Its packages are an extra, `pip install 'mrcnn-tf[onnx]'`. What it converts wrongly it converts
without a word (integer division, which ONNX rounds towards zero, for one), so `verification.py` is
not a formality here.
"""

import logging
import types

import onnx
import tf2onnx

from mrcnn_tf.edge import device, graph

OPSET = 18  # the newest that tf2onnx knows


def convert(network: graph.Graph, description: str) -> bytes:
    """Convert.

    Args:
      network: the graph.
      description: JSON, which becomes a metadata property.

    Returns:
      The file.

    Raises:
      ValueError: ONNX, or tf2onnx, has no operation for something in the graph.
    """
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    # It wants to trace a function by itself, without our choice among implementations.
    traced = types.SimpleNamespace(get_concrete_function=lambda *_: network.function)
    specs = [*network.function.structured_input_signature[1].values()]
    try:
        model, _ = tf2onnx.convert.from_function(traced, input_signature=specs, opset=OPSET)
        onnx.checker.check_model(model)
    except Exception as error:  # tf2onnx raises whatever it comes upon
        raise ValueError(f"tf2onnx cannot convert this network: {error}") from error
    model.producer_name = "mrcnn_tf"
    onnx.helper.set_model_props(model, {device.DESCRIPTION_KEY: description})
    return model.SerializeToString()
