"""Finds images that show almost the same: copies, re-encodings, frames of a burst.

An image becomes 64 bits: the signs of the 64 lowest frequencies of its brightness, its mean not
among them. What changes the whole picture evenly (size, compression, brightness, contrast, blur)
leaves most of them alone; another picture has about half of them otherwise.

Of 334 photos that all differ (COCO, balloons, and 18 of fruits on one table; 55,611 pairs), the two
most alike are 11 bits apart; `benchmarks/near_duplicates.py` has the numbers, and how many altered
copies are within the 10 bits that count as alike here.
"""

import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mrcnn_tf.images import reading

MAX_DISTANCE = 10  # bits: fewer than between any two different photos of the measurement
_SIDE = 32  # pixels of the small gray picture that frequencies are taken of
_NUM_BITS = 64
_LEAST = 1e-6 * 255 * _SIDE**2  # what rounding leaves of a frequency that is not there
_DRAFT = 4 * _SIDE  # a JPEG is decoded at the smallest scale of 1/8..1 that is not below this


def hash_of(image: np.ndarray | str | os.PathLike) -> int:
    """Return 64 bits that are mostly the same for images that show almost the same.

    Args:
      image: pixels, uint8 [h, w, 3], RGB, upright; or a file, which is turned upright.

    Returns:
      0..2^64 - 1; images are as far apart as their numbers have different bits. 0 for an image of
      one colour.

    Raises:
      reading.UnusableImageError: the file cannot be read, is no image, or one that cannot be used.

    Source: the perceptual hash of C. Zauner, Implementation and Benchmarking of Perceptual Image
      Hash Functions (2010), section 3.2.1. Differs: it takes a square of 8 by 8 frequencies and
      compares with their median; here the lowest 64 in a triangle are compared with zero, which
      separates copies from others better in the measurement named above.
    """
    gray = _gray(image) if isinstance(image, np.ndarray) else _gray_of_file(image)
    small = gray.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    frequencies = _COSINES @ np.asarray(small, np.float64) @ _COSINES.T  # [_SIDE, _SIDE]
    bits = frequencies[_LOWEST] > _LEAST  # [64]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def groups(hashes: Sequence[int], max_distance: int = MAX_DISTANCE) -> list[list[int]]:
    """Group images that are alike, directly or through others of the group.

    Args:
      hashes: of each image, see `hash_of`.
      max_distance: how many bits two images that are alike may differ in.

    Returns:
      Places in `hashes`: each in one group, most of them alone; sorted within a group, and the
      groups by their first.
    """
    bits = np.array(hashes, np.uint64)
    left = np.arange(len(bits))  # places that are in no group yet
    found: list[list[int]] = []
    while left.size:
        members, left = [int(left[0])], left[1:]
        for place in members:  # which grows meanwhile
            is_near = np.bitwise_count(bits[left] ^ bits[place]) <= max_distance
            members += left[is_near].tolist()
            left = left[~is_near]
        found.append(sorted(members))
    return found


def _gray(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).convert("L")


def _gray_of_file(path: str | os.PathLike) -> Image.Image:
    """Read a file in shades of gray, upright; a JPEG at a fraction of its size."""
    raw = reading.read_bytes(path)
    header = reading.read_header(raw)
    if header.kind not in ("JPEG", "MPO"):
        _, pixels = reading.decode(raw)
        return _gray(reading.turn(pixels, header.orientation))
    try:
        with Image.open(io.BytesIO(raw)) as image:
            image.draft("L", (_DRAFT, _DRAFT))
            gray = np.asarray(image.convert("L"))
    except Exception as error:  # Pillow raises almost anything on broken files
        raise reading.UnusableImageError(reading.reason(error)) from error
    return Image.fromarray(reading.turn(gray[..., np.newaxis], header.orientation)[..., 0])


def _cosines() -> np.ndarray:
    """Return the cosine transform of `_SIDE` values, [frequency, place]."""
    frequency, place = np.mgrid[:_SIDE, :_SIDE]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))


def _lowest() -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the 64 lowest frequencies, the mean (0, 0) left out."""
    rows, columns = (index.ravel() for index in np.indices((_SIDE, _SIDE)))
    order = np.lexsort((columns, np.abs(rows - columns), rows + columns))[1 : _NUM_BITS + 1]
    return rows[order], columns[order]


_COSINES = _cosines()
_LOWEST = _lowest()
