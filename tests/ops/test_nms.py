import functools

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import nms

EACH = pytest.mark.usefixtures("each_implementation")


def numpy_nms(boxes, scores, valid, iou_threshold, max_outputs, groups=None):
    """Greedy suppression of one image, one box at a time."""
    iou = box_ops.iou(boxes, boxes).numpy()
    groups = np.zeros(len(boxes), np.int32) if groups is None else groups
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        rivals = [k for k in kept if groups[k] == groups[i] and iou[k, i] > iou_threshold]
        if valid[i] and not rivals and len(kept) < max_outputs:
            kept.append(i)
    return kept


def clustered(seed, num_images, num_boxes, clusters=12, spread=6.0):
    """Boxes in heaps, as an RPN makes them, with few different scores, so that many are equal."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(0, 200, [num_images, clusters, 2])
    which = rng.integers(0, clusters, [num_images, num_boxes, 1])
    center = np.take_along_axis(center, which, axis=1)
    center = center + rng.normal(0, spread, [num_images, num_boxes, 2])
    half_size = rng.uniform(5, 25, [num_images, num_boxes, 2])
    boxes = np.concatenate([center - half_size, center + half_size], axis=-1)
    scores = rng.integers(0, 50, [num_images, num_boxes]) / 50
    valid = rng.random([num_images, num_boxes]) < 0.9
    return boxes.astype(np.float32), scores.astype(np.float32), valid


def check(actual, boxes, scores, valid, iou_threshold, max_outputs, groups=None):
    index, index_valid = (t.numpy() for t in actual)
    assert index.shape == index_valid.shape == (len(boxes), max_outputs)
    for b in range(len(boxes)):
        group = None if groups is None else groups[b]
        kept = numpy_nms(boxes[b], scores[b], valid[b], iou_threshold, max_outputs, group)
        np.testing.assert_array_equal(index[b], kept + [0] * (max_outputs - len(kept)))
        np.testing.assert_array_equal(index_valid[b], np.arange(max_outputs) < len(kept))


def one_image(boxes, scores, valid=None, **kwargs):
    """Run on one image and return the list of kept boxes."""
    boxes = tf.constant([boxes], tf.float32)
    scores = tf.constant([scores], tf.float32)
    valid = tf.ones_like(scores, tf.bool) if valid is None else tf.constant([valid])
    index, index_valid = nms.nms(boxes, scores, valid, **kwargs)
    return index[0][index_valid[0]].numpy().tolist()


@EACH
def test_by_hand():
    # IoU of 0 and 1: 80/120; of 1 and 2: 80/120; of 0 and 2: 60/140.
    given = [[0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10], [50, 50, 60, 60]]
    run = functools.partial(one_image, given, max_outputs=4)
    assert run([0.9, 0.8, 0.7, 0.1], iou_threshold=0.5) == [0, 2, 3]  # 1 is gone, so 2 stays
    assert run([0.8, 0.9, 0.7, 0.95], iou_threshold=0.5) == [3, 1]
    assert run([0.9, 0.8, 0.7, 0.1], iou_threshold=0.4) == [0, 3]
    assert run([0.9, 0.8, 0.7, 0.1], iou_threshold=0.7) == [0, 1, 2, 3]


@EACH
def test_suppresses_strictly_above_the_threshold():
    # IoU exactly 0.5, and 0.25 which float32 holds exactly too.
    given = [[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 2, 2]]
    run = functools.partial(one_image, given, [0.9, 0.8, 0.7], max_outputs=3)
    assert run(iou_threshold=0.5) == [0, 1, 2]
    assert run(iou_threshold=0.4999) == [0, 2]
    assert run(iou_threshold=0.2499) == [0]


@EACH
def test_equal_scores_keep_the_lower_index():
    given = [[0, 0, 10, 10]] * 3 + [[50, 50, 60, 60]] * 2
    scores = [0.5] * 5
    assert one_image(given, scores, iou_threshold=0.5, max_outputs=5) == [0, 3]
    valid = [False, True, True, False, True]
    kept = one_image(given, scores, valid, iou_threshold=0.5, max_outputs=5)
    assert kept == [1, 4]


@EACH
def test_empty_and_reversed_boxes_suppress_nothing():
    given = [[0, 0, 0, 0], [0, 0, 0, 0], [8, 8, 2, 2], [8, 8, 2, 2], [2, 2, 8, 8]]
    kept = one_image(given, [5, 4, 3, 2, 1], iou_threshold=0.0, max_outputs=5)
    assert kept == [0, 1, 2, 3, 4]


@EACH
def test_negative_scores_are_scores():
    given = [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]
    run = functools.partial(one_image, given, [-9.0, -3.0, -1e30], iou_threshold=0.5)
    assert run(max_outputs=3) == [1, 2]


def test_groups_keep_apart_boxes_that_are_equal():
    given = [[0, 0, 10, 10]] * 4
    boxes = tf.constant([given], tf.float32)
    groups = tf.constant([[7, 2**30, 7, -1]])
    scores = tf.constant([[0.1, 0.2, 0.3, 0.4]])
    index, valid = nms.nms(boxes, scores, scores > 0, 0.5, 4, groups)
    np.testing.assert_array_equal(index, [[3, 2, 1, 0]])
    np.testing.assert_array_equal(valid, [[True, True, True, False]])


@EACH
@pytest.mark.parametrize("num_boxes", [0, 1, 5, 255, 256, 257, 700])
def test_matches_numpy(num_boxes):
    given = clustered(num_boxes, 3, num_boxes)
    given[2][1] = False  # an image without valid boxes
    for iou_threshold, max_outputs in ((0.7, 1000), (0.5, 40), (0.0, 7)):
        actual = nms.nms(*given, iou_threshold, max_outputs)
        check(actual, *given, iou_threshold, max_outputs)


def test_matches_numpy_with_groups():
    boxes, scores, valid = clustered(1, 2, 900)
    groups = np.random.default_rng(2).integers(0, 5, [2, 900]).astype(np.int32)
    actual = nms.nms(boxes, scores, valid, 0.3, 200, groups)
    check(actual, boxes, scores, valid, 0.3, 200, groups)


@EACH
def test_everything_is_suppressed_through_several_rounds():
    """One heap of equal boxes: every round looks at a tile of which nothing survives."""
    boxes = np.tile(np.float32([10, 10, 20, 20]), [1, 1000, 1])
    boxes[0, 999] = [50, 50, 60, 60]
    scores = np.linspace(1, 0, 1000, dtype=np.float32)[np.newaxis]
    index, valid = nms.nms(boxes, scores, scores >= 0, 0.5, 10)
    assert index[0][valid[0]].numpy().tolist() == [0, 999]


def test_longest_chain_inside_a_tile():
    """Box k overlaps only its neighbors: every second one stays, settled one after the other."""
    left = np.arange(200, dtype=np.float32) * 4
    boxes = np.stack([0 * left, left, 0 * left + 10, left + 6], axis=-1)[np.newaxis]
    scores = np.linspace(1, 0.5, 200, dtype=np.float32)[np.newaxis]
    index, valid = nms.nms(boxes, scores, scores > 0, 0.15, 150)
    assert index[0][valid[0]].numpy().tolist() == list(range(0, 200, 2))


def test_images_do_not_depend_on_each_other():
    given = clustered(3, 4, 400)
    together = nms.nms(*given, 0.5, 30)
    for b in range(4):
        alone = nms.nms(*(t[b : b + 1] for t in given), 0.5, 30)
        np.testing.assert_array_equal(together[0][b], alone[0][0])


def test_permuting_boxes_with_distinct_scores_keeps_the_same_ones():
    boxes, _, valid = clustered(4, 1, 600)
    rng = np.random.default_rng(5)
    scores = rng.permutation(600).astype(np.float32)[np.newaxis]
    order = rng.permutation(600)
    one, one_valid = nms.nms(boxes, scores, valid, 0.5, 50)
    other, _ = nms.nms(boxes[:, order], scores[:, order], valid[:, order], 0.5, 50)
    np.testing.assert_array_equal(one, np.where(one_valid, order[other], 0))


@pytest.mark.parametrize(
    ("grouped", "shape", "jit_compile"),
    [
        (False, [None, None], False),
        (False, [None, None], True),
        (True, [None, None], True),
        (True, [2, 600], True),
    ],
)
def test_same_boxes_eager_graph_and_compiled(grouped, shape, jit_compile):
    given = (*clustered(6, 2, 600), np.arange(1200, dtype=np.int32).reshape(2, 600) % 3)
    types = (tf.float32, tf.bool, tf.int32)
    signature = [tf.TensorSpec([*shape, 4]), *(tf.TensorSpec(shape, t) for t in types)]

    def run(boxes, scores, valid, groups):
        return nms.nms(boxes, scores, valid, 0.5, 100, groups if grouped else None)

    function = tf.function(run, jit_compile=jit_compile, input_signature=signature)
    for a, e in zip(function(*given), run(*given), strict=True):
        np.testing.assert_array_equal(a, e)


@EACH
def test_output_shape_is_static_and_no_gradient_flows():
    @tf.function(input_signature=[tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None])])
    def loss_and_gradient(boxes, scores):
        with tf.GradientTape() as tape:
            tape.watch([boxes, scores])
            index, valid = nms.nms(boxes, scores, tf.ones_like(scores, tf.bool), 0.5, 6)
            assert index.shape[1] == valid.shape[1] == 6
            kept_scores = tf.gather(scores, index, axis=1, batch_dims=1)
            loss = tf.reduce_sum(tf.where(valid, kept_scores, 0.0))
        return loss, tape.gradient(loss, scores)

    boxes = tf.constant([[[0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]]], tf.float32)
    loss, gradient = loss_and_gradient(boxes, tf.constant([[0.5, 0.25, 0.125]]))
    assert loss == 0.625
    np.testing.assert_array_equal(tf.convert_to_tensor(gradient), [[1, 0, 1]])


def test_many_candidates_of_which_few_are_valid():
    """The size of a detection head's output: 1000 proposals in 90 classes."""
    rng = np.random.default_rng(7)
    boxes = np.repeat(clustered(8, 1, 1000)[0], 90, axis=1)
    scores = rng.random([1, 90000]).astype(np.float32)
    groups = np.tile(np.arange(90, dtype=np.int32), [1, 1000])
    valid = scores > 0.99
    index, index_valid = (t.numpy() for t in nms.nms(boxes, scores, valid, 0.5, 100, groups))
    some = np.flatnonzero(valid[0])
    kept = numpy_nms(boxes[0][some], scores[0][some], valid[0][some], 0.5, 100, groups[0][some])
    np.testing.assert_array_equal(index[0], some[kept])
    assert index_valid.all()


@pytest.mark.parametrize("iou_threshold", [-0.1, 1.5])
def test_threshold_outside_the_unit_interval_is_refused(iou_threshold):
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        one_image([[0, 0, 1, 1]], [1.0], iou_threshold=iou_threshold, max_outputs=1)
