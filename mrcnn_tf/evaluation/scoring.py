"""The door to COCOeval: ground truth and detections in, COCO's twelve numbers out.

pycocotools is the reference, so nothing of its arithmetic is repeated here. hotcoco does the same
in compiled code, with the same numbers to the last bit for what is handed over here (annotations
with ids of their own from 1 on; tests hold the two against each other).
What is done differently is how COCOeval's tables are read: `COCOeval.summarize` prints, and reports
-1 for AP when detections are capped at another number than 100. And average recall is counted from
its matches.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

DEFAULT = "hotcoco"

# Rows of COCOeval's tables.
_IOU_50, _IOU_75 = 0, 5
_AREAS = {"small": 1, "medium": 2, "large": 3}  # 0 is "all"
AREAS = ("all", *_AREAS)


class Library(NamedTuple):
    """Who computes.

    Attributes:
      COCO: its class of a data set.
      COCOeval: its class of an evaluation.
    """

    COCO: Any
    COCOeval: Any


def library(name: str) -> Library:
    """Import the library that is to compute, "hotcoco" or "pycocotools".

    Raises:
      ValueError: there is no such choice.
      ModuleNotFoundError: it is not installed.
    """
    if name == "hotcoco":
        import hotcoco

        return Library(hotcoco.COCO, hotcoco.COCOeval)
    if name == "pycocotools":
        from pycocotools import coco, cocoeval

        return Library(coco.COCO, cocoeval.COCOeval)
    raise ValueError(f"unknown COCOeval {name!r}; known: hotcoco, pycocotools")


class Scores(NamedTuple):
    """What one COCOeval run says; -1 where there is no ground truth to measure on.

    Attributes:
      summary: the twelve numbers, 0..1, by name and in COCO's order.
      ap_by_category: AP (IoU .50:.95, all areas) by category id.
    """

    summary: dict[str, float]
    ap_by_category: dict[int, float]


class Rows(NamedTuple):
    """What COCOeval takes, images, annotations and categories numbered anew: `score`'s arguments.

    Attributes:
      images: [{"id", "height", "width"}]; by LVIS's rules with lists, see `federated.numbered`.
      category_ids: the categories to score, ascending.
      annotations: ground truth: {"id", "image_id", "category_id", "iscrowd", "area"} and "bbox" or
        "segmentation", a compressed RLE; each with its own int id from 1 on.
      detections: the same plus "score".
      iou_type: "bbox" or "segm", what overlaps.
      max_detections: per image and category; more than 10.
    """

    images: list[dict]
    category_ids: list[int]
    annotations: list[dict]
    detections: list[dict]
    iou_type: str
    max_detections: int


def score(
    images: list[dict],
    category_ids: list[int],
    annotations: list[dict],
    detections: list[dict],
    iou_type: str,
    max_detections: int,
    cocoeval: Library,
) -> Scores:
    """Run COCOeval.

    Args:
      images: [{"id", "height", "width"}].
      category_ids: the categories to score, ascending.
      annotations: ground truth: {"id", "image_id", "category_id", "iscrowd", "area"} and "bbox" or
        "segmentation", a compressed RLE; each with its own int id from 1 on. The dicts are changed
        by pycocotools.
      detections: the same plus "score".
      iou_type: "bbox" or "segm", what overlaps.
      max_detections: per image and category; more than 10.
      cocoeval: computes.

    Returns:
      The scores.
    """
    rows = Rows(images, category_ids, annotations, detections, iou_type, max_detections)
    evaluation = accumulated(rows, [1, 10, max_detections], cocoeval)
    precision = evaluation.eval["precision"]  # [IoU, recall, category, area, cap]
    recall = evaluation.eval["recall"]  # [IoU, category, area, cap]
    summary = {
        "ap": mean_of_measured(precision[:, :, :, 0, -1]),
        "ap50": mean_of_measured(precision[_IOU_50, :, :, 0, -1]),
        "ap75": mean_of_measured(precision[_IOU_75, :, :, 0, -1]),
        **{f"ap_{n}": mean_of_measured(precision[:, :, :, a, -1]) for n, a in _AREAS.items()},
        "ar1": mean_of_measured(recall[:, :, 0, 0]),
        "ar10": mean_of_measured(recall[:, :, 0, 1]),
        f"ar{max_detections}": mean_of_measured(recall[:, :, 0, 2]),
        **{f"ar_{n}": mean_of_measured(recall[:, :, a, -1]) for n, a in _AREAS.items()},
    }
    return Scores(summary, of_categories(precision[..., -1], category_ids))


def names(max_detections: int) -> tuple[str, ...]:
    """What `score` calls the numbers of its summary, in COCO's order."""
    return (
        *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
        *("ar1", "ar10", f"ar{max_detections}", "ar_small", "ar_medium", "ar_large"),
    )


