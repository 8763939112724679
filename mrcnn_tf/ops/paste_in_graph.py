"""Paste one predicted M x M mask into its box, in TensorFlow: `paste.py` inside an exported graph.

Shape letters: `M` mask side, `h w` the crop of the image that a box touches.

The arithmetic is that of `paste.py`, step by step in float32, and the two are tested against each
other; a pixel whose probability is the threshold but for the last bit may differ.
"""

import tensorflow as tf


def paste_transposed(
    mask_probs: tf.Tensor, box: tf.Tensor, size_hw: tf.Tensor, convention: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Resize a mask into its box, on the pixels of the image.

    Args:
      mask_probs: float32 [M, M].
      box: float32 [(y1, x1, y2, x2)], finite, pixels of the image.
      size_hw: int32 [(height, width)], of the image.
      convention: "pixel_centres" or "torchvision", see `paste.paste_masks`.

    Returns:
      probs: float32 [w, h], transposed: columns one after the other, as COCO counts pixels.
      top: int32 [], row of the image that probs[:, 0] belongs to.
      left: int32 [], column of the image that probs[0] belongs to.

    Raises:
      ValueError: unknown convention.
    """
    if convention not in _AXIS_WEIGHTS:
        raise ValueError(f"unknown convention {convention!r}; known: {sorted(_AXIS_WEIGHTS)}")
    axis_weights = _AXIS_WEIGHTS[convention]
    side = mask_probs.shape[0]
    rows, top = axis_weights(box[0], box[2], size_hw[0], side)  # [h, M]
    cols, left = axis_weights(box[1], box[3], size_hw[1], side)  # [w, M]
    by_row = tf.matmul(rows, mask_probs)  # [h, M]
    return tf.matmul(cols, by_row, transpose_b=True), top, left


def _pixel_centre_weights(
    start: tf.Tensor, end: tf.Tensor, size: tf.Tensor, mask_size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Bilinear weights of the image's pixels start..end along one axis.

    Args:
      start: float32 [], where the box begins along the axis.
      end: float32 [], where it ends.
      size: int32 [], of the image along the axis.
      mask_size: M.

    Returns:
      weights: float32 [n, M].
      first: int32 [], the first pixel.
    """
    first = tf.clip_by_value(tf.cast(tf.floor(start) - 1, tf.int32), 0, size)
    stop = tf.clip_by_value(tf.cast(tf.math.ceil(end) + 1, tf.int32), 0, size)
    count = tf.where(end > start, tf.maximum(stop - first, 0), 0)
    centre = tf.cast(first + tf.range(count), tf.float32) + 0.5
    extent = tf.where(end > start, end - start, 1.0)
    position = (centre - start) / extent * mask_size - 0.5
    return _hats(position, tf.range(mask_size, dtype=tf.float32)), first


def _torchvision_weights(
    start: tf.Tensor, end: tf.Tensor, size: tf.Tensor, mask_size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights of torchvision's pasting along one axis; see `_pixel_centre_weights`."""
    # Room for the frame of zeros.
    half = (end - start) * 0.5 * ((mask_size + 2) / mask_size)
    centre = (end + start) * 0.5
    begin, last = tf.cast(centre - half, tf.int32), tf.cast(centre + half, tf.int32)  # to zero
    extent = tf.maximum(last - begin + 1, 1)
    first, stop = tf.maximum(begin, 0), tf.minimum(last + 1, size)
    pixel = tf.cast(first - begin + tf.range(tf.maximum(stop - first, 0)), tf.float32)
    scale = tf.cast((mask_size + 2) / tf.cast(extent, tf.float64), tf.float32)
    position = tf.maximum((pixel + 0.5) * scale - 0.5, 0)
    # The frame's own cells, 0 and M + 1, are zeros.
    return _hats(position, tf.range(1, mask_size + 1, dtype=tf.float32)), first


def _hats(position: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """Return how much each position [n] sees of each cell [M]: [n, M]."""
    return tf.maximum(1 - tf.abs(position[:, tf.newaxis] - cells), 0)


_AXIS_WEIGHTS = {
    "pixel_centres": _pixel_centre_weights,
    "torchvision": _torchvision_weights,
}
