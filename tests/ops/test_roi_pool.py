"""RoIPool, RoIWarp and the maximum of RoIAlign's samples: twins, by hand, torchvision's numbers."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import roi_align as ra
from mrcnn_tf.ops import roi_pool as rp
from mrcnn_tf.ops import roi_warp as rw
from tests.ops.test_roi_align import HOSTILE, corners, random_case

EACH = pytest.mark.usefixtures("each_implementation")
RECORDED = pathlib.Path(__file__).parents[1] / "golden" / "data" / "roi_pool_torchvision.npz"


def half_away(x):
    return math.copysign(math.floor(abs(x) + 0.5), x)


def twin(features, boxes, levels, side, upstream):
    """Pooled values and the gradient of each map, bin by bin from the definition."""
    channels = next(iter(features.values())).shape[-1]
    pooled = np.zeros((*boxes.shape[:2], side, side, channels))
    gradient = {level: np.zeros(f.shape) for level, f in features.items()}
    for b, r in np.ndindex(*boxes.shape[:2]):
        level = int(levels[b, r])
        feature = features[level][b]
        y1, x1, y2, x2 = (int(half_away(float(v) / 2**level)) for v in boxes[b, r])
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for p, q in np.ndindex(side, side):
            rows = range(y1 + p * height // side, y1 - (-(p + 1) * height // side))
            cols = range(x1 + q * width // side, x1 - (-(q + 1) * width // side))
            rows = [y for y in rows if 0 <= y < feature.shape[0]]
            cols = [x for x in cols if 0 <= x < feature.shape[1]]
            if not rows or not cols:
                continue
            for c in range(channels):
                value, y, x = max(
                    ((feature[y, x, c], y, x) for y in rows for x in cols),
                    key=lambda found: found[0],  # the first of equals
                )
                pooled[b, r, p, q, c] = value
                gradient[level][b, y, x, c] += upstream[b, r, p, q, c]
    return pooled, gradient


def pooled_and_gradient(function, features, boxes, levels, upstream):
    maps = {level: tf.constant(f) for level, f in features.items()}
    with tf.GradientTape() as tape:
        tape.watch(maps)
        pooled = function(maps, boxes, levels)
        loss = tf.reduce_sum(tf.cast(pooled, tf.float32) * upstream)
    return pooled, tape.gradient(loss, maps)


@EACH
@pytest.mark.parametrize("side", [1, 3, 7])
def test_values_and_gradient_equal_the_twin(side):
    features, boxes, levels = random_case()
    # Equal values, as behind a ReLU, and a bin of negative ones.
    features = {k: np.where(f > 0.3, f, np.float32(-0.5)) for k, f in features.items()}
    rng = np.random.default_rng(1)
    upstream = rng.standard_normal((*boxes.shape[:2], side, side, 3)).astype(np.float32)
    got, gradient = pooled_and_gradient(
        lambda *given: rp.roi_pool(*given, side), features, boxes, levels, upstream
    )
    want, want_gradient = twin(features, boxes, levels, side, upstream)
    np.testing.assert_array_equal(got, want)
    for level in features:
        np.testing.assert_allclose(gradient[level], want_gradient[level], atol=1e-5)
    assert np.abs(want_gradient[2]).max() > 0.5


@EACH
@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_values_and_gradient_are_torchvisions(side):
    recorded = np.load(RECORDED)
    boxes = recorded["boxes"]
    levels = np.full(boxes.shape[:2], 4)
    got, gradient = pooled_and_gradient(
        lambda *given: rp.roi_pool(*given, side),
        {4: recorded["features"]},
        boxes,
        levels,
        recorded[f"upstream{side}"],
    )
    np.testing.assert_array_equal(got, recorded[f"pooled{side}"])
    np.testing.assert_allclose(gradient[4], recorded[f"gradient{side}"], atol=1e-5)


@EACH
def test_by_hand():
    """A box from 0.6 to 2.5 covers the pixels 1 to 3 of 4, in two bins of two that share one."""
    feature = tf.reshape(tf.range(16, dtype=tf.float32), [1, 4, 4, 1])
    box = tf.constant([[[0.6, 0.6, 2.5, 2.5]]])
    pooled = rp.roi_pool({0: feature}, box, None, 2)[0, 0, :, :, 0]
    np.testing.assert_array_equal(pooled, [[10, 11], [14, 15]])
    # Of -1 to 1, the pixel that is no part of the map is left out.
    pooled = rp.roi_pool({0: feature}, tf.constant([[[-0.5, 0, 1, 1]]]), None, 3)[0, 0, :, :, 0]
    np.testing.assert_array_equal(pooled, [[0, 0, 0], [0, 1, 1], [4, 5, 5]])


def test_halves_round_away_from_zero():
    given = [-2.5, -1.5, -0.5, -0.49999997, 0.0, 0.49999997, 0.5, 1.5, 2.4999998, 2.5]
    assert rp.rounded(tf.constant(given)).numpy().tolist() == [*(-3, -2, -1, 0, 0, 0, 1, 2, 2, 3)]


def warped_twin(feature, box, stride, side, ratio, aligned, aggregate):
    """One RoI of RoIWarp, sample by sample: [P, P, C]."""
    shift = 0.5 if aligned else 0.0
    y1, x1, y2, x2 = (half_away(float(v) / stride) - shift for v in box)
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = max(height, 1.0), max(width, 1.0)
    pooled = np.zeros((side, side, feature.shape[-1]))
    for p, q in np.ndindex(side, side):
        samples = []
        for i, j in np.ndindex(ratio, ratio):
            y = y1 + (p + (i + 0.5) / ratio) * height / side
            x = x1 + (q + (j + 0.5) / ratio) * width / side
            value = np.zeros(feature.shape[-1])
            for row, row_weight in corners(y, feature.shape[0]):
                for col, col_weight in corners(x, feature.shape[1]):
                    value += row_weight * col_weight * feature[row, col]
            samples.append(value)
        pooled[p, q] = np.max(samples, axis=0) if aggregate == "max" else np.mean(samples, axis=0)
    return pooled


@EACH
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("aggregate", ["average", "max"])
def test_warped_values_equal_the_twin(aggregate, aligned):
    features, boxes, levels = random_case()
    given = {level: tf.constant(f) for level, f in features.items()}
    pooled = rw.roi_warp(given, boxes, levels, 3, 2, aligned, aggregate)
    for b, r in np.ndindex(*boxes.shape[:2]):
        level = int(levels[b, r])
        feature = features[level][b].astype(np.float64)
        want = warped_twin(feature, boxes[b, r], 2.0**level, 3, 2, aligned, aggregate)
        np.testing.assert_allclose(pooled[b, r], want, atol=2e-5)


@EACH
def test_warped_boxes_of_whole_pixels_are_aligned_ones():
    features, _, _ = random_case()
    boxes = tf.constant([[[4.0, 8.0, 24.0, 40.0]]] * 2)
    levels = tf.fill([2, 1], 2)
    for aggregate in ("average", "max"):
        warped = rw.roi_warp(features, boxes + 1.9, levels, 2, 2, True, aggregate)
        aligned = ra.roi_align(features, boxes, levels, 2, 2, True, aggregate)
        np.testing.assert_array_equal(warped, aligned)
    alone, boxes = {3: features[3]}, 2 * boxes
    warped = rw.roi_warp(alone, boxes + 3.9, None, 2, 2, True)
    np.testing.assert_array_equal(warped, ra.roi_align(alone, boxes, None, 2, 2, True))


def maximum(maps, boxes, levels):
    return ra.roi_align(maps, boxes, levels, 2, 3, True, "max")


@EACH
def test_largest_sample_and_its_gradient():
    """Of nine samples a bin, each pooled by itself as the one sample of a finer grid."""
    features, boxes, levels = random_case()
    fine = ra.roi_align(features, boxes, levels, 6, 1, True).numpy()
    # [B, R, 6, 6, C] -> [B, R, 2, 2, 9, C]
    split = fine.reshape(2, -1, 2, 3, 2, 3, 3).transpose(0, 1, 2, 4, 3, 5, 6)
    split = split.reshape(2, -1, 2, 2, 9, 3)
    rng = np.random.default_rng(5)
    upstream = rng.standard_normal((*boxes.shape[:2], 2, 2, 3)).astype(np.float32)
    got, gradient = pooled_and_gradient(maximum, features, boxes, levels, upstream)
    np.testing.assert_allclose(got, split.max(axis=4), atol=1e-6)
    # The upstream gradient goes to the winning sample of the finer grid, and on from there.
    is_best = np.arange(9)[:, None] == split.argmax(axis=4)[:, :, :, :, None, :]
    of_sample = np.where(is_best, upstream[:, :, :, :, None, :], 0)
    of_sample = of_sample.reshape(2, -1, 2, 2, 3, 3, 3).transpose(0, 1, 2, 4, 3, 5, 6)
    _, want = pooled_and_gradient(
        lambda *given: ra.roi_align(*given, 6, 1, True),
        features,
        boxes,
        levels,
        of_sample.reshape(fine.shape).astype(np.float32),
    )
    for level in features:
        np.testing.assert_allclose(gradient[level], want[level], atol=2e-5)


@EACH
def test_gradient_by_finite_differences():
    """Of the maximum and of RoIWarp, each number of a small map moved by itself."""
    rng = np.random.default_rng(2)
    feature = rng.standard_normal((1, 4, 5, 1)).astype(np.float32)
    boxes = tf.constant([[[3.0, 5.0, 27.0, 33.0], [0.0, 0.0, 9.0, 30.0]]])
    for function in (
        lambda maps, *_: rp.roi_pool(maps, boxes, None, 2),
        lambda maps, *_: ra.roi_align(maps, boxes, None, 2, 2, True, "max"),
        lambda maps, *_: rw.roi_warp(maps, boxes, None, 2, 2, True, "max"),
    ):
        upstream = rng.standard_normal((1, 2, 2, 2, 1)).astype(np.float32)
        _, gradient = pooled_and_gradient(function, {3: feature}, boxes, None, upstream)
        step = 2.0**-10
        for y, x in np.ndindex(4, 5):
            ends = []
            for sign in (1, -1):
                moved = feature.copy()
                moved[0, y, x, 0] += sign * step
                ends.append(np.sum(function({3: tf.constant(moved)}) * upstream))
            difference = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(gradient[3][0, y, x, 0], difference, atol=5e-3)


@EACH
def test_nothing_one_pixel_and_boxes_that_are_none():
    feature = tf.constant(5.0, shape=[1, 1, 1, 2])
    nothing = rp.roi_pool({5: feature}, np.zeros((1, 0, 4), np.float32), None, 2)
    assert nothing.shape == (1, 0, 2, 2, 2)
    no_images = rp.roi_pool({5: feature[:0]}, np.zeros((0, 3, 4), np.float32), None, 2)
    assert no_images.shape == (0, 3, 2, 2, 2)
    np.testing.assert_array_equal(
        rp.roi_pool({5: feature}, HOSTILE[None, :1], None, 1)[0, 0], [[[5.0, 5.0]]]
    )
    features, _, _ = random_case()
    bad = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, 0.0, 5.0], np.float32)
    boxes = np.stack(np.meshgrid(bad, bad), -1).reshape(1, -1, 2)
    boxes = np.tile(np.concatenate([boxes, boxes[..., ::-1]], -1), (2, 1, 1))
    levels = ra.assign_levels(boxes, 2, 4)
    assert np.isfinite(rp.roi_pool(features, boxes, levels, 2)).all()
    for aggregate in ("average", "max"):
        assert np.isfinite(rw.roi_warp(features, boxes, levels, 2, 2, True, aggregate)).all()


@pytest.mark.parametrize("jit", [True, False])
def test_graph_and_xla_with_unknown_sizes_equal_eager(jit):
    features, boxes, levels = random_case()
    upstream = np.random.default_rng(3).standard_normal((2, 20, 2, 2, 3)).astype(np.float32)

    def run(maps, boxes, levels):
        results = []
        for function in (
            lambda *given: rp.roi_pool(*given, 2),
            lambda *given: rw.roi_warp(*given, 2, 2, True, "max"),
        ):
            with tf.GradientTape() as tape:
                tape.watch([*maps.values(), boxes])
                pooled = function(maps, boxes, levels)
                loss = tf.reduce_sum(pooled * upstream)
            *gradients, of_boxes = tape.gradient(loss, [*maps.values(), boxes])
            assert of_boxes is None
            results += [pooled, *gradients]
        return results

    maps = {level: tf.constant(f) for level, f in features.items()}
    signature = [
        {level: tf.TensorSpec([None, None, None, 3]) for level in maps},
        tf.TensorSpec([None, None, 4]),
        tf.TensorSpec([None, None], "int32"),
    ]
    function = tf.function(run, jit_compile=jit, input_signature=signature)
    want = run(maps, tf.constant(boxes), tf.constant(levels))
    for got, expected in zip(function(maps, boxes, levels), want, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)
    shape = function.get_concrete_function().structured_outputs[0].shape
    assert shape.as_list() == [None, None, 2, 2, 3]


@EACH
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision(dtype):
    features, boxes, levels = random_case()
    low = {level: tf.cast(f, dtype) for level, f in features.items()}
    rounded = {level: tf.cast(f, tf.float32) for level, f in low.items()}
    with tf.GradientTape() as tape:
        tape.watch(low)
        pooled = rp.roi_pool(low, boxes, levels, 3)
        loss = tf.reduce_sum(tf.cast(pooled, tf.float32))
    assert pooled.dtype == dtype
    np.testing.assert_array_equal(
        tf.cast(pooled, tf.float32), rp.roi_pool(rounded, boxes, levels, 3)
    )
    assert all(g.dtype == dtype for g in tape.gradient(loss, low).values())


def test_a_maximum_of_as_many_samples_as_there_are_pixels_is_refused():
    with pytest.raises(ValueError, match="sampling_ratio must be at least 1, not 0"):
        ra.roi_align({2: tf.zeros([1, 4, 4, 1])}, tf.zeros([1, 1, 4]), None, 7, 0, True, "max")
