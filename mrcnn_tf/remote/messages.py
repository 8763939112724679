"""The messages of TensorFlow Serving's call `Predict`, and tensors as they carry them.

Its own package of messages, tensorflow-serving-api, imports TensorFlow. These are the same messages
as far as predicting needs them: same field numbers and types, so the same bytes; fields that are
not listed are skipped when a message is read. A map of strings is, in bytes, a list of entries with
a key and a value, and is written as one here; an enumeration is an integer.

Source:
  tensorflow/core/framework/tensor.proto, tensor_shape.proto and core/example/*.proto of TensorFlow;
  tensorflow_serving/apis/model.proto, predict.proto and prediction_log.proto of TensorFlow Serving.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

METHOD = "/tensorflow.serving.PredictionService/Predict"
_PACKAGE = "mrcnn_tf.remote"

# message: {field: (number, type)}; "*" marks a repeated field.
_FIELDS = {
    "Dim": {"size": (1, "int64")},
    "Shape": {"dim": (2, "*Dim")},
    "Tensor": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "Shape"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "*float"),
        "int_val": (7, "*int32"),
        "string_val": (8, "*bytes"),
        "int64_val": (10, "*int64"),
    },
    "NamedTensor": {"key": (1, "string"), "value": (2, "Tensor")},
    "Version": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Version"),
        "signature_name": (3, "string"),
    },
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "*NamedTensor")},
    "PredictResponse": {"outputs": (1, "*NamedTensor"), "model_spec": (2, "ModelSpec")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
    "BytesList": {"value": (1, "*bytes")},
    "Feature": {"bytes_list": (1, "BytesList")},
    "NamedFeature": {"key": (1, "string"), "value": (2, "Feature")},
    "Features": {"feature": (1, "*NamedFeature")},
    "Example": {"features": (1, "Features")},
}

_STRING = 7
# TensorFlow's number of a type: NumPy's, and the field that holds such values one by one.
_TYPES: dict[int, tuple[type[np.generic], str]] = {
    1: (np.float32, "float_val"),
    3: (np.int32, "int_val"),
    4: (np.uint8, "int_val"),
    9: (np.int64, "int64_val"),
}


def _classes() -> dict[str, Any]:
    """Make a class of each message, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if kind[0] == "*" else field.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _FIELDS:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = field.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


_MESSAGES = _classes()
PredictRequest = _MESSAGES["PredictRequest"]
PredictResponse = _MESSAGES["PredictResponse"]
PredictionLog = _MESSAGES["PredictionLog"]

Pictures = Sequence[bytes] | np.ndarray


def predict_request(
    signature: str, input_name: str, pictures: Pictures, model_name: str = ""
) -> Any:
    """Return the request of one input.

    Args:
      signature: the signature's name.
      input_name: of its one input.
      pictures: strings, or uint8 [B, h, w, 3].
      model_name: as the server has it; not needed in a warm-up file.
    """
    request = PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    named = request.inputs.add(key=input_name)
    is_pixels = isinstance(pictures, np.ndarray)
    shape = pictures.shape if isinstance(pictures, np.ndarray) else (len(pictures),)
    for size in shape:
        named.value.tensor_shape.dim.add(size=size)
    named.value.dtype = 4 if is_pixels else _STRING
    if isinstance(pictures, np.ndarray):
        named.value.tensor_content = np.ascontiguousarray(pictures, np.uint8).tobytes()
    else:
        named.value.string_val.extend(pictures)
    return request


def to_array(tensor: Any) -> np.ndarray:
    """Return a `Tensor` message as an array; strings as bytes, dtype object.

    Values stand packed in `tensor_content` or one by one; of the latter, the last stands for all
    that are missing.

    Raises:
      ValueError: a type that no export answers, or not as many values as the shape says.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype == _STRING:
        values = np.empty(len(tensor.string_val), object)
        values[:] = list(tensor.string_val)
        return values.reshape(shape)
    if tensor.dtype not in _TYPES:
        raise ValueError(f"a tensor of TensorFlow's type {tensor.dtype}")
    dtype, field = _TYPES[tensor.dtype]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = np.array(getattr(tensor, field), dtype)
    missing = math.prod(shape) - len(values)
    if missing > 0 and len(values):
        values = np.pad(values, (0, missing), "edge")
    return values.reshape(shape)


def encode_example(key: str, encoded_image: bytes) -> bytes:
    """Return a serialized tf.train.Example of one feature, a string."""
    example = _MESSAGES["Example"]()
    named = example.features.feature.add(key=key)
    named.value.bytes_list.value.append(encoded_image)
    return example.SerializeToString()
