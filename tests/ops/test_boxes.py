import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import boxes


def random_boxes(rng, *shape, size=100.0):
    corners = rng.uniform(0, size, (*shape, 2, 2)).astype(np.float32)
    return np.concatenate([corners.min(-2), corners.max(-2)], axis=-1)


def numpy_iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0) * max(width, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def test_area_by_hand():
    given = [[0, 0, 2, 3], [1.5, 1, 2, 5], [4, 4, 4, 9], [5, 5, 4, 4]]
    np.testing.assert_array_equal(boxes.area(tf.constant(given, tf.float32)), [6, 2, 0, 0])


def test_iou_and_ioa_by_hand():
    a = tf.constant([[0, 0, 2, 2], [0, 0, 0, 0], [10, 10, 11, 12]], tf.float32)
    b = tf.constant([[0, 0, 2, 2], [1, 1, 3, 3], [0, 2, 2, 4], [0, 0, 20, 20], [5, 5, 5, 5.0]])
    np.testing.assert_allclose(
        boxes.iou(a, b), [[1, 1 / 7, 0, 0.01, 0], [0] * 5, [0, 0, 0, 2 / 400, 0]], rtol=1e-6
    )
    np.testing.assert_allclose(
        boxes.ioa(a, b), [[1, 0.25, 0, 1, 0], [0] * 5, [0, 0, 0, 1, 0]], rtol=1e-6
    )


def test_iou_of_reversed_boxes_is_zero():
    whole = tf.constant([[0.0, 0.0, 10.0, 10.0]])
    reversed_box = tf.constant([[8.0, 8.0, 2.0, 2.0]])
    assert boxes.iou(whole, reversed_box).numpy() == 0
    assert boxes.iou(reversed_box, reversed_box).numpy() == 0


def test_iou_matches_numpy_and_is_symmetric():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 2, 3, 7), random_boxes(rng, 2, 3, 5)
    actual = boxes.iou(a, b).numpy()
    expected = [
        [[[numpy_iou(p, q) for q in b[i, j]] for p in a[i, j]] for j in range(3)] for i in range(2)
    ]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(actual, np.swapaxes(boxes.iou(b, a).numpy(), -1, -2))


def test_iou_matches_pycocotools():
    coco_mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 20), random_boxes(rng, 9)
    # (y1, x1, y2, x2) -> (x, y, width, height), differences in float32 as `iou` has them
    a_xywh, b_xywh = (
        np.concatenate([x[:, 1::-1], (x[:, 2:] - x[:, :2])[:, ::-1]], 1, dtype=np.float64)
        for x in (a, b)
    )
    expected = coco_mask.iou(a_xywh, b_xywh, [0] * 9)
    np.testing.assert_allclose(boxes.iou(a, b), expected, rtol=1e-4, atol=1e-6)
    expected = coco_mask.iou(a_xywh, b_xywh, [1] * 9)  # crowds: intersection over area of a
    np.testing.assert_allclose(boxes.ioa(a, b), expected, rtol=1e-4, atol=1e-6)


def test_iou_has_the_same_bits_compiled():
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 2, 500, size=1333), random_boxes(rng, 2, 30, size=1333)
    for op in (boxes.iou, boxes.ioa):
        compiled = tf.function(op, jit_compile=True)(a, b)
        np.testing.assert_array_equal(op(a, b), compiled)


def test_clip_uses_each_image_size():
    given = tf.constant([[[-5.0, -1.0, 30.0, 5.0], [25.0, 50.0, 28.0, 60.0]]] * 2)
    actual = boxes.clip(given, tf.constant([[20.0, 40.0], [100.0, 100.0]]))
    np.testing.assert_array_equal(
        actual,
        [[[0, 0, 20, 5], [20, 40, 20, 40]], [[0, 0, 30, 5], [25, 50, 28, 60]]],
    )
    np.testing.assert_array_equal(boxes.is_nonempty(actual), [[True, False], [True, True]])


