"""Turns any image file into one that TensorFlow decodes to the pixels that were annotated."""

import io
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from .problems import BadInputError

_ORIENTATION_TAG = 0x0112  # of EXIF
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
# What is kept as it is, 8 bits each. MPO is a JPEG with more images behind it, as telephones
# write it.
_KEPT_MODES = {"JPEG": ("L", "RGB"), "MPO": ("L", "RGB"), "PNG": ("L", "RGB")}


class EncodedImage(NamedTuple):
    """An image as it goes into a record.

    Attributes:
      encoded: the file's bytes, or those of the file that replaces it.
      image_format: "jpeg" or "png".
      change: why it had to be encoded again, a few words; "" if the bytes are the file's own.
    """

    encoded: bytes
    image_format: str
    change: str


def load(path: str, height: int, width: int) -> EncodedImage:
    """Read one image file.

    8-bit RGB and gray JPEG and PNG files are kept as they are. Everything else (16 bits, palette,
    CMYK, alpha, other formats) is converted to RGB. TensorFlow's decoder ignores the EXIF
    orientation, so it is applied here, unless the annotations' size shows that they refer to the
    stored pixels.

    Args:
      path: the file.
      height: as the annotations say, pixels.
      width: likewise.

    Raises:
      BadInputError: undecodable, or of another size than the annotations say.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            raw = file.read()
        with Image.open(io.BytesIO(raw)) as image:
            return _check_and_convert(image, raw, height, width)
    # Pillow raises SyntaxError and ValueError, too, for broken files.
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        tf.errors.OpError,
    ) as error:
        raise BadInputError("undecodable file", f"{error}") from error


def _check_and_convert(image: Image.Image, raw: bytes, height: int, width: int) -> EncodedImage:
    stored = (image.height, image.width)
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    shown = stored[::-1] if orientation in _SIDEWAYS else stored
    if (height, width) not in (stored, shown):
        value = f"{width} x {height} in the annotations, {stored[1]} x {stored[0]} in the file"
        raise BadInputError("size differs from the file's (width x height)", value)
    rotate = orientation in range(2, 9) and (height, width) == shown
    source_format = str(image.format)
    if image.mode in _KEPT_MODES.get(source_format, ()) and not rotate:
        # A JPEG's entropy code is read to its end at an eighth of the size, which finds broken
        # files at a fraction of the cost.
        image.draft(image.mode, (image.width // 8, image.height // 8))
        image.load()
        return EncodedImage(raw, "png" if source_format == "PNG" else "jpeg", "")
    change = "EXIF orientation applied" if rotate else f"{source_format} {image.mode} to RGB"
    image.load()
    if rotate:
        image = ImageOps.exif_transpose(image)
    buffer = io.BytesIO()
    if source_format in ("JPEG", "MPO"):
        _to_rgb(image).save(buffer, "JPEG", quality=95, subsampling=0)
        return EncodedImage(buffer.getvalue(), "jpeg", change)
    _to_rgb(image).save(buffer, "PNG")
    return EncodedImage(buffer.getvalue(), "png", change)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB; 16-bit gray keeps its high byte, as TensorFlow's PNG decoder does."""
    if image.mode.startswith("I"):
        high_byte = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        image = Image.fromarray(high_byte)
    return image.convert("RGB")
