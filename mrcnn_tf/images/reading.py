"""The one reader of image files: the converter, `predict` and the Python API read through it.

JPEG and PNG are decoded by TensorFlow, as training and exported networks do; every other format by
Pillow, as far as decoders are installed. Which way up an image is meant is `orientation.py`'s
rule, how more than 8 bits become 8 is `depth.py`'s.
"""

import contextlib
import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from mrcnn_tf.images import decoding, depth, kinds, orientation, storage

_BY_TENSORFLOW = ("JPEG", "MPO", "PNG")  # MPO: a JPEG with more images behind it, from telephones
# Of a large picture, where TensorFlow's decoders of JPEG and PNG end: 1.6 GB of pixels.
MAX_PIXELS = 2**29 - 1
# Above: one at a time. Photos of 33 megapixels take 0.1 GB each, eight in flight as much as one of
# the largest that are taken.
LARGE_PIXELS = 2**25
_THUMBNAIL = 1  # a bit of TIFF's NewSubfileType
# Lines around the one that says what TensorFlow found wrong.
_BOILERPLATE = ("Graph execution error", "Detected at node", "<stack traces", "[[")

kinds.register_decoders()


class UnusableImageError(ValueError):
    """A file is no image that can be used; the text says why, without the file's name.

    Attributes:
      kind: a few words that are the same for all errors of its kind.
    """

    def __init__(self, why: str, kind: str = "undecodable file") -> None:
        super().__init__(why)
        self.kind = kind


class Header(NamedTuple):
    """What a file says of itself, before any pixel is decoded.

    Attributes:
      kind: Pillow's name of the format: "JPEG", "PNG", ...
      mode: Pillow's name of the samples: "RGB", "L", ...
      is_deep: more than 8 bits a sample.
      stored_hw: (height, width) of the stored pixels.
      orientation: 1..8, see `orientation.py`.
    """

    kind: str
    mode: str
    is_deep: bool
    stored_hw: tuple[int, int]
    orientation: int

    @property
    def shown_hw(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return self.stored_hw[::-1] if self.orientation >= 5 else self.stored_hw

    @property
    def is_large(self) -> bool:
        """Whether it is to be decoded while no other such image is, see `alone`."""
        return self.stored_hw[0] * self.stored_hw[1] > LARGE_PIXELS


class UprightImage(NamedTuple):
    """An image, upright.

    Attributes:
      pixels: uint8 [h, w, 3], RGB.
      file: what it was read from, if TensorFlow decodes that to these pixels, whether or not it
        knows of EXIF; else None.
      turned: an EXIF orientation was applied.
      stored: what it was read from, if an export decodes and turns that to these pixels; else None.
    """

    pixels: np.ndarray
    file: bytes | None
    turned: bool
    stored: bytes | None = None

    @property
    def encoded(self) -> bytes:
        """A file that TensorFlow decodes to these pixels."""
        return encode(self.pixels) if self.file is None else self.file


class LargeImageError(UnusableImageError):
    """An image is to be read while no other is, see `alone`."""


def read(path: str | os.PathLike, large: bool = False, defer_large: bool = False) -> UprightImage:
    """Read an image file and turn it upright.

    Args:
      path: of any file system that `tf.io.gfile` knows.
      large: whether it may have up to `MAX_PIXELS`. Else Pillow's bound holds (twice
        `PIL.Image.MAX_IMAGE_PIXELS`, 179 million), behind which it takes a file for an attack.
      defer_large: whether an image of more than `LARGE_PIXELS` is left to the caller, who has
        others in flight.

    Raises:
      UnusableImageError: it cannot be read, is no image, or is one that cannot be used.
      LargeImageError: see `defer_large`; nothing was decoded.
    """
    return upright(read_bytes(path), large, defer_large)


def upright(raw: bytes, large: bool = False, defer_large: bool = False) -> UprightImage:
    """Decode a file's content and turn it upright.

    Args:
      raw: the content.
      large: see `read`.
      defer_large: see `read`.

    Raises:
      UnusableImageError: it is no image, or one that cannot be used.
      LargeImageError: see `read`.
    """
    if defer_large and read_header(raw).is_large:
        raise LargeImageError("large")
    header, pixels = decode(raw, large)
    turned = header.orientation != 1
    if turned:
        pixels = turn(pixels, header.orientation)
    stored = raw if header.kind in _BY_TENSORFLOW else None
    return UprightImage(pixels, None if turned else stored, turned, stored)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Return a file's content.

    Raises:
      UnusableImageError: it is absent or cannot be read.
    """
    try:
        return storage.read(os.fspath(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UnusableImageError(f"the file cannot be read: {reason(error)}") from error


def read_header(raw: bytes) -> Header:
    """Look at a file's content without decoding pixels.

    Raises:
      UnusableImageError: not an image, or of a kind that no installed decoder reads.
    """
    with _open(raw) as image:
        return _header(image, raw)


def decode(raw: bytes, large: bool = False) -> tuple[Header, np.ndarray]:
    """Decode a file's content.

    Args:
      raw: the content.
      large: see `read`.

    Returns:
      The header, and the pixels as they are stored: uint8 [h, w, 3], RGB; not to be written to.

    Raises:
      UnusableImageError: not an image, a broken one, or one whose samples cannot become 8 bits.
    """
    with _open(raw, large) as image:
        header = _header(image, raw)
        try:
            if header.kind not in _BY_TENSORFLOW:
                return header, _decode_by_pillow(image, header)
            if header.kind == "PNG" and header.is_deep:
                deep = _without_copy(tf.io.decode_png(raw, channels=3, dtype=tf.uint16))
                return header, depth.checked(depth.upper_eight(deep), "16 bits")
            return header, _without_copy(decoding.decode_as_stored(tf.constant(raw)))
        except Exception as error:  # Pillow raises almost anything on broken files
            raise UnusableImageError(reason(error)) from error


@contextlib.contextmanager
def alone(header: Header) -> Iterator[None]:
    """Hold an image's pixels inside: of large ones, one at a time in this process.

    Files of a megabyte may hold half a gigabyte of pixels, and many threads read files.
    """
    with _turns if header.is_large else contextlib.nullcontext():
        yield


def share_turns(lock: AbstractContextManager) -> None:
    """Take turns for large images with other processes, by a lock that they have too."""
    global _turns
    _turns = lock


def turn(pixels: np.ndarray, tag: int) -> np.ndarray:
    """Return stored pixels [h, w, 3] turned upright, see `orientation.turn`."""
    return orientation.turn(tf.constant(pixels), tf.constant(tag)).numpy()


def encode(pixels: np.ndarray) -> bytes:
    """Return pixels (uint8 [h, w, 3], RGB) as BMP: lossless, and written at the speed of a copy."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def reason(error: Exception) -> str:
    """Return the line of an error's text that says what is wrong."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which the caller names
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_BOILERPLATE)]
    if not telling:
        return type(error).__name__
    # "{{function_node ...}} what is wrong [Op:DecodePng]"
    return telling[0].rpartition("}} ")[2].partition(" [Op:")[0][:300]


def _without_copy(pixels: tf.Tensor) -> np.ndarray:
    """Return an eager tensor's own memory, which cannot be written to."""
    return np.asarray(memoryview(pixels))


_turns: AbstractContextManager = threading.Lock()
_pillows_bound = threading.Lock()  # it is one for the process


def _open(raw: bytes, large: bool = False) -> Image.Image:
    try:
        image = _open_large(raw) if large else Image.open(io.BytesIO(raw))
    except UnidentifiedImageError as error:  # its text names a buffer in memory
        raise UnusableImageError(kinds.why_unknown(raw)) from error
    except Image.DecompressionBombError as error:
        size = "".join(f"{int(n):,} pixels, " for n in re.findall(r"\((\d+) pixels\)", str(error)))
        why = f"{size}larger than images usually are; predict --tiles reads up to {MAX_PIXELS:,}"
        raise UnusableImageError(why, "too large") from error
    except Exception as error:  # of a broken header, Pillow raises almost anything
        raise UnusableImageError(reason(error)) from error
    if image.format in kinds.DRAWN_BY_PROGRAMS:
        image.close()
        raise UnusableImageError(kinds.DRAWN_BY_PROGRAMS[image.format])
    if large and image.width * image.height > MAX_PIXELS:
        image.close()
        why = f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}: cut it up first"
        raise UnusableImageError(why, "too large")
    return image


