import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import anchors, boxes, matching

RPN = {"positive_iou": 0.7, "negative_iou": 0.3, "allow_low_quality": True}
ROI = {"positive_iou": 0.5, "negative_iou": 0.5, "allow_low_quality": False}


def numpy_match(iou, gt_valid, positive_iou, negative_iou, allow_low_quality, ignored=None):
    """Follow the rules of the docstring one anchor at a time."""
    num_images, num_anchors, num_objects = iou.shape
    index = np.zeros([num_images, num_anchors], np.int32)
    best = np.zeros([num_images, num_anchors], np.float32)
    positive = np.zeros([num_images, num_anchors], bool)
    negative = np.zeros([num_images, num_anchors], bool)
    for b in range(num_images):
        objects = [g for g in range(num_objects) if gt_valid[b, g]]
        for a in range(num_anchors):
            for g in reversed(objects):
                if iou[b, a, g] >= best[b, a]:
                    index[b, a], best[b, a] = g, iou[b, a, g]
            positive[b, a] = bool(objects) and best[b, a] >= positive_iou
            if allow_low_quality:
                for g in objects:
                    highest = max(iou[b, :, g])
                    positive[b, a] |= highest > 0 and iou[b, a, g] == highest
            negative[b, a] = best[b, a] < negative_iou and not positive[b, a]
            if ignored is not None and ignored[b, a]:
                negative[b, a] = False
    return index, positive, negative, best


def check(actual, gt_index, is_positive, is_negative):
    np.testing.assert_array_equal(actual.is_positive[0], np.array(is_positive, bool))
    np.testing.assert_array_equal(actual.is_negative[0], np.array(is_negative, bool))
    selected = np.array(is_positive, bool)
    np.testing.assert_array_equal(actual.gt_index.numpy()[0][selected], gt_index)


