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

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

MIN_BRIGHTEST = 64  # of 255
_STRIP_PIXELS = 2**22  # that are converted together
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
        return _in_rgb(image)
    if image.mode == "F":
        return _gray(image, _rule_of_floats(*_extremes(image)))
    if image.mode.startswith("I"):
        return _gray(image, _rule_of_integers(*_extremes(image), _declared_bits(image)))
    return checked(_in_rgb(image), "16 bits")  # Pillow kept the upper eight of 16


def upper_eight(values: np.ndarray, bits: int = 16) -> np.ndarray:
    """Return uint8 [...], the upper eight bits of integers of that many, without copies between."""
    upper = np.empty(values.shape, np.uint8)
    return np.right_shift(values, bits - 8, out=upper, casting="unsafe")


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


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield an image in pieces: the rows of each, and it.

    Of the whole, Pillow's way to an array takes two more copies, and to RGB another one: gigabytes
    of the largest images.
    """
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        end = min(top + rows, image.height)
        yield slice(top, end), image.crop((0, top, image.width, end))


def _in_rgb(image: Image.Image) -> np.ndarray:
    def converted(strip: Image.Image) -> np.ndarray:
        # Converting copies, also where there is nothing to convert.
        return np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))

    if image.width * image.height <= _STRIP_PIXELS:
        return converted(image)
    pixels = np.empty([image.height, image.width, 3], np.uint8)
    for rows, strip in _strips(image):
        pixels[rows] = converted(strip)
    return pixels


def _extremes(image: Image.Image) -> tuple[float, float]:
    """Return the least and the largest sample of an image of one channel; NaN if there is one."""
    found = [(values.min(), values.max()) for _, values in _samples(image)]
    return np.min(found).item(), np.max(found).item()


def _gray(image: Image.Image, rule: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    pixels = np.empty([image.height, image.width, 3], np.uint8)
    for rows, values in _samples(image):
        pixels[rows] = rule(values)[..., np.newaxis]
    return checked(pixels, _describe(image))


def _samples(image: Image.Image) -> Iterator[tuple[slice, np.ndarray]]:
    for rows, strip in _strips(image):
        yield rows, np.asarray(strip)


def _rule_of_integers(
    low: float, high: float, bits: int | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Say what integers from `low` to `high` become that have so many bits, or 8 or 16."""
    if bits is None:
        bits = 8 if high < 2**8 else 16
    if low < 0 or high >= 2**bits:
        raise ValueError(f"integers from {low} to {high}; expected 0..255 or 0..65535")
    return lambda values: upper_eight(values, bits)


def _rule_of_floats(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Say what floating-point values from `low` to `high` become."""
    if not (low >= 0.0 and high <= 255.0):  # so that NaN is refused too
        raise ValueError(f"floating-point values from {low:g} to {high:g}; expected 0..1 or 0..255")
    scale = 255.0 if high <= 1.0 else 1.0
    return lambda values: np.round(values * scale).astype(np.uint8)


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
