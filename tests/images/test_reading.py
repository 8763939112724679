"""Image files of every kind: upright pixels, and bytes that TensorFlow decodes to the same."""

import io
import os
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, features

from mrcnn_tf.images import decoding, kinds, reading
from mrcnn_tf.images.reading import UnusableImageError


def smooth(height=24, width=40):
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 6 * y, 255 - 4 * x], axis=-1).astype(np.uint8)


def save(path, pixels, image_format, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, image_format, **options)
    return path


def read(path):
    """Read, and check that the bytes for the network decode to the pixels."""
    image = reading.read(path)
    assert image.pixels.dtype == np.uint8
    decoded = decoding.decode_as_stored(tf.constant(image.encoded))
    np.testing.assert_array_equal(decoded, image.pixels)
    return image


def with_orientation(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


LOSSY = {"JPEG": 12, "AVIF": 12, "JPEG2000": 0, "WEBP": 0, "TIFF": 0, "PNG": 0, "BMP": 0, "GIF": 60}


@pytest.mark.parametrize("image_format", LOSSY)
def test_kinds(tmp_path, image_format):
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    options = {"lossless": True} if image_format == "WEBP" else {}
    image = read(save(tmp_path / "whatever", smooth(), image_format, **options))
    assert np.abs(image.pixels.astype(int) - smooth()).max() <= LOSSY[image_format]
    assert not image.turned
    if image_format in ("JPEG", "PNG"):
        assert image.encoded == (tmp_path / "whatever").read_bytes()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_turned_as_pillow_turns(tmp_path, image_format, tag):
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    options = {"lossless": True} if image_format == "WEBP" else {}
    path = save(tmp_path / "a", smooth(), image_format, exif=with_orientation(tag), **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = read(path)
    assert found.turned == (tag != 1)
    np.testing.assert_array_equal(found.pixels, expected)
    header, stored = reading.decode(path.read_bytes())
    assert header.orientation == tag
    assert header.stored_hw == stored.shape[:2] == (24, 40)
    assert header.shown_hw == expected.shape[:2]


RAMP = np.linspace(0, 1, 24 * 40).reshape(24, 40)  # up to the brightest value


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("16 bits.png", (RAMP * 65535).astype(np.uint16), 1 / 256),
        ("16 bits.tif", (RAMP * 65535).astype(np.uint16), 1 / 256),
        ("half bright.png", (RAMP * 32768).astype(np.uint16), 1 / 256),
        ("8 of 32 bits.tif", (RAMP * 255).astype(np.int32), 1),
        ("16 of 32 bits.tif", (RAMP * 65535).astype(np.int32), 1 / 256),
        ("float01.tif", RAMP.astype(np.float32), 255),
        ("float255.tif", (RAMP * 255).astype(np.float32), 1),
        ("16 bits.pgm", (RAMP * 65535).astype(np.uint16), 1 / 256),
    ],
)
def test_deep_images_by_the_stated_rule(tmp_path, name, values, scale):
    Image.fromarray(values).save(tmp_path / name)
    pixels = read(tmp_path / name).pixels
    expected = np.asarray(values, np.float64) * scale
    expected = np.round(expected) if values.dtype == np.float32 else np.floor(expected)
    np.testing.assert_array_equal(pixels[..., 1], expected)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def rgb_png_16(values):
    """Return a PNG of three times 16 bits, which Pillow reads but does not write."""
    return tf.io.encode_png(np.repeat(values[..., None], 3, axis=2).astype(np.uint16)).numpy()


def test_sixteen_bits_in_colour(tmp_path):
    values = (RAMP * 65535).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(rgb_png_16(values))
    np.testing.assert_array_equal(read(tmp_path / "a.png").pixels[..., 1], values >> 8)


DARK = {
    "12 bits.png": (RAMP * 4095).astype(np.uint16),
    "10 bits.tif": (RAMP * 1023).astype(np.uint16),
    "14 bits.tif": (RAMP * 16383).astype(np.uint16),
    "8 of 16 bits.png": (RAMP * 255).astype(np.uint16),
    "12 of 32 bits.tif": (RAMP * 4095).astype(np.int32),
    "over one.tif": (RAMP * 1.2).astype(np.float32),
    "black.tif": np.zeros([3, 3], np.float32),
}


@pytest.mark.parametrize("name", DARK)
def test_nothing_is_black_in_silence(tmp_path, name):
    Image.fromarray(DARK[name]).save(tmp_path / name)
    with pytest.raises(UnusableImageError, match="too dark in 8 bits to be meant so"):
        reading.read(tmp_path / name)


def test_twelve_bits_in_colour(tmp_path):
    encoded = rgb_png_16(RAMP * 4095)
    (tmp_path / "a.png").write_bytes(encoded)
    with pytest.raises(UnusableImageError, match="brightest is 15 of 255 is too dark"):
        reading.read(tmp_path / "a.png")
    with pytest.raises(tf.errors.InvalidArgumentError, match="PNG of 16 bits is too dark"):
        tf.function(decoding.decode_as_stored)(tf.constant(encoded))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.float32([[0.5, np.nan]]), "floating-point values from nan to nan"),
        (np.float32([[-1.0, 200.0]]), "floating-point values from -1 to 200; expected 0..1 or"),
        (np.float32([[0.0, 70000.0]]), "from 0 to 70000"),
        (np.int32([[-5, 200]]), "integers from -5 to 200; expected 0..255 or 0..65535"),
        (np.int32([[0, 70000]]), "integers from 0 to 70000"),
    ],
)
def test_values_outside_of_every_range(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UnusableImageError, match=message):
        reading.read(tmp_path / "a.tif")


