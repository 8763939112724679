"""Adaptive RoIAlign against a slow twin that samples as the kernels do, and by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import adaptive_taps
from mrcnn_tf.ops import roi_align as ra

EACH = pytest.mark.usefixtures("each_implementation")
ALIGNED = pytest.mark.parametrize("aligned", [True, False])


def twin_axis(start, end, size, side, aligned):
    """Sample by sample, as the kernels: float64 [side, size], the weights of one axis' pixels.

    The mean is over samples; an axis without samples has no weights.
    """
    f = np.float32
    shift = f(0.5) if aligned else f(0.0)
    start, end = f(start) - shift, f(end) - shift
    length = end - start if aligned else max(end - start, f(1.0))
    bin_length = length / f(side)
    count = math.ceil(bin_length)
    weights = np.zeros((side, size))
    for b in range(side):
        for i in range(count):
            x = start + f(b) * bin_length + (f(i) + f(0.5)) * bin_length / f(count)
            if x < -1.0 or x > size:
                continue
            x = max(x, f(0.0))
            low = int(x)
            if low >= size - 1:
                weights[b, size - 1] += 1.0 / count
            else:
                weights[b, low] += (1.0 - (x - low)) / count
                weights[b, low + 1] += (x - low) / count
    return weights


def twin(features, boxes, levels, side, aligned, upstream=None):
    """Pooled values and, for an upstream gradient, the gradient of each map; float64."""
    shape = (*boxes.shape[:2], side, side, next(iter(features.values())).shape[-1])
    pooled = np.zeros(shape)
    gradient = {level: np.zeros(f.shape) for level, f in features.items()}
    for b, r in np.ndindex(*boxes.shape[:2]):
        level = int(levels[b, r])
        feature = features[level][b].astype(np.float64)
        y1, x1, y2, x2 = boxes[b, r] / np.float32(2.0**level)
        rows = twin_axis(y1, y2, feature.shape[0], side, aligned)
        cols = twin_axis(x1, x2, feature.shape[1], side, aligned)
        pooled[b, r] = np.einsum("ph,qw,hwc->pqc", rows, cols, feature)
        if upstream is not None:
            gradient[level][b] += np.einsum("ph,qw,pqc->hwc", rows, cols, upstream[b, r])
    return pooled, gradient


# On a canvas of 192 x 256: inside, the borders, partly and fully outside, no height, nothing,
# inverted, thinner than a pixel, larger than the canvas, one pixel, long and thin both ways, and
# lengths that are exact multiples of stride and bins (where a rounded quotient adds a sample).
HOSTILE = np.array(
    [
        [13.0, 25.0, 130.0, 221.0],
        [0.0, 0.0, 192.0, 256.0],
        [160.0, 200.0, 192.0, 256.0],
        [-80.0, -39.0, 40.0, 290.0],
        [400.0, 400.0, 420.0, 430.0],
        [-260.0, -260.0, -30.0, -130.0],
        [10.0, 10.0, 10.0, 130.0],
        [0.0, 0.0, 0.0, 0.0],
        [30.0, 40.0, 20.0, 10.0],
        [7.2, 3.0, 7.3, 250.0],
        [-100.0, -100.0, 300.0, 300.0],
        [11.0, 12.0, 12.0, 13.0],
        [60.0, 1.5, 69.0, 255.0],
        [2.5, 100.0, 190.0, 105.0],
        [8.0, 4.0, 8.0 + 4 * 7 * 3, 4.0 + 4 * 7 * 6],
        [8.0, 4.0, 8.0 + 4 * 7 * 5, 4.0 + 4 * 7 * 1],
    ],
    np.float32,
)


def random_case(channels=3, seed=0):
    """Features of levels 2..4 for two images, hostile and random boxes, levels of any size."""
    rng = np.random.default_rng(seed)
    features = {
        level: rng.standard_normal((2, 192 >> level, 256 >> level, channels)).astype(np.float32)
        for level in (2, 3, 4)
    }
    ends = np.sort(rng.uniform(-20, 250, (2, 12, 2, 2)), axis=2).astype(np.float32)
    boxes = np.concatenate([np.tile(HOSTILE, (2, 1, 1)), ends.reshape(2, 12, 4)], axis=1)
    levels = rng.integers(2, 5, boxes.shape[:2]).astype(np.int32)
    levels[0] = 2  # all of the hostile ones on the finest map
    return features, boxes, levels


@EACH
@ALIGNED
@pytest.mark.parametrize("side", [7, 2, 1])
def test_values_and_gradient_equal_the_twin(side, aligned):
    features, boxes, levels = random_case()
    rng = np.random.default_rng(1)
    upstream = rng.standard_normal((*boxes.shape[:2], side, side, 3)).astype(np.float32)
    maps = {level: tf.constant(f) for level, f in features.items()}
    with tf.GradientTape() as tape:
        tape.watch(maps)
        pooled = ra.roi_align(maps, boxes, levels, side, 0, aligned)
        loss = tf.reduce_sum(pooled * upstream)
    gradient = tape.gradient(loss, maps)
    want, want_gradient = twin(features, boxes, levels, side, aligned, upstream)
    np.testing.assert_allclose(pooled, want, atol=2e-5)
    for level in features:
        np.testing.assert_allclose(gradient[level], want_gradient[level], atol=1e-4)
    assert np.abs(want_gradient[2]).max() > 0.1


@EACH
@ALIGNED
def test_long_and_thin_on_a_fine_level(aligned):
    """1300 x 9 pixels on stride 4: 47 samples per bin along one axis, one along the other."""
    rng = np.random.default_rng(0)
    feature = rng.standard_normal((1, 200, 336, 2)).astype(np.float32)
    boxes = np.float32([[[400.3, 20.2, 409.3, 1320.2], [10.0, 700.0, 790.0, 707.5]]])
    levels = ra.assign_levels(boxes, 2, 5)
    assert levels.numpy().tolist() == [[2, 2]]
    pooled = ra.roi_align({2: feature}, boxes, levels, 7, 0, aligned)
    want, _ = twin({2: feature}, boxes, levels.numpy(), 7, aligned)
    np.testing.assert_allclose(pooled, want, atol=1e-5)
    axis = adaptive_taps.adaptive_axis([5.05], [330.05], [336], 7, aligned)
    assert axis.num_samples.numpy() == 47
    assert axis.num_taps.numpy() == 48
    # Twice as many samples as pixels is another answer: this test would see a cap.
    fixed = ra.roi_align({2: feature}, boxes, levels, 7, 2, aligned)
    assert np.abs(fixed - want).max() > 0.1


@EACH
def test_by_hand():
    feature = tf.reshape(tf.range(1.0, 13.0), [1, 3, 4, 1])  # rows 1..4, 5..8, 9..12

    def pool(box, side, aligned):
        boxes = tf.constant([[box]], tf.float32)
        pooled = ra.roi_align({0: feature}, boxes, None, side, 0, aligned)
        return pooled.numpy()[0, 0, :, :, 0].tolist()

    # One bin, 2 samples along y (0.5 and 1.5) and 3 along x (0.5, 1.5, 2.5), in whole-number
    # centres: the means are 1 and 1.5, so 1 + 4 * 1 + 1.5.
    assert pool([0, 0, 2, 3], 1, False) == [[pytest.approx(6.5)]]
    # Half-pixel centres: samples lie on pixels 0 and 1, and 0, 1, 2.
    assert pool([0, 0, 2, 3], 1, True) == [[pytest.approx(4.0)]]
    # The whole map: the mean of every pixel; in quarters, of 2 x 2 samples each.
    assert pool([0, 0, 3, 4], 1, True) == [[pytest.approx(6.5)]]
    quarters = [[3.0, 5.0], [8.0, 10.0]]  # y samples at -0.125, 0.625 (clamped: 0, 0.625) ...
    quarters = [[4 * y + x + 1 for x in (0.5, 2.5)] for y in ((0.0 + 0.625) / 2, (1.375 + 2.0) / 2)]
    np.testing.assert_allclose(pool([0, 0, 3, 4], 2, True), quarters, rtol=1e-6)
    # No height: no samples when aligned, one pixel otherwise.
    assert pool([1, 1, 1, 3], 1, True) == [[0.0]]
    assert pool([1, 1, 1, 3], 1, False) == [[pytest.approx(1 + 4 * 1.5 + 2)]]


def test_ceil_is_exact_where_the_quotient_is_rounded():
    """Also under XLA, which multiplies by the reciprocal: 42 * (1 / 7) is above 6 in float32."""
    for side in (7, 14, 28):
        length = np.arange(1, 50, dtype=np.float32) * side
        length = np.concatenate([length, np.nextafter(length, np.float32(np.inf))])
        start = np.zeros_like(length)
        count = tf.function(
            lambda a, b, side=side: (
                adaptive_taps.adaptive_axis(a, b, tf.fill([98], 2000), side, False).num_samples
            ),
            jit_compile=True,
        )
        want = np.concatenate([np.arange(1, 50), np.arange(2, 51)])
        np.testing.assert_array_equal(count(start, length), want)
        np.testing.assert_array_equal(np.ceil(length / np.float32(side)), want)  # the kernels'


@pytest.mark.parametrize("size", [1, 5, 60])
@ALIGNED
def test_axis_weights_sum_to_the_part_on_the_map(size, aligned):
    rng = np.random.default_rng(0)
    ends = np.sort(rng.uniform(-30, 90, (200, 2)), axis=1).astype(np.float32)
    axis = adaptive_taps.adaptive_axis(ends[:, 0], ends[:, 1], np.full(200, size), 3, aligned)
    most = int(axis.num_taps.numpy().max())
    tap = np.tile(np.arange(most + 5, dtype=np.int32), (200, 1))
    index, weight = (x.numpy() for x in adaptive_taps.axis_weights(axis, tap, 3))
    assert index.min() >= 0
    assert index.max() < size
    for r in range(200):
        want = twin_axis(*ends[r], size, 3, aligned)
        got = np.zeros_like(want)
        for b in range(3):
            np.add.at(got[b], index[r, b], weight[r, b])
        np.testing.assert_allclose(got, want, atol=1e-5)
        beyond = tap[r] >= axis.num_taps[r].numpy()
        assert np.abs(weight[r][:, beyond]).max() < 1e-5


@EACH
@ALIGNED
def test_not_finite_and_huge_boxes_end_with_finite_values(aligned):
    features, _, _ = random_case()
    bad = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, 0.0, 5.0], np.float32)
    boxes = np.stack(np.meshgrid(bad, bad), -1).reshape(1, -1, 2)
    boxes = np.tile(np.concatenate([boxes, boxes[..., ::-1]], -1), (2, 1, 1))
    levels = ra.assign_levels(boxes, 2, 4)
    pooled = ra.roi_align(features, boxes, levels, 2, 0, aligned).numpy()
    assert np.isfinite(pooled).all()
    assert (pooled[np.isnan(boxes).all(axis=-1)] == 0).all() or not aligned


@EACH
def test_no_rois():
    features, boxes, levels = random_case()
    maps = {level: tf.constant(f) for level, f in features.items()}
    pooled, *gradient = value_and_gradient(maps, tf.constant(boxes[:, :0]), levels[:, :0])
    assert pooled.shape == (2, 0, 3, 3, 3)
    assert all(np.abs(g).max() == 0.0 for g in gradient)


def test_images_and_rois_do_not_mix():
    features, boxes, levels = random_case()
    args = (3, 0, True)
    whole = ra.roi_align(features, boxes, levels, *args).numpy()
    for b in range(2):
        alone = {level: f[b : b + 1] for level, f in features.items()}
        one = ra.roi_align(alone, boxes[b : b + 1], levels[b : b + 1], *args)
        np.testing.assert_allclose(one[0], whole[b], atol=1e-6)
    order = np.random.default_rng(0).permutation(boxes.shape[1])
    shuffled = ra.roi_align(features, boxes[:, order], levels[:, order], *args)
    np.testing.assert_allclose(shuffled, whole[:, order], atol=1e-6)


def test_more_items_than_a_round(monkeypatch):
    features, boxes, levels = random_case()
    want, _ = twin(features, boxes, levels, 3, True)
    monkeypatch.setattr(ra.adaptive_pooling, "_ROUND", 40)
    pooled = ra.roi_align(features, boxes, levels, 3, 0, True)
    np.testing.assert_allclose(pooled, want, atol=2e-5)


def value_and_gradient(maps, boxes, levels):
    with tf.GradientTape() as tape:
        tape.watch([*maps.values(), boxes])
        pooled = ra.roi_align(maps, boxes, levels, 3, 0, True)
        loss = tf.reduce_sum(tf.square(pooled))
    gradients = tape.gradient(loss, [*maps.values(), boxes])
    assert gradients[-1] is None  # boxes are constants to RoIAlign
    return pooled, *gradients[:-1]


@pytest.mark.parametrize("jit", [True, False])
def test_graph_and_xla_with_unknown_sizes_equal_eager(jit):
    features, boxes, levels = random_case()
    maps = {level: tf.constant(f) for level, f in features.items()}
    unknown = {level: tf.TensorSpec([None, None, None, 3]) for level in maps}
    function = tf.function(
        value_and_gradient,
        jit_compile=jit,
        input_signature=[
            unknown,
            tf.TensorSpec([None, None, 4]),
            tf.TensorSpec([None, None], "int32"),
        ],
    )
    eager = value_and_gradient(maps, tf.constant(boxes), tf.constant(levels))
    for got, want in zip(function(maps, boxes, levels), eager, strict=True):
        np.testing.assert_allclose(got, want, atol=5e-5)
    spec = function.get_concrete_function().structured_outputs[0].shape
    assert spec.as_list() == [None, None, 3, 3, 3]


@EACH
def test_half_precision_rounds_features_but_not_coordinates():
    features, boxes, levels = random_case()
    low = {level: tf.cast(f, tf.bfloat16) for level, f in features.items()}
    rounded = {level: tf.cast(f, tf.float32) for level, f in low.items()}
    with tf.GradientTape() as tape:
        tape.watch(low)
        pooled = ra.roi_align(low, boxes, levels, 3, 0, True)
        loss = tf.reduce_sum(tf.cast(pooled, tf.float32))
    want = ra.roi_align(rounded, boxes, levels, 3, 0, True)
    assert pooled.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(pooled, tf.float32), want, rtol=2**-8, atol=1e-6)
    assert all(g.dtype == tf.bfloat16 for g in tape.gradient(loss, low).values())
