"""The door to pycocotools: ground truth and detections in, COCO's twelve numbers out.

pycocotools is the reference, so nothing of its arithmetic is repeated here. What is done
differently is how its tables are read: `COCOeval.summarize` prints, and reports -1 for AP when
detections are capped at another number than 100. And average recall is counted from its matches.
"""

import contextlib
import io
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Rows of COCOeval's tables.
_IOU_50, _IOU_75 = 0, 5
_AREAS = {"small": 1, "medium": 2, "large": 3}  # 0 is "all"


class Scores(NamedTuple):
    """What one COCOeval run says; -1 where there is no ground truth to measure on.

    Attributes:
      summary: the twelve numbers, 0..1, by name and in COCO's order.
      ap_by_category: AP (IoU .50:.95, all areas) by category id.
    """

    summary: dict[str, float]
    ap_by_category: dict[int, float]


def score(
    images: list[dict],
    category_ids: list[int],
    annotations: list[dict],
    detections: list[dict],
    iou_type: str,
    max_detections: int,
) -> Scores:
    """Run COCOeval.

    Args:
      images: [{"id", "height", "width"}].
      category_ids: the categories to score.
      annotations: ground truth as COCO annotations, each with its own non-zero int id and an
        `ignore`-free, complete set of keys; the dicts are changed by pycocotools.
      detections: the same plus `score`.
      iou_type: "bbox" or "segm"; the latter needs `segmentation` as compressed RLE on both sides.
      max_detections: per image and category; more than 10.

    Returns:
      The scores.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports progress with print
        evaluation = COCOeval(
            _coco(images, category_ids, annotations),
            _coco(images, category_ids, detections),
            iou_type,
        )
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # [IoU, recall, category, area, cap]
    recall = evaluation.eval["recall"]  # [IoU, category, area, cap]
    summary = {
        "ap": _mean_of_measured(precision[:, :, :, 0, -1]),
        "ap50": _mean_of_measured(precision[_IOU_50, :, :, 0, -1]),
        "ap75": _mean_of_measured(precision[_IOU_75, :, :, 0, -1]),
        **{f"ap_{n}": _mean_of_measured(precision[:, :, :, a, -1]) for n, a in _AREAS.items()},
        "ar1": _mean_of_measured(recall[:, :, 0, 0]),
        "ar10": _mean_of_measured(recall[:, :, 0, 1]),
        f"ar{max_detections}": _mean_of_measured(recall[:, :, 0, 2]),
        **{f"ar_{n}": _mean_of_measured(recall[:, :, a, -1]) for n, a in _AREAS.items()},
    }
    ap_by_category = {
        category_id: _mean_of_measured(precision[:, :, k, 0, -1])
        for k, category_id in enumerate(evaluation.params.catIds)
    }
    return Scores(summary, ap_by_category)


def average_recalls(
    images: list[dict], annotations: list[dict], detections: list[dict], caps: tuple[int, ...]
) -> dict[tuple[str, int], float]:
    """Return the average recall of boxes without a class.

    COCOeval matches, once. Its own way from matches to recall passes through every precision, and
    a cap means the first so many in its list, which is not the rank where some are left out.

    Args:
      images: as for `score`.
      annotations: as for `score`; their categories do not matter.
      detections: [{"id", "image_id", "bbox", "area", "iscrowd", "rank"}], rank 0 is the image's
        best; those that overlap no object may be left out.
      caps: how many of an image's detections count, ascending.

    Returns:
      {(size, cap): 0..1, or -1 where there is no ground truth}; sizes are "all", "small",
      "medium", "large".
    """
    rank_of = {row["id"]: row["rank"] for row in detections if row["rank"] < caps[-1]}
    objects = [{**row, "category_id": 1} for row in annotations]
    ranked = [
        {**row, "category_id": 1, "score": -float(row["rank"])}
        for row in detections
        if row["id"] in rank_of
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(images, [1], objects), _coco(images, [1], ranked), "bbox")
        evaluation.params.maxDets = [caps[-1]]
        evaluation.evaluate()
    recalls = {}
    for size, area in {"all": 0, **_AREAS}.items():
        first = area * len(images)
        matched = [m for m in evaluation.evalImgs[first : first + len(images)] if m is not None]
        num_objects = sum(np.count_nonzero(m["gtIgnore"] == 0) for m in matched)
        hits = [(m["dtMatches"] != 0) & ~m["dtIgnore"] for m in matched]  # [IoU, detections] each
        ranks = np.array([rank_of[i] for m in matched for i in m["dtIds"]])
        hit = np.concatenate([*hits, np.zeros([len(evaluation.params.iouThrs), 0], bool)], axis=1)
        for cap in caps:
            recall = hit[:, ranks < cap].sum(axis=1) / max(num_objects, 1)
            recalls[size, cap] = float(recall.mean()) if num_objects else -1.0
    return recalls


def _coco(images: list[dict], category_ids: list[int], annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": images,
        "categories": [{"id": category_id} for category_id in category_ids],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _mean_of_measured(table: np.ndarray) -> float:
    measured = table[table > -1]
    return float(measured.mean()) if measured.size else -1.0
