"""Scores keypoints as COCO does: average precision over thresholds of OKS in the place of IoU.

OKS, the object keypoint similarity, is the mean of exp(-d^2 / (2 (2 sigma)^2 area)) over the
annotated keypoints of an object, d being how far off each is.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np

from mrcnn_tf.evaluation import scoring

MAX_DETECTIONS = 20  # per image and category: COCO's
# In the order in which COCO prints them: (name, rows of the thresholds, area).
_FIFTY, _SEVENTY_FIVE = slice(0, 1), slice(5, 6)
_ALL = slice(None)
_AREAS = {"all": 0, "medium": 1, "large": 2}  # there is no small: such persons have no keypoints
_NUMBERS = (
    ("", _ALL, "all"),
    ("50", _FIFTY, "all"),
    ("75", _SEVENTY_FIVE, "all"),
    ("_medium", _ALL, "medium"),
    ("_large", _ALL, "large"),
)
SUMMARY = tuple(f"{kind}{name}" for kind in ("ap", "ar") for name, _, _ in _NUMBERS)


def score(rows: scoring.Rows, sigmas: Sequence[float], cocoeval: scoring.Library) -> scoring.Scores:
    """Run COCOeval.

    Args:
      rows: annotations with "keypoints", "num_keypoints" and "bbox", detections with "keypoints".
      sigmas: how far off each keypoint may be, see `KeypointSet.sigmas`.
      cocoeval: computes.

    Returns:
      The scores: ten numbers, `ap`, `ap50`, `ap75`, `ap_medium`, `ap_large` and the same of `ar`,
      average recall.
    """
    evaluation = scoring.evaluate(rows, [MAX_DETECTIONS], cocoeval, sigmas=sigmas)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # [OKS, recall, category, area, cap]
    recall = evaluation.eval["recall"]  # [OKS, category, area, cap]
    summary = {
        f"ap{name}": _mean(precision[oks, :, :, _AREAS[area], 0]) for name, oks, area in _NUMBERS
    } | {f"ar{name}": _mean(recall[oks, :, _AREAS[area], 0]) for name, oks, area in _NUMBERS}
    of_categories = {
        category_id: _mean(precision[:, :, k, 0, 0])
        for k, category_id in enumerate(rows.category_ids)
    }
    return scoring.Scores(summary, of_categories)


def extent(keypoints: Sequence[float]) -> list[float]:
    """Return the rectangle [x, y, width, height] around [x, y, score, ...], as `COCO.loadRes` does.

    Its area says whether a detection that matches nothing is medium or large.
    """
    points = np.reshape(np.asarray(keypoints, np.float64), [-1, 3])[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def _mean(table: np.ndarray) -> float:
    measured = table[table > -1]
    return float(measured.mean()) if measured.size else -1.0
