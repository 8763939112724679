"""COCO's average precision from a list of right and wrong, with images counted several times."""

import numpy as np

RECALLS = np.linspace(0.0, 1.0, 101)


def average_precision(
    is_right: np.ndarray, counts: np.ndarray, num_objects: np.ndarray
) -> np.ndarray:
    """Return COCO's AP: the mean, over 101 recalls, of the best precision from there on.

    Every number is the one that COCOeval's `accumulate` has, to 1e-14; a resampled image is a
    count instead of a copy. Precision is only looked at where a right detection is, because
    that is where it rises.

    Args:
      is_right: bool [n], detections by falling score; those that are ignored left out.
      counts: int [R, n], how often each one's image is there, in each of R sets.
      num_objects: int [R].

    Returns:
      float [R], NaN where there are no objects.
    """
    right = np.flatnonzero(is_right)
    if not right.size:
        return np.where(num_objects > 0, 0.0, np.nan)
    seen = np.cumsum(counts, axis=1)[:, right]
    hits = np.cumsum(counts[:, right], axis=1)
    precision = hits / (seen + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / np.maximum(num_objects, 1)[:, np.newaxis]
    reached = np.searchsorted(RECALLS, recall, side="right")  # how many of the 101 are behind
    gained = np.diff(reached, axis=1, prepend=0)
    ap = (gained * envelope).sum(axis=1) / len(RECALLS)
    return np.where(num_objects > 0, ap, np.nan)
