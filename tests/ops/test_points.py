"""Maps at points against loops, and the points that are drawn."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import points as point_ops
from mrcnn_tf.ops import sampling


def bilinear_twin(grid, y, x):
    """One map [H, W, ...] at one point, pixel by pixel; 0 beyond its border."""
    total = np.zeros(grid.shape[2:])
    for row in range(grid.shape[0]):
        if abs(y - 0.5 - row) >= 1:
            continue
        for col in range(grid.shape[1]):
            weight = (1 - abs(y - 0.5 - row)) * max(0.0, 1 - abs(x - 0.5 - col))
            total = total + weight * grid[row, col]
    return total


def test_a_map_at_points_by_hand():
    maps = tf.constant([[[[1.0], [3.0]], [[5.0], [7.0]]]])
    points = [[0.5, 0.5], [0.5, 1.5], [1.0, 1.0], [1.5, 0.75], [0.5, 0.0], [0.0, 0.0], [-0.5, 1.0],
              [2.5, 0.5], [9e9, 1.0], [np.nan, 1.0], [1.0, -np.inf]]  # fmt: skip
    found = point_ops.sample(maps, tf.constant([points]))
    np.testing.assert_allclose(found[0, :, 0], [1, 3, 4, 5.5, 0.5, 0.25, 0, 0, 0, 0, 0], atol=1e-6)


@pytest.mark.usefixtures("each_implementation")
def test_maps_at_points_and_their_gradient_are_those_of_a_twin():
    rng = np.random.default_rng(3)
    maps = rng.normal(size=[3, 4, 6, 2]).astype(np.float32)
    points = rng.uniform(-1, 7, [3, 11, 2]).astype(np.float32)
    upstream = rng.normal(size=[3, 11, 2]).astype(np.float32)
    variable = tf.constant(maps)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        found = point_ops.sample(variable, tf.constant(points))
        total = tf.reduce_sum(found * upstream)
    want = [[bilinear_twin(maps[m], *p) for p in points[m]] for m in range(3)]
    np.testing.assert_allclose(found, want, atol=1e-5)
    # Linear in the maps: a gradient is what each pixel alone would give.
    gradient = tape.gradient(total, variable).numpy()
    for m, row, col in ((0, 0, 0), (1, 3, 5), (2, 1, 2)):
        alone = np.zeros([4, 6])
        alone[row, col] = 1.0
        seen = np.array([bilinear_twin(alone, *p) for p in points[m]])
        np.testing.assert_allclose(gradient[m, row, col], seen @ upstream[m], atol=1e-5)


def test_half_precision_stays():
    maps = tf.ones([1, 2, 2, 3], tf.bfloat16)
    assert point_ops.sample(maps, tf.ones([1, 1, 2])).dtype == tf.bfloat16


def test_places_by_hand():
    points = tf.constant([[[[0.0, 0.0], [1.0, 1.0], [0.5, 0.25]]]])
    boxes = tf.constant([[[10.0, 20.0, 30.0, 60.0]]])
    np.testing.assert_allclose(
        point_ops.in_boxes(points, boxes)[0, 0], [[10, 20], [30, 60], [20, 30]]
    )
    np.testing.assert_allclose(
        point_ops.cell_centres(tf.constant([0, 3, 4, 15]), 4),
        [[0.125, 0.125], [0.125, 0.875], [0.375, 0.125], [0.875, 0.875]],
    )


@pytest.mark.parametrize("fraction", [0.0, 0.75, 1.0])
def test_points_are_drawn_as_a_twin_draws_them(fraction):
    rng = np.random.default_rng(5)
    coarse = rng.normal(size=[2, 3, 4, 4]).astype(np.float32)
    seeds = sampling.image_seeds(7, 3, tf.constant([11, -5]), stream=2)
    found = point_ops.uncertain(tf.constant(coarse), seeds, 5, 8, 3, fraction).numpy()
    assert found.shape == (2, 3, 8, 2)
    num_uncertain = int(8 * fraction)
    numbers = sampling.random_numbers(seeds, 5 * (24 + 8 - num_uncertain) * 2).numpy()
    numbers = numbers.reshape([2, 5, -1, 2])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert 0.4 < numbers.mean() < 0.6
    for b in range(2):
        for r in range(3):
            candidates = numbers[b, r, :24]
            logits = [bilinear_twin(coarse[b, r], *(4 * p)) for p in candidates]
            best = np.argsort(np.abs(logits), kind="stable")[:num_uncertain]
            want = np.concatenate([candidates[best], numbers[b, r, 24:]])
            np.testing.assert_allclose(found[b, r], want, atol=1e-6)


def test_points_crowd_where_a_mask_is_undecided_and_do_not_depend_on_the_others():
    edge = np.tile(np.array([-4.0, -4.0, 4.0, 4.0], np.float32), [1, 2, 4, 1])  # [1, 2, 4, 4]
    seeds = sampling.image_seeds(1, 1, tf.constant([3]), stream=2)
    both = point_ops.uncertain(tf.constant(edge), seeds, 6, 64, 3, 0.75)
    of_edge = np.abs(both[0, 0, :48, 1] - 0.5)  # some near the border too, where logits fade
    inner = np.abs(both[0, 0, :48] - 0.5).max(axis=-1) < 0.37
    assert of_edge[inner].max() < 0.125
    assert inner.sum() > 10
    assert np.abs(both[0, 0, 48:, 1] - 0.5).max() > 0.3  # uniform
    alone = point_ops.uncertain(tf.constant(edge[:, :1]), seeds, 6, 64, 3, 0.75)
    np.testing.assert_array_equal(alone[0, 0], both[0, 0])
    assert not np.array_equal(both[0, 0], both[0, 1])


def test_drawn_under_xla_as_eagerly():
    coarse = tf.random.stateless_normal([2, 3, 7, 7], [1, 2])
    seeds = sampling.image_seeds(7, 3, tf.constant([11, -5]), stream=2)
    compiled = tf.function(point_ops.uncertain, jit_compile=True)
    np.testing.assert_allclose(
        compiled(coarse, seeds, 4, 12, 3, 0.75),
        point_ops.uncertain(coarse, seeds, 4, 12, 3, 0.75),
        atol=1e-6,
    )