def test_thresholds_by_hand():
    iou = tf.constant([[[0.69], [0.7], [0.3], [0.29], [0.9]]])
    actual = matching.match(iou, tf.constant([[True]]), 0.7, 0.3, allow_low_quality=False)
    check(actual, [0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(actual.max_iou, iou[..., 0])


def test_roi_rule_leaves_nobody_out():
    iou = tf.constant([[[0.5, 0.1], [0.499, 0.2], [0.0, 0.0], [0.6, 0.8]]])
    actual = matching.match(iou, tf.constant([[True, True]]), **ROI)
    check(actual, [0, 1], [1, 0, 0, 1], [0, 1, 1, 0])


def test_low_quality_match_includes_ties_and_beats_the_negative_threshold():
    # Object 0 reaches 0.2 at best, with anchors 1 and 3; object 1 reaches 0.5 with anchor 2.
    iou = tf.constant([[[0.1, 0.0], [0.2, 0.0], [0.1, 0.5], [0.2, 0.1]]])
    actual = matching.match(iou, tf.constant([[True, True]]), **RPN)
    check(actual, [0, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0])


def test_low_quality_match_keeps_the_anchors_own_object():
    # Anchor 0 is the best for both objects; it stays with object 1, and object 0 has none.
    iou = tf.constant([[[0.4, 0.6], [0.1, 0.0]]])
    actual = matching.match(iou, tf.constant([[True, True]]), **RPN)
    check(actual, [1], [1, 0], [0, 1])


def test_object_that_no_anchor_touches_matches_none():
    iou = tf.constant([[[0.0, 0.8], [0.0, 0.0]]])
    actual = matching.match(iou, tf.constant([[True, True]]), **RPN)
    check(actual, [1], [1, 0], [0, 1])


def test_equal_overlaps_take_the_first_object():
    iou = tf.constant([[[0.1, 0.8, 0.8], [0.9, 0.9, 0.9]]])
    actual = matching.match(iou, tf.constant([[True, True, True]]), **RPN)
    check(actual, [1, 0], [1, 1], [0, 0])
    without_first = matching.match(iou, tf.constant([[False, True, True]]), **RPN)
    check(without_first, [1, 1], [1, 1], [0, 0])


def test_padding_never_matches_whatever_its_overlap():
    iou = tf.constant([[[0.9, 1.0], [0.0, 1.0]]])
    actual = matching.match(iou, tf.constant([[True, False]]), **RPN)
    check(actual, [0], [1, 0], [0, 1])
    np.testing.assert_allclose(actual.max_iou, [[0.9, 0.0]])


@pytest.mark.parametrize("rule", [RPN, ROI, dict(RPN, positive_iou=0.0, negative_iou=0.0)])
def test_image_without_objects_has_no_positives(rule):
    actual = matching.match(tf.ones([2, 3, 4]), tf.zeros([2, 4], tf.bool), **rule)
    assert not actual.is_positive.numpy().any()
    np.testing.assert_array_equal(actual.max_iou, np.zeros([2, 3]))
    np.testing.assert_array_equal(actual.gt_index, np.zeros([2, 3]))
    if rule["negative_iou"] > 0:
        assert actual.is_negative.numpy().all()


def test_ignored_takes_away_negatives_only():
    iou = tf.constant([[[0.9], [0.1], [0.2], [0.5]]])
    ignored = tf.constant([[True, True, False, True]])
    actual = matching.match(iou, tf.constant([[True]]), **RPN, ignored=ignored)
    check(actual, [0], [1, 0, 0, 0], [0, 0, 1, 0])


@pytest.mark.parametrize("rule", [RPN, ROI])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matches_numpy_on_overlaps_with_many_ties(rule, seed):
    rng = np.random.default_rng(seed)
    iou = (rng.integers(0, 11, [3, 40, 6]) / 10).astype(np.float32)
    gt_valid = rng.random([3, 6]) < [[0.7], [0.3], [0.0]]
    ignored = rng.random([3, 40]) < 0.3
    expected = numpy_match(iou, gt_valid, **rule, ignored=ignored)
    actual = matching.match(iou, gt_valid, **rule, ignored=ignored)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)
    assert not (actual.is_positive & actual.is_negative).numpy().any()


def test_permuting_objects_changes_only_the_index():
    rng = np.random.default_rng(4)
    iou = rng.random([1, 30, 5]).astype(np.float32)
    order = rng.permutation(5)
    valid = tf.ones([1, 5], tf.bool)
    one = matching.match(iou, valid, **RPN)
    other = matching.match(iou[:, :, order], valid, **RPN)
    np.testing.assert_array_equal(one.is_positive, other.is_positive)
    np.testing.assert_array_equal(one.gt_index[0], order[other.gt_index[0]])


def test_from_boxes_the_labels_are_the_same_eager_graph_and_compiled():
    """Low-quality matching compares IoUs for equality, so their last bits have to agree."""
    rng = np.random.default_rng(5)
    cell = anchors.cell_anchors((32, 64, 128), (0.5, 1.0, 2.0), rounded=False)
    grid = anchors.grid_anchors((25, 42), 16, cell)
    corner = rng.uniform(0, 400, [2, 20, 2])
    size = rng.uniform(1, 250, [2, 20, 2])
    gt_boxes = np.concatenate([corner, corner + size], axis=-1).astype(np.float32)
    gt_valid = np.arange(20) < [[20], [11]]

    def labels(grid, gt_boxes, gt_valid):
        return matching.match(boxes.iou(grid[tf.newaxis], gt_boxes), gt_valid, **RPN)

    dynamic = [
        tf.TensorSpec([None, 4]),
        tf.TensorSpec([None, None, 4]),
        tf.TensorSpec([None, None], tf.bool),
    ]
    eager = labels(grid, tf.constant(gt_boxes), gt_valid)
    assert 20 < eager.is_positive.numpy().sum() < 500
    for jit_compile in (False, True):
        function = tf.function(labels, jit_compile=jit_compile, input_signature=dynamic)
        for a, e in zip(function(grid, gt_boxes, gt_valid), eager, strict=True):
            np.testing.assert_array_equal(a, e)
    expected = numpy_match(
        boxes.iou(grid[:2000], tf.constant(gt_boxes)).numpy(), gt_valid, 0.7, 0.3, False
    )
    np.testing.assert_array_equal(eager.gt_index[:, :2000], expected[0])


def test_errors_name_the_values():
    with pytest.raises(ValueError, match=r"negative_iou 0\.6 is above positive_iou 0\.5"):
        matching.match(tf.zeros([1, 2, 1]), tf.ones([1, 1], tf.bool), 0.5, 0.6, False)
    with pytest.raises(ValueError, match="G >= 1"):
        matching.match(tf.zeros([1, 2, 0]), tf.ones([1, 0], tf.bool), 0.5, 0.5, False)
