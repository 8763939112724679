"""One object that was found, and the list of those of an image, wherever they come from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn_tf.data import rle
from mrcnn_tf.data.keypoint_set import KeypointSet


class Crop(NamedTuple):
    """A mask without what is empty around it.

    Attributes:
      y: row of the image that `pixels[0]` belongs to.
      x: column of the image that `pixels[:, 0]` belongs to.
      pixels: bool [h, w]; h and w are 0 if the mask has no pixel.
    """

    y: int
    x: int
    pixels: np.ndarray


class Keypoints(NamedTuple):
    """Where the keypoints of an object are.

    Attributes:
      points: float64 [K, (y, x)], pixels of the upright image, continuous: the middle of the first
        pixel is at 0.5.
      scores: float64 [K], probability of each place, in [0, 1].
      kinds: what they are called, and which are joined.
    """

    points: np.ndarray
    scores: np.ndarray
    kinds: KeypointSet

    def to_coco(self, third: Sequence[float]) -> list[float]:
        """Return COCO's list [x, y, third value, ...], in which the first pixel's middle is 0."""
        rows = zip(self.points.tolist(), third, strict=True)
        return [round(v, 3) for (y, x), last in rows for v in (x - 0.5, y - 0.5, last)]


class Detection(NamedTuple):
    """One object in the frame of the image as it was given.

    Attributes:
      box: float64 [(y1, x1, y2, x2)], pixels of the upright image; never empty.
      score: in [0, 1].
      category_id: the data set's own id.
      category: its name.
      mask: COCO run lengths {"size": [height, width], "counts": bytes}, or None for a network
        without masks.
      mask_score: how good the mask is, in [0, 1], if the network says so: its score times the IoU
        it expects of the mask. Box and class are ranked by `score`, masks by this.
      keypoints: None for a network without, and for a category that has none.
    """

    box: np.ndarray
    score: float
    category_id: int
    category: str
    mask: dict | None
    mask_score: float | None = None
    keypoints: Keypoints | None = None

    def to_coco(self, image_id: str | int) -> dict:
        """Return COCO's result dictionary, plus the category's name; of keypoints, with scores.

        Pixels are rounded to thousandths; a side shorter than one is written as one.
        """
        y1, x1, y2, x2 = (float(v) for v in self.box)
        row = {
            "image_id": image_id,
            "category_id": self.category_id,
            "category": self.category,
            "bbox": [round(v, 3) for v in (x1, y1, max(x2 - x1, 1e-3), max(y2 - y1, 1e-3))],
            "score": round(self.score, 6),
        }
        if self.mask_score is not None:
            row["mask_score"] = round(self.mask_score, 6)
        if self.keypoints is not None:
            row["keypoints"] = self.keypoints.to_coco(self.keypoints.scores.tolist())
        if self.mask is None:
            return row
        counts = self.mask["counts"].decode("ascii")  # JSON knows no bytes
        return row | {"segmentation": {"size": self.mask["size"], "counts": counts}}

    def mask_crop(self) -> Crop:
        """Return the mask's own part of the image, whose size does not matter to the cost.

        Raises:
          ValueError: there is no mask.
        """
        if self.mask is None:
            raise ValueError("this network makes no masks, only boxes")
        runs = rle.column_runs_from_string(self.mask["counts"])
        (y, x, height, width), row_runs = rle.crop_from_column_runs(runs, self.mask["size"][0])
        return Crop(y, x, rle.pixels_from_runs(row_runs).reshape(height, width))


class ImageDetections(list[Detection]):
    """What was found in one image: a list, best first."""

    def to_supervision(self) -> Any:
        """Return `supervision.Detections` of that package; see `supervision.to_supervision`."""
        from mrcnn_tf.results import supervision

        return supervision.to_supervision(self)
