"""RoIWarp: box edges rounded as RoIPool rounds them, then sampled as RoIAlign samples.

It stands between the two in table 2c of Mask R-CNN: bilinear, but not aligned.
"""

from collections.abc import Mapping

import tensorflow as tf

from mrcnn_tf.ops import roi_align
from mrcnn_tf.ops.roi_pool import rounded


def roi_warp(
    features: Mapping[int, tf.Tensor],
    boxes: tf.Tensor,
    levels: tf.Tensor | None,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    aggregate: str = "average",
) -> tf.Tensor:
    """Pool each box, its edges rounded to whole pixels of its level; see `roi_align.roi_align`.

    Args:
      features: as there, and so are the others.
      boxes: float32 [B, R, (y1, x1, y2, x2)], network-input pixels.
      levels: int32 [B, R], or None.
      output_size: P.
      sampling_ratio: as there.
      aligned: as there.
      aggregate: as there.

    Returns:
      [B, R, P, P, C], the features' dtype; no gradient to the boxes.

    Source: Multi-task Network Cascades (arXiv 1512.04412), whose layer rounds both edges so, halves
    away from zero, and may leave a box without extent. It samples bins on their edges, at as many
    points as they have pixels; here the points are RoIAlign's, so that rounding is all that the two
    differ in.
    """
    names = sorted(features)
    stride = tf.constant(2.0 ** names[0])
    if levels is not None:
        strides = tf.constant([2.0**level for level in names])
        stride = tf.gather(strides, tf.cast(levels, tf.int32) - names[0])[..., tf.newaxis]
    boxes = rounded(tf.cast(boxes, tf.float32) / stride) * stride
    return roi_align.roi_align(
        features, boxes, levels, output_size, sampling_ratio, aligned, aggregate
    )
