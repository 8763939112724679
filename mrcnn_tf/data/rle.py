"""Run lengths of masks, in NumPy: the forms in which COCO files and our records hold masks.

A run-length code counts equal pixels, alternately outside and inside, starting outside (perhaps
with 0). COCO counts down the columns of the full image; our records count along the rows of
the object's own crop (see `schema.py`). The functions here never build a full-image mask, so
their cost is that of the crop and of the number of runs, whatever the size of the image.
"""

from typing import NamedTuple

import numpy as np


class CropRuns(NamedTuple):
    """One object's mask as our records hold it.

    Attributes:
      crop: (y, x, height, width), pixels of the stored image: the smallest rectangle that
        holds every mask pixel; all 0 if there is none.
      runs: int64 [r], run lengths of the crop, row by row; [0] entries if there is no pixel.
    """

    crop: tuple[int, int, int, int]
    runs: np.ndarray


def run_lengths(pixels: np.ndarray) -> np.ndarray:
    """Return the run lengths of a flat mask.

    Args:
      pixels: bool [n], in the order in which they are to be counted.

    Returns:
      int64 [r], summing to n; entry 0 counts pixels outside (it is 0 if the first is inside).
      Empty for n = 0.
    """
    if not pixels.size:
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    bounds = np.concatenate([[0], starts, [pixels.size]])
    runs = np.diff(bounds).astype(np.int64)
    return np.concatenate([np.zeros(1, np.int64), runs]) if pixels[0] else runs


def pixels_from_runs(runs: np.ndarray) -> np.ndarray:
    """Return the flat mask, bool [sum of runs], of which `run_lengths` gives `runs`."""
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs)


def column_runs_from_string(counts: bytes | str) -> np.ndarray:
    """Decode COCO's compressed run lengths.

    Each number is a string of characters of 48 + 6 bits: 5 bits of value, lowest first, and one
    that says that more follow; the last one's highest value bit is the sign. From the fourth
    number on the difference to the last but one is stored.

    Args:
      counts: the `counts` of a compressed COCO RLE.

    Returns:
      int64 [r], run lengths down the columns of the full image.

    Raises:
      ValueError: a character that the format does not know, or the string ends within a number.

    Source: `rleFrString` of pycocotools' maskApi.c; here for all numbers at once.
    """
    raw = counts.encode("latin-1", "replace") if isinstance(counts, str) else counts
    symbols = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if not symbols.size:
        return np.zeros(0, np.int64)
    ends = np.flatnonzero((symbols & 32) == 0)
    if symbols.min() < 0 or symbols.max() > 63 or not ends.size or ends[-1] != symbols.size - 1:
        raise ValueError("not a compressed run-length code")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise ValueError("not a compressed run-length code: a number has more than 60 bits")
    shifts = 5 * (np.arange(symbols.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((symbols & 31) << shifts, starts)
    runs -= np.where(symbols[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def crop_from_column_runs(column_runs: np.ndarray, height: int) -> CropRuns:
    """Cut an object's crop out of the run lengths of the full image.

    Args:
      column_runs: integer [r], run lengths down the columns of the full image; runs of length
        0 are allowed.
      height: of the image, pixels.

    Returns:
      The smallest crop that holds the mask, and its runs row by row.
    """
    starts, ends = _inside_of_column_runs(column_runs)
    if not starts.size:
        return CropRuns((0, 0, 0, 0), np.zeros(0, np.int64))
    first_x, first_y = np.divmod(starts, height)
    last_x, last_y = np.divmod(ends - 1, height)
    y1, x1, crop_height, crop_width = bounds_of_column_runs(column_runs, height)
    # Positions within the crop, down its columns. A run that spans columns has y1, y2 = 0, height.
    crop_starts = (first_x - x1) * crop_height + first_y - y1
    crop_ends = (last_x - x1) * crop_height + last_y - y1 + 1
    toggles = np.stack([crop_starts, crop_ends], axis=1).ravel()
    edges = np.concatenate([[0], toggles, [crop_height * crop_width]])
    pixels = pixels_from_runs(np.diff(edges)).reshape(crop_width, crop_height)
    runs = run_lengths(pixels.T.ravel())
    return CropRuns((y1, x1, crop_height, crop_width), runs)


def bounds_of_column_runs(column_runs: np.ndarray, height: int) -> tuple[int, int, int, int]:
    """Return (y, x, height, width) of the smallest rectangle that holds a mask; all 0 if empty.

    Args:
      column_runs: integer [r], run lengths down the columns of the full image.
      height: of the image, pixels.
    """
    starts, ends = _inside_of_column_runs(column_runs)
    if not starts.size:
        return 0, 0, 0, 0
    first_x, first_y = np.divmod(starts, height)
    last_x, last_y = np.divmod(ends - 1, height)
    x, x2 = int(first_x[0]), int(last_x[-1]) + 1
    if (first_x != last_x).any():  # a run goes on in the next column, so it passes both borders
        return 0, x, height, x2 - x
    y, y2 = int(first_y.min()), int(last_y.max()) + 1
    return y, x, y2 - y, x2 - x


def _inside_of_column_runs(column_runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the runs inside a mask start and end, [start, end), without empty ones."""
    bounds = np.cumsum(column_runs, dtype=np.int64)
    starts, ends = bounds[:-1:2], bounds[1::2]
    used = ends > starts
    return starts[used], ends[used]


def crop_to_full_mask(crop_runs: CropRuns, height: int, width: int) -> np.ndarray:
    """Return the full-image mask, bool [height, width], of one object."""
    y, x, crop_height, crop_width = crop_runs.crop
    mask = np.zeros((height, width), bool)
    pixels = pixels_from_runs(crop_runs.runs).reshape(crop_height, crop_width)
    mask[y : y + crop_height, x : x + crop_width] = pixels
    return mask
