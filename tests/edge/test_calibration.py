"""What becomes int8, and that it still computes the same."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from mrcnn_tf.edge import calibration


@pytest.fixture(scope="module")
def network() -> bytes:
    """Two convolutions with a sum between them, a loop, and arithmetic on boxes."""
    random = np.random.default_rng(0)
    module = tf.Module()
    module.first = tf.Variable(random.normal(size=[3, 3, 3, 8]).astype(np.float32) / 5)
    module.second = tf.Variable(random.normal(size=[3, 3, 8, 8]).astype(np.float32) / 8)

    def run(image, image_size):
        x = tf.nn.relu(tf.nn.conv2d(tf.cast(image, tf.float32) / 255.0, module.first, 1, "SAME"))
        x += tf.nn.conv2d(x, module.second, 1, "SAME")
        boxes = tf.reshape(tf.cast(image_size, tf.float32), [1, 2]) * [[1.001], [0.333]] + 0.125
        _, boxes = tf.while_loop(
            lambda k, _: k < 3, lambda k, b: (k + 1, b + b * 0.25), (tf.constant(0), boxes)
        )
        return {"maps": x, "boxes": boxes}

    specs = [
        tf.TensorSpec([1, 16, 16, 3], tf.uint8, "image"),
        tf.TensorSpec([2], tf.int32, "image_size"),
    ]
    traced = tf.function(run, input_signature=specs, autograph=False).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([traced], module).convert()


def pictures(count):
    random = np.random.default_rng(1)
    return [
        (random.integers(0, 256, [1, 16, 16, 3], np.uint8), np.array([333, 517], np.int32))
        for _ in range(count)
    ]


def test_maps_are_int8_and_boxes_are_not(network):
    quantised = calibration.to_int8(network, pictures(8))
    image, size_hw = pictures(9)[-1]
    before, after = (
        Interpreter(model_content=content).get_signature_runner()(image=image, image_size=size_hw)
        for content in (network, quantised)
    )
    assert {name: value.dtype for name, value in after.items()} == dict.fromkeys(
        ("maps", "boxes"), np.dtype(np.float32)
    )
    assert after["boxes"].tolist() == before["boxes"].tolist()
    difference = np.abs(after["maps"] - before["maps"])
    spread = np.ptp(before["maps"])
    assert 0 < difference.max() < 0.05 * spread
    assert difference.mean() < 0.01 * spread


def test_which_operations_are_int8(network):
    model = schema.ModelT.InitFromPackedBuf(calibration.to_int8(network, pictures(2)))
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    int8 = {}
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        output = model.subgraphs[0].tensors[operator.outputs[0]]
        int8.setdefault(kind, set()).add(output.type == schema.TensorType.INT8)
    assert int8["CONV_2D"] == {True}
    assert True in int8["ADD"]  # of the maps
    assert int8["WHILE"] == {False}
    assert int8["DEQUANTIZE"] == {False}
    for body in model.subgraphs[1:]:
        assert all(tensor.type != schema.TensorType.INT8 for tensor in body.tensors)


def test_the_range_is_that_of_all_pictures(network):
    model = schema.ModelT.InitFromPackedBuf(network)
    main = model.subgraphs[0]
    chosen = [o for o in main.operators if calibration._is_int8(model, main, o)]
    tensors = calibration._activations(model, main, chosen)
    given = pictures(3)
    one_by_one = [calibration._ranges(network, tensors, [picture]) for picture in given]
    together = calibration._ranges(network, tensors, given)
    for index in tensors:
        assert together[index] == (
            min(found[index][0] for found in one_by_one),
            max(found[index][1] for found in one_by_one),
        )
        assert together[index][0] <= 0.0 <= together[index][1]
    assert len(tensors) >= 3
