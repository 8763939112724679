"""Images of every kind become files that TensorFlow decodes to the annotated pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from mrcnn_tf.images import record_image
from mrcnn_tf.images.reading import UnusableImageError
from mrcnn_tf.images.record_image import ExifRule

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
    loaded = record_image.load(path, _HEIGHT, _WIDTH, ExifRule())
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
    loaded = record_image.load(
        _save(tmp_path / "a", image, image_format), _HEIGHT, _WIDTH, ExifRule()
    )
    assert loaded.change.endswith("to RGB")
    with Image.open(io.BytesIO(loaded.encoded)) as written:
        assert written.mode == "RGB"
    difference = np.abs(_decode(loaded).astype(int) - expected.astype(int))
    assert difference.max() <= tolerance


def _with_orientation(path, orientation, image_format="PNG", side=None):
    """Write an image with an EXIF tag, `side` pixels square if given."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = _smooth(3)[:side, :side]
    return _save(path, Image.fromarray(pixels), image_format, exif=exif)


def test_exif_orientation_is_applied_when_the_size_says_so(tmp_path):
    path = _with_orientation(tmp_path / "a.png", 6)  # to be turned clockwise for display
    loaded = record_image.load(path, _WIDTH, _HEIGHT, ExifRule())
    assert loaded.change == "encoded again: EXIF orientation applied"
    np.testing.assert_array_equal(_decode(loaded), np.rot90(_smooth(3), k=-1))
    with Image.open(io.BytesIO(loaded.encoded)) as written:
        assert written.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_exif_orientation_is_taken_out_when_the_size_is_that_of_the_stored_pixels(
    tmp_path, image_format
):
    """Whoever turns a record's image by EXIF must not turn it away from its boxes."""
    path = _with_orientation(tmp_path / "a", 6, image_format)
    loaded = record_image.load(path, _HEIGHT, _WIDTH, ExifRule())
    assert loaded.change == "kept as they are stored, which the annotations refer to"
    assert len(path.read_bytes()) - len(loaded.encoded) > 20
    with Image.open(path) as image, Image.open(io.BytesIO(loaded.encoded)) as written:
        assert written.getexif().get(0x0112, 1) == 1
        np.testing.assert_array_equal(written, image)
    assert _decode(loaded).shape == (_HEIGHT, _WIDTH, 3)


@pytest.mark.parametrize(
    ("rule", "applied"),
    [
        (ExifRule(), "encoded again: EXIF orientation applied, as no image of another size tells"),
        (ExifRule("auto", num_shown=3), "encoded again: EXIF orientation applied"),
        (ExifRule("auto", num_stored=2), ""),
        (ExifRule("apply"), "encoded again: EXIF orientation applied"),
        (ExifRule("ignore", num_shown=3), ""),
    ],
)
@pytest.mark.parametrize(("orientation", "side"), [(3, None), (2, None), (6, 20), (4, 20)])
def test_where_the_size_does_not_tell_the_set_does(tmp_path, rule, applied, orientation, side):
    path = _with_orientation(tmp_path / "a.png", orientation, side=side)
    stored = _smooth(3)[:side, :side]
    loaded = record_image.load(path, *stored.shape[:2], rule)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(_decode(loaded), upright if applied else stored)
    if applied:
        assert loaded.change.removesuffix(" (--exif)") == applied


def test_a_set_that_contradicts_itself(tmp_path):
    rule = ExifRule("auto", num_shown=4, num_stored=1)
    path = _with_orientation(tmp_path / "a.png", 3)
    with pytest.raises(UnusableImageError, match="orientation 3.* 4 others.* 1 others.*--exif="):
        record_image.load(path, _HEIGHT, _WIDTH, rule)
    # Where the size tells, the others are not asked; and without an orientation nobody is.
    path = _with_orientation(tmp_path / "a.png", 6)
    assert record_image.load(path, _WIDTH, _HEIGHT, rule).change.endswith("applied")
    path = _with_orientation(tmp_path / "a.png", 1)
    assert record_image.load(path, _HEIGHT, _WIDTH, rule).change == ""


