"""Scoring as LVIS does, where annotations are federated: what nobody looked for does not count.

Beside COCO's rules (LVIS, arXiv 1908.03195, section 3 and the code of its authors):

* Of an image's detections the best 300 count, of whatever categories (COCO: 100 of each).
* A detection of a category that the image has no object of, and that is not known to be absent
  from it (`neg_category_ids`), is left out: nobody knows whether it is right.
* A detection that matches nothing is no mistake if its category is not annotated exhaustively in
  the image (`not_exhaustive_category_ids`).
* AP is also the mean over rare categories (in 1 to 10 training images), common ones (up to 100) and
  frequent ones. There is no average recall at 1 and 10.

hotcoco computes, as for COCO; pycocotools does with one method more. The package `lvis` is an
oracle in tests.
"""

import collections
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import cocoeval

from mrcnn_tf.evaluation import boundary, scoring

GROUPS = {"rare": "r", "common": "c", "frequent": "f"}


class _Federated:
    """What pycocotools' evaluation does not know; in front of one of its classes."""

    cocoGt: Any  # noqa: N815 - pycocotools' name

    def evaluateImg(  # noqa: N802 - pycocotools' name
        self, imgId: int, catId: int, aRng: list[float], maxDet: int
    ) -> dict[str, Any] | None:
        """Match detections of one image and category; those that match nothing may not count."""
        found = super().evaluateImg(imgId, catId, aRng, maxDet)  # type: ignore[misc]
        if found and catId in self.cocoGt.imgs[imgId]["not_exhaustive_category_ids"]:
            found["dtIgnore"] = (found["dtIgnore"] != 0) | (found["dtMatches"] == 0)
        return found


class FederatedEval(_Federated, cocoeval.COCOeval):
    """pycocotools' evaluation by LVIS's rules."""


class FederatedBoundaryEval(_Federated, boundary.BoundaryEval):
    """The same by boundaries."""


def library(name: str) -> scoring.Library:
    """Return who is to compute, "hotcoco" or "pycocotools", by LVIS's rules; see `scoring.library`.

    Raises:
      ValueError: there is no such choice.
      ModuleNotFoundError: it is not installed.
    """
    plain = scoring.library(name)
    if name == "hotcoco":
        return plain._replace(COCOeval=functools.partial(plain.COCOeval, lvis_style=True))
    return plain._replace(COCOeval=FederatedEval)


def library_of(rows: scoring.Rows) -> scoring.Library:
    """Return hotcoco, by LVIS's rules if the images have lists, as `numbered` gives them."""
    has_lists = any("not_exhaustive_category_ids" in image for image in rows.images)
    return (library if has_lists else scoring.library)("hotcoco")


def is_federated(truth: dict[str, list[dict]]) -> bool:
    """Whether a ground truth, see `ground_truth.py`, says for which categories it was annotated."""
    return any("neg_category_ids" in image for image in truth["images"])


def numbered(images: list[dict], category: dict[int, int]) -> list[dict]:
    """Give the lists of images the numbers by which categories are scored; a missing one is empty.

    Args:
      images: with "neg_category_ids" and "not_exhaustive_category_ids".
      category: {category id: number}.
    """
    return [
        image
        | {
            key: [category[i] for i in image.get(key, ()) if i in category]
            for key in ("neg_category_ids", "not_exhaustive_category_ids")
        }
        for image in images
    ]


def those_that_count(rows: scoring.Rows) -> scoring.Rows:
    """Leave out detections beyond the best of their image, and those of which nothing is known.

    Args:
      rows: all of them; `images` as `numbered` returns them.
    """
    too_many = _beyond(rows)
    known = {(row["image_id"], row["category_id"]) for row in rows.annotations}
    known |= {(image["id"], i) for image in rows.images for i in image["neg_category_ids"]}
    kept = [
        row
        for row in rows.detections
        if row["id"] not in too_many and (row["image_id"], row["category_id"]) in known
    ]
    return rows._replace(detections=kept)


def _beyond(rows: scoring.Rows) -> set[int]:
    """Return the ids of detections that are not among the best of their image."""
    counts = collections.Counter(row["image_id"] for row in rows.detections)
    crowded = {i for i, count in counts.items() if count > rows.max_detections}
    of_image: dict[int, list[dict]] = {}
    for row in rows.detections:
        if row["image_id"] in crowded:
            of_image.setdefault(row["image_id"], []).append(row)
    beyond = set()
    for found in of_image.values():
        found.sort(key=lambda row: -row["score"])  # equal ones in their order
        beyond |= {row["id"] for row in found[rows.max_detections :]}
    return beyond


def names(max_detections: int) -> tuple[str, ...]:
    """What `score` calls its numbers, in LVIS's order."""
    of_groups = (f"ap_{group}" for group in GROUPS)
    return (
        *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", *of_groups),
        *(f"ar{max_detections}", "ar_small", "ar_medium", "ar_large"),
    )


def score(
    rows: scoring.Rows, frequencies: Sequence[str], cocoeval: scoring.Library
) -> scoring.Scores:
    """Score as LVIS does.

    Args:
      rows: what `those_that_count` returned.
      frequencies: of each of `rows.category_ids`, "r", "c" or "f"; "" where it is not known.
      cocoeval: computes: of `library`, or another class with the same rules.

    Returns:
      The scores: of the summary the numbers of `names`.
    """
    evaluation = scoring.accumulated(rows, [rows.max_detections], cocoeval)
    precision = evaluation.eval["precision"][..., -1]  # [IoU, recall, category, area]
    recall = evaluation.eval["recall"][..., -1]  # [IoU, category, area]
    letters = np.asarray(frequencies)
    mean = scoring.mean_of_measured
    values = [
        *(mean(precision[..., 0]), mean(precision[0, ..., 0]), mean(precision[5, ..., 0])),
        *(mean(precision[..., area]) for area in (1, 2, 3)),
        *(mean(precision[:, :, letters == letter, 0]) for letter in GROUPS.values()),
        *(mean(recall[..., area]) for area in range(4)),
    ]
    summary = dict(zip(names(rows.max_detections), values, strict=True))
    return scoring.Scores(summary, scoring.of_categories(precision, rows.category_ids))
