"""The messages against TensorFlow Serving's own, which are generated from its .proto files."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from mrcnn_tf.remote import messages


def to_theirs(message, kind):
    return kind.FromString(message.SerializeToString())


def test_a_request_of_files():
    files = [b"\x00\xff", b"", b"abc" * 1000]
    ours = messages.predict_request("serving_default", "input_tensor", files, "Röhren")
    theirs = to_theirs(ours, predict_pb2.PredictRequest)
    assert theirs.model_spec.name == "Röhren"
    assert theirs.model_spec.signature_name == "serving_default"
    assert not theirs.model_spec.HasField("version")
    assert list(theirs.inputs) == ["input_tensor"]
    tensor = tf.make_ndarray(theirs.inputs["input_tensor"])
    assert tensor.tolist() == files
    expected = tf.make_tensor_proto(files)
    assert theirs.inputs["input_tensor"].SerializeToString() == expected.SerializeToString()


def test_a_request_of_pixels():
    pixels = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    # A view whose bytes lie otherwise, as a slice of a larger array does.
    ours = messages.predict_request("s", "x", pixels[:, ::-1])
    theirs = to_theirs(ours, predict_pb2.PredictRequest).inputs["x"]
    np.testing.assert_array_equal(tf.make_ndarray(theirs), pixels[:, ::-1])
    assert theirs.dtype == tf.uint8.as_datatype_enum


def test_a_record_for_warming_up():
    log = messages.PredictionLog()
    log.predict_log.request.CopyFrom(messages.predict_request("s", "x", [b"file"]))
    theirs = to_theirs(log, prediction_log_pb2.PredictionLog)
    assert theirs.WhichOneof("log_type") == "predict_log"
    assert theirs.predict_log.request.inputs["x"].string_val[0] == b"file"


def test_an_example():
    example = tf.train.Example.FromString(messages.encode_example("image/encoded", b"\xff\xd8"))
    assert list(example.features.feature) == ["image/encoded"]
    assert example.features.feature["image/encoded"].bytes_list.value[:] == [b"\xff\xd8"]


VALUES = [
    np.array([[0.1, -np.inf, 3e-39], [1, 2, 3]], np.float32),
    np.array([[480, 640]], np.int32),
    np.array([2**40, -1], np.int64),
    np.array([0, 255], np.uint8),
    np.zeros([2, 0, 4], np.float32),
    np.array(7, np.int32),
]


@pytest.mark.parametrize("values", VALUES, ids=lambda v: f"{v.dtype}{list(v.shape)}")
@pytest.mark.parametrize("packed", [True, False])
def test_answers_in_both_forms(values, packed):
    theirs = predict_pb2.PredictResponse()
    theirs.outputs["y"].CopyFrom(tf.make_tensor_proto(values))
    if not packed:
        tensor = theirs.outputs["y"]
        field = {"float32": "float_val", "int64": "int64_val"}.get(values.dtype.name, "int_val")
        tensor.ClearField("tensor_content")
        tensor.ClearField(field)
        getattr(tensor, field).extend(values.ravel().tolist())
    ours = messages.PredictResponse.FromString(theirs.SerializeToString())
    (output,) = ours.outputs
    assert output.key == "y"
    read = messages.to_array(output.value)
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


def test_one_value_stands_for_all():
    """As TensorFlow compresses a constant tensor."""
    proto = tf.make_tensor_proto(0.5, shape=[3, 2])
    ours = messages.PredictResponse()
    ours.outputs.add(key="y").value.ParseFromString(proto.SerializeToString())
    np.testing.assert_array_equal(messages.to_array(ours.outputs[0].value), tf.make_ndarray(proto))


def test_strings():
    proto = tf.make_tensor_proto([[b"a", b"\x00"], [b"", b"\xff"]])
    ours = messages.PredictResponse()
    ours.outputs.add(key="y").value.ParseFromString(proto.SerializeToString())
    assert messages.to_array(ours.outputs[0].value).tolist() == [[b"a", b"\x00"], [b"", b"\xff"]]


@pytest.mark.parametrize(
    "proto",
    [
        tf.make_tensor_proto(np.zeros(3, np.float64)),
        tf.make_tensor_proto(np.zeros(3, np.complex64)),
    ],
    ids=["float64", "complex64"],
)
def test_types_that_no_export_has(proto):
    ours = messages.PredictResponse()
    ours.outputs.add(key="y").value.ParseFromString(proto.SerializeToString())
    with pytest.raises(ValueError, match="TensorFlow's type"):
        messages.to_array(ours.outputs[0].value)


@pytest.mark.parametrize("content", [b"\0" * 8, b"\0" * 9, b"\0" * 16])
def test_a_shape_that_lies(content):
    proto = tf.make_tensor_proto(np.zeros(3, np.float32))
    proto.tensor_content = content
    ours = messages.PredictResponse()
    ours.outputs.add(key="y").value.ParseFromString(proto.SerializeToString())
    with pytest.raises(ValueError, match="reshape|buffer size"):
        messages.to_array(ours.outputs[0].value)