@pytest.mark.parametrize("choice", ["apply", "ignore"])
def test_a_size_that_contradicts_the_flag(tmp_path, choice):
    path = _with_orientation(tmp_path / "a.png", 8)
    size = (_HEIGHT, _WIDTH) if choice == "apply" else (_WIDTH, _HEIGHT)
    with pytest.raises(UnusableImageError, match=f"this contradicts --exif={choice}"):
        record_image.load(path, *size, ExifRule(choice))


def test_survey(tmp_path):
    """One sideways image of each kind counts; square ones, 1..4 and broken files do not."""
    images = [(_with_orientation(tmp_path / "shown.jpg", 6, "JPEG"), _WIDTH, _HEIGHT)]
    images += [(_with_orientation(tmp_path / "stored.png", 5), _HEIGHT, _WIDTH)]
    images += [(_with_orientation(tmp_path / "stored.webp", 8, "WEBP"), _HEIGHT, _WIDTH)]
    images += [(_with_orientation(tmp_path / "square.jpg", 6, "JPEG", 20), 20, 20)]
    images += [(_with_orientation(tmp_path / "upside_down.png", 3), _HEIGHT, _WIDTH)]
    images += [(_with_orientation(tmp_path / "other_size.png", 6), 1, 1)]
    images += [(tmp_path / "absent.png", 1, 1)]
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff Exif\0\0")
    images += [(tmp_path / "broken.jpg", 1, 1)]
    rule = record_image.survey((str(path), height, width) for path, height, width in images)
    assert rule == ExifRule("auto", num_shown=1, num_stored=2)


def test_another_size_is_named(tmp_path):
    path = _save(tmp_path / "a.png", Image.fromarray(_smooth(3)), "PNG")
    with pytest.raises(UnusableImageError, match="41 x 24 in the annotations, 40 x 24 in the file"):
        record_image.load(path, _HEIGHT, _WIDTH + 1, ExifRule())


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("part", [0.0, 0.05, 0.6])
def test_broken_files_are_found(tmp_path, image_format, part):
    noise = np.random.default_rng(0).integers(0, 255, (_HEIGHT, _WIDTH, 3), np.uint8)
    path = _save(tmp_path / "a", Image.fromarray(noise), image_format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UnusableImageError, match=".") as caught:
        record_image.load(path, _HEIGHT, _WIDTH, ExifRule())
    assert caught.value.kind == "undecodable file"


def _png_chunks(whole):
    """Yield (name, data, checksum) of each chunk."""
    position = 8
    while position < len(whole):
        (length,) = struct.unpack(">I", whole[position : position + 4])
        end = position + 8 + length
        yield whole[position + 4 : position + 8], whole[position + 8 : end], whole[end : end + 4]
        position = end + 4


def _png(chunks):
    parts = [struct.pack(">I", len(data)) + name + data + crc for name, data, crc in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _without_a_row(data):
    return zlib.compress(zlib.decompress(data)[: -3 * _WIDTH - 1])


@pytest.mark.parametrize("fault", ["no IEND", "wrong checksum", "row missing", "cut in IEND"])
def test_pngs_that_only_pillow_reads(tmp_path, fault):
    """TensorFlow refuses each of them, in training; so it has to be found here."""
    path = _save(tmp_path / "a.png", Image.fromarray(_smooth(3)), "PNG")
    whole = path.read_bytes()
    chunks = list(_png_chunks(whole))
    assert [name for name, *_ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    name, data, crc = chunks[1]
    if fault == "wrong checksum":
        chunks[1] = (name, data, bytes(255 - byte for byte in crc))
    elif fault == "row missing":
        data = _without_a_row(data)
        chunks[1] = (name, data, struct.pack(">I", zlib.crc32(name + data)))
    elif fault == "no IEND":
        del chunks[2]
    path.write_bytes(whole[:-6] if fault == "cut in IEND" else _png(chunks))
    with pytest.raises(UnusableImageError, match="Invalid PNG data"):
        record_image.load(path, _HEIGHT, _WIDTH, ExifRule())


def test_large_jpegs_are_checked_to_their_end(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    path = _save(tmp_path / "a.jpg", Image.fromarray(noise), "JPEG")
    assert record_image.load(path, 300, 400, ExifRule()).encoded == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnusableImageError, match="Invalid JPEG"):
        record_image.load(path, 300, 400, ExifRule())