def of_categories(precision: np.ndarray, category_ids: list[int]) -> dict[int, float]:
    """Return the AP of each category, from a table float [IoU, recall, category, area]."""
    return {i: mean_of_measured(precision[:, :, k, 0]) for k, i in enumerate(category_ids)}


def precisions(rows: Rows, cocoeval: Library) -> np.ndarray:
    """Return COCOeval's table of precisions, which AP is the mean of.

    Returns:
      float [IoU .50:.05:.95, recall 0:.01:1, category, area], areas in the order of `AREAS`; -1
      where there is no ground truth.
    """
    evaluation = accumulated(rows, [1, 10, rows.max_detections], cocoeval)
    return evaluation.eval["precision"][..., -1]


def average_recalls(
    images: list[dict],
    annotations: list[dict],
    detections: list[dict],
    caps: tuple[int, ...],
    cocoeval: Library,
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
      cocoeval: computes.

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
    evaluation = evaluate(
        Rows(images, [1], objects, ranked, "bbox", caps[-1]), [caps[-1]], cocoeval
    )
    of_images = [m for m in evaluation.evalImgs if m is not None]  # in an order of the library's
    num_thresholds = len(evaluation.params.iouThrs)
    recalls = {}
    for size, area in {"all": 0, **_AREAS}.items():
        limits = tuple(evaluation.params.areaRng[area])
        matched = [m for m in of_images if tuple(m["aRng"]) == limits]
        num_objects = sum(np.count_nonzero(np.asarray(m["gtIgnore"]) == 0) for m in matched)
        ranks = np.array([rank_of[i] for m in matched for i in m["dtIds"]])
        hits = [np.zeros([num_thresholds, 0], bool)]  # [IoU, detections] each
        for m in matched:
            shape = num_thresholds, len(m["dtIds"])
            is_ignored = np.asarray(m["dtIgnore"], bool).reshape(shape)
            hits.append((np.asarray(m["dtMatches"]).reshape(shape) != 0) & ~is_ignored)
        hit = np.concatenate(hits, axis=1)
        for cap in caps:
            recall = hit[:, ranks < cap].sum(axis=1) / max(num_objects, 1)
            recalls[size, cap] = float(recall.mean()) if num_objects else -1.0
    return recalls


def evaluate(
    rows: Rows,
    max_detections: list[int],
    cocoeval: Library,
    area: str = "",
    sigmas: Sequence[float] = (),
) -> Any:
    """Match; return the library's COCOeval.

    Args:
      rows: what is scored; its own `max_detections` does not count.
      max_detections: all caps, ascending.
      cocoeval: computes.
      area: one of `AREAS`, to match for that one alone; "" for all four.
      sigmas: of keypoints, see `KeypointSet.sigmas`; the library's own are those of COCO's persons.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports progress with print
        truth, found = cocoeval.COCO(), cocoeval.COCO()
        for dataset, of_dataset in ((truth, rows.annotations), (found, rows.detections)):
            dataset.dataset = {
                "images": rows.images,
                "categories": [{"id": i, "name": str(i)} for i in rows.category_ids],
                "annotations": of_dataset,
            }
            dataset.createIndex()
        run = cocoeval.COCOeval(truth, found, rows.iou_type)
        run.params.maxDets = max_detections
        if sigmas:
            run.params.kpt_oks_sigmas = np.array(sigmas)
        if area:
            run.params.areaRng = [run.params.areaRng[AREAS.index(area)]]
            run.params.areaRngLbl = [area]
        run.evaluate()
    return run


def accumulated(rows: Rows, max_detections: list[int], cocoeval: Library) -> Any:
    """Match, and count over all images; return the library's COCOeval, its tables in `eval`.

    Args:
      rows: see `evaluate`, here and below.
      max_detections: all caps, ascending.
      cocoeval: computes.
    """
    evaluation = evaluate(rows, max_detections, cocoeval)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return evaluation


def mean_of_measured(table: np.ndarray) -> float:
    """Return the mean of what a table has, whose -1 stand for nothing to measure on; or -1."""
    measured = table[table > -1]
    return float(measured.mean()) if measured.size else -1.0
