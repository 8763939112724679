"""Tells kinds of image files by their first bytes and names what is missing to read one."""

import contextlib
import importlib
import os
import re
from typing import NamedTuple

from PIL import Image, features

HEAD_BYTES = 132  # as many as any signature below needs

# The extra that brings the decoders which Pillow has not.
_EXTRA = "pip install 'mrcnn-tf[images]'"


class _Kind(NamedTuple):
    """A format.

    Attributes:
      signature: a regular expression that the first bytes match.
      name: what people call it.
      decoder: what Pillow calls its decoder, if that may be missing.
      advice: how to get one.
    """

    signature: bytes
    name: str
    decoder: str = ""
    advice: str = ""

    def matches(self, head: bytes) -> bool:
        """Whether a file that begins so is of this kind, or claims to be."""
        return re.match(self.signature, head, re.DOTALL) is not None


_NONE = "none"  # a decoder that there is not

_KINDS = (
    _Kind(rb"\xff\xd8\xff", "JPEG"),
    _Kind(rb"\x89PNG\r\n\x1a\n", "PNG"),
    _Kind(rb"GIF8[79]a", "GIF"),
    _Kind(rb"BM.{4}\0\0\0\0", "BMP"),
    _Kind(rb"RIFF.{4}WEBP", "WebP", "webp", "a Pillow that was built with WebP"),
    _Kind(rb"II[*+]\0|MM\0[*+]", "TIFF"),
    _Kind(rb".{4}ftypavi[fs]", "AVIF", "avif", "Pillow 11.3 or newer has one"),
    _Kind(
        rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "HEIC", "HEIF",
        f"{_EXTRA}, or pillow-heif alone",
    ),
    _Kind(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000", "jpg_2000", "a full Pillow"),
    _Kind(
        rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "JXL",
        f"{_EXTRA}, or pillow-jxl-plugin alone",
    ),
    _Kind(rb"P[1-7]\s", "PNM"),
    _Kind(rb"P[Ff]\s", "PFM"),
    _Kind(rb"8BPS", "Photoshop"),
    _Kind(rb"qoif", "QOI"),
    # What no decoder reads that could be installed beside Pillow.
    _Kind(
        rb".{4}ftypcrx |FUJIFILMCCD-RAW|II(U\0|RO|RS)|FOVb", "camera's raw", _NONE,
        "develop it first",
    ),
    _Kind(rb"v/1\x01|#\?(RADIANCE|RGBE)", "high dynamic range", _NONE, "save it with 8 bits"),
    _Kind(rb".{128}DICM", "DICOM", _NONE, "save it as PNG, in the window that you look at"),
)  # fmt: skip
# What else lies between images, and what to do with it.
_ELSE = (
    _Kind(rb"%PDF-", "a PDF", advice="save its pages as PNG"),
    _Kind(
        rb".{4}ftyp(?!avi|hei|hev|mif|msf|crx)|RIFF.{4}AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]",
        "a film",
    ),
    _Kind(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg\b", "an SVG", advice="save it as PNG"),
    _Kind(rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive", advice="unpack it first"),
    _Kind(rb"\x93NUMPY", "a NumPy array", advice="save it as PNG"),
)
# What Pillow has a program draw, Ghostscript, by its name for it: no file is a reason to run one.
DRAWN_BY_PROGRAMS = {"EPS": "a drawing in PostScript: save it as PNG"}
# Names that only images have: such a file counts as one even if its content does not.
_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".jxl", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)


def is_image_name(name: str) -> bool:
    """Whether a file is called as images are."""
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def is_image(head: bytes) -> bool:
    """Whether a file begins (with its first `HEAD_BYTES`) as images do."""
    return any(kind.matches(head) for kind in _KINDS)


def register_decoders() -> None:
    """Let Pillow read HEIC and JPEG XL where pillow-heif and pillow-jxl-plugin are installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")  # it does so itself


def what_else(head: bytes) -> str:
    """Say what a file is that begins as no image does; "" if that is not known."""
    for kind in _ELSE:
        if kind.matches(head):
            return f"{kind.name}: {kind.advice}" if kind.advice else kind.name
    return ""


def why_unknown(content: bytes) -> str:
    """Say why Pillow does not know a file's content."""
    if not content:
        return "the file is empty"
    for kind in _KINDS:
        if not kind.matches(content[:HEAD_BYTES]):
            continue
        if kind.decoder and not _has_decoder(kind.decoder):
            return f"a {kind.name} image, for which no decoder is installed: {kind.advice}"
        return f"begins as a {kind.name} image does, but is broken or of a kind that is not known"
    return "not an image, or of an unknown kind"


def _has_decoder(name: str) -> bool:
    """Whether Pillow has a decoder, by the name of its own module or of a plugin's format."""
    Image.init()
    if name in features.modules:
        return bool(features.check(name))
    if name in features.codecs:
        return bool(features.check_codec(name))
    return name in Image.OPEN