def test_twelve_bits_that_the_file_declares(tmp_path):
    """A TIFF with BitsPerSample 12, two values in three bytes, made by hand."""
    values = np.uint16([[0, 4095], [2048, 16]])
    rows = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.astype(int).tolist()
    )
    fields = [(256, 2), (257, 2), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2)]
    fields.append((279, len(rows)))
    directory = len(fields).to_bytes(2, "little")
    for tag, value in fields:
        directory += b"".join(
            v.to_bytes(n, "little") for v, n in ((tag, 2), (4, 2), (1, 4), (value, 4))
        )
    start = (8 + len(rows)).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(b"II*\0" + start + rows + directory + bytes(4))
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels[..., 0], [[0, 255], [128, 1]])


UNUSABLE = {
    "text": (b"hello", "not an image, or of an unknown kind"),
    "empty": (b"", "the file is empty"),
    "jpeg": (b"\xff\xd8\xff nothing behind it", "begins as a JPEG image does, but is broken"),
    "jxl": (b"\xff\x0a" + bytes(20), "JPEG XL image"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC image"),
    "cr3": (
        b"\0\0\0\x18ftypcrx \0",
        "a camera's raw image, for which no decoder .*: develop it first",
    ),
    "exr": (b"v/1\x01" + bytes(30), "a high dynamic range image, for .*: save it with 8 bits"),
    "dicom": (bytes(128) + b"DICM", "a DICOM image, for .*: save it as PNG"),
    "psd": (b"8BPS" + bytes(30), "begins as a Photoshop image does, but is broken"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_no_image_is_named(tmp_path, name):
    content, message = UNUSABLE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableImageError, match=message):
        reading.read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "decoder", "module", "package"),
    [
        ("heic", "HEIF", "pillow_heif", "pillow-heif"),
        ("jxl", "JXL", "pillow_jxl", "pillow-jxl-plugin"),
    ],
)
def test_what_would_read_it_is_named(tmp_path, monkeypatch, name, decoder, module, package):
    """As it is where the extra is not installed; where it is, its decoder is asked for."""
    (tmp_path / name).write_bytes(UNUSABLE[name][0])
    monkeypatch.delitem(Image.OPEN, decoder, raising=False)
    monkeypatch.setattr(Image, "ID", [one for one in Image.ID if one != decoder])
    advice = rf"no decoder is installed: pip install 'mrcnn-tf\[images\]', or {package} alone"
    with pytest.raises(UnusableImageError, match=advice):
        reading.read(tmp_path / name)
    called = []
    plugin = types.SimpleNamespace(register_heif_opener=lambda: called.append(module))
    monkeypatch.setitem(sys.modules, module, plugin)
    kinds.register_decoders()
    assert called == (["pillow_heif"] if module == "pillow_heif" else [])


@pytest.mark.parametrize(
    ("module", "image_format"), [("pillow_heif", "HEIF"), ("pillow_jxl", "JXL")]
)
def test_what_the_extra_reads(tmp_path, module, image_format):
    pytest.importorskip(module, reason="the extra images is not installed")
    pixels = smooth()
    found = read(save(tmp_path / "a", pixels, image_format))
    assert found.pixels.shape == pixels.shape
    assert np.abs(found.pixels.astype(int) - pixels).max() < 40
    assert np.abs(found.pixels.astype(int) - pixels).mean() < 6


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"%PDF-1.7", "a PDF: save its pages as PNG"),
        (b"\0\0\0\x20ftypisom", "a film"),
        (b"\0\0\0\x14ftypqt  ", "a film"),
        (b"RIFF\1\2\3\4AVI LIST", "a film"),
        (b"\x1aE\xdf\xa3", "a film"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg width="1">', "an SVG: save it as PNG"),
        (b"PK\3\4", "an archive: unpack it first"),
        (b"some text", ""),
        (b"", ""),
    ],
)
def test_what_lies_between_images(head, what):
    assert not kinds.is_image(head)
    assert kinds.what_else(head) == what


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_cut_files(tmp_path, image_format, part):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    path = save(tmp_path / "a", noise, image_format)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(UnusableImageError, match="."):
        reading.read(path)


def test_files_that_cannot_be_read(tmp_path):
    for path, message in (
        (tmp_path / "absent.png", "cannot be read: No such file"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        (tmp_path, "cannot be read: not a file"),
        ("ram://absent/a.png", "cannot be read: NotFoundError"),
    ):
        with pytest.raises(UnusableImageError, match=message):
            reading.read(path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnusableImageError, match="not a file"):
        reading.read(tmp_path / "pipe.png")


def test_a_thumbnail_is_not_taken_for_the_photo(tmp_path):
    save(tmp_path / "a.nef", smooth(), "TIFF", tiffinfo={254: 1})
    with pytest.raises(UnusableImageError, match="begins with a thumbnail"):
        reading.read(tmp_path / "a.nef")


def test_another_file_system():
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "PNG")
    with tf.io.gfile.GFile("ram://test_reading.png", "wb") as file:
        file.write(buffer.getvalue())
    np.testing.assert_array_equal(read("ram://test_reading.png").pixels, smooth())
