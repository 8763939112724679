"""Run lengths of masks, in NumPy: the forms in which COCO files and our records hold masks.

A run-length code counts equal pixels, alternately outside and inside, starting outside (perhaps
with 0). COCO counts down the columns of the full picture; our records count along the rows of
the object's own crop (see `schema.py`). The functions here never build a full-picture mask, so
their cost is that of the crop and of the number of runs, whatever the size of the picture.
"""

from typing import NamedTuple

import numpy as np


class CropRuns(NamedTuple):
    """One object's mask as our records hold it.

    Attributes:
      crop: (y, x, height, width), pixels of the stored picture: the smallest rectangle that
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
