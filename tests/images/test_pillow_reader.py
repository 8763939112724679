"""The reader without TensorFlow, by the one with it: the same pixels, or refused by both."""

import io

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, TiffImagePlugin

from mrcnn_tf.images import pillow_reader, reading

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def file_of(pixels, kind, **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def blocks(seed):
    random = np.random.default_rng(seed)
    return random.integers(0, 2, [3, 5, 3], np.uint8).repeat(16, 0).repeat(16, 1) * 255


def both(content, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(content)
    return pillow_reader.read(content), reading.read(str(path))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("tag", range(10))
def test_upright(tmp_path, kind, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    (ours, turned), theirs = both(file_of(blocks(tag), kind, exif=exif, quality=95), tmp_path)
    # The two decoders of JPEG differ by a few levels.
    tolerance = 12 if kind in ("JPEG", "WEBP") else 0
    np.testing.assert_allclose(ours.astype(int), theirs.pixels, atol=tolerance)
    if kind != "TIFF":  # which Pillow turns by itself
        assert turned == theirs.turned


def test_xmp_does_not_count(tmp_path):
    (ours, turned), theirs = both(file_of(blocks(0), "JPEG", xmp=XMP, quality=95), tmp_path)
    assert ours.shape == theirs.pixels.shape == (48, 80, 3)
    assert not turned
    assert not theirs.turned


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep(tmp_path, kind):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    (ours, _), theirs = both(file_of(values, kind), tmp_path)
    assert ours.tolist() == theirs.pixels.tolist()
    assert ours.max() == 63000 >> 8


def dark_color_png():
    """A 16-bit RGB PNG of 2 x 2 whose values are 4000; Pillow cannot write one."""
    import struct
    import zlib

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + struct.pack(">6H", *[4000] * 6) for _ in range(2))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture at all",
        file_of(blocks(1), "JPEG")[:200],
        file_of(blocks(1), "PNG")[:120],
        file_of(np.full([4, 4], 4000, np.uint16), "PNG"),
        dark_color_png(),
        file_of(np.full([4, 4], 1e6, np.float32), "TIFF"),
        b"\0\0\0\x18ftypheic" + bytes(200),
    ],
)
def test_refused_by_both(tmp_path, content):
    path = tmp_path / "picture"
    path.write_bytes(content)
    with pytest.raises(reading.UnusableImageError) as theirs:
        reading.read(str(path))
    with pytest.raises(ValueError, match=r"\w") as ours:
        pillow_reader.read(content)
    assert str(tmp_path) not in str(ours.value)
    if b"heic" in content:
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(("tag", "kind", "value"), [(254, 12, 1.0), (254, 2, "1"), (274, 12, 6.0)])
def test_tags_of_another_type_say_nothing(tmp_path, tag, kind, value):
    """A subfile type, and an orientation, as floating-point numbers or texts."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info.tagtype[tag] = kind
    info[tag] = value
    (ours, _), theirs = both(file_of(blocks(0), "TIFF", tiffinfo=info), tmp_path)
    assert ours.tolist() == theirs.pixels.tolist()
    header = reading.read_header((tmp_path / "picture").read_bytes())
    assert (header.kind, header.shown_hw) == ("TIFF", ours.shape[:2])


def test_what_is_raised_of_a_header_is_a_sentence(monkeypatch):
    monkeypatch.setattr(reading.depth, "is_deep", lambda _: 1 / 0)
    with pytest.raises(reading.UnusableImageError, match="division by zero"):
        reading.read_header(file_of(blocks(0), "TIFF"))


def test_no_program_is_run_for_a_file(tmp_path, monkeypatch):
    """Pillow would start Ghostscript, whatever the file is called."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was run"))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(reading.UnusableImageError, match="a drawing in PostScript"):
        reading.read(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="a drawing in PostScript"):
        pillow_reader.read(content)
