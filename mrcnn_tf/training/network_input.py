"""Network input turned back into pictures: the image and its objects as a batch holds them.

What is drawn went through the whole data path, so a mistake on the way into the batch can be seen.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.images import drawing
from mrcnn_tf.ops.masks import arena_lookup

# What of a batch is drawn.
KEYS = (
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
# And of one with keypoints.
KEYPOINT_KEYS = (schema.GT_KEYPOINTS, schema.GT_KEYPOINTS_VALID)


def keys_in(batch: Mapping[str, Any]) -> list[str]:
    """What of a batch is drawn, as far as it has it."""
    return [*KEYS, *(key for key in KEYPOINT_KEYS if key in batch)]


class NetworkInput:
    """Draws the rows of batches.

    Args:
      label_map: gives the names.
      channel_order: "rgb" or "bgr", of the batch.
      pixel_mean: per channel in that order, as the data path subtracted it.
      pixel_std: likewise.

    Attributes:
      names: of the classes, background first.
      skeleton: which keypoints are joined.
      keypoint_classes: which classes have keypoints.
    """

    def __init__(
        self,
        label_map: LabelMap,
        *,
        channel_order: str,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
    ):
        self.names = ("background", *label_map.names)
        keypoints = label_map.keypoints or KeypointSet(())
        self.skeleton, self.keypoint_classes = keypoints.skeleton, keypoints.classes
        self._channel_order = channel_order
        self._pixel_mean = np.array(pixel_mean, np.float32)
        self._pixel_std = np.array(pixel_std, np.float32)

    def image(self, row: dict[str, np.ndarray]) -> np.ndarray:
        """Return the image of a batch's row, without padding: uint8 [h, w, 3] RGB."""
        return to_rgb(
            row[schema.IMAGE],
            row[schema.IMAGE_SIZE_HW],
            self._channel_order,
            self._pixel_mean,
            self._pixel_std,
        )

    def draw(self, image: np.ndarray, row: dict[str, np.ndarray]) -> np.ndarray:
        """Draw a row's objects into its image.

        Args:
          image: of `image`.
          row: `keys_in` a batch, without its dimension; `schema.IMAGE` is not looked at.

        Returns:
          uint8 [h * k, w * k, 3] RGB, see `drawing.draw_detections`.
        """
        objects = np.flatnonzero(row[schema.GT_VALID]).tolist()
        classes = row[schema.GT_CLASSES][objects].tolist()
        keypoints = None
        if schema.GT_KEYPOINTS in row:
            valid = row[schema.GT_KEYPOINTS_VALID][objects, :, np.newaxis]
            keypoints = [*np.concatenate([row[schema.GT_KEYPOINTS][objects], valid], axis=-1)]
        return drawing.draw_detections(
            image,
            row[schema.GT_BOXES][objects],
            [truth_mask(row, k, image.shape[:2]) for k in objects],
            [self.names[k] for k in classes],
            color_ids=classes,
            is_crowd=row[schema.GT_IS_CROWD][objects].tolist(),
            keypoints=keypoints,
            skeleton=self.skeleton,
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
