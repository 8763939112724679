"""Average recall of class-agnostic boxes: how an RPN is scored.

    evaluator = ProposalEvaluator(ground_truth.from_records(pattern, label_map, False))
    for batch in ...:
        evaluator.add(source_id=..., boxes=..., ...)
    numbers = evaluator.evaluate()      # {"ar_100": 0.38, "ar_small_1000": 0.31, ...}
    print(evaluator.table())

The numbers are those of pycocotools with `useCats=0` and `maxDets` 100, 300, 1000; its rules for
crowds and areas (the annotation's: mostly the mask's) hold. A box whose IoU with every object is
below 0.5 keeps its rank and is then forgotten: it matches at no threshold, so no recall depends on
it. Of 1000 proposals nine in ten are such; pycocotools, in Python, would need minutes for them.
Which library matches, `scoring.py` says.
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.evaluation import detections, images, scoring

_LOGGER = logging.getLogger(__name__)

CAPS = (100, 300, 1000)  # proposals per image that count
_SIZES = ("all", "small", "medium", "large")
_LOWEST_IOU = 0.5  # of COCO's ten thresholds


class ProposalEvaluator:
    """Scores proposals of a data set's images by average recall, IoU .50:.95.

    Shape letters: `B` images, `P` proposals.

    Args:
      truth: the ground truth, from `evaluation/ground_truth.py`; masks and categories are not
        looked at.
      cocoeval: who matches, "hotcoco" or "pycocotools"; see `scoring.py`.
    """

    def __init__(self, truth: dict[str, list[dict]], cocoeval: str = scoring.DEFAULT) -> None:
        self._cocoeval = scoring.library(cocoeval)
        self._images = images.Images(truth)
        # Category by category, as pycocotools lines objects up with `useCats=0`.
        self._annotations = sorted(truth["annotations"], key=lambda a: a["category_id"])
        self._objects: dict[str, list[dict]] = {}
        for annotation in self._annotations:
            self._objects.setdefault(str(annotation["image_id"]), []).append(annotation)
        self.reset()

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What `evaluate` returns, in its order, by which a best checkpoint can be chosen."""
        return tuple(_name(size, cap) for cap in CAPS for size in _SIZES)

    @property
    def num_images(self) -> int:
        """Images of the ground truth."""
        return len(self._images)

    @property
    def num_added(self) -> int:
        """Images whose proposals were added since the last reset."""
        return self._images.num_added

    def reset(self) -> None:
        """Forget all proposals."""
        self._images.reset()
        self._found: list[dict[str, Any]] = []
        self._num_proposals = 0
        self._most_per_image = 0
        self._numbers: dict[str, float] | None = None

    def add(
        self,
        *,
        source_id: np.ndarray,
        image_size_hw: np.ndarray,
        original_size_hw: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
        valid: np.ndarray,
    ) -> None:
        """Add the proposals of one batch; filler images (all-zero source id) are skipped.

        Args:
          source_id: uint8 [B, SOURCE_ID_BYTES], zero-padded UTF-8.
          image_size_hw: [B, 2], the resized image inside the canvas, pixels.
          original_size_hw: [B, 2], the stored image, pixels.
          boxes: float [B, P, (y1, x1, y2, x2)], network-input pixels.
          scores: float [B, P], any scale.
          valid: bool [B, P].

        Raises:
          ValueError: the image is unknown, was added before or has another size than in the
            ground truth; a value is not finite.
        """
        self._most_per_image = max(self._most_per_image, boxes.shape[1])
        self._numbers = None
        for b, row in enumerate(source_id):
            image = self._images.add_row(row, original_size_hw[b])
            if image is None:
                continue
            kept = np.asarray(valid[b], bool)
            self._add_image(
                image["id"],
                detections.to_original_frame(boxes[b][kept], image_size_hw[b], original_size_hw[b]),
                np.asarray(scores[b][kept], np.float64),
            )

    def _add_image(self, image_id: int | str, boxes: np.ndarray, scores: np.ndarray) -> None:
        """Keep the rank of each proposal that lies on an object.

        Args:
          image_id: the image's id.
          boxes: float64 [P, (y1, x1, y2, x2)], pixels of the stored image.
          scores: float64 [P].
        """
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError(f"image {image_id!r}: a proposal's box or score is not finite")
        self._num_proposals += len(boxes)
        objects = self._objects.get(str(image_id), [])
        if not objects or not len(boxes):
            return
        order = np.argsort(-scores, kind="stable")
        y1, x1, y2, x2 = boxes[order].T
        boxes = np.ascontiguousarray(np.stack([x1, y1, x2 - x1, y2 - y1], axis=1))
        overlaps = coco_mask.iou(
            boxes,
            np.array([o["bbox"] for o in objects], np.float64),
            [int(o["iscrowd"]) for o in objects],
        )  # [P, objects]
        for rank in np.flatnonzero((overlaps >= _LOWEST_IOU).any(axis=1)).tolist():
            self._found.append({"image_id": image_id, "rank": rank, "bbox": boxes[rank].tolist()})

    def parts(self) -> Iterator[dict[str, Any]]:
        """Yield what was added, in plain values that JSON can say, for another's `add_part`."""
        yield {
            "images": self._images.added(),
            "found": self._found,
            "num_proposals": self._num_proposals,
            "most_per_image": self._most_per_image,
        }

    def add_part(self, part: dict[str, Any]) -> None:
        """Add what another process was given, of other images.

        Args:
          part: of its `parts`.

        Raises:
          ValueError: an image was added before.
        """
        for text in part["images"]:
            self._images.add(text)
        self._numbers = None
        self._found += part["found"]
        self._num_proposals += part["num_proposals"]
        self._most_per_image = max(self._most_per_image, part["most_per_image"])

    def evaluate(self) -> dict[str, float]:
        """Score what was added; an image that was never added has no proposals.

        Returns:
          `ar_100`, `ar_small_100`, `ar_medium_100`, `ar_large_100`, and the same with 300 and 1000:
          0..1, -1 where there is no ground truth to measure on. Where a network proposes fewer,
          recall at a higher number is that of what there is.
        """
        missing = self._images.num_missing
        if missing:
            _LOGGER.warning(
                "%d of %d images have no proposals added: scored as if nothing was found there.",
                missing,
                len(self._images),
            )
        recalls = self._score()
        self._numbers = {_name(size, cap): recalls[size, cap] for cap in CAPS for size in _SIZES}
        return dict(self._numbers)

    def table(self) -> str:
        """Return the numbers, one line per number of proposals, as readable text."""
        numbers = self._numbers or self.evaluate()
        lines = ["proposals" + "".join(f"{head:>9}" for head in ("AR", "AR s", "AR m", "AR l"))]
        for k, cap in enumerate(CAPS):
            values = list(numbers.values())[k * len(_SIZES) : (k + 1) * len(_SIZES)]
            cells = (f"{value:>9.3f}" if value >= 0 else f"{'-':>9}" for value in values)
            lines.append(f"{cap:>9}" + "".join(cells))
        beyond = [f"AR@{cap}" for cap in CAPS if cap > self._most_per_image]
        if self.num_added and beyond:
            lines.append(
                f"At most {self._most_per_image} proposals per image: {', '.join(beyond)} "
                f"{'is' if len(beyond) == 1 else 'are'} AR@{self._most_per_image}."
            )
        crowds = sum(bool(a["iscrowd"]) for a in self._annotations)
        count = f"{self.num_images} images, {len(self._annotations) - crowds} objects"
        count += f" + {crowds} crowd regions" if crowds else ""
        count += f", {self._num_proposals} proposals"
        if self._images.num_missing:
            count += f"; {self._images.num_missing} images without any added, scored as empty"
        return "\n".join([*lines, count]) + "\n"

    def _score(self) -> dict[tuple[str, int], float]:
        """Match what lies on objects."""
        annotations = [
            {
                **annotation,
                "id": k + 1,
                "image_id": self._images.number(annotation["image_id"]),
            }
            for k, annotation in enumerate(self._annotations)
        ]
        boxes = [
            {
                "id": k + 1,
                "image_id": self._images.number(row["image_id"]),
                "bbox": row["bbox"],
                "area": row["bbox"][2] * row["bbox"][3],
                "iscrowd": 0,
                "rank": row["rank"],
            }
            for k, row in enumerate(self._found)
        ]
        images = self._images.numbered()
        return scoring.average_recalls(images, annotations, boxes, CAPS, self._cocoeval)


def _name(size: str, cap: int) -> str:
    return f"ar_{cap}" if size == "all" else f"ar_{size}_{cap}"