def test_is_nonempty_needs_both_sides_longer_than_the_limit():
    given = tf.constant([[0, 0, 2, 5], [0, 0, 5, 2], [0, 0, 3, 3], [3, 3, 0, 0]], tf.float32)
    np.testing.assert_array_equal(boxes.is_nonempty(given, 2.0), [False, False, True, False])
    np.testing.assert_array_equal(boxes.is_nonempty(given), [True, True, True, False])


def test_encode_by_hand():
    anchor = tf.constant([[10.0, 20.0, 30.0, 60.0]])  # center (20, 40), height 20, width 40
    box = tf.constant([[15.0, 20.0, 35.0, 100.0]])  # center (25, 60), height 20, width 80
    np.testing.assert_allclose(
        boxes.encode(box, anchor), [[0.25, 0.5, 0.0, math.log(2)]], atol=1e-7
    )
    weighted = boxes.encode(box, anchor, weights=(10.0, 20.0, 5.0, 4.0))
    np.testing.assert_allclose(weighted, [[2.5, 10.0, 0.0, 4 * math.log(2)]], atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 9.0, 5.0, 4.0)])
def test_decode_inverts_encode(weights):
    rng = np.random.default_rng(3)
    given = random_boxes(rng, 3, 50) + np.float32([0, 0, 4, 4])
    anchors = random_boxes(rng, 3, 50) + np.float32([0, 0, 4, 4])
    deltas = boxes.encode(given, anchors, weights)
    np.testing.assert_allclose(boxes.decode(deltas, anchors, weights), given, atol=1e-3)


def test_decode_per_class_broadcasts_and_computes_in_float32():
    anchors = tf.constant([[[0.0, 0.0, 1000.0, 1001.0]]])[:, :, tf.newaxis]  # [1, 1, 1, 4]
    deltas = tf.constant([[[[0.0] * 4, [0.5, 0.0, 0.0, 0.0]]]], tf.bfloat16)  # [1, 1, 2, 4]
    decoded = boxes.decode(deltas, anchors)
    assert decoded.dtype == tf.float32
    np.testing.assert_allclose(decoded[0, 0], [[0, 0, 1000, 1001], [500, 0, 1500, 1001]])


def test_decode_limits_growth():
    anchor = tf.constant([[0.0, 0.0, 16.0, 16.0]])
    decoded = boxes.decode(tf.constant([[0.0, 0.0, 1e4, 1e4]]), anchor)
    np.testing.assert_allclose(decoded, [[-492, -492, 508, 508]], rtol=1e-5)


def test_coding_of_empty_boxes_is_finite_and_has_finite_gradients():
    zeros = tf.zeros([2, 4])
    anchors = tf.Variable([[0.0, 0.0, 0.0, 0.0], [5.0, 5.0, 9.0, 9.0]])
    with tf.GradientTape() as tape:
        deltas = boxes.encode(zeros, anchors)
        decoded = boxes.decode(deltas, anchors)
    assert np.all(np.isfinite(deltas))
    assert np.all(np.isfinite(decoded))
    assert np.all(np.isfinite(tape.gradient(decoded, anchors)))


def test_gradient_of_decode_by_hand():
    anchor = tf.constant([[0.0, 0.0, 10.0, 20.0]])
    deltas = tf.Variable([[0.1, 0.2, 0.3, 0.4]])
    with tf.GradientTape() as tape:
        y1 = boxes.decode(deltas, anchor)[0, 0]
    # y1 = 10 dy + 5 - 5 exp(dh)
    np.testing.assert_allclose(
        tape.gradient(y1, deltas), [[10, 0, -5 * math.exp(0.3), 0]], rtol=1e-6
    )


def test_no_boxes():
    none = tf.zeros([2, 0, 4])
    assert boxes.iou(none, tf.zeros([2, 3, 4])).shape == (2, 0, 3)
    assert boxes.decode(boxes.encode(none, none), none).shape == (2, 0, 4)
    assert boxes.clip(none, tf.ones([2, 2])).shape == (2, 0, 4)
