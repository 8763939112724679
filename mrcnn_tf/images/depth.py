"""From samples of any depth to the 8 bits that a network sees, by one rule, or not at all.

    8 bits                 as they are
    16 bits, unsigned      the upper eight; of a TIFF that says it holds 12, the upper eight of 12
    32 bits, integer       0..255 as they are; 0..65535 as 16 bits
    floating point         0..1 times 255; 0..255 as they are; both rounded
    anything else          refused: negative, not finite, larger

What was deeper than 8 bits must then reach a quarter of the range, `MIN_BRIGHTEST`. Cameras write
10, 12 or 14 bits into the lower end of 16, of which no file tells; the upper eight bits of such a
file show next to nothing, and a scale guessed per image would make one scene look different from
file to file.
"""

import numpy as np
from PIL import Image

MIN_BRIGHTEST = 64  # of 255
TOO_DARK = (
    "is too dark in 8 bits to be meant so (values of 10, 12 or 14 bits in a wider file?): scale "
    "its values to the whole range, or save it with 8 bits"
)


def is_deep(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits a sample, whatever mode Pillow opened it in."""
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    if image.format == "TIFF":
        return max(_tiff_bits(image)) > 8
    return False


def to_8_bits(image: Image.Image) -> np.ndarray:
    """Bring a loaded image to 8 bits.

    Args:
      image: of any mode of Pillow's.

    Returns:
      uint8 [h, w, 3], RGB.

    Raises:
      ValueError: it does not follow the rule above, or Pillow cannot make it RGB.
    """
    if not is_deep(image):
        # Converting copies, also where there is nothing to convert.
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if image.mode == "F":
        gray = _from_floats(np.asarray(image))
    elif image.mode.startswith("I"):
        gray = _from_integers(np.asarray(image).astype(np.int64), _declared_bits(image))
    else:  # Pillow kept the upper eight of 16
        return checked(np.asarray(image.convert("RGB")), "16 bits")
    return np.repeat(checked(gray, _describe(image))[..., np.newaxis], 3, axis=2)


def checked(pixels: np.ndarray, what: str) -> np.ndarray:
    """Return pixels that were deeper, unless they are too dark to have been meant so.

    Args:
      pixels: uint8 [...].
      what: the image came with, for the message.

    Raises:
      ValueError: no value reaches `MIN_BRIGHTEST`.
    """
    brightest = int(pixels.max())
    if brightest < MIN_BRIGHTEST:
        raise ValueError(f"an image of {what} whose brightest is {brightest} of 255 {TOO_DARK}")
    return pixels


def _from_integers(values: np.ndarray, bits: int | None) -> np.ndarray:
    """Return uint8 of int64 [h, w] with that many bits, or of 8 or 16 as the values say."""
    low, high = int(values.min()), int(values.max())
    if bits is None:
        bits = 8 if high < 2**8 else 16
    if low < 0 or high >= 2**bits:
        raise ValueError(f"integers from {low} to {high}; expected 0..255 or 0..65535")
    return (values >> (bits - 8)).astype(np.uint8)


def _from_floats(values: np.ndarray) -> np.ndarray:
    """Return uint8 of floating-point values [h, w]."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 255.0):  # so that NaN is refused too
        raise ValueError(f"floating-point values from {low:g} to {high:g}; expected 0..1 or 0..255")
    return np.round(values * (255.0 if high <= 1.0 else 1.0)).astype(np.uint8)


def _declared_bits(image: Image.Image) -> int | None:
    """Return how many bits the file says its integers have; None if 32, which says nothing."""
    if image.format == "PPM":
        return 16  # Pillow scales from the file's own maximum
    if not image.mode.startswith("I;16"):
        return None
    return max(_tiff_bits(image)) if image.format == "TIFF" else 16


def _tiff_bits(image: Image.Image) -> tuple[int, ...]:
    """Return TIFF's BitsPerSample; 1 where it is not given."""
    return tuple(image.tag_v2.get(258, (1,)))  # type: ignore[attr-defined]


def _describe(image: Image.Image) -> str:
    if image.mode == "F":
        return "floating-point values"
    bits = _declared_bits(image)
    return f"{bits} bits" if bits else "32-bit integers"
