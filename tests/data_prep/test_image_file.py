"""Images of every kind become files that TensorFlow decodes to the annotated pixels."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep import image_file
from data_prep.problems import BadInputError

_HEIGHT, _WIDTH = 24, 40


def _smooth(channels):
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    stacked = np.stack([4 * x, 6 * y, 255 - 4 * x, 128 + y], axis=-1)
    return stacked[..., :channels].squeeze().astype(np.uint8)


def _save(path, image, image_format, **options):
    image.save(path, image_format, **options)
    return path


def _decode(encoded_image):
    decode = {"jpeg": tf.io.decode_jpeg, "png": tf.io.decode_png}[encoded_image.image_format]
    return decode(encoded_image.encoded, channels=3).numpy()


@pytest.mark.parametrize(
    ("mode", "image_format"), [("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG")]
)
def test_plain_files_are_kept_byte_for_byte(tmp_path, mode, image_format):
    image = Image.fromarray(_smooth(3)).convert(mode)
    path = _save(tmp_path / "a", image, image_format)
    loaded = image_file.load(path, _HEIGHT, _WIDTH)
    assert loaded.encoded == path.read_bytes()
    assert loaded.image_format == image_format.lower()
    assert loaded.change == ""
    assert _decode(loaded).shape == (_HEIGHT, _WIDTH, 3)


def _odd_images():
    rgb = Image.fromarray(_smooth(3))
    gray = np.asarray(rgb.convert("L"))
    yield "CMYK", rgb.convert("CMYK"), "JPEG", np.asarray(rgb), 6
    yield "alpha", Image.fromarray(_smooth(4), "RGBA"), "PNG", _smooth(3), 0
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    yield "palette", palette, "PNG", np.asarray(palette.convert("RGB")), 0
    sixteen = Image.fromarray(gray.astype(np.uint16) * 257)
    yield "16 bits", sixteen, "PNG", np.repeat(gray[..., None], 3, axis=2), 0
    yield "16 bits", sixteen, "TIFF", np.repeat(gray[..., None], 3, axis=2), 0
    bits = Image.fromarray(gray > 100)
    yield "1 bit", bits, "PNG", np.repeat(np.asarray(bits)[..., None] * 255, 3, axis=2), 0
    yield "BMP", rgb, "BMP", np.asarray(rgb), 0


@pytest.mark.parametrize(
    "case", list(_odd_images()), ids=lambda case: f"{case[0]}-{case[2]}".replace(" ", "")
)
def test_odd_files_become_rgb(tmp_path, case):
    _, image, image_format, expected, tolerance = case
    loaded = image_file.load(_save(tmp_path / "a", image, image_format), _HEIGHT, _WIDTH)
    assert loaded.change.endswith("to RGB")
    with Image.open(io.BytesIO(loaded.encoded)) as written:
        assert written.mode == "RGB"
    difference = np.abs(_decode(loaded).astype(int) - expected.astype(int))
    assert difference.max() <= tolerance


def _with_orientation(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _save(path, Image.fromarray(_smooth(3)), "PNG", exif=exif)


def test_exif_orientation_is_applied_when_the_size_says_so(tmp_path):
    path = _with_orientation(tmp_path / "a.png", 6)  # to be turned clockwise for display
    loaded = image_file.load(path, _WIDTH, _HEIGHT)
    assert loaded.change == "EXIF orientation applied"
    np.testing.assert_array_equal(_decode(loaded), np.rot90(_smooth(3), k=-1))
    with Image.open(io.BytesIO(loaded.encoded)) as written:
        assert written.getexif().get(0x0112, 1) == 1


def test_exif_orientation_is_ignored_when_the_size_is_that_of_the_stored_pixels(tmp_path):
    path = _with_orientation(tmp_path / "a.png", 6)
    loaded = image_file.load(path, _HEIGHT, _WIDTH)
    assert loaded.encoded == path.read_bytes()
    np.testing.assert_array_equal(_decode(loaded), _smooth(3))


def test_exif_upside_down_cannot_be_told_by_size_and_is_applied(tmp_path):
    loaded = image_file.load(_with_orientation(tmp_path / "a.png", 3), _HEIGHT, _WIDTH)
    np.testing.assert_array_equal(_decode(loaded), _smooth(3)[::-1, ::-1])


def test_another_size_is_named(tmp_path):
    path = _save(tmp_path / "a.png", Image.fromarray(_smooth(3)), "PNG")
    with pytest.raises(BadInputError, match="41 x 24 in the annotations, 40 x 24 in the file"):
        image_file.load(path, _HEIGHT, _WIDTH + 1)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("part", [0.0, 0.05, 0.6])
def test_broken_files_are_found(tmp_path, image_format, part):
    noise = np.random.default_rng(0).integers(0, 255, (_HEIGHT, _WIDTH, 3), np.uint8)
    path = _save(tmp_path / "a", Image.fromarray(noise), image_format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(BadInputError, match="undecodable file"):
        image_file.load(path, _HEIGHT, _WIDTH)


def test_large_jpegs_are_checked_to_their_end(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    path = _save(tmp_path / "a.jpg", Image.fromarray(noise), "JPEG")
    assert image_file.load(path, 300, 400).encoded == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(BadInputError, match="truncated"):
        image_file.load(path, 300, 400)
