"""Only the first frame of a GIF is decoded, and its own size counts, too."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.images import decoding, gif

TEXT = [tf.TensorSpec([], tf.string)]
claimed = tf.function(decoding.claimed_size_hw, input_signature=TEXT)
decode = tf.function(decoding.decode_as_stored, input_signature=TEXT)
alone = tf.function(gif.first_frame_alone, input_signature=TEXT)


def gif_of(*sides, **options):
    """A GIF of square frames of random pixels."""
    rng = np.random.default_rng(0)
    first, *others = (
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).convert("P")
        for side in sides
    )
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=bool(others), append_images=others, **options)
    return buffer.getvalue()


def frame_of(content):
    """Where the first frame's header is, told by its place (0, 0), side and side."""
    side = content[6:8]
    return content.index(b"\x2c" + bytes(4) + side + side)


def with_frame_behind(content, other):
    """The frame of another GIF behind all of one."""
    start = frame_of(other)
    table = other[13 : 13 + 3 * 2 ** (other[10] % 8 + 1)]
    flags = 0x80 | (other[10] % 8)  # its colours go along
    header = other[start : start + 9] + bytes([flags])
    return content[:-1] + header + table + other[start + 10 :]


@pytest.mark.parametrize("options", [{}, {"comment": b"x" * 700}, {"interlace": 1}])
@pytest.mark.parametrize("sides", [(9,), (12, 12, 12), (200,)])
def test_the_first_frame_is_what_it_was(sides, options):
    content = gif_of(*sides, **options)
    expected = tf.io.decode_image(content, channels=3, expand_animations=False)
    np.testing.assert_array_equal(decode(content), expected)
    np.testing.assert_array_equal(claimed(content), [sides[0]] * 2)
    cut = alone(content).numpy()
    assert cut[-1:] == b"\x3b"
    assert len(cut) == len(content) if len(sides) == 1 else len(cut) < len(content)
    with Image.open(io.BytesIO(cut)) as image:
        assert getattr(image, "n_frames", 1) == 1


def test_frames_behind_the_first_are_not_decoded():
    """TensorFlow takes the largest of all frames for the size of each."""
    content = with_frame_behind(gif_of(9), gif_of(300))
    whole = tf.io.decode_image(content, channels=3, expand_animations=False)
    assert whole.shape == (300, 300, 3)
    assert decode(content).shape == (9, 9, 3)
    np.testing.assert_array_equal(decode(content), decode(gif_of(9)))


def test_a_frame_that_is_larger_than_the_whole_counts():
    content = bytearray(gif_of(9))
    place = frame_of(content)
    content[place + 5 : place + 9] = struct.pack("<HH", 50_000, 40_000)
    np.testing.assert_array_equal(claimed(bytes(content)), [40_000, 50_000])


def test_damage_is_no_error_of_the_header():
    content = gif_of(12, 12, comment=b"x" * 300)
    for length in range(0, len(content), 3):
        assert (claimed(content[:length]).numpy() >= 0).all()
        assert alone(content[:length]).numpy() is not None
    for place in range(4, 60):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        assert (claimed(bytes(damaged)).numpy() >= 0).all()


def test_blocks_are_counted(monkeypatch):
    monkeypatch.setattr(gif, "_MOST_BLOCKS", 20)
    content = gif_of(9, comment=b"x" * 255 * 30)
    limited = tf.function(lambda file: gif.first_frame_alone(file), input_signature=TEXT)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a GIF of more than 20 blocks"):
        limited(content)
    np.testing.assert_array_equal(gif.frame_size_hw(tf.constant(content)), [0, 0])
