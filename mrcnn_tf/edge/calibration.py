"""From a float32 .tflite file to one whose convolutions and matrix products are int8 throughout.

What becomes int8 are operations with weights, and those that stand between them on feature maps.
Everything else stays float32: a box in a picture of 640 pixels has no place in 256 steps, and
neither have IoUs and scores.

The range of each activation is measured here, on pictures in LiteRT's runtime, because TensorFlow's
own calibrator crashes on networks with loops, which NMS is. What quantises is TensorFlow's.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tensorflow.lite.python import convert as tflite_convert

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

Picture = tuple[np.ndarray, np.ndarray]  # what `device.fit` returns


def to_int8(content: bytes, pictures: Iterable[Picture]) -> bytes:
    """Quantise.

    Args:
      content: a .tflite file in float32, with the inputs of `graph.Graph`.
      pictures: on which the ranges of activations are measured, at least one.

    Returns:
      The file; its inputs and outputs are as before.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    main, *bodies = model.subgraphs
    chosen = [operator for operator in main.operators if _is_int8(model, main, operator)]
    others = [operator for operator in main.operators if operator not in chosen]
    in_float = [*_output_names(main, others)]
    for body in bodies:  # of loops
        in_float += _output_names(body, body.operators)
    _write_ranges(main, _ranges(content, _activations(model, main, chosen), pictures))
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return tflite_convert.mlir_quantize(bytes(builder.Output()), denylisted_nodes=in_float)


def _is_int8(model: Any, subgraph: Any, operator: Any) -> bool:
    code = model.operatorCodes[operator.opcodeIndex]
    kind = max(code.builtinCode, code.deprecatedBuiltinCode)
    outputs = [subgraph.tensors[index] for index in operator.outputs]
    is_map = all(
        tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) == 4 for tensor in outputs
    )
    return kind in _WITH_WEIGHTS or (is_map and kind in _ON_MAPS)


def _output_names(subgraph: Any, operators: Iterable[Any]) -> Iterator[str]:
    for operator in operators:
        for index in operator.outputs:
            yield subgraph.tensors[index].name.decode("utf-8")


def _activations(model: Any, subgraph: Any, operators: Iterable[Any]) -> list[int]:
    """List the tensors that the operators read or write and that no file holds."""
    touched = {int(i) for o in operators for i in (*o.inputs, *o.outputs) if i >= 0}
    return sorted(
        index
        for index in touched
        if subgraph.tensors[index].type == schema.TensorType.FLOAT32
        and not _is_stored(model.buffers[subgraph.tensors[index].buffer])
    )


def _is_stored(buffer: Any) -> bool:
    return buffer.data is not None and len(buffer.data) > 0


def _ranges(
    content: bytes, tensors: list[int], pictures: Iterable[Picture]
) -> dict[int, tuple[float, float]]:
    """Measure the least and the greatest value of tensors over pictures."""
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    run = interpreter.get_signature_runner()
    ranges = dict.fromkeys(tensors, (0.0, 0.0))  # zero has to be exact: padding is zero
    for image, size_hw in pictures:
        run(image=image, image_size=size_hw)
        for index in tensors:
            values = interpreter.get_tensor(index)
            low, high = ranges[index]
            ranges[index] = min(low, float(values.min())), max(high, float(values.max()))
    return ranges


def _write_ranges(subgraph: Any, ranges: dict[int, tuple[float, float]]) -> None:
    for index, (low, high) in ranges.items():
        quantisation = schema.QuantizationParametersT()
        quantisation.min, quantisation.max = [low], [high]
        subgraph.tensors[index].quantization = quantisation
