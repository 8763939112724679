import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.modeling import losses

LOG2 = math.log(2.0)


def numbers(loss):
    return float(loss.total), float(loss.count)


def bools(*rows):
    return tf.constant([[bool(v) for v in row] for row in rows])


def test_smooth_l1_by_hand_around_the_kink():
    error = tf.constant([0.0, 0.25, -0.25, 0.5, -0.5, 1.0, -3.0])
    want = [0.0, 0.0625, 0.0625, 0.25, 0.25, 0.75, 2.75]  # beta 0.5
    np.testing.assert_allclose(losses.smooth_l1(error, 0.5), want, rtol=1e-6)
    np.testing.assert_array_equal(losses.smooth_l1(error, 0.0), np.abs(error))


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1_is_continuous_and_so_is_its_slope(beta):
    at = tf.constant([beta - 1e-4, beta + 1e-4, -beta - 1e-4, 5.0, -5.0])
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = losses.smooth_l1(at, beta)
    assert value[1] - value[0] < 2.1e-4
    slope = tape.gradient(value, at).numpy()
    np.testing.assert_allclose(slope[1:], [1, -1, 1, -1], atol=2e-3)
    if beta:
        np.testing.assert_allclose(slope[0], 1, atol=2e-3)


@pytest.mark.parametrize("beta", [0.0, 1 / 9])
def test_smooth_l1_has_a_finite_gradient_at_zero_and_far_away(beta):
    at = tf.constant([0.0, 1e20, -1e20])
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = losses.smooth_l1(at, beta)
    np.testing.assert_allclose(tape.gradient(value, at), [0, 1, -1])


def test_rpn_class_loss_by_hand():
    logits = tf.constant([[0.0, math.log(3.0), math.log(3.0), 99.0]])  # probability 1/2, 3/4, 3/4
    loss = losses.rpn_class_loss(logits, bools([1, 1, 0, 0]), bools([1, 1, 1, 0]))
    assert numbers(loss) == pytest.approx((LOG2 + math.log(4 / 3) + math.log(4.0), 3.0))
    assert float(loss.mean()) == pytest.approx((LOG2 + math.log(16 / 3)) / 3)


def test_rpn_box_loss_sums_positives_and_counts_all_that_were_sampled():
    deltas = tf.constant([[[1.0, 0, 0, 0], [0, 2.0, 0, 0.25], [9, 9, 9, 9], [9, 9, 9, 9]]])
    loss = losses.rpn_box_loss(
        deltas, tf.zeros_like(deltas), bools([1, 1, 0, 1]), bools([1, 1, 1, 0]), beta=0.5
    )
    assert numbers(loss) == pytest.approx((0.75 + 1.75 + 0.0625, 3.0))


def test_class_loss_by_hand():
    logits = tf.math.log(tf.constant([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]]]))
    loss = losses.class_loss(logits, tf.constant([[0, 2, 1]]), bools([1, 1, 0]))
    assert numbers(loss) == pytest.approx((-math.log(0.5) - math.log(0.8), 2.0))


def test_box_loss_takes_the_row_of_the_true_class():
    deltas = np.full([1, 3, 2, 4], 100.0, np.float32)
    deltas[0, 0, 1] = [1, 2, 3, 4]  # class 2
    deltas[0, 1, 0] = [0, 0, 0, 1]  # class 1
    target = tf.constant([[[1.0, 2, 3, 3], [0, 0, 0, 0], [0, 0, 0, 0]]])
    loss = losses.box_loss(
        tf.constant(deltas),
        target,
        tf.constant([[2, 1, 0]]),
        bools([1, 1, 0]),
        bools([1, 1, 1]),
        beta=0.0,
    )
    assert numbers(loss) == pytest.approx((2.0, 3.0))


def test_box_loss_moves_no_other_class_and_no_negative():
    deltas = tf.random.stateless_normal([2, 3, 4, 4], [1, 2])
    classes = tf.constant([[2, 0, 4], [1, 3, 0]])
    with tf.GradientTape() as tape:
        tape.watch(deltas)
        loss = losses.box_loss(
            deltas, tf.zeros([2, 3, 4]), classes, classes > 0, tf.ones([2, 3], tf.bool), 1.0
        )
    moved = np.abs(tape.gradient(loss.total, deltas).numpy()).sum(-1) > 0
    assert sorted(zip(*np.nonzero(moved), strict=True)) == [
        (0, 0, 1),
        (0, 2, 3),
        (1, 0, 0),
        (1, 1, 2),
    ]


def test_mask_loss_is_a_mean_over_pixels_and_a_sum_over_rois():
    logits = tf.constant([[[[0.0, 0.0], [0.0, 0.0]], [[9.0, 9], [9, 9]], [[0.0, 0], [-50, 50]]]])
    target = tf.constant([[[[1.0, 0.0], [0.5, 0.25]], [[1.0, 0], [0, 1]], [[1.0, 0], [0, 1]]]])
    loss = losses.mask_loss(logits, target, bools([1, 0, 1]))
    assert numbers(loss) == pytest.approx((LOG2 + LOG2 / 2, 2.0))


def test_an_image_without_objects_has_no_box_and_no_mask_loss_and_finite_gradients():
    logits, deltas = tf.ones([1, 3, 4]), tf.ones([1, 3, 3, 4])
    masks = tf.ones([1, 2, 5, 5])
    nothing, all_valid = tf.zeros([1, 3], tf.bool), tf.ones([1, 3], tf.bool)
    with tf.GradientTape() as tape:
        tape.watch([logits, deltas, masks])
        zeros = tf.zeros([1, 3], tf.int32)
        terms = {
            "class": losses.class_loss(logits, zeros, all_valid),
            "box": losses.box_loss(deltas, tf.zeros([1, 3, 4]), zeros, nothing, all_valid, 0.0),
            "mask": losses.mask_loss(masks, tf.zeros_like(masks), nothing[:, :2]),
        }
        total = tf.add_n([term.mean() for term in terms.values()])
    assert numbers(terms["box"]) == (0.0, 3.0)
    assert numbers(terms["mask"]) == (0.0, 0.0)
    assert float(terms["mask"].mean()) == 0.0
    for gradient in tape.gradient(total, [logits, deltas, masks]):
        assert np.isfinite(gradient.numpy()).all()


def test_sums_and_counts_add_up_over_images():
    """Two images apart or together: equal sums, equal counts."""
    seeds = iter(range(9))
    logits = tf.random.stateless_normal([2, 5, 3], [next(seeds), 0])
    deltas = tf.random.stateless_normal([2, 5, 2, 4], [next(seeds), 0])
    target = tf.random.stateless_normal([2, 5, 4], [next(seeds), 0])
    classes = tf.constant([[1, 2, 0, 0, 1], [0, 0, 0, 0, 0]])
    valid = bools([1, 1, 1, 1, 0], [1, 1, 0, 0, 0])

    def both(i):
        part = slice(None) if i is None else slice(i, i + 1)
        positive = (classes > 0) & valid
        return (
            losses.class_loss(logits[part], classes[part], valid[part]),
            losses.box_loss(
                deltas[part], target[part], classes[part], positive[part], valid[part], 1.0
            ),
        )

    for first, second, together in zip(both(0), both(1), both(None), strict=True):
        assert numbers(together) == pytest.approx(
            tuple(a + b for a, b in zip(numbers(first), numbers(second), strict=True))
        )
    assert [float(loss.count) for loss in both(None)] == [6.0, 6.0]
