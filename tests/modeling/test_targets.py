import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.modeling import targets
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import sampling

# Objects: one in the upper left, one on the right, a crowd at the bottom, one row of padding.
GT_BOXES = tf.constant([[[0.0, 0, 20, 20], [0, 40, 20, 60], [60, 0, 100, 100], [0, 0, 0, 0]]])
GT_CLASSES = tf.constant([[3, 1, 2, 0]])
GT_VALID = tf.constant([[True, True, True, False]])
GT_IS_CROWD = tf.constant([[False, False, True, False]])

# IoU with object 0 or 1 at the side.
ANCHORS = tf.constant(
    [
        [0.0, 0, 20, 20],  # 0: 1, object 0
        [0, 0, 20, 15],  # 1: 0.75, object 0
        [0, 0, 20, 10],  # 2: 0.5, between the thresholds
        [0, 0, 5, 20],  # 3: 0.25, negative
        [0, 40, 20, 52],  # 4: 0.6, the best that object 1 has: positive all the same
        [0, 48, 20, 60],  # 5: 0.6, a tie
        [30, 30, 50, 50],  # 6: 0, negative
        [60, 10, 80, 30],  # 7: 0, inside the crowd
        [44, 10, 64, 30],  # 8: 0, a fifth of it in the crowd
    ]
)
ANCHOR_SETTINGS = {
    "positive_iou": 0.7,
    "negative_iou": 0.3,
    "num_samples": 9,
    "positive_fraction": 0.5,
    "ignore_across_border": False,
}
ROI_SETTINGS = {
    "positive_iou": 0.5,
    "num_samples": 12,
    "positive_fraction": 0.5,
    "regression_weights": (10.0, 10.0, 5.0, 5.0),
}
GT = (GT_BOXES, GT_VALID, GT_IS_CROWD)
SIZE = tf.constant([[100.0, 100.0]])


def seeds(*keys, step=0):
    return sampling.image_seeds(0, step, tf.constant(keys, tf.int32), stream=0)


def sampled(target, b=0):
    """Sets of positives and negatives of one image."""
    index, positive, valid = (
        t[b].numpy() for t in (target.index, target.is_positive, target.valid)
    )
    return set(index[positive & valid]), set(index[valid & ~positive])


@pytest.mark.parametrize("ignore_crowds", [True, False])
def test_anchors_by_hand(ignore_crowds):
    target = targets.anchor_targets(
        ANCHORS, *GT, SIZE, seeds(1), **ANCHOR_SETTINGS, ignore_crowds=ignore_crowds
    )
    positives, negatives = sampled(target)
    assert positives == {0, 1, 4, 5}
    assert negatives == ({3, 6, 8} if ignore_crowds else {3, 6, 7, 8})
    # Anchor 1 (20 x 15, centre 10, 7.5) to object 0 (20 x 20, centre 10, 10).
    slot = target.index[0].numpy().tolist().index(1)
    want = [0, 2.5 / 15, 0, math.log(20 / 15)]
    np.testing.assert_allclose(target.deltas[0, slot], want, rtol=1e-6)
    negative = ~target.is_positive[0].numpy()
    assert not target.deltas[0].numpy()[negative].any()


def test_anchor_deltas_lead_back_to_the_matched_object():
    target = targets.anchor_targets(
        ANCHORS, *GT, SIZE, seeds(1), **ANCHOR_SETTINGS, ignore_crowds=True
    )
    boxes = box_ops.decode(target.deltas[0], tf.gather(ANCHORS, target.index[0])).numpy()
    for slot in np.flatnonzero(target.is_positive[0]):
        of = 0 if target.index[0, slot] < 3 else 1
        np.testing.assert_allclose(boxes[slot], GT_BOXES[0, of], atol=1e-4)


def test_anchor_counts_are_held_and_positives_come_first():
    target = targets.anchor_targets(
        tf.tile(ANCHORS, [5, 1]),
        *GT,
        SIZE,
        seeds(1),
        **ANCHOR_SETTINGS | {"num_samples": 16},
        ignore_crowds=True,
    )
    np.testing.assert_array_equal(target.is_positive[0], [True] * 8 + [False] * 8)
    assert target.valid.numpy().all()
    assert len(set(target.index[0].numpy())) == 16  # without replacement


def test_an_image_without_objects_teaches_background():
    no_objects = (tf.zeros([1, 4, 4]), tf.zeros([1, 4], tf.bool), tf.zeros([1, 4], tf.bool))
    target = targets.anchor_targets(
        ANCHORS, *no_objects, SIZE, seeds(1), **ANCHOR_SETTINGS, ignore_crowds=True
    )
    assert sampled(target) == (set(), set(range(9)))
    assert np.isfinite(target.deltas.numpy()).all()


