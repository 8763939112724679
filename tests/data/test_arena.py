"""arena.py: packed bits and subsampled crops against the slow lookup."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import arena, augment, decoder, schema


def test_hand_worked_pack():
    # Objects of 3, 0 and 6 pixels: 101, -, 011101 -> bits 10101110 1(0000000).
    pixels = np.bool_([1, 0, 1, 0, 1, 1, 1, 0, 1])
    bits, offsets, is_packed = arena.pack(pixels, tf.constant([3, 0, 6]), tf.ones([3], tf.bool), 32)
    np.testing.assert_array_equal(bits, [0b10101110, 0b10000000, 0, 0])
    np.testing.assert_array_equal(offsets, [0, 3, 3])
    assert is_packed.numpy().all()


@pytest.mark.parametrize("num_pixels", [0, 1, 7, 8, 9, 1000])
def test_pack_equals_numpy(num_pixels):
    pixels = np.random.default_rng(num_pixels).random(num_pixels) < 0.5
    bits, _, _ = arena.pack(pixels, tf.constant([num_pixels]), tf.constant([True]), 1000)
    expected = np.zeros(125, np.uint8)
    expected[: -(-num_pixels // 8)] = np.packbits(pixels)
    np.testing.assert_array_equal(bits, expected)


def test_objects_that_do_not_fit_or_are_not_wanted_leave_no_bits():
    pixels = tf.constant([True] * 4 + [False] * 5 + [True] * 6 + [True] * 2)
    sizes = tf.constant([4, 5, 6, 2])
    bits, offsets, is_packed = arena.pack(pixels, sizes, tf.constant([True] * 4), 16)
    np.testing.assert_array_equal(is_packed, [True, True, True, False])
    bits, offsets, is_packed = arena.pack(pixels, sizes, tf.constant([True] * 4), 8)
    np.testing.assert_array_equal(is_packed, [True, False, False, False])
    np.testing.assert_array_equal(bits, [0b11110000])
    bits, offsets, is_packed = arena.pack(pixels, sizes, tf.constant([True, False, True, True]), 16)
    np.testing.assert_array_equal(is_packed, [True, False, True, True])
    np.testing.assert_array_equal(bits, [0b11111111, 0b11110000])
    np.testing.assert_array_equal(offsets, [0, 4, 4, 10])


def test_capacity_is_checked():
    with pytest.raises(ValueError, match="multiple of 8"):
        arena.pack(tf.zeros([0], tf.bool), tf.zeros([0], tf.int32), tf.zeros([0], tf.bool), 12)


def test_hand_worked_subsample():
    # A crop of 4 x 4 whose picture was halved: the centres of the 2 x 2 pixels lie on rows 1 and 3.
    crop = np.arange(16).reshape(4, 4) % 3 == 0
    pixels, sizes, frames = arena.subsample(
        tf.constant(crop.ravel()), tf.constant([[4, 4]]), tf.constant([[5.0, 7.0, 7.0, 9.0]])
    )
    np.testing.assert_array_equal(pixels, crop[1::2, 1::2].ravel())
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

    keys = (schema.GT_MASK_PIXELS, schema.GT_MASK_SIZES, schema.GT_MASK_FRAMES)
    small = tf.function(arena.subsample)(*(example[key] for key in keys))
    small = dict(zip(keys, small, strict=True))
    np.testing.assert_array_equal(example_masks(small, *size_hw), expected)
    assert small[schema.GT_MASK_SIZES].numpy().prod(axis=1).max() <= np.prod(size_hw)
    assert expected.any()


def test_no_objects():
    pixels, sizes, frames = arena.subsample(
        tf.zeros([0], tf.bool), tf.zeros([0, 2], tf.int32), tf.zeros([0, 4])
    )
    assert pixels.shape == [0]
    assert sizes.shape == [0, 2]
    assert frames.shape == [0, 4]
