"""What a network answered, in the frame of each image. NumPy and pycocotools only.

Whoever has an answer reads it here: a SavedModel's, a server's.
"""

import numpy as np

from mrcnn_tf.ops import paste
from mrcnn_tf.results.detection import Detection, ImageDetections
from mrcnn_tf.serving import detection_status

Answer = dict[str, np.ndarray]


class RefusedPictureError(ValueError):
    """A server answered that it could not use one picture of a request."""


def read_detections(
    answer: Answer, row: int, category_names: dict[int, str], mask_convention: str
) -> ImageDetections:
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
      ValueError: it has a category that `category_names` has not: a server has put a new version in
        the place of the one that was asked for them.
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
    if unknown := set(ids) - category_names.keys():
        raise ValueError(
            f"the server has another model now, with a category {min(unknown)} that the one before "
            "had not: start again"
        )
    scores = answer["detection_scores"][row, :count].tolist()
    mask_scores: list[float | None] = [None] * count
    if "detection_mask_scores" in answer:
        mask_scores = answer["detection_mask_scores"][row, :count].tolist()
    return ImageDetections(
        Detection(box, score, category_id, category_names[category_id], mask, mask_score)
        for box, score, category_id, mask, mask_score in zip(
            boxes, scores, ids, masks, mask_scores, strict=True
        )
    )
