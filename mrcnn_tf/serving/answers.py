"""What a network answered, in the frame of each image. NumPy and pycocotools only.

Whoever has an answer reads it here: a SavedModel's, a server's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.ops import paste
from mrcnn_tf.results.detection import Detection, ImageDetections, Keypoints
from mrcnn_tf.serving import detection_status

Answer = dict[str, np.ndarray]


class RefusedPictureError(ValueError):
    """A server answered that it could not use one picture of a request."""


def keypoints_of(description: Mapping[str, Any]) -> KeypointSet | None:
    """Return the keypoints that an export describes itself to have; None if it has none."""
    if "keypoints" not in description:
        return None
    return KeypointSet.from_dict(description["keypoints"], len(description["categories"]) + 1)


def read_detections(
    answer: Answer,
    row: int,
    category_names: dict[int, str],
    mask_convention: str,
    keypoints: KeypointSet | None = None,
) -> ImageDetections:
    """Read one image's rows of an answer and paste its masks.

    Args:
      answer: see `postprocessing.object_detection_outputs`.
      row: which image.
      category_names: name by the data set's own id, in the order of the classes.
      mask_convention: see `ops/paste.py`.
      keypoints: which they are, of a network that finds some.

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
    points: list[Keypoints | None] = [None] * count
    if keypoints is not None and "detection_keypoints" in answer:
        with_keypoints = {i for k, i in enumerate(category_names, 1) if k in keypoints.classes}
        places = np.asarray(answer["detection_keypoints"][row, :count], np.float64)
        places = places * [height, width]
        of_places = np.asarray(answer["detection_keypoint_scores"][row, :count], np.float64)
        points = [
            Keypoints(places[k], of_places[k], keypoints) if i in with_keypoints else None
            for k, i in enumerate(ids)
        ]
    rows = zip(boxes, scores, ids, masks, mask_scores, points, strict=True)
    return ImageDetections(
        Detection(box, score, i, category_names[i], mask, mask_score, of_object)
        for box, score, i, mask, mask_score, of_object in rows
    )
