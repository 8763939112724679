"""A SavedModel of ours, called on images. Needs tensorflow, numpy and pycocotools."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.ops import paste
from mrcnn_tf.serving import preprocessing


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


class Predictor:
    """Calls the SavedModel's `serving_default` and puts its masks into the image.

    Attributes:
      input_type: "image_bytes", "image_tensor" or "tf_example": what it was exported for.
      category_names: name by the data set's own id.
    """

    def __init__(self, saved_model: str):
        """Load it.

        Args:
          saved_model: the folder that `python -m mrcnn_tf.export` wrote.

        Raises:
          FileNotFoundError: the folder holds no SavedModel.
          ValueError: it was not written by `mrcnn_tf.export`.
        """
        if not tf.saved_model.contains_saved_model(saved_model):
            raise FileNotFoundError(
                f"{saved_model} holds no SavedModel; write one with python -m mrcnn_tf.export"
            )
        self._model = tf.saved_model.load(saved_model)  # kept: it owns the signature's variables
        if not hasattr(self._model, "description"):
            raise ValueError(f"{saved_model}: this SavedModel is not from mrcnn_tf.export")
        description = json.loads(self._model.description().numpy())
        self.input_type = description["input_type"]
        self.category_names = {row["id"]: row["name"] for row in description["categories"]}
        self._mask_convention = description["mask_convention"]
        self._signature = self._model.signatures["serving_default"]

    def __call__(
        self, encoded: Sequence[bytes], pixels: Sequence[np.ndarray]
    ) -> list[list[Detection]]:
        """Detect objects in images of any sizes.

        A SavedModel for decoded images ("image_tensor") takes one size a call: it is called
        once per image.

        Args:
          encoded: the images as JPEG, PNG, BMP, GIF or WebP files; those whose EXIF orientation
            is not 1, turned upright, because exports of older releases do not turn.
          pixels: the same decoded: uint8 [h, w, 3], RGB.

        Returns:
          Per image its detections, best first.

        Raises:
          tf.errors.OpError: TensorFlow cannot decode one of them, or memory is short.
        """
        if self.input_type == "image_tensor":
            answers = [self._answer(tf.constant(image[np.newaxis])) for image in pixels]
            rows = [(answer, 0) for answer in answers]
        else:
            if self.input_type == "tf_example":
                encoded = [preprocessing.encode_example(file) for file in encoded]
            answer = self._answer(tf.constant(encoded, tf.string))
            rows = [(answer, row) for row in range(len(encoded))]
        return [
            read_detections(answer, row, self.category_names, self._mask_convention)
            for answer, row in rows
        ]

    def _answer(self, request: tf.Tensor) -> dict[str, np.ndarray]:
        outputs = self._signature(input_tensor=request)
        return {name: value.numpy() for name, value in outputs.items()}


def read_detections(
    answer: dict[str, np.ndarray], row: int, category_names: dict[int, str], mask_convention: str
) -> list[Detection]:
    """Read one image's rows of an answer and paste its masks.

    Args:
      answer: see `postprocessing.object_detection_outputs`.
      row: which image.
      category_names: name by the data set's own id.
      mask_convention: see `ops/paste.py`.

    Returns:
      The image's detections, best first.
    """
    height, width = answer["image_size"][row].tolist()
    detections = []
    for k in range(int(answer["num_detections"][row])):
        # In float32 the product could round to an empty box.
        box = answer["detection_boxes"][row, k] * np.asarray([height, width] * 2, np.float64)
        mask = None
        if "detection_masks" in answer:
            mask = paste.paste_to_rle(
                answer["detection_masks"][row, k], box, height, width, convention=mask_convention
            )
        category_id = int(answer["detection_class_ids"][row, k])
        score = float(answer["detection_scores"][row, k])
        detections.append(Detection(box, score, category_id, category_names[category_id], mask))
    return detections
