"""Turns any image file into one that training decodes to the pixels that were annotated."""

import concurrent.futures
import io
import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.images import decoding, orientation, passing, reading, storage
from mrcnn_tf.images.reading import Header, UnusableImageError

# What is kept as it is, 8 bits each.
_KEPT_MODES = {"JPEG": ("L", "RGB"), "MPO": ("L", "RGB"), "PNG": ("L", "RGB")}
# Bytes of a JPEG that are searched for Exif data, which stand at its beginning.
_JPEG_HEAD_BYTES = 65536

EXIF_CHOICES = ("auto", "apply", "ignore")


class EncodedImage(NamedTuple):
    """An image as it goes into a record.

    Attributes:
      encoded: the file's bytes, or those of the file that replaces it; no EXIF orientation is left
        in them.
      image_format: "jpeg" or "png".
      change: what was done to it, as the end of "images ..."; "" if the bytes are the file's own.
    """

    encoded: bytes
    image_format: str
    change: str


class Plan(NamedTuple):
    """What becomes of a file, as its header tells.

    Attributes:
      header: of the file.
      turned: it is turned upright.
      certain: the annotated size, or the other images of the set, tell which way up it is.
      kept: its bytes are kept, apart from its EXIF data.
    """

    header: Header
    turned: bool
    certain: bool
    kept: bool

    @property
    def change(self) -> str:
        """What is done to the file, see `EncodedImage`."""
        if self.kept:
            kept = "kept as they are stored, which the annotations refer to"
            return kept if self.header.orientation != 1 else ""
        if not self.turned:
            return f"encoded again: {self.header.kind} {self.header.mode} to RGB"
        doubt = "" if self.certain else ", as no image of another size tells (--exif)"
        return "encoded again: EXIF orientation applied" + doubt


class ExifRule(NamedTuple):
    """Whether the annotations of a set refer to upright images or to pixels as they are stored.

    Attributes:
      choice: one of `EXIF_CHOICES`. "auto": to that of the two which has the annotated size; where
        both have it, to what the set's other images show.
      num_shown: images of the set of which only the upright size is the annotated one.
      num_stored: images of which only the stored size is.
    """

    choice: str = "auto"
    num_shown: int = 0
    num_stored: int = 0

    @property
    def name(self) -> str:
        """What the rule does where the size does not tell; for a manifest."""
        if self.choice != "auto" or not self.num_stored:
            return self.choice
        return "auto, contradictory" if self.num_shown else "auto, as stored"

    def applies(self, header: Header, height: int, width: int) -> tuple[bool, bool]:
        """Tell whether an image with an orientation is to be turned, and whether that is certain.

        Raises:
          UnusableImageError: the size contradicts the rule, or the set contradicts itself.
        """
        sizes = {"apply": header.shown_hw, "ignore": header.stored_hw}
        fits = [choice for choice, hw in sizes.items() if hw == (height, width)]
        allowed = [choice for choice in fits if self.choice in ("auto", choice)]
        if not allowed:
            raise _size_error(header, height, width, self.choice if fits else "")
        if len(allowed) == 1:
            return "apply" in allowed, True
        if self.num_shown and self.num_stored:
            raise UnusableImageError(
                f"EXIF orientation {header.orientation}, and its size does not tell whether the "
                f"annotations refer to the upright image, as those of {self.num_shown} others do, "
                f"or to the stored pixels, as those of {self.num_stored} others: --exif=apply or "
                "--exif=ignore",
                "unknown orientation",
            )
        return not self.num_stored, bool(self.num_shown or self.num_stored)


