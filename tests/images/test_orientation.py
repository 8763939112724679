"""The EXIF orientation against Pillow, in every kind of file, byte order and state of repair."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from mrcnn_tf.images import orientation

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"

read = tf.function(orientation.read, input_signature=[tf.TensorSpec([], tf.string)])


def exif(tag, endian="<", kind=3, num_values=1, before=(), offset=8):
    """Return EXIF data whose first directory holds (tag number, value) `before` the orientation."""
    entries = [struct.pack(endian + "HHIHH", number, 3, 1, value, 0) for number, value in before]
    value = struct.pack(endian + "I", tag) if kind == 4 else struct.pack(endian + "HH", tag, 0)
    entries.append(struct.pack(endian + "HHI", 0x0112, kind, num_values) + value)
    header = (b"II" if endian == "<" else b"MM") + struct.pack(endian + "HI", 42, offset)
    padding = b"\0" * (offset - 8)
    count = struct.pack(endian + "H", len(entries))
    return header + padding + count + b"".join(entries) + b"\0\0\0\0"


def encode(file_format, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, file_format, **options)
    return buffer.getvalue()


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(*segments):
    """Return a JPEG with these segments behind its first marker."""
    plain = encode("JPEG")
    assert plain.startswith(b"\xff\xd8" + JFIF[:4])
    return plain[:2] + b"".join(segments) + plain[2 + len(JFIF) :]


def app1(data):
    return segment(0xE1, b"Exif\0\0" + data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_agrees_with_pillow(file_format, endian, tag):
    encoded = encode(file_format, exif=b"Exif\0\0" + exif(tag, endian, before=[(0x0100, 7)]))
    assert int(read(encoded)) == tag
    lossless = encode("PNG", exif=b"Exif\0\0" + exif(tag, endian))
    with Image.open(io.BytesIO(lossless)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    turned = orientation.turn(tf.constant(PIXELS), tf.constant(tag))
    np.testing.assert_array_equal(turned, expected)
    size = orientation.turn_size_hw(tf.constant([5, 7]), tf.constant(tag))
    np.testing.assert_array_equal(size, expected.shape[:2])
    back = orientation.turn(turned, tf.constant(orientation.INVERSE[tag]))
    np.testing.assert_array_equal(back, PIXELS)


def test_by_hand():
    """6: the stored left column is shown as the top row, its lower end on the left."""
    stored = tf.constant([[[1], [2]], [[3], [4]], [[5], [6]]])
    shown = orientation.turn(stored, tf.constant(6))[..., 0]
    np.testing.assert_array_equal(shown, [[5, 3, 1], [6, 4, 2]])


@pytest.mark.parametrize("endian", ["<", ">"])
def test_wherever_it_stands(endian):
    block = exif(6, endian, before=[(0x0100, 640), (0x010F, 3)])
    icc = segment(0xE2, b"ICC_PROFILE\0" + b"\xff\xe1" * 30000)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    comment = segment(0xFE, b"Exif\0\0" + exif(3, endian))  # not where EXIF data stand
    for name, encoded in {
        "first": jpeg(app1(block)),
        "behind JFIF": jpeg(JFIF, app1(block)),
        "behind a profile": jpeg(JFIF, icc, icc, app1(block)),
        "behind XMP and a comment": jpeg(comment, xmp, app1(block)),
        "the first of two": jpeg(app1(block), app1(exif(8, endian))),
        "fill bytes": jpeg(JFIF, b"\xff\xff\xff" + app1(block)),
        "directory further back": jpeg(app1(exif(6, endian, offset=3000))),
        "as a long": jpeg(app1(exif(6, endian, kind=4))),
    }.items():
        assert int(read(encoded)) == 6, name
    assert int(read(jpeg(JFIF, xmp, comment))) == 1


def test_png_chunk_behind_the_pixels():
    name, data = b"eXIf", exif(8, ">")
    whole = encode("PNG")
    chunk = struct.pack(">I", len(data)) + name + data + b"\0\0\0\0"
    assert int(read(whole[:-12] + chunk + whole[-12:])) == 8
    assert int(read(whole)) == 1


@pytest.mark.parametrize("endian", ["<", ">"])
def test_what_is_odd_means_as_stored(endian):
    good = exif(6, endian)
    whole = jpeg(app1(good))
    for name, encoded in {
        "0": jpeg(app1(exif(0, endian))),
        "9": jpeg(app1(exif(9, endian))),
        "a long beyond 16 bits": jpeg(app1(exif(65542, endian, kind=4))),
        "a text": jpeg(app1(exif(6, endian, kind=2))),
        "two values": jpeg(app1(exif(6, endian, num_values=2))),
        "no byte order": jpeg(app1(b"XX" + good[2:])),
        "not 42": jpeg(app1(good[:2] + b"\x07\x07" + good[4:])),
        "offset behind the end": jpeg(app1(good[:4] + b"\x7f\xff\xff\x7f" + good[8:])),
        "offset of -1": jpeg(app1(good[:4] + b"\xff\xff\xff\xff" + good[8:])),
        "cut in the directory": jpeg(app1(good[:15])),
        "nothing behind Exif": jpeg(app1(b"")),
        "segment of length 0": b"\xff\xd8\xff\xe1\0\0Exif\0\0" + good,
        "segment longer than the file": b"\xff\xd8\xff\xe0\xff\xff" + whole[2:],
        "two bytes": b"\xff\xd8",
        "fillers only": b"\xff\xd8" + b"\xff" * 500,
        "no image": b"no image",
        "nothing": b"",
        "PNG signature": b"\x89PNG\r\n\x1a\n",
        "PNG chunk longer than the file": b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffeXIf",
        "WebP without chunks": b"RIFF\0\0\0\0WEBP",
    }.items():
        assert int(read(encoded)) == 1, name


def test_more_entries_announced_than_there_are():
    block = exif(6, "<")
    assert int(read(jpeg(app1(block[:8] + b"\xff\xff" + block[10:])))) == 6


def test_any_bytes_are_taken():
    """Files with changed, cut and repeated parts: always an answer from 1 to 8."""
    random = np.random.default_rng(1)
    blocks = [b"Exif\0\0" + exif(6, endian) for endian in "<>"]
    files = [encode(f, exif=b) for f in ("JPEG", "PNG", "WEBP") for b in blocks]
    for k in range(600):
        file = bytearray(files[k % len(files)])
        for _ in range(random.integers(1, 6)):
            file[random.integers(0, min(len(file), 120))] = random.integers(0, 256)
        cut = random.integers(0, len(file) + 1) if k % 2 else len(file)
        assert 1 <= int(read(bytes(file[:cut]))) <= 8
