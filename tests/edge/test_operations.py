"""Operations that other runtimes take, and that answer the same there."""

import ast
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from mrcnn_tf.modeling import conv
from mrcnn_tf.ops import implementation, roi_align, roi_pool, roi_warp

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "mrcnn_tf"


def _divides_a_negative(node: ast.AST) -> bool:
    """Whether this is -(-a // b)."""
    if not (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)):
        return False
    inner = node.operand
    return (
        isinstance(inner, ast.BinOp)
        and isinstance(inner.op, ast.FloorDiv)
        and any(isinstance(part, ast.UnaryOp) for part in ast.walk(inner.left))
    )


def test_no_graph_rounds_up_by_dividing_negatives():
    """ONNX divides integers towards zero: there it would round down, without a word."""
    files = [
        *PACKAGE.glob("ops/*.py"),
        *PACKAGE.glob("modeling/*.py"),
        PACKAGE / "data/canvases.py",
    ]
    assert len(files) > 30
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not _divides_a_negative(node), f"{path}, line {node.lineno}"
    assert _divides_a_negative(ast.parse("-(-size * 3 // 2)").body[0].value)


def _pooling(function):
    """Pooling of two levels in plain operations, as a concrete function, and its input."""
    random = np.random.default_rng(1)
    maps = {"p2": random.normal(size=[1, 24, 32, 4]), "p3": random.normal(size=[1, 12, 16, 4])}
    corner, side = random.uniform(-9, 70, [1, 12, 2]), random.uniform(0, 60, [1, 12, 2])
    boxes = np.concatenate([corner, corner + side], axis=-1)
    boxes[0, 0, 2:] = boxes[0, 0, :2]  # no area
    given = {name: np.float32(value) for name, value in (maps | {"boxes": boxes}).items()}

    def pool(p2, p3, boxes):
        levels = roi_align.assign_levels(boxes, 2, 3, canonical_size=40.0)
        return {"pooled": function({2: p2, 3: p3}, boxes, levels, 7)}

    specs = [tf.TensorSpec(value.shape, tf.float32, name) for name, value in given.items()]
    with implementation.force(accelerators=True):
        traced = tf.function(pool, input_signature=specs, autograph=False).get_concrete_function()
    return traced, given


POOLINGS = {
    "RoIAlign": lambda *given: roi_align.roi_align(*given, 2, True),
    "RoIAlign, adaptive": lambda *given: roi_align.roi_align(*given, 0, True),
    "RoIAlign, maximum": lambda *given: roi_align.roi_align(*given, 2, True, "max"),
    "RoIWarp": lambda *given: roi_warp.roi_warp(*given, 2, True),
    "RoIPool": roi_pool.roi_pool,
}


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_in_litert(name):
    traced, given = _pooling(POOLINGS[name])
    content = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module()).convert()
    run = Interpreter(model_content=content).get_signature_runner()
    expected = traced(**{name: tf.constant(value) for name, value in given.items()})["pooled"]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(run(**given)["pooled"], expected, atol=1e-5)


def test_dilated_convolution_in_litert():
    """Of odd sides, which it makes even and cuts again."""
    layer = conv.DilatedConv2D(5, 3)
    x = np.random.default_rng(0).normal(size=[1, 7, 9, 4]).astype(np.float32)
    expected = layer(x)
    traced = tf.function(lambda x: {"y": layer(x)}, autograph=False).get_concrete_function(
        tf.TensorSpec(x.shape, tf.float32, "x")
    )
    content = tf.lite.TFLiteConverter.from_concrete_functions([traced], layer).convert()
    run = Interpreter(model_content=content).get_signature_runner()
    np.testing.assert_allclose(run(x=x)["y"], expected, atol=1e-5)
