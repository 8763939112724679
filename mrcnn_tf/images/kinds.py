"""Tells kinds of image files by their first bytes and names what is missing to read one."""

import importlib
import os
import re
from typing import NamedTuple

from PIL import Image, features

HEAD_BYTES = 32  # as many as any signature below needs


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


_KINDS = (
    _Kind(rb"\xff\xd8\xff", "JPEG"),
    _Kind(rb"\x89PNG\r\n\x1a\n", "PNG"),
    _Kind(rb"GIF8[79]a", "GIF"),
    _Kind(rb"BM.{4}\0\0\0\0", "BMP"),
    _Kind(rb"RIFF.{4}WEBP", "WebP", "webp", "a Pillow that was built with WebP"),
    _Kind(rb"II[*+]\0|MM\0[*+]", "TIFF"),
    _Kind(rb".{4}ftypavi[fs]", "AVIF", "avif", "Pillow 11.3 or newer has one"),
    _Kind(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "HEIC", "HEIF", "pip install pillow-heif"),
    _Kind(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000", "jpg_2000", "a full Pillow"),
    _Kind(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "JXL", "convert it to PNG or JPEG"),
    _Kind(rb"P[1-7]\s", "PNM"),
    _Kind(rb"P[Ff]\s", "PFM"),
    _Kind(rb"8BPS", "Photoshop"),
    _Kind(rb"qoif", "QOI"),
)
# Names that only images have: such a file counts as one even if its content does not.
_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".jxl", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)


def is_image_name(name: str) -> bool:
    """Whether a file is called as images are."""
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def is_image(head: bytes) -> bool:
    """Whether a file begins (with its first `HEAD_BYTES`) as images do."""
    return any(kind.matches(head) for kind in _KINDS)


def register_decoders() -> None:
    """Let Pillow read HEIC where pillow-heif is installed."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return


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
