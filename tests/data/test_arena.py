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
    # A crop of 4 x 4 whose picture was halved: the centres of the 2 x 2 pixels lie on rows 1 and 3.
    crop = np.arange(16).reshape(4, 4) % 3 == 0
    bits, sizes, frames = arena.subsample(
        arena.pack(tf.constant(crop.ravel())),
        tf.constant([[4, 4]]),
        tf.constant([[5.0, 7.0, 7.0, 9.0]]),
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
    small = tf.function(arena.subsample)(*(example[key] for key in keys))
    small = dict(zip(keys, small, strict=True))
    np.testing.assert_array_equal(example_masks(small, *size_hw), expected)
    assert small[schema.GT_MASK_SIZES].numpy().prod(axis=1).max() <= np.prod(size_hw)
    assert expected.any()


def test_no_objects():
    bits, sizes, frames = arena.subsample(
        tf.zeros([0], tf.uint8), tf.zeros([0, 2], tf.int32), tf.zeros([0, 4])
    )
    assert bits.shape == [0]
    assert sizes.shape == [0, 2]
    assert frames.shape == [0, 4]
