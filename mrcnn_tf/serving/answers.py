"""What a network answered, in the frame of each image. NumPy and pycocotools only.

Whoever has an answer reads it here: a SavedModel's, a server's.
"""

from typing import NamedTuple

import numpy as np

from mrcnn_tf.ops import paste
from mrcnn_tf.serving import detection_status

Answer = dict[str, np.ndarray]


class RefusedPictureError(ValueError):
    """A server answered that it could not use one picture of a request."""


class Detection(NamedTuple):
    """One object in the frame of the image as it was given.

    Attributes:
      box: float64 [(y1, x1, y2, x2)], pixels of the upright image; never empty.
      score: in [0, 1].
      category_id: the data set's own id.
      category: its name.
      mask: COCO run lengths {"size": [height, width], "counts": bytes}, or None for a network
        without masks.
    """

    box: np.ndarray
    score: float
    category_id: int
    category: str
    mask: dict | None

    def to_coco(self, image_id: str) -> dict:
        """Return COCO's result dictionary, plus the category's name.

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
        if self.mask is None:
            return row
        counts = self.mask["counts"].decode("ascii")  # JSON knows no bytes
        return row | {"segmentation": {"size": self.mask["size"], "counts": counts}}


def read_detections(
    answer: Answer, row: int, category_names: dict[int, str], mask_convention: str
) -> list[Detection]:
    """Read one image's rows of an answer and paste its masks.

    Args:
      answer: see `postprocessing.object_detection_outputs`.
      row: which image.
      category_names: name by the data set's own id.
      mask_convention: see `ops/paste.py`.

    Returns:
      The image's detections, best first.

    Raises:
      RefusedPictureError: the answer has a `detection_status` for this image other than 0.
    """
    # Exports of before say nothing: one picture that could not be used failed the request.
    status = int(answer[detection_status.OUTPUT][row]) if detection_status.OUTPUT in answer else 0
    if status != detection_status.DONE:
        meaning = detection_status.MEANINGS.get(status, "could not be used")
        raise RefusedPictureError(f"on the server: {meaning} (detection_status {status})")
    height, width = answer["image_size"][row].tolist()
    count = int(answer["num_detections"][row])
    # In float32 the product could round to an empty box.
    fractions = np.asarray(answer["detection_boxes"][row, :count], np.float64)
    boxes = fractions * [height, width, height, width]
    masks: list[dict | None] = [None] * count
    if "detection_masks" in answer:
        probs = answer["detection_masks"][row, :count]
        masks = [*paste.paste_to_rles(probs, boxes, height, width, convention=mask_convention)]
    ids = answer["detection_class_ids"][row, :count].tolist()
    scores = answer["detection_scores"][row, :count].tolist()
    return [
        Detection(box, score, category_id, category_names[category_id], mask)
        for box, score, category_id, mask in zip(boxes, scores, ids, masks, strict=True)
    ]