def survey(images: Iterable[tuple[str, int, int]]) -> ExifRule:
    """Find out what the images of a set show whose size tells.

    Args:
      images: path, annotated height and annotated width of each. Files that cannot be used count
        for nothing; they are met again when they are converted.

    Returns:
      The "auto" rule.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        votes = list(pool.map(_vote, images))
    return ExifRule("auto", votes.count("shown"), votes.count("stored"))


def plan(raw: bytes, height: int, width: int, rule: ExifRule) -> Plan:
    """Tell what becomes of an image file, without decoding its pixels.

    Args:
      raw: the file's content.
      height: as the annotations say, pixels.
      width: likewise.
      rule: what the annotations refer to.

    Raises:
      UnusableImageError: no image, of another size than the annotations say, or it cannot be told
        which way up it was annotated.
    """
    header = reading.read_header(raw)
    turned, certain = False, True
    if header.orientation != 1:
        turned, certain = rule.applies(header, height, width)
    elif header.stored_hw != (height, width):
        raise _size_error(header, height, width)
    keepable = header.mode in _KEPT_MODES.get(header.kind, ()) and not header.is_deep
    return Plan(header, turned, certain, keepable and not turned)


def load(path: str | os.PathLike, height: int, width: int, rule: ExifRule) -> EncodedImage:
    """Read one image file.

    8-bit RGB and gray JPEG and PNG files are kept as they are, once the decoder of training has
    read them to their end. Everything else (16 bits, palette, CMYK, alpha, other formats) is
    converted to RGB. Records hold upright images, or, where the annotations refer to stored
    pixels, those without the tag: whoever reads a record need not know of EXIF.

    Args:
      path: the file.
      height: as the annotations say, pixels.
      width: likewise.
      rule: what the annotations refer to.

    Raises:
      UnusableImageError: undecodable, of another size than the annotations say, or it cannot be
        told which way up it was annotated.
      OSError: storage failed, which says nothing of the image: it may be read well another time.
    """
    raw = _read(path)
    planned = plan(raw, height, width, rule)
    with reading.alone(planned.header):
        if planned.kept:
            return _keep(raw, planned)
        header, pixels = reading.decode(raw)
        if planned.turned:
            pixels = reading.turn(pixels, header.orientation)
        return _encode(pixels, header.kind, planned.change)


def _read(path: str | os.PathLike) -> bytes:
    try:
        return reading.read_bytes(path)
    except UnusableImageError as error:
        if passing.may_pass(error):
            raise OSError(f"{os.fspath(path)}: {error}") from error
        raise


def _vote(image: tuple[str, int, int]) -> str:
    """Return "shown" or "stored", or "" if the image does not tell."""
    path, *annotated_hw = image
    try:
        head = storage.read(path, _JPEG_HEAD_BYTES)
        if head.startswith(b"\xff\xd8") and b"Exif\0\0" not in head:
            return ""
        header = reading.read_header(reading.read_bytes(path))
    except (OSError, ValueError, tf.errors.OpError):
        return ""
    fits_shown = list(header.shown_hw) == annotated_hw
    if fits_shown == (list(header.stored_hw) == annotated_hw):
        return ""
    return "shown" if fits_shown else "stored"


def _size_error(header: Header, height: int, width: int, choice: str = "") -> UnusableImageError:
    value = f"{width} x {height} in the annotations, {header.stored_hw[1]} x {header.stored_hw[0]}"
    value += " in the file"
    if header.orientation >= 5:
        value += f", which its EXIF orientation {header.orientation} turns on its side"
    value += f"; this contradicts --exif={choice}" if choice else ""
    return UnusableImageError(value, "size differs from the file's (width x height)")


def _keep(raw: bytes, planned: Plan) -> EncodedImage:
    """Check a file that is stored as it is wanted, and take an orientation out of it."""
    image_format = "png" if planned.header.kind == "PNG" else "jpeg"
    if planned.header.orientation != 1:
        raw = _without_exif(raw, image_format)
    try:
        decoding.check(tf.constant(raw))
    except tf.errors.OpError as error:
        raise UnusableImageError(reading.reason(error)) from error
    return EncodedImage(raw, image_format, planned.change)


def _without_exif(raw: bytes, image_format: str) -> bytes:
    """Cut the segment or chunk of the EXIF data out of a file."""
    begin, length = (int(value) for value in orientation.find_exif(tf.constant(raw)))
    if image_format == "jpeg":  # marker, length, "Exif\0\0" stand before it
        return raw[: begin - 10] + raw[begin + length :]
    return raw[: begin - 8] + raw[begin + length + 4 :]  # length and name; a checksum behind it


def _encode(pixels: np.ndarray, kind: str, change: str) -> EncodedImage:
    buffer = io.BytesIO()
    if kind in ("JPEG", "MPO"):
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
        return EncodedImage(buffer.getvalue(), "jpeg", change)
    Image.fromarray(pixels).save(buffer, "PNG")
    return EncodedImage(buffer.getvalue(), "png", change)
