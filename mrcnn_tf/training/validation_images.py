"""Images for TensorBoard: ground truth beside prediction for the first images of an evaluation.

Both sides show the network's input, turned back into an image, and the objects as the data path
delivered them: a mistake on the way into the batch can be seen here, not only one of the network.
"""

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.data import schema
from mrcnn_tf.evaluation.detections import decode_source_id
from mrcnn_tf.images import drawing
from mrcnn_tf.ops.paste import paste_to_rles
from mrcnn_tf.training import network_input

NUM_IMAGES = 8  # per evaluation
MIN_SCORE = 0.5  # weaker detections are not drawn
_MAX_EDGE = 1600  # pixels; larger pairs are shrunk, so that an evaluation takes a few MB of summary

_DETECTION_KEYS = ("boxes", "classes", "scores", "valid", "masks", "keypoints")


class ValidationImages:
    """Draws the first images that it is given.

    Args:
      inputs: draws the left side.
      mask_paste: how probabilities become pixels, see `ops/paste.py`.
    """

    def __init__(self, inputs: network_input.NetworkInput, mask_paste: str):
        self._input = inputs
        self._mask_paste = mask_paste
        self.reset()

    def reset(self) -> None:
        """Begin a new evaluation."""
        self.drawn: dict[str, np.ndarray] = {}  # image id: uint8 [h, w, 3] RGB

    def add(self, batch: dict[str, tf.Tensor]) -> None:
        """Draw the images of a batch while fewer than `NUM_IMAGES` are there.

        Args:
          batch: `network_input.KEYS` as in `data/schema.py` and the fields of `Detections`,
            network-input pixels, masks if there are some. Only what is drawn leaves the device.
            Filler images are skipped.
        """
        for row in range(len(batch[schema.SOURCE_ID])):
            if len(self.drawn) == NUM_IMAGES:
                return
            source_id = decode_source_id(np.asarray(batch[schema.SOURCE_ID][row]))
            if source_id:
                keys = (*network_input.keys_in(batch), *_DETECTION_KEYS)
                of_image = {k: np.asarray(batch[k][row]) for k in keys if k in batch}
                self.drawn[source_id] = self._draw(of_image)

    def write(self, step: int | tf.Tensor) -> None:
        """Write what was drawn to the default summary writer, if there is one."""
        for source_id, image in self.drawn.items():
            tf.summary.image(f"validation/{source_id}", image[np.newaxis], step=step)

    def _draw(self, row: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one image, given without the batch dimension."""
        image = self._input.image(row)
        pair = drawing.draw_side_by_side(
            self._input.draw(image, row), self._draw_detections(image, row)
        )
        shrunk = Image.fromarray(pair)
        shrunk.thumbnail((_MAX_EDGE, _MAX_EDGE), Image.Resampling.LANCZOS)
        return np.asarray(shrunk)

    def _draw_detections(self, image: np.ndarray, row: dict[str, np.ndarray]) -> np.ndarray:
        kept = np.flatnonzero(row["valid"] & (row["scores"] >= MIN_SCORE))
        classes = row["classes"][kept].tolist()
        height, width = image.shape[:2]
        masks: list[dict | None] = [None] * len(kept)  # Faster R-CNN
        if "masks" in row:
            probs, boxes = row["masks"][kept], row["boxes"][kept]
            masks = [*paste_to_rles(probs, boxes, height, width, convention=self._mask_paste)]
        return drawing.draw_detections(
            image,
            row["boxes"][kept],
            masks,
            [self._input.names[k] for k in classes],
            row["scores"][kept].tolist(),
            color_ids=classes,
            keypoints=self._keypoints(row, kept, classes),
            skeleton=self._input.skeleton,
        )

    def _keypoints(
        self, row: dict[str, np.ndarray], kept: np.ndarray, classes: list[int]
    ) -> list[np.ndarray | None] | None:
        """Of each detection that is drawn; None for a class without."""
        if "keypoints" not in row:
            return None
        of_classes = self._input.keypoint_classes
        points = row["keypoints"][kept]
        return [points[k] if c in of_classes else None for k, c in enumerate(classes)]