def _open_large(raw: bytes) -> Image.Image:
    with _pillows_bound:
        bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(raw))
        finally:
            Image.MAX_IMAGE_PIXELS = bound


def _header(image: Image.Image, raw: bytes) -> Header:
    """Read the header of an image that Pillow has opened and not loaded."""
    try:
        return _header_of_tags(image, raw)
    except UnusableImageError:
        raise
    except Exception as error:  # of odd tags, Pillow raises almost anything
        raise UnusableImageError(reason(error)) from error


def _header_of_tags(image: Image.Image, raw: bytes) -> Header:
    kind = str(image.format)
    height, width = image.height, image.width
    if kind in (*_BY_TENSORFLOW, "WEBP"):
        may_have_one = any(mark in raw for mark in orientation.MARKS)
        tag = int(_orientation_of_file(tf.constant(raw))) if may_have_one else 1
    elif kind == "TIFF":
        tag = image.tag_v2.get(0x0112, 1)  # type: ignore[attr-defined]
        tag = tag if isinstance(tag, int) and 2 <= tag <= 8 else 1  # tags may be of any type
        if tag >= 5:  # Pillow gives the size of the upright image
            height, width = width, height
        subfile = image.tag_v2.get(254, 0)  # type: ignore[attr-defined]
        if isinstance(subfile, int) and subfile & _THUMBNAIL:
            raise UnusableImageError(
                "this TIFF begins with a thumbnail, as a camera's raw files do: develop it first"
            )
    else:
        tag = int(_orientation_of_exif(tf.constant(image.info.get("exif") or b"")))
    is_deep = raw[24:25] == b"\x10" if kind == "PNG" else depth.is_deep(image)
    return Header(kind, image.mode, is_deep, (height, width), tag)


def _decode_by_pillow(image: Image.Image, header: Header) -> np.ndarray:
    """Return the stored pixels; Pillow turns TIFFs while it loads them, which is undone."""
    image.load()
    pixels = depth.to_8_bits(image)
    return (
        turn(pixels, orientation.INVERSE[header.orientation]) if header.kind == "TIFF" else pixels
    )


_TEXT = [tf.TensorSpec([], tf.string)]
_orientation_of_file = tf.function(orientation.read, input_signature=_TEXT)
_orientation_of_exif = tf.function(orientation.of_exif, input_signature=_TEXT)
