"""Image files without TensorFlow: the rules of `reading.py`, all formats decoded by Pillow.

For who has to do without TensorFlow: `predict --model`, clients of a server. Pillow's decoder of
JPEG differs from TensorFlow's by a level here and there.
"""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from mrcnn_tf.images import depth, kinds

_ORIENTATION, _SUBFILE_TYPE = 0x0112, 254  # tags of EXIF and TIFF
_THUMBNAIL = 1  # a bit of TIFF's NewSubfileType

kinds.register_decoders()


def read(content: bytes) -> tuple[np.ndarray, bool]:
    """Decode a file's content and turn it upright.

    Returns:
      uint8 [h, w, 3], RGB; and whether an EXIF orientation was applied.

    Raises:
      ValueError: not an image, a broken one, or one whose samples cannot become 8 bits; says why,
        without the file's name.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format in kinds.DRAWN_BY_PROGRAMS:
                raise ValueError(kinds.DRAWN_BY_PROGRAMS[image.format])
            tag = _orientation(image)
            image.load()
            pixels = depth.to_8_bits(image)
    except UnidentifiedImageError as error:  # its text names a buffer in memory
        raise ValueError(kinds.why_unknown(content)) from error
    except Exception as error:  # Pillow raises almost anything on broken files
        raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from error
    if content[24:25] == b"\x10" and content.startswith(b"\x89PNG"):  # Pillow kept the upper eight
        depth.checked(pixels, "16 bits")
    return turn(pixels, tag), tag != 1


def _orientation(image: Image.Image) -> int:
    """Return 1..8 of an image that is not loaded yet; of EXIF, as everywhere, not of XMP."""
    if image.format == "TIFF":  # Pillow turns it while it loads it
        subfile = image.tag_v2.get(_SUBFILE_TYPE, 0)  # type: ignore[attr-defined]
        if isinstance(subfile, int) and subfile & _THUMBNAIL:  # a tag may be of any type
            raise ValueError(
                "this TIFF begins with a thumbnail, as a camera's raw files do: develop it first"
            )
        return 1
    exif = Image.Exif()
    exif.load(image.info.get("exif") or b"")
    tag = exif.get(_ORIENTATION, 1)
    return tag if tag in range(1, 9) else 1


def turn(pixels: np.ndarray, tag: int) -> np.ndarray:
    """Turn stored pixels [h, w, 3] as `orientation.turn` does."""
    if tag >= 5:
        pixels = pixels.transpose(1, 0, 2)
    step = (tag - 1) % 4  # mirror nothing, x, both, y
    if step in (1, 2):
        pixels = pixels[:, ::-1]
    if step >= 2:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
