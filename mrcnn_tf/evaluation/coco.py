"""COCO evaluation: collects detections batch by batch, scores them as COCOeval does.

    evaluator = CocoEvaluator(ground_truth.from_records(pattern, label_map), label_map)
    for batch in ...:
        evaluator.add(source_id=..., boxes=..., ...)
    numbers = evaluator.evaluate()      # {"box_ap": 0.37, ..., "mask_ap": 0.34, ...}
    print(evaluator.table())

Images are found by the text of their id, so int ids, text ids and 64-bit ids all work. Inside,
images, annotations and categories are numbered anew: pycocotools takes an object with annotation
id 0 for unmatched whatever happens, and a repeated id for one object.
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import (
    boundary,
    detections,
    federated,
    ground_truth,
    images,
    keypoint_scoring,
    report,
    scoring,
)

_LOGGER = logging.getLogger(__name__)
_RESULTS_OF_A_PART = 50_000  # some megabytes, of what processes tell each other at once


class CocoEvaluator:
    """Scores detections of a data set's images as COCO does; if they say so, as LVIS does.

    They say so by lists of categories, see `federated.py`.

    Shape letters: `B` images, `D` detections, `M` mask side.

    Args:
      truth: the ground truth, from `evaluation/ground_truth.py`.
      label_map: turns the network's classes into category ids; None if they are category ids.
      include_masks: whether to score masks beside boxes.
      include_boundaries: whether to score masks by their boundaries too, see `boundary.py`.
      include_keypoints: whether to score keypoints beside them, of the categories that have some.
      max_detections: detections per image and category that count, by LVIS's rules per image; more
        than 10.
      mask_paste: how probabilities become pixels, see `ops/paste.py`.
      cocoeval: who computes the numbers, "hotcoco" or "pycocotools"; see `scoring.py`.
      as_pycocotools: reproduce the numbers that pycocotools gives for a result file, with its
        two known flaws, to compare with published ones: annotation ids are used as they are,
        so that an object with id 0 counts as missed; and a result with box and mask is small,
        medium or large by its box's area in the mask scores too. Only pycocotools can do that.
    """

    def __init__(
        self,
        truth: dict[str, list[dict]],
        label_map: LabelMap | None,
        include_masks: bool = True,
        max_detections: int = 100,
        mask_paste: str = "pixel_centres",
        cocoeval: str = scoring.DEFAULT,
        as_pycocotools: bool = False,
        include_boundaries: bool = False,
        include_keypoints: bool = False,
    ) -> None:
        if max_detections <= 10:
            raise ValueError(f"max_detections must be more than 10, not {max_detections}")
        self._truth = truth
        self._label_map = label_map
        self._kinds = {"box": "bbox", "mask": "segm"} if include_masks else {"box": "bbox"}
        self._include_boundaries = include_boundaries and include_masks
        names = {c["id"]: tuple(c["keypoints"]) for c in truth["categories"] if "keypoints" in c}
        if include_keypoints and not names:
            raise ValueError("keypoints are to be scored, but no category of the data has some")
        of_network = label_map.keypoints if label_map else None
        if include_keypoints and of_network and {of_network.names} != {*names.values()}:
            given = "; ".join(", ".join(each) for each in {*names.values()})
            raise ValueError(
                f"the network's keypoints are {', '.join(of_network.names)}, those of the ground "
                f"truth {given}: they must be the same, in this order"
            )
        self._keypoint_names = names if include_keypoints else {}
        self._max_detections = max_detections
        self._mask_paste = mask_paste
        self._is_federated = federated.is_federated(truth)
        library = federated.library if self._is_federated else scoring.library
        self._cocoeval = library("pycocotools" if as_pycocotools else cocoeval)
        self._as_pycocotools = as_pycocotools
        self._images = images.Images(truth)
        known_ids = {category["id"] for category in truth["categories"]}
        unknown_to_network = known_ids - set(label_map.ids if label_map else known_ids)
        if unknown_to_network:
            _LOGGER.warning(
                "The label map lacks categories %s of the ground truth; they will score 0.",
                sorted(unknown_to_network),
            )
        self.reset()

    @property
    def truth(self) -> dict[str, list[dict]]:
        """The ground truth, see `ground_truth.py`."""
        return self._truth

    @property
    def image_ids(self) -> list[int | str]:
        """The images' ids, in the order of the numbers that `rows` gives them."""
        return [image["id"] for image in self._images.in_order()]

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is scored by its overlap: ("box", "mask"), or ("box",)."""
        return tuple(self._kinds)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What `evaluate` returns, in its order, by which a best checkpoint can be chosen.

        Of the categories those of which there is something to score: another's is always -1.
        """
        summary = (federated.names if self._is_federated else scoring.names)(self._max_detections)
        labels = report.category_labels(self._truth["categories"])
        objects = [a for a in self._truth["annotations"] if not a["iscrowd"]]
        with_objects = {a["category_id"] for a in objects}
        with_keypoints = {
            a["category_id"]
            for a in objects
            if a["category_id"] in self._keypoint_names and a["num_keypoints"]
        }

        def of(kind: str, summary: tuple[str, ...], scored: set[int]) -> list[str]:
            of_categories = [f"{kind}_ap/{labels[i]}" for i in sorted(scored)]
            return [*(f"{kind}_{name}" for name in summary), *of_categories]

        kinds = [*self._kinds, *(["boundary"] if self._include_boundaries else [])]
        names = [name for kind in kinds for name in of(kind, summary, with_objects)]
        if self._keypoint_names:
            names += of("keypoint", keypoint_scoring.SUMMARY, with_keypoints)
        return tuple(names)

    @property
    def has_mask_scores(self) -> bool:
        """Whether masks are ranked by other scores than boxes."""
        return any("mask_score" in result for result in self._results)

    @property
    def num_images(self) -> int:
        """Images of the ground truth."""
        return len(self._images)

    @property
    def num_added(self) -> int:
        """Images whose detections were added since the last reset."""
        return self._images.num_added

    def reset(self) -> None:
        """Forget all detections."""
        self._images.reset()
        self._results: list[dict] = []
        self._scores: dict[str, scoring.Scores] | None = None

    def add(
        self,
        *,
        source_id: np.ndarray,
        image_size_hw: np.ndarray,
        original_size_hw: np.ndarray,
        boxes: np.ndarray,
        classes: np.ndarray,
        scores: np.ndarray,
        valid: np.ndarray,
        masks: np.ndarray | None = None,
        mask_scores: np.ndarray | None = None,
        keypoints: np.ndarray | None = None,
    ) -> None:
        """Add the detections of one batch; filler images (all-zero source id) are skipped.

        Args:
          source_id: uint8 [B, SOURCE_ID_BYTES], zero-padded UTF-8.
          image_size_hw: [B, 2], the resized image inside the canvas, pixels.
          original_size_hw: [B, 2], the stored image, pixels.
          boxes: float [B, D, (y1, x1, y2, x2)], network-input pixels.
          classes: int [B, D], contiguous, 1..N-1.
          scores: float [B, D].
          valid: bool [B, D].
          masks: float [B, D, M, M], probabilities inside the box; needed if masks are scored.
          mask_scores: float [B, D], by which masks are ranked; None: by `scores`, as boxes.
          keypoints: float [B, D, K, (y, x, score)], network-input pixels; needed if scored.

        Raises:
          ValueError: the image is unknown, was added before or has another size than in the
            ground truth; masks are missing; a value is out of range or not finite.
        """
        if "mask" in self._kinds and masks is None:
            raise ValueError("masks are to be scored, but the detections have none")
        if self._keypoint_names and keypoints is None:
            raise ValueError("keypoints are to be scored, but the detections have none")
        for b, row in enumerate(source_id):
            image = self._images.add_row(row, original_size_hw[b])
            if image is None:
                continue
            self._scores = None
            kept = np.asarray(valid[b], bool)
            self._results += detections.to_coco_results(
                image_id=image["id"],
                boxes=detections.to_original_frame(
                    boxes[b][kept], image_size_hw[b], original_size_hw[b]
                ),
                classes=classes[b][kept],
                scores=scores[b][kept],
                masks=masks[b][kept] if masks is not None and "mask" in self._kinds else None,
                mask_scores=None if mask_scores is None else mask_scores[b][kept],
                original_size_hw=(image["height"], image["width"]),
                label_map=self._label_map,
                mask_paste=self._mask_paste,
                keypoints=None
                if keypoints is None
                else detections.keypoints_to_original_frame(
                    keypoints[b][kept], image_size_hw[b], original_size_hw[b]
                ),
                keypoint_category_ids=self._keypoint_names,
            )

    def add_coco_results(self, results: list[dict[str, Any]]) -> None:
        """Add detections in COCO's result format, all those of an image in one call.

        Args:
          results: [{"image_id", "category_id", "score", "bbox" and/or "segmentation"}] and
            "keypoints" if they are scored, ids of the data set, pixels of the stored image. A
            missing box is the mask's. Where there is a "mask_score" too, masks are ranked by it.

        Raises:
          ValueError: an image is unknown or was added before; masks are to be scored and a result
            has none; a value is not finite.
        """
        for text in dict.fromkeys(str(result["image_id"]) for result in results):
            self._images.add(text)
        self._scores = None
        for result in results:
            image = self._images.find(result["image_id"])
            where = f"result of image {image['id']!r}"
            box, segmentation = result.get("bbox"), result.get("segmentation")
            if "mask" in self._kinds and not segmentation:
                raise ValueError(f"{where}: masks are to be scored, but it has no segmentation")
            kept = {"image_id": image["id"], "category_id": result["category_id"]}
            kept["score"] = float(result["score"])
            if "mask_score" in result:
                kept["mask_score"] = float(result["mask_score"])
            if segmentation and ("mask" in self._kinds or not box):
                kept["segmentation"] = ground_truth.segmentation_to_rle(
                    segmentation, image["height"], image["width"], where
                )
            box = [float(side) for side in box] if box else None
            kept["bbox"] = box or coco_mask.toBbox(kept["segmentation"]).tolist()
            if not np.isfinite([kept["score"], kept.get("mask_score", 0.0), *kept["bbox"]]).all():
                raise ValueError(f"{where}: score or bbox is not finite")
            due = 3 * len(self._keypoint_names.get(result["category_id"], ()))
            if due:
                points = [float(value) for value in result.get("keypoints", ())]
                if len(points) != due or not np.isfinite(points).all():
                    raise ValueError(f"{where}: keypoints are to be scored: {due} finite numbers")
                kept["keypoints"] = points
            if self._as_pycocotools and box:
                kept["area"] = box[2] * box[3]
            self._results.append(kept)

    def parts(self) -> Iterator[dict[str, Any]]:
        """Yield what was added, in plain values that JSON can say, for another's `add_part`."""
        yield {"images": self._images.added(), "results": []}
        results = self.results()
        for start in range(0, len(results), _RESULTS_OF_A_PART):
            yield {"images": [], "results": results[start : start + _RESULTS_OF_A_PART]}

    def add_part(self, part: dict[str, Any]) -> None:
        """Add what another process was given, of other images.

        Args:
          part: of its `parts`.

        Raises:
          ValueError: an image was added before.
        """
        for text in part["images"]:
            self._images.add(text)
        self._scores = None
        for result in part["results"]:
            rle = result.get("segmentation")
            if rle:
                rle = rle | {"counts": rle["counts"].encode("ascii")}
                result = result | {"segmentation": rle}
            self._results.append(result)

    def evaluate(self) -> dict[str, float]:
        """Score what was added; an image that was never added has no detections.

        Returns:
          Twelve numbers per kind, 0..1, -1 where there is no ground truth to measure on:
          `box_ap`, `box_ap50`, `box_ap75`, `box_ap_small`, `box_ap_medium`, `box_ap_large`,
          `box_ar1`, `box_ar10`, `box_ar100` (named after `max_detections`), `box_ar_small`,
          `box_ar_medium`, `box_ar_large`, and the same with `mask_` and, if they are scored,
          `boundary_`. AP of each category as `box_ap/NAME` and so on. By LVIS's rules there are
          `box_ap_rare`, `box_ap_common` and `box_ap_frequent` instead of `box_ar1` and `box_ar10`.
          Of keypoints the ten numbers of `keypoint_scoring.score` with `keypoint_`, and
          `keypoint_ap/NAME`.
        """
        missing = self._images.num_missing
        if missing:
            _LOGGER.warning(
                "%d of %d images have no detections added: scored as if nothing was found there.",
                missing,
                len(self._images),
            )
        self._scores = {kind: self._score(kind) for kind in self._kinds}
        if self._include_boundaries:
            self._scores["boundary"] = self._score("mask", by_boundary=True)
        if self._keypoint_names:
            self._scores["keypoint"] = self._score_keypoints()
        numbers = {}
        labels = report.category_labels(self._truth["categories"])
        for kind, scores in self._scores.items():
            numbers.update({f"{kind}_{name}": value for name, value in scores.summary.items()})
            for category_id, ap in scores.ap_by_category.items():
                numbers[f"{kind}_ap/{labels[category_id]}"] = ap
        return numbers

    def table(self) -> str:
        """Return AP and number of objects per category, and the summary, as readable text."""
        if self._scores is None:
            self.evaluate()
        assert self._scores is not None
        text = report.category_table(self._truth, self._scores)
        count = f"{len(self._images)} images, {len(self._results)} detections"
        missing = self._images.num_missing
        if missing:
            count += f"; {missing} images without any detections added, scored as empty"
        return f"{text}\n{count}\n"

    def results(self) -> list[dict]:
        """Return all detections in COCO's result format, ready for `json.dump`."""
        rows = []
        for kept in self._results:
            row = {key: value for key, value in kept.items() if key != "area"}
            if "segmentation" in row:
                counts = row["segmentation"]["counts"]
                text = counts.decode("ascii") if isinstance(counts, bytes) else counts
                row["segmentation"] = {"size": list(row["segmentation"]["size"]), "counts": text}
            rows.append(row)
        return rows

    def rows(self, kind: str, by_mask_score: bool = True) -> scoring.Rows:
        """Return what is scored, numbered anew.

        Images have the number of their id's place in ascending order, from 0 on, categories and
        annotations (in the order of the ground truth) and detections numbers from 1 on.

        Args:
          kind: "box" or "mask".
          by_mask_score: a mask's score is its `mask_score`, if it has one; without, its box's,
            which decides what is shown.
        """
        category_ids = sorted(category["id"] for category in self._truth["categories"])
        category = {category_id: k + 1 for k, category_id in enumerate(category_ids)}
        shape = {"box": "bbox", "mask": "segmentation"}[kind]
        annotations = [
            {
                "id": annotation["id"] if self._as_pycocotools else k + 1,
                "image_id": self._images.number(annotation["image_id"]),
                "category_id": category[annotation["category_id"]],
                "iscrowd": annotation["iscrowd"],
                "area": annotation["area"],
                shape: annotation[shape],
            }
            for k, annotation in enumerate(self._truth["annotations"])
        ]
        ranked = "mask_score" if kind == "mask" and by_mask_score else "score"
        scored = [result for result in self._results if result["category_id"] in category]
        rows = [
            {
                "id": k + 1,
                "image_id": self._images.number(result["image_id"]),
                "category_id": category[result["category_id"]],
                "score": result.get(ranked, result["score"]),
                "iscrowd": 0,
                "area": result["area"] if "area" in result else _area(result, kind),
                shape: result[shape],
            }
            for k, result in enumerate(scored)
        ]
        numbered = self._images.numbered()
        if self._is_federated:
            numbered = federated.numbered(numbered, category)
        every = scoring.Rows(
            images=numbered,
            category_ids=list(category.values()),
            annotations=annotations,
            detections=rows,
            iou_type=self._kinds[kind],
            max_detections=self._max_detections,
        )
        return federated.those_that_count(every) if self._is_federated else every

    def _score(self, kind: str, by_boundary: bool = False) -> scoring.Scores:
        rows, library = self.rows(kind), self._cocoeval
        if not self._is_federated:
            scores = boundary.score(rows) if by_boundary else scoring.score(*rows, library)
            return self._named(scores)
        if by_boundary:
            library = scoring.Library(COCO, federated.FederatedBoundaryEval)
        ordered = sorted(self._truth["categories"], key=lambda category: category["id"])
        letters = [category.get("frequency", "") for category in ordered]
        return self._named(federated.score(rows, letters, library))

    def _named(self, scores: scoring.Scores) -> scoring.Scores:
        """Give categories their own ids back."""
        category_ids = sorted(category["id"] for category in self._truth["categories"])
        return scores._replace(
            ap_by_category={i: scores.ap_by_category[k + 1] for k, i in enumerate(category_ids)}
        )

    def _score_keypoints(self) -> scoring.Scores:
        ids = sorted(self._keypoint_names)
        category = {category_id: k + 1 for k, category_id in enumerate(ids)}
        annotations = [
            {
                "id": k + 1,
                "image_id": self._images.number(annotation["image_id"]),
                "category_id": category[annotation["category_id"]],
                "iscrowd": annotation["iscrowd"],
                "area": annotation["area"],
                "bbox": annotation["bbox"],
                "keypoints": annotation["keypoints"],
                "num_keypoints": annotation["num_keypoints"],
            }
            for k, annotation in enumerate(self._truth["annotations"])
            if annotation["category_id"] in category
        ]
        scored = [result for result in self._results if "keypoints" in result]
        found: list[dict] = []
        for k, result in enumerate(scored):
            box = keypoint_scoring.extent(result["keypoints"])
            found.append(
                {
                    "id": k + 1,
                    "image_id": self._images.number(result["image_id"]),
                    "category_id": category[result["category_id"]],
                    "score": result["score"],
                    "iscrowd": 0,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "keypoints": result["keypoints"],
                }
            )
        rows = scoring.Rows(
            images=self._images.numbered(),
            category_ids=list(category.values()),
            annotations=annotations,
            detections=found,
            iou_type="keypoints",
            max_detections=keypoint_scoring.MAX_DETECTIONS,
        )
        sigmas = KeypointSet(self._keypoint_names[ids[0]]).sigmas()
        scores = keypoint_scoring.score(rows, sigmas, self._cocoeval)
        return scores._replace(
            ap_by_category={i: scores.ap_by_category[number] for i, number in category.items()}
        )


def _area(result: dict, kind: str) -> float:
    """Return the area by which COCO calls a detection small, medium or large."""
    if kind == "mask":
        return float(coco_mask.area(result["segmentation"]))
    return result["bbox"][2] * result["bbox"][3]
