"""Boundary IoU: how well two masks agree along their outlines (arXiv 2103.16562).

Of two large masks the inner pixels agree whatever their outlines do, so mask IoU hardly tells a
sharp mask from a blunt one. Boundary IoU compares only what lies within a distance of each outline,
2 % of the image's diagonal. A detection counts by the smaller of the two.

Neither pycocotools nor hotcoco has it; the rest of the scoring is that of pycocotools.
"""

import math
from typing import Any

import numpy as np
from pycocotools import cocoeval
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mrcnn_tf.data import rle
from mrcnn_tf.evaluation import scoring
from mrcnn_tf.ops import coco_rle

# Of the diagonal. Section 4.2 of the paper: on COCO and LVIS; smaller for larger images.
DISTANCE = 0.02


def boundary(mask: dict) -> dict:
    """Return the part of a mask that lies within the distance of its outline.

    The border of the image is an outline too.

    Args:
      mask: COCO run lengths, compressed.

    Returns:
      Run lengths of the same size.
    """
    height, width = mask["size"]
    counts = mask["counts"]
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    runs = rle.column_runs_from_string(text)
    (y, x, crop_height, crop_width), row_runs = rle.crop_from_column_runs(runs, height)
    crop = rle.pixels_from_runs(row_runs).reshape(crop_height, crop_width)
    outline = crop & ~eroded(crop, distance(height, width))
    return coco_rle.crops_to_rles([outline], np.array([y]), np.array([x]), height, width)[0]


def distance(height: int, width: int) -> int:
    """Return how far a boundary reaches inwards, pixels; at least 1."""
    return max(round(DISTANCE * math.hypot(height, width)), 1)


def eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """Take pixels off that have one outside of the mask among their 3 x 3, so many times.

    Args:
      mask: bool [h, w]; around it there is nothing.
      steps: how many times.

    Returns:
      bool [h, w].
    """
    for _ in range(2):  # along each axis all pixels of a window have to be there
        mask = _whole_windows(mask, 2 * steps + 1).T
    return mask


def _whole_windows(mask: np.ndarray, length: int) -> np.ndarray:
    """Return where all rows of a window around each row, of odd length, are True: bool [h, w]."""
    half = length // 2
    inside = np.pad(mask, [[half, half], [0, 0]])
    reach = 1  # inside[i]: so many rows from i on are True
    while reach < length:
        step = min(reach, length - reach)
        inside = inside[:-step] & inside[step:]
        reach += step
    return inside


class BoundaryEval(cocoeval.COCOeval):
    """pycocotools' evaluation of masks, by the smaller of mask IoU and boundary IoU."""

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802 - pycocotools' name
        """Return IoUs [detections, objects], the best detections first, or [] where there is none.

        A crowd region has no outline that matters: mask IoU alone counts there.
        """
        objects, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not objects and not found:
            return []
        order = np.argsort([-row["score"] for row in found], kind="mergesort")
        found = [found[k] for k in order[: self.params.maxDets[-1]]]
        of_found = [row["segmentation"] for row in found]
        of_objects = [row["segmentation"] for row in objects]
        is_crowd = [int(row["iscrowd"]) for row in objects]
        ious = coco_mask.iou(of_found, of_objects, is_crowd)
        if not of_found or not of_objects:
            return ious
        of_boundaries = coco_mask.iou(
            [boundary(mask) for mask in of_found],
            [boundary(mask) for mask in of_objects],
            is_crowd,
        )
        return np.where(np.array(is_crowd, bool), ious, np.minimum(ious, of_boundaries))


def score(rows: scoring.Rows) -> scoring.Scores:
    """Score masks as COCO does, but by the smaller of mask IoU and boundary IoU.

    Args:
      rows: of masks.
    """
    return scoring.score(*rows, scoring.Library(COCO, BoundaryEval))