def test_nothing_but_a_crowd_has_no_positives():
    crowd_only = (GT_BOXES, GT_VALID & GT_IS_CROWD, GT_IS_CROWD)
    target = targets.anchor_targets(
        ANCHORS, *crowd_only, SIZE, seeds(1), **ANCHOR_SETTINGS, ignore_crowds=True
    )
    assert sampled(target) == (set(), {0, 1, 2, 3, 4, 5, 6, 8})


@pytest.mark.parametrize("jit_compile", [False, True])
def test_anchors_across_the_border_take_no_part(jit_compile):
    """Of an image 20 pixels high on a larger canvas: what ends at 20 is inside, 50 is not.

    Anchor 9 reaches over the left edge; it is the best one object 1 has, whose next best ones are
    then positive instead, as if it did not exist (Faster R-CNN section 3.3).
    """
    anchors = tf.concat([ANCHORS, [[0.0, -1, 20, 20]]], axis=0)
    objects = tf.constant([[[0.0, 0, 20, 20], [0, 40, 20, 60]]])
    settings = ANCHOR_SETTINGS | {"ignore_across_border": True, "num_samples": 10}

    @tf.function(jit_compile=jit_compile)
    def run(size):
        valid, crowd = tf.constant([[True, True]]), tf.constant([[False, False]])
        return targets.anchor_targets(
            anchors, objects, valid, crowd, size, seeds(1), **settings, ignore_crowds=True
        )

    assert sampled(run(tf.constant([[20.0, 60.0]]))) == ({0, 1, 4, 5}, {3})
    # 1 pixel less wide, anchor 5 is out too; object 1 keeps anchor 4, its equal.
    assert sampled(run(tf.constant([[20.0, 59.0]]))) == ({0, 1, 4}, {3})
    # Nothing inside: nothing to learn, and nothing that is not finite.
    nothing = run(tf.constant([[4.0, 4.0]]))
    assert not nothing.valid.numpy().any()
    assert np.isfinite(nothing.deltas.numpy()).all()


PROPOSALS = tf.constant(
    [
        [
            [0.0, 0, 20, 12],  # 0: IoU 0.6 with object 0
            [0, 40, 20, 50],  # 1: exactly 0.5 with object 1: positive
            [0, 40, 20, 49],  # 2: 0.45: negative
            [60, 10, 80, 30],  # 3: inside the crowd
            [0, 0, 20, 20],  # 4: perfect, but padding
            [30, 30, 50, 50],  # 5: negative
        ]
    ]
)
PROPOSALS_VALID = tf.constant([[True, True, True, True, False, True]])


def roi_targets(gt_valid=GT_VALID, ignore_crowds=True, **changes):
    return targets.roi_targets(
        PROPOSALS,
        PROPOSALS_VALID,
        GT_BOXES,
        GT_CLASSES,
        gt_valid,
        GT_IS_CROWD,
        seeds(1),
        **ROI_SETTINGS | changes,
        ignore_crowds=ignore_crowds,
    )


def rows(tensor, selected):
    return sorted(map(tuple, tensor.numpy()[selected.numpy()].tolist()))


@pytest.mark.parametrize("ignore_crowds", [True, False])
def test_rois_by_hand(ignore_crowds):
    target = roi_targets(ignore_crowds=ignore_crowds)
    positive, valid = target.is_positive[0], target.valid[0]
    # The two proposals and the two objects' own boxes, but not the crowd's.
    assert rows(target.rois[0], positive) == [(0, 0, 20, 12), (0, 0, 20, 20)] + [
        (0, 40, 20, 50),
        (0, 40, 20, 60),
    ]
    in_crowd = [] if ignore_crowds else [(60, 10, 80, 30)]
    assert rows(target.rois[0], valid & ~positive) == sorted(
        [(0, 40, 20, 49), (30, 30, 50, 50), *in_crowd]
    )
    np.testing.assert_array_equal(positive, [True] * 4 + [False] * 8)
    want = np.where(target.rois[0, :4, 1] == 40, 1, 3).tolist() + [0] * 8
    np.testing.assert_array_equal(target.classes[0], want)
    np.testing.assert_array_equal(target.gt_index[0, :4], np.where(np.equal(want[:4], 1), 1, 0))
    assert not target.rois[0].numpy()[~valid.numpy()].any()
    # 20 x 12, centre (10, 6) to 20 x 20, centre (10, 10), times (10, 10, 5, 5).
    slot = [tuple(r) for r in target.rois[0].numpy().tolist()].index((0, 0, 20, 12))
    np.testing.assert_allclose(
        target.deltas[0, slot], [0, 10 * 4 / 12, 0, 5 * math.log(20 / 12)], rtol=1e-6
    )
    assert not target.deltas[0].numpy()[~positive.numpy()].any()


def test_one_positive_to_three_negatives_at_most():
    target = roi_targets(num_samples=8, positive_fraction=0.25)
    np.testing.assert_array_equal(target.is_positive[0], [True, True] + [False] * 6)
    assert int(tf.reduce_sum(tf.cast(target.valid, tf.int32))) == 4  # only two negatives exist


