"""Operations that other runtimes take, and that answer the same there."""

import ast
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from mrcnn_tf.ops import implementation, roi_align

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


def _pooling(sampling_ratio):
    """RoIAlign of two levels in plain operations, as a concrete function, and its input."""
    random = np.random.default_rng(1)
    maps = {"p2": random.normal(size=[1, 24, 32, 4]), "p3": random.normal(size=[1, 12, 16, 4])}
    corner, side = random.uniform(-9, 70, [1, 12, 2]), random.uniform(0, 60, [1, 12, 2])
    boxes = np.concatenate([corner, corner + side], axis=-1)
    boxes[0, 0, 2:] = boxes[0, 0, :2]  # no area
    given = {name: np.float32(value) for name, value in (maps | {"boxes": boxes}).items()}

    def pool(p2, p3, boxes):
        levels = roi_align.assign_levels(boxes, 2, 3, canonical_size=40.0)
        return {
            "pooled": roi_align.roi_align({2: p2, 3: p3}, boxes, levels, 7, sampling_ratio, True)
        }

    specs = [tf.TensorSpec(value.shape, tf.float32, name) for name, value in given.items()]
    with implementation.force(accelerators=True):
        traced = tf.function(pool, input_signature=specs, autograph=False).get_concrete_function()
    return traced, given


@pytest.mark.parametrize("sampling_ratio", [2, 0])
def test_roi_align_in_litert(sampling_ratio):
    traced, given = _pooling(sampling_ratio)
    content = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module()).convert()
    run = Interpreter(model_content=content).get_signature_runner()
    expected = traced(**{name: tf.constant(value) for name, value in given.items()})["pooled"]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(run(**given)["pooled"], expected, atol=1e-5)
