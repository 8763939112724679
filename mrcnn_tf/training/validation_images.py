"""Images for TensorBoard: ground truth beside prediction for the first images of an evaluation.

Both sides show the network's input, turned back into an image, and the objects as the data path
delivered them: a mistake on the way into the batch can be seen here, not only one of the network.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation.detections import decode_source_id
from mrcnn_tf.images import drawing
from mrcnn_tf.ops.masks import arena_lookup
from mrcnn_tf.ops.paste import paste_to_rles

NUM_IMAGES = 8  # per evaluation
MIN_SCORE = 0.5  # weaker detections are not drawn
_MAX_EDGE = 1600  # pixels; larger pairs are shrunk, so that an evaluation takes a few MB of summary

# What `add` needs of a batch, beside the detections.
BATCH_KEYS = (
    schema.IMAGE,
    schema.SOURCE_ID,
    schema.IMAGE_SIZE_HW,
    schema.GT_BOXES,
    schema.GT_CLASSES,
    schema.GT_IS_CROWD,
    schema.GT_VALID,
    schema.GT_MASK_BITS,
    schema.GT_MASK_OFFSETS,
    schema.GT_MASK_SIZES,
    schema.GT_MASK_FRAMES,
    schema.GT_MASKS_VALID,
)
_DETECTION_KEYS = ("boxes", "classes", "scores", "valid", "masks")


class ValidationImages:
    """Draws the first images that it is given.

    Args:
      label_map: gives the names.
      channel_order: "rgb" or "bgr", of the batch.
      pixel_mean: per channel in that order, as the data path subtracted it.
      pixel_std: likewise.
      mask_paste: how probabilities become pixels, see `ops/paste.py`.
    """

    def __init__(
        self,
        label_map: LabelMap,
        *,
        channel_order: str,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        mask_paste: str,
    ):
        self._names = ("background", *label_map.names)
        self._channel_order = channel_order
        self._pixel_mean = np.array(pixel_mean, np.float32)
        self._pixel_std = np.array(pixel_std, np.float32)
        self._mask_paste = mask_paste
        self.reset()

    def reset(self) -> None:
        """Begin a new evaluation."""
        self.drawn: dict[str, np.ndarray] = {}  # image id: uint8 [h, w, 3] RGB

    def add(self, batch: dict[str, tf.Tensor]) -> None:
        """Draw the images of a batch while fewer than `NUM_IMAGES` are there.

        Args:
          batch: `BATCH_KEYS` as in `data/schema.py` and the fields of `Detections`, network-input
            pixels, masks if there are some. Only what is drawn leaves the device. Filler images are
            skipped.
        """
        for row in range(len(batch[schema.SOURCE_ID])):
            if len(self.drawn) == NUM_IMAGES:
                return
            source_id = decode_source_id(np.asarray(batch[schema.SOURCE_ID][row]))
            if source_id:
                keys = (*BATCH_KEYS, *_DETECTION_KEYS)
                of_image = {k: np.asarray(batch[k][row]) for k in keys if k in batch}
                self.drawn[source_id] = self._draw(of_image)

    def write(self, step: int | tf.Tensor) -> None:
        """Write what was drawn to the default summary writer, if there is one."""
        for source_id, image in self.drawn.items():
            tf.summary.image(f"validation/{source_id}", image[np.newaxis], step=step)

    def _draw(self, row: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one image, given without the batch dimension."""
        image = to_rgb(
            row[schema.IMAGE],
            row[schema.IMAGE_SIZE_HW],
            self._channel_order,
            self._pixel_mean,
            self._pixel_std,
        )
        pair = drawing.draw_side_by_side(
            self._draw_truth(image, row), self._draw_detections(image, row)
        )
        shrunk = Image.fromarray(pair)
        shrunk.thumbnail((_MAX_EDGE, _MAX_EDGE), Image.Resampling.LANCZOS)
        return np.asarray(shrunk)

    def _draw_truth(self, image: np.ndarray, row: dict[str, np.ndarray]) -> np.ndarray:
        objects = np.flatnonzero(row[schema.GT_VALID]).tolist()
        classes = row[schema.GT_CLASSES][objects].tolist()
        return drawing.draw_detections(
            image,
            row[schema.GT_BOXES][objects],
            [truth_mask(row, k, image.shape[:2]) for k in objects],
            [self._names[k] for k in classes],
            color_ids=classes,
            is_crowd=row[schema.GT_IS_CROWD][objects].tolist(),
        )

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
            [self._names[k] for k in classes],
            row["scores"][kept].tolist(),
            color_ids=classes,
        )


def to_rgb(
    image: np.ndarray,
    image_size_hw: np.ndarray,
    channel_order: str,
    pixel_mean: np.ndarray,
    pixel_std: np.ndarray,
) -> np.ndarray:
    """Turn network input back into the resized image: the inverse of `data/preprocess.py`.

    Args:
      image: float [H, W, 3], normalised, padded.
      image_size_hw: float [2], the image inside the canvas.
      channel_order: "rgb" or "bgr".
      pixel_mean: float [3], in that order, range 0..255.
      pixel_std: likewise.

    Returns:
      uint8 [h, w, 3] RGB.
    """
    height, width = (int(side) for side in image_size_hw)
    pixels = image[:height, :width].astype(np.float32) * pixel_std + pixel_mean
    pixels = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[..., ::-1] if channel_order == "bgr" else pixels)


def truth_mask(image: dict[str, Any], index: int, size_hw: tuple[int, ...]) -> np.ndarray | None:
    """Read one object's mask from the arena at every pixel of the network input.

    Args:
      image: the `gt_mask` keys of a batch, without the batch dimension.
      index: of the object.
      size_hw: the image inside the canvas.

    Returns:
      bool [h, w]; None if the object has no mask.
    """
    if not image[schema.GT_MASKS_VALID][index]:
        return None
    height, width = size_hw
    one = np.newaxis, np.newaxis  # an image, an object
    pixels = arena_lookup(
        image[schema.GT_MASK_BITS][np.newaxis],
        image[schema.GT_MASK_OFFSETS][index][one],
        image[schema.GT_MASK_SIZES][index][one],
        image[schema.GT_MASK_FRAMES][index][one],
        tf.range(height)[tf.newaxis, tf.newaxis],
        tf.range(width)[tf.newaxis, tf.newaxis],
    )
    return pixels[0, 0].numpy().astype(bool)
