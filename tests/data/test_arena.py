"""arena.py: packed bits and subsampled crops against the slow lookup."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import arena, augment, decoder, schema


def _arena(sizes, is_wanted, capacity):
    """Fit objects that are all ones: object k has sizes[k] of them."""
    bits = arena.pack(tf.ones([sum(sizes)], tf.bool))
    return arena.fit(bits, tf.constant(sizes), tf.constant(is_wanted), capacity)


@pytest.mark.parametrize("num_pixels", [0, 1, 7, 8, 9, 1000])
def test_pack_equals_numpy(num_pixels):
    pixels = np.random.default_rng(num_pixels).random(num_pixels) < 0.5
    bits = arena.pack(tf.constant(pixels))
    np.testing.assert_array_equal(bits, np.packbits(pixels))
    np.testing.assert_array_equal(arena.unpack(bits, tf.range(num_pixels)), pixels)


def test_hand_worked_runs():
    # 101, nothing, 011101 -> 10101110 1(0000000).
    runs = [0, 1, 1, 1] + [] + [1, 3, 1, 1]
    bits = arena.pack_runs(tf.constant(runs), tf.constant([4, 0, 4]))
    np.testing.assert_array_equal(bits, [0b10101110, 0b10000000])


@pytest.mark.parametrize("seed", range(8))
def test_packed_runs_equal_numpy(seed):
    rng = np.random.default_rng(seed)
    num_runs = rng.integers(0, 9, seed)
    longest = [2, 3, 9, 40][seed % 4]
    runs = [rng.integers(0, longest, count) for count in num_runs]
    pixels = [np.repeat(np.arange(len(r)) % 2 == 1, r) for r in runs]
    flat = np.concatenate([*runs, []]).astype(np.int64)
    bits = tf.function(arena.pack_runs)(tf.constant(flat), tf.constant(num_runs, tf.int64))
    np.testing.assert_array_equal(bits, np.packbits(np.concatenate([*pixels, []]).astype(bool)))


def test_everything_fits():
    bits, offsets, is_packed = _arena([4, 0, 5], [True, True, True], 24)
    np.testing.assert_array_equal(bits, [0b11111111, 0b10000000, 0])
    np.testing.assert_array_equal(offsets, [0, 4, 4])
    np.testing.assert_array_equal(is_packed, [True, True, True])
    # What is not wanted may stay, if there is room; nothing points to it.
    _, offsets, is_packed = _arena([4, 2, 5], [True, False, True], 24)
    np.testing.assert_array_equal(offsets, [0, 0, 6])
    np.testing.assert_array_equal(is_packed, [True, False, True])


def test_unwanted_objects_make_room_and_the_rest_stays_out():
    pixels = np.repeat([True, False, True, True], [4, 5, 6, 2])
    bits, sizes = arena.pack(tf.constant(pixels)), tf.constant([4, 5, 6, 2])

    def fit(is_wanted, capacity):
        return arena.fit(bits, sizes, tf.constant(is_wanted), capacity)

    packed, offsets, is_packed = fit([True] * 4, 16)
    np.testing.assert_array_equal(is_packed, [True, True, True, False])
    np.testing.assert_array_equal(packed, [0b11110000, 0b01111110])
    np.testing.assert_array_equal(offsets, [0, 4, 9, 0])
    packed, _, is_packed = fit([True] * 4, 8)
    np.testing.assert_array_equal(is_packed, [True, False, False, False])
    np.testing.assert_array_equal(packed, [0b11110000])
    packed, offsets, is_packed = fit([True, False, True, True], 16)
    np.testing.assert_array_equal(is_packed, [True, False, True, True])
    np.testing.assert_array_equal(packed, [0b11111111, 0b11110000])
    np.testing.assert_array_equal(offsets, [0, 0, 4, 10])


def test_capacity_is_checked():
    with pytest.raises(ValueError, match="multiple of 8"):
        _arena([1], [True], 12)


def test_hand_worked_subsample():
    # A crop of 4 x 4 whose image was halved: the centres of the 2 x 2 pixels lie on rows 1 and 3.
    crop = np.arange(16).reshape(4, 4) % 3 == 0
    bits, sizes, frames = arena.subsample(
        arena.pack(tf.constant(crop.ravel())),
        tf.constant([[4, 4]]),
        tf.constant([[5.0, 7.0, 7.0, 9.0]]),
        tf.constant([9, 9]),
    )
    np.testing.assert_array_equal(bits, np.packbits(crop[1::2, 1::2]))
    np.testing.assert_array_equal(sizes, [[2, 2]])
    np.testing.assert_array_equal(frames, [[5, 7, 7, 9]])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size_hw", [(20, 29), (21, 30), (7, 11), (1, 1), (13, 3)])
def test_subsampled_crops_equal_the_lookup(make_scene, serialize, example_masks, flip, size_hw):
    scene = make_scene(size_hw[0], 22, 31, 6)
    scene.masks[2] = False
    example = decoder.decode(serialize(scene), label_ids=(1, 7, 90), include_masks=True)
    example = augment.flip_left_right(example, tf.constant(flip))
    scale = np.tile(np.float32(size_hw) / np.float32([22, 31]), 2)
    example[schema.GT_MASK_FRAMES] *= scale
    expected = example_masks(example, *size_hw)

    keys = (schema.GT_MASK_BITS, schema.GT_MASK_SIZES, schema.GT_MASK_FRAMES)
    small = tf.function(arena.subsample)(*(example[key] for key in keys), tf.constant(size_hw))
    small = dict(zip(keys, small, strict=True))
    np.testing.assert_array_equal(example_masks(small, *size_hw), expected)
    assert small[schema.GT_MASK_SIZES].numpy().prod(axis=1).max() <= np.prod(size_hw)
    assert expected.any()


@pytest.mark.parametrize("flip", [False, True])
def test_what_lies_outside_is_left_out(make_scene, serialize, example_masks, flip):
    example = decoder.decode(
        serialize(make_scene(1, 22, 31, 8)), label_ids=(1, 7, 90), include_masks=True
    )
    example = augment.flip_left_right(example, tf.constant(flip))
    example[schema.GT_MASK_FRAMES] = example[schema.GT_MASK_FRAMES] * 0.7 - [4.1, 7.3, 4.1, 7.3]
    expected = example_masks(example, 8, 9)
    keys = (schema.GT_MASK_BITS, schema.GT_MASK_SIZES, schema.GT_MASK_FRAMES)
    small = tf.function(arena.subsample)(*(example[key] for key in keys), tf.constant([8, 9]))
    small = dict(zip(keys, small, strict=True))
    np.testing.assert_array_equal(example_masks(small, 8, 9), expected)
    assert expected.any()
    frames = small[schema.GT_MASK_FRAMES].numpy()[small[schema.GT_MASK_SIZES].numpy().all(axis=1)]
    assert frames.min() == 0
    assert (frames[:, 2:].max(axis=0) == [8, 9]).all()


def test_no_objects():
    bits, sizes, frames = arena.subsample(
        tf.zeros([0], tf.uint8), tf.zeros([0, 2], tf.int32), tf.zeros([0, 4]), tf.constant([3, 4])
    )
    assert bits.shape == [0]
    assert sizes.shape == [0, 2]
    assert frames.shape == [0, 4]


@pytest.mark.parametrize("seed", range(4))
def test_keep_closes_up(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 20, 2 * seed).astype(np.int32)
    pixels = [rng.random(size) < 0.5 for size in sizes]
    flat = np.concatenate([*pixels, np.zeros(0)]).astype(bool)
    for is_kept in (rng.random(2 * seed) < 0.5, np.ones(2 * seed, bool), np.zeros(2 * seed, bool)):
        kept = [p for p, k in zip(pixels, is_kept, strict=True) if k]
        bits = tf.function(arena.keep)(np.packbits(flat), sizes, is_kept)
        expected = np.packbits(np.concatenate([*kept, np.zeros(0)]).astype(bool))
        np.testing.assert_array_equal(bits, expected)


def _visible_box(mask, y1, x1, height, width):
    """Slow twin: paint the mask with its corner at (y1, x1) and look where it is."""
    canvas = np.zeros([height, width], bool)
    for y, x in np.argwhere(mask):
        if 0 <= y + y1 < height and 0 <= x + x1 < width:
            canvas[y + y1, x + x1] = True
    if not canvas.any():
        return [0, 0, 0, 0]
    ys, xs = np.nonzero(canvas)
    return [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]


def test_visible_boxes_equal_the_painted_ones():
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 6, [300, 2]).astype(np.int32)
    masks = [rng.random(size) < 0.3 for size in sizes]
    corners = rng.integers(-6, 9, [300, 2])
    expected = [
        _visible_box(mask, *corner, 7, 8) for mask, corner in zip(masks, corners, strict=True)
    ]
    assert 50 < np.any(expected, axis=1).sum() < 250
    frames = np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)
    flip_y, flip_x = rng.random([2, 300]) < 0.5
    frames[flip_y] = frames[flip_y][:, [2, 1, 0, 3]]
    frames[flip_x] = frames[flip_x][:, [0, 3, 2, 1]]
    stored = [
        mask[:: -1 if y else 1, :: -1 if x else 1].ravel()
        for mask, y, x in zip(masks, flip_y, flip_x, strict=True)
    ]
    bits = np.packbits(np.concatenate(stored))
    for call in (arena.visible_boxes, tf.function(arena.visible_boxes)):
        boxes = call(bits, sizes, frames, tf.constant([7, 8]))
        np.testing.assert_array_equal(boxes, expected)


def test_visible_box_of_scaled_pixels():
    """2 x 2 pixels, the first one empty, each 3 x 4 pixels large: those of the image count."""
    bits, sizes = tf.constant([0b01110000], tf.uint8), tf.constant([[2, 2]])
    frames = tf.constant([[-2.0, -0.75, 4.0, 7.25]])
    box = arena.visible_boxes(bits, sizes, frames, tf.constant([3, 5]))
    np.testing.assert_array_equal(box, [[0, 0, 3, 5]])
    box = arena.visible_boxes(bits, sizes, frames, tf.constant([1, 5]))
    np.testing.assert_array_equal(box, [[0, 3, 1, 5]])
    box = arena.visible_boxes(bits, sizes, frames, tf.constant([1, 3]))
    np.testing.assert_array_equal(box, [[0, 0, 0, 0]])
    empty = arena.visible_boxes(
        tf.zeros([0], tf.uint8), tf.zeros([0, 2], tf.int32), tf.zeros([0, 4]), tf.constant([1, 3])
    )
    assert empty.shape == (0, 4)


@pytest.mark.parametrize("num_pixels", [0, 1, 7, 8, 13, 16])
@pytest.mark.parametrize("num_more", [0, 1, 3, 8, 11])
def test_appending_equals_packing_both(num_pixels, num_more):
    rng = np.random.default_rng(num_pixels)
    first, second = rng.random(num_pixels) < 0.5, rng.random(num_more) < 0.5
    got = arena.append(
        tf.constant(np.packbits(first)), num_pixels, tf.constant(np.packbits(second)), num_more
    )
    np.testing.assert_array_equal(got, np.packbits(np.concatenate([first, second])))