def test_rois_of_an_image_without_objects_are_background():
    target = roi_targets(gt_valid=tf.zeros_like(GT_VALID))
    assert not target.is_positive.numpy().any()
    assert not target.classes.numpy().any()
    assert rows(target.rois[0], target.valid[0]) == rows(PROPOSALS[0], PROPOSALS_VALID[0])
    assert np.isfinite(target.deltas.numpy()).all()


def test_rois_of_nothing_at_all():
    """No objects and no proposals: nothing is valid, nothing is infinite."""
    target = targets.roi_targets(
        tf.zeros_like(PROPOSALS),
        tf.zeros_like(PROPOSALS_VALID),
        tf.zeros_like(GT_BOXES),
        tf.zeros_like(GT_CLASSES),
        tf.zeros_like(GT_VALID),
        tf.zeros_like(GT_IS_CROWD),
        seeds(1),
        **ROI_SETTINGS,
        ignore_crowds=True,
    )
    assert not target.valid.numpy().any()
    assert np.isfinite(target.deltas.numpy()).all()


def random_batch():
    """Three images: many objects with crowds, none, one."""
    rng = np.random.default_rng(0)

    def boxes(count):
        corner = rng.uniform(0, 80, [3, count, 2])
        return np.concatenate([corner, corner + rng.uniform(2, 40, [3, count, 2])], -1)

    proposals, gt_boxes = boxes(30).astype(np.float32), boxes(5).astype(np.float32)
    proposals[0, :10] = gt_boxes[0, :1] + rng.normal(0, 2, [10, 4])
    gt_valid = np.array([[1, 1, 1, 1, 0], [0] * 5, [1, 0, 0, 0, 0]], bool)
    gt_boxes[~gt_valid] = 0
    crowd = np.array([[0, 0, 1, 0, 0], [0] * 5, [0] * 5], bool)
    classes = np.where(gt_valid, rng.integers(1, 9, [3, 5]), 0).astype(np.int32)
    valid = rng.random([3, 30]) < 0.9
    return tuple(map(tf.constant, (proposals, valid, gt_boxes, classes, gt_valid, crowd)))


def both(proposals, valid, gt_boxes, classes, gt_valid, crowd, image_seeds):
    return (
        targets.anchor_targets(
            proposals[0], gt_boxes, gt_valid, crowd, tf.fill([3, 2], 100.0), image_seeds,
            **ANCHOR_SETTINGS, ignore_crowds=True,
        ),
        targets.roi_targets(
            proposals, valid, gt_boxes, classes, gt_valid, crowd, image_seeds, **ROI_SETTINGS,
            ignore_crowds=True,
        ),
    )  # fmt: skip


def assert_equal(a, b):
    for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
        if x.dtype == tf.float32:
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(x, y)


def test_same_eager_graph_and_xla_with_sizes_unknown():
    given = (*random_batch(), seeds(5, 6, 7))
    signature = [
        tf.TensorSpec([None] * (t.shape.rank - 1) + [t.shape[-1]], t.dtype)
        if t.shape[-1] in (2, 4)
        else tf.TensorSpec([None, None], t.dtype)
        for t in given
    ]
    eager = both(*given)
    assert 0 < np.sum(eager[1].is_positive) < np.sum(eager[1].valid)
    for jit_compile in (False, True):
        assert_equal(tf.function(both, signature, jit_compile=jit_compile)(*given), eager)


def test_what_an_image_samples_depends_on_itself_and_the_step_only():
    given = random_batch()
    together = both(*given, seeds(5, 6, 7))
    order = [2, 0, 1]
    anchors_fixed = given[0][:1]  # anchors are those of the first image of the batch
    moved = tuple(tf.gather(t, order) for t in given)
    moved_seeds = seeds(7, 5, 6)
    moved_rois = targets.roi_targets(*moved, moved_seeds, **ROI_SETTINGS, ignore_crowds=True)
    moved_anchors = targets.anchor_targets(
        anchors_fixed[0], moved[2], moved[4], moved[5], tf.fill([3, 2], 100.0), moved_seeds,
        **ANCHOR_SETTINGS, ignore_crowds=True,
    )  # fmt: skip
    want = tf.nest.map_structure(lambda t: tf.gather(t, order), together)
    assert_equal((moved_anchors, moved_rois), want)
    other_step = both(*given, seeds(5, 6, 7, step=1))
    assert np.any(other_step[1].rois[0] != together[1].rois[0])


def test_no_gradient_reaches_the_proposals():
    given = random_batch()
    with tf.GradientTape() as tape:
        tape.watch(given[0])
        target = targets.roi_targets(*given, seeds(1, 2, 3), **ROI_SETTINGS, ignore_crowds=True)
        total = tf.reduce_sum(target.rois) + tf.reduce_sum(target.deltas)
    assert tape.gradient(total, given[0]) is None
