import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.modeling import detections
from mrcnn_tf.ops import boxes as box_ops

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
SETTINGS = {
    "regression_weights": WEIGHTS,
    "score_threshold": 0.15,
    "nms_iou": 0.4,
    "min_box_size": 0.0,
    "soft_nms_sigma": 0.0,
    "max_detections": 12,
}
IMAGE_SIZES = np.array([[100, 80], [60, 100]], np.float32)


def inputs(seed=0, batch=2, rois=30, classes=5):
    """Heaps of overlapping RoIs, some outside the image, some padding."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(0, 100, [batch, 6, 2])[:, rng.integers(0, 6, rois)]
    center += rng.normal(0, 4, [batch, rois, 2])
    half = rng.uniform(4, 20, [batch, rois, 2])
    boxes = np.concatenate([center - half, center + half], -1).astype(np.float32)
    exponentials = np.exp(rng.normal(0, 1.5, [batch, rois, classes]))
    scores = (exponentials / exponentials.sum(-1, keepdims=True)).astype(np.float32)
    deltas = rng.normal(0, 1, [batch, rois, classes - 1, 4]).astype(np.float32)
    return scores, deltas, boxes, rng.random([batch, rois]) < 0.8


def numpy_detections(scores, deltas, rois, rois_valid, image_size, settings):
    """One image: [(score, class, box)], best first."""

    def boxes_of(k):
        boxes = box_ops.decode(deltas[:, k - 1], rois, settings["regression_weights"]).numpy()
        return np.clip(boxes, 0, np.concatenate([image_size, image_size]))

    return numpy_nms(np.where(rois_valid[:, np.newaxis], scores, 0.0), boxes_of, settings)


def numpy_nms(scores, boxes_of, settings):
    """One class after the other; scores [P, N], the boxes of class k are `boxes_of(k)` [P, 4]."""
    found = []
    for k in range(1, scores.shape[1]):
        boxes = boxes_of(k)
        iou = box_ops.iou(boxes, boxes).numpy()
        kept = []
        for i in np.argsort(-scores[:, k], kind="stable"):
            if (
                scores[i, k] > settings["score_threshold"]
                and (boxes[i, 2:] > boxes[i, :2]).all()
                and all(iou[i, j] <= settings["nms_iou"] for j in kept)
            ):
                kept.append(i)
        found += [(scores[i, k], k, boxes[i]) for i in kept]
    return sorted(found, key=lambda f: -f[0])[: settings["max_detections"]]


def check(found, given, settings, image_sizes=IMAGE_SIZES):
    count = settings["max_detections"]
    assert found.boxes.shape == (len(image_sizes), count, 4)
    assert found.masks is None
    for b, size in enumerate(image_sizes):
        want = numpy_detections(*(part[b] for part in given), size, settings)
        padding = count - len(want)
        np.testing.assert_array_equal(found.valid[b], [True] * len(want) + [False] * padding)
        np.testing.assert_array_equal(found.classes[b], [f[1] for f in want] + [0] * padding)
        np.testing.assert_allclose(found.scores[b], [f[0] for f in want] + [0] * padding, 1e-5)
        boxes = [f[2] for f in want] + [np.zeros(4)] * padding
        np.testing.assert_allclose(found.boxes[b], boxes, atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_detections": 200},  # more than there are
        {"max_detections": 1},
        {"score_threshold": 0.0, "max_detections": 130},
        {"score_threshold": 0.6},
        {"nms_iou": 0.0},
        {"regression_weights": (1.0, 2.0, 3.0, 4.0)},
    ],
)
def test_agrees_with_a_slow_twin(changes):
    settings = SETTINGS | changes
    given = inputs()
    found = detections.select_detections(
        *map(tf.constant, given), tf.constant(IMAGE_SIZES), **settings
    )
    check(found, given, settings)


def test_same_in_a_graph_of_unknown_sizes_and_under_xla():
    signature = [
        tf.TensorSpec([None, None, 5]),
        tf.TensorSpec([None, None, 4, 4]),
        tf.TensorSpec([None, None, 4]),
        tf.TensorSpec([None, None], tf.bool),
        tf.TensorSpec([None, 2]),
    ]
    for jit_compile in (False, True):

        @tf.function(input_signature=signature, jit_compile=jit_compile)
        def run(*args):
            return detections.select_detections(*args, **SETTINGS)

        given = inputs(seed=1)
        check(run(*map(tf.constant, given), IMAGE_SIZES), given, SETTINGS)
        given = inputs(seed=2, batch=1, rois=7)
        check(run(*map(tf.constant, given), IMAGE_SIZES[:1]), given, SETTINGS, IMAGE_SIZES[:1])


def one_image(scores, boxes, valid=None, **changes):
    """Two classes; `scores` per RoI are (class 1, class 2), the rest is background."""
    scores = np.array(scores, np.float32)
    everything = np.concatenate([1 - scores.sum(-1, keepdims=True), scores], -1)
    valid = [True] * len(scores) if valid is None else valid
    return detections.select_detections(
        tf.constant(everything[np.newaxis]),
        tf.zeros([1, len(scores), 2, 4]),
        tf.constant([boxes], tf.float32),
        tf.constant([valid]),
        tf.constant([[50.0, 60.0]]),
        **SETTINGS | {"max_detections": 4, "nms_iou": 0.5, "score_threshold": 0.05} | changes,
    )


def test_by_hand():
    """Classes do not suppress each other; within a class the better one of two stays."""
    found = one_image([[0.3, 0.6], [0.5, 0.02]], [[0, 0, 10, 10], [0, 0, 10, 8]])
    np.testing.assert_array_equal(found.classes[0], [2, 1, 0, 0])
    np.testing.assert_allclose(found.scores[0], [0.6, 0.5, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(found.boxes[0, :3], [[0, 0, 10, 10], [0, 0, 10, 8], [0] * 4])


def test_only_scores_above_the_threshold_count():
    found = one_image([[0.0625, 0.5], [0.0, 0.03125]], [[0, 0, 9, 9], [20, 20, 40, 40]])
    assert found.valid.numpy().sum() == 2
    found = one_image([[0.0, 0.5]], [[0, 0, 9, 9]], score_threshold=0.5 + 1e-6)
    assert found.valid.numpy().sum() == 0


def test_padding_and_empty_boxes_are_never_detected():
    boxes = [[0, 0, 9, 9], [60, 10, 70, 20], [20, 20, 20, 30], [10, 10, 20, 90]]
    found = one_image([[0.9, 0.05]] * 4, boxes, [False, True, True, True], score_threshold=0.0)
    # Padding, outside the image, without area; the last one is clipped.
    np.testing.assert_array_equal(found.valid[0], [True, True, False, False])
    np.testing.assert_array_equal(found.boxes[0, :2], [[10, 10, 20, 60]] * 2)
    np.testing.assert_array_equal(found.classes[0], [1, 2, 0, 0])


def test_no_proposals_no_detections():
    found = one_image([[0.9, 0.05]] * 2, [[0, 0, 9, 9]] * 2, [False, False])
    for field in (found.boxes, found.classes, found.scores, found.valid):
        assert not field.numpy().any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_detected(bad):
    scores, deltas, rois, valid = inputs()
    scores[0, 1, 3] = 0.0  # its box will be bad, so that class 3 must not count without it either
    given = [part.copy() for part in (scores, deltas, rois)]
    scores[0, 0] = tf.nn.softmax(np.full(5, bad, np.float32))
    deltas[0, 1, 2, 0] = bad
    rois[0, 2, 3] = bad
    found = detections.select_detections(
        *map(tf.constant, (scores, deltas, rois, valid)), IMAGE_SIZES, **SETTINGS
    )
    valid[0, [0, 2]] = False
    check(found, (*given, valid), SETTINGS)


def test_soft_nms_keeps_the_overlapping_box_with_a_lower_score():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]]  # IoU 0.5 of the first two
    scores = [[0.9, 0.0], [0.8, 0.0], [0.0, 0.5]]
    found = one_image(scores, boxes, nms_iou=0.3, soft_nms_sigma=0.5)
    assert found.valid[0].numpy().tolist() == [True, True, True, False]
    np.testing.assert_array_equal(found.classes[0], [1, 2, 1, 0])
    np.testing.assert_allclose(found.scores[0], [0.9, 0.5, 0.8 * np.exp(-0.5), 0], rtol=1e-5)
    assert one_image(scores, boxes, nms_iou=0.3).valid[0].numpy().sum() == 2


def test_slivers_are_dropped_where_a_smallest_size_is_asked_for():
    boxes = [[0, 0, 10, 0.005], [20, 20, 30, 30]]
    scores = [[0.9, 0.0], [0.0, 0.5]]
    assert one_image(scores, boxes).valid[0].numpy().sum() == 2
    found = one_image(scores, boxes, min_box_size=1e-2)
    np.testing.assert_array_equal(found.classes[0], [2, 0, 0, 0])
