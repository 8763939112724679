"""What files claim to be large, without decoding them."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.images import decoding

claimed = tf.function(decoding.claimed_size_hw, input_signature=[tf.TensorSpec([], tf.string)])


def encode(height, width, kind, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    mode = options.pop("mode", "RGB")
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "jpeg progressive": ("JPEG", {"progressive": True, "comment": b"x" * 60_000}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "webp extended": ("WEBP", {"mode": "RGBA"}),
}


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (300, 700)])
@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_of_files_as_they_are(file, size):
    kind, options = file
    np.testing.assert_array_equal(claimed(encode(*size, kind, **options)), size)


def test_webp_with_exif_is_extended():
    exif = Image.Exif()
    exif[0x0112] = 1
    file = encode(301, 77, "WEBP", exif=exif)
    assert file[12:16] == b"VP8X"
    np.testing.assert_array_equal(claimed(file), [301, 77])


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    length, checksum = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + length + chunk + checksum


def test_of_headers_that_lie():
    np.testing.assert_array_equal(claimed(png_header(50_000, 40_000)), [40_000, 50_000])
    for kind, place in (("BMP", 18), ("GIF", 6)):
        file = bytearray(encode(3, 4, kind))
        if kind == "BMP":
            file[place : place + 8] = struct.pack("<ii", 50_000, -40_000)
        else:
            file[place : place + 4] = struct.pack("<HH", 50_000, 40_000)
        np.testing.assert_array_equal(claimed(bytes(file)), [40_000, 50_000], kind)


def test_of_a_jpeg():
    file = bytearray(encode(8, 8, "JPEG"))
    frame = file.index(b"\xff\xc0")
    file[frame + 5 : frame + 9] = struct.pack(">HH", 40_000, 50_000)
    np.testing.assert_array_equal(claimed(bytes(file)), [40_000, 50_000])
    for length in (3, 50, frame + 4):
        with pytest.raises(tf.errors.InvalidArgumentError):
            claimed(bytes(file[:length]))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP"])
def test_cut_anywhere(kind):
    """Never an error, and never an allocation: this function only reads."""
    file = encode(9, 11, kind)
    for length in range(40):
        size = claimed(file[:length]).numpy()
        assert (size >= 0).all(), length


def test_no_image():
    for content in (b"", b"B", b"text", b"RIFF....WAVE", b"\0" * 100):
        np.testing.assert_array_equal(claimed(content), [0, 0], str(content))
