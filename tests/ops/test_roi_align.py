"""RoIAlign against a slow twin written from the kernels' definition, and on maps known exactly."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import roi_align as ra

EACH = pytest.mark.usefixtures("each_implementation")


def corners(position, size):
    """Neighbours of a position along one axis and their weights; none if it is off the map."""
    if not -1.0 <= position <= size:
        return []
    position = max(position, 0.0)
    low = int(position)
    if low >= size - 1:
        return [(size - 1, 1.0)]
    return [(low, 1.0 - (position - low)), (low + 1, position - low)]


def twin_weights(map_hw, box, stride, side, ratio, aligned):
    """Weight of every pixel of one map in every cell of one RoI, float64 [P, P, Hl, Wl]."""
    shift = 0.5 if aligned else 0.0
    y1, x1, y2, x2 = (float(v) / stride - shift for v in box)
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = max(height, 1.0), max(width, 1.0)
    weights = np.zeros((side, side, *map_hw))
    for p in range(side):
        for q in range(side):
            for i in range(ratio):
                for j in range(ratio):
                    y = y1 + (p + (i + 0.5) / ratio) * height / side
                    x = x1 + (q + (j + 0.5) / ratio) * width / side
                    for row, row_weight in corners(y, map_hw[0]):
                        for col, col_weight in corners(x, map_hw[1]):
                            weights[p, q, row, col] += row_weight * col_weight / ratio**2
    return weights


def twin(features, boxes, levels, side, ratio, aligned, upstream=None):
    """Pooled values and, for an upstream gradient, the gradient of each map; float64."""
    num_images, num_rois = boxes.shape[:2]
    channels = next(iter(features.values())).shape[-1]
    pooled = np.zeros((num_images, num_rois, side, side, channels))
    gradient = {level: np.zeros(f.shape) for level, f in features.items()}
    for b in range(num_images):
        for r in range(num_rois):
            level = int(levels[b, r])
            feature = features[level][b].astype(np.float64)
            w = twin_weights(feature.shape[:2], boxes[b, r], 2.0**level, side, ratio, aligned)
            pooled[b, r] = np.einsum("pqhw,hwc->pqc", w, feature)
            if upstream is not None:
                gradient[level][b] += np.einsum("pqhw,pqc->hwc", w, upstream[b, r])
    return pooled, gradient


# On a canvas of 48 x 64: inside, at the borders, partly and fully outside, without height, without
# anything, inverted, thinner than a pixel, larger than the canvas, a single network pixel.
HOSTILE = np.array(
    [
        [3.0, 5.0, 30.0, 41.0],
        [0.0, 0.0, 48.0, 64.0],
        [40.0, 50.0, 48.0, 64.0],
        [-20.0, -9.0, 10.0, 70.0],
        [100.0, 100.0, 120.0, 130.0],
        [-60.0, -60.0, -30.0, -30.0],
        [10.0, 10.0, 10.0, 30.0],
        [0.0, 0.0, 0.0, 0.0],
        [30.0, 40.0, 20.0, 10.0],
        [7.2, 3.0, 7.3, 60.0],
        [-500.0, -500.0, 900.0, 900.0],
        [11.0, 12.0, 12.0, 13.0],
    ],
    np.float32,
)


def random_case(channels=3, seed=0):
    """Features of levels 2..4 for two images, the hostile and some random boxes, their levels."""
    rng = np.random.default_rng(seed)
    features = {
        level: rng.standard_normal((2, 48 >> level, 64 >> level, channels)).astype(np.float32)
        for level in (2, 3, 4)
    }
    ends = np.sort(rng.uniform(-8, 60, (2, 8, 2, 2)), axis=2).astype(np.float32)
    boxes = np.concatenate([np.tile(HOSTILE, (2, 1, 1)), ends.reshape(2, 8, 4)], axis=1)
    levels = rng.integers(2, 5, boxes.shape[:2]).astype(np.int32)
    return features, boxes, levels


@EACH
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("side", "ratio"), [(7, 2), (2, 1), (1, 3)])
def test_values_and_gradient_equal_the_twin(side, ratio, aligned):
    features, boxes, levels = random_case()
    rng = np.random.default_rng(1)
    upstream = rng.standard_normal((*boxes.shape[:2], side, side, 3)).astype(np.float32)
    maps = {level: tf.constant(f) for level, f in features.items()}
    with tf.GradientTape() as tape:
        tape.watch(maps)
        pooled = ra.roi_align(maps, boxes, levels, side, ratio, aligned)
        loss = tf.reduce_sum(pooled * upstream)
    gradient = tape.gradient(loss, maps)
    want, want_gradient = twin(features, boxes, levels, side, ratio, aligned, upstream)
    np.testing.assert_allclose(pooled, want, atol=2e-5)
    for level in features:
        np.testing.assert_allclose(gradient[level], want_gradient[level], atol=5e-5)
    assert np.abs(want_gradient[2]).max() > 0.5


@EACH
def test_hand_worked_two_by_two_map():
    feature = tf.reshape(tf.constant([1.0, 2.0, 3.0, 4.0]), [1, 2, 2, 1])
    box = tf.constant([[[0.0, 0.0, 2.0, 2.0]]])

    def pool(side, aligned):
        pooled = ra.roi_align({0: feature}, box, None, side, 1, aligned)
        return pooled.numpy()[0, 0, :, :, 0].tolist()

    assert pool(1, True) == [[2.5]]  # the middle
    assert pool(2, True) == [[1.0, 2.0], [3.0, 4.0]]  # the pixels themselves
    # Centres at whole numbers: samples at 0.5 and 1.5, and 1.5 lies beyond the last centre, 1.
    assert pool(2, False) == [[2.5, 3.0], [3.5, 4.0]]


@EACH
@pytest.mark.parametrize("level", [0, 2, 5])
def test_linear_ramp_is_read_at_the_bin_centres(level):
    stride = 2.0**level
    y = (np.arange(16) + 0.5) * stride  # network-input position of each feature pixel's centre
    x = (np.arange(24) + 0.5) * stride
    ramp = (0.25 * y[:, None] - 0.5 * x[None, :] + 3.0).astype(np.float32)
    box = np.array([1.7, 2.2, 13.4, 20.9], np.float32) * np.float32(stride)
    pooled = ra.roi_align({level: ramp[None, :, :, None]}, box[None, None], None, 7, 2, True)
    centre = (np.arange(7) + 0.5) / 7
    y_centre = box[0] + centre * (box[2] - box[0])
    x_centre = box[1] + centre * (box[3] - box[1])
    want = 0.25 * y_centre[:, None] - 0.5 * x_centre[None, :] + 3.0
    np.testing.assert_allclose(pooled[0, 0, :, :, 0], want, rtol=1e-5, atol=1e-5)


@EACH
def test_borders_repeat_for_one_pixel_and_are_zero_beyond():
    feature = tf.fill([1, 4, 4, 1], 8.0)
    # Samples at y = -1.0, -1.01, 4.0, 4.01 in the convention of whole-number centres, x = 1.
    y = np.array([-1.0, -1.01, 4.0, 4.01], np.float32)
    boxes = np.stack([y - 0.5, np.full(4, 0.5), y + 0.5, np.full(4, 1.5)], -1)[None]
    pooled = ra.roi_align({0: feature}, boxes.astype(np.float32), None, 1, 1, False)
    assert tf.reshape(pooled, [-1]).numpy().tolist() == [8.0, 0.0, 8.0, 0.0]


@EACH
def test_one_pixel_map_and_no_rois():
    feature = tf.constant(5.0, shape=[1, 1, 1, 2])
    pooled = ra.roi_align({5: feature}, HOSTILE[None, :2], None, 2, 2, True)
    np.testing.assert_array_equal(pooled[0, 0], np.full((2, 2, 2), 5.0))
    nothing = ra.roi_align({5: feature}, np.zeros((1, 0, 4), np.float32), None, 2, 2, True)
    assert nothing.shape == (1, 0, 2, 2, 2)


@EACH
@pytest.mark.parametrize("aligned", [True, False])
def test_not_finite_and_huge_boxes_give_finite_values(aligned):
    features, _, _ = random_case()
    bad = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, 0.0, 5.0], np.float32)
    boxes = np.stack(np.meshgrid(bad, bad), -1).reshape(1, -1, 2)
    boxes = np.tile(np.concatenate([boxes, boxes[..., ::-1]], -1), (2, 1, 1))
    levels = ra.assign_levels(boxes, 2, 4)
    assert set(levels.numpy().ravel()) <= {2, 3, 4}
    assert np.isfinite(ra.roi_align(features, boxes, levels, 2, 2, aligned)).all()


def test_images_and_rois_do_not_mix():
    features, boxes, levels = random_case()
    args = (3, 2, True)
    whole = ra.roi_align(features, boxes, levels, *args).numpy()
    for b in range(2):
        alone = {level: f[b : b + 1] for level, f in features.items()}
        one = ra.roi_align(alone, boxes[b : b + 1], levels[b : b + 1], *args)
        np.testing.assert_array_equal(one[0], whole[b])
    order = np.random.default_rng(0).permutation(boxes.shape[1])
    shuffled = ra.roi_align(features, boxes[:, order], levels[:, order], *args)
    np.testing.assert_array_equal(shuffled, whole[:, order])


@EACH
def test_more_cells_than_a_chunk_and_a_rest():
    rng = np.random.default_rng(3)
    feature = rng.standard_normal((1, 20, 20, 2)).astype(np.float32)
    ends = np.sort(rng.uniform(0, 20, (37, 2, 2)), axis=1).astype(np.float32)
    boxes = ends.reshape(1, 37, 4)  # 37 * 49 cells of 16 taps: 7 chunks and a part
    pooled = ra.roi_align({0: feature}, boxes, None, 7, 2, True)
    want, _ = twin({0: feature}, boxes, np.zeros((1, 37)), 7, 2, True)
    np.testing.assert_allclose(pooled, want, atol=1e-5)


def value_and_gradient(maps, boxes, levels):
    with tf.GradientTape() as tape:
        tape.watch([*maps.values(), boxes])
        pooled = ra.roi_align(maps, boxes, levels, 3, 2, True)
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
        np.testing.assert_allclose(got, want, atol=2e-5)
    spec = function.get_concrete_function().structured_outputs[0].shape
    assert spec.as_list() == [None, None, 3, 3, 3]


@EACH
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_rounds_features_but_not_coordinates(dtype):
    features, boxes, levels = random_case()
    boxes = boxes + np.float32(1000 / 3)  # 8 bits of mantissa would be off by pixels here
    features = {level: np.tile(f, (1, 10, 8, 1)) for level, f in features.items()}
    low = {level: tf.cast(f, dtype) for level, f in features.items()}
    rounded = {level: tf.cast(f, tf.float32) for level, f in low.items()}
    pooled = ra.roi_align(low, boxes, levels, 3, 2, True)
    want = ra.roi_align(rounded, boxes, levels, 3, 2, True)
    assert pooled.dtype == dtype
    np.testing.assert_allclose(tf.cast(pooled, tf.float32), want, rtol=2**-8, atol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(low)
        loss = tf.reduce_sum(ra.roi_align(low, boxes, levels, 3, 2, True))
    gradient = tape.gradient(loss, low)
    assert all(g.dtype == dtype for g in gradient.values())


def test_levels_by_hand():
    sides = np.array([0.0, 1.0, 111.9, 112.1, 223.9, 224.0, 447.9, 448.0, 2000.0], np.float32)
    boxes = np.stack([sides * 0 + 5, sides * 0 + 7, sides + 5, sides + 7], -1)[None]
    assert ra.assign_levels(boxes, 2, 5).numpy().tolist() == [[2, 2, 2, 3, 3, 4, 4, 5, 5]]
    assert ra.assign_levels(boxes, 2, 5, 4, 448.0).numpy().tolist() == [[2, 2, 2, 2, 2, 3, 3, 4, 5]]
    # By area, not by the longer side; empty and inverted boxes go to the finest level.
    odd = tf.constant([[[0.0, 0, 56, 896], [0, 0, 0, 900], [9, 9, 0, 0], [np.nan, 0, 9, 9]]])
    for epsilon in (1e-8, 0.0):
        assert ra.assign_levels(odd, 2, 5, epsilon=epsilon).numpy().tolist() == [[4, 2, 2, 2]]


def test_epsilons_decide_boxes_just_below_a_boundary():
    side = np.nextafter(np.float32(224), np.float32(0))
    box = np.array([[[0, 0, side, side]]], np.float32)
    assert math.log2(side / 224) < 0
    assert ra.assign_levels(box, 2, 5, epsilon=0.0, level_epsilon=1e-6).numpy() == 4  # torchvision
    assert ra.assign_levels(box * 0.9999, 2, 5, epsilon=0.0, level_epsilon=1e-6).numpy() == 3


def test_wrong_arguments_are_refused():
    feature = tf.zeros([1, 4, 4, 1])
    box = tf.zeros([1, 1, 4])
    with pytest.raises(ValueError, match=r"levels is None.*\[2, 3\]"):
        ra.roi_align({2: feature, 3: feature}, box, None, 7, 2, True)
    with pytest.raises(ValueError, match=r"consecutive, not \[2, 4\]"):
        ra.roi_align({2: feature, 4: feature}, box, tf.constant([[2]]), 7, 2, True)
    with pytest.raises(ValueError, match="sampling_ratio must be at least 1, not -1"):
        ra.roi_align({2: feature}, box, None, 7, -1, True)
