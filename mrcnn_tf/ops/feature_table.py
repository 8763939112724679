"""The features of all levels and images as rows of one table, and boxes in the pixels of their map.

What RoIAlign, RoIWarp and RoIPool begin with.

Shape letters: `B` images, `Hl Wl` size of level l, `C` channels, `R` RoIs per image, `L` levels,
`T` pixels of all levels and images.
"""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf


class Maps(NamedTuple):
    """The map that each RoI is pooled from, int32 [B, R] each."""

    first_row: tf.Tensor  # of the table
    height: tf.Tensor  # pixels
    width: tf.Tensor


def of_levels(
    features: Mapping[int, tf.Tensor], boxes: tf.Tensor, levels: tf.Tensor | None
) -> tuple[tf.Tensor, Maps, tf.Tensor]:
    """Lay out features, and find the map of each box.

    Args:
      features: {level: [B, Hl, Wl, C]}; level l has stride 2**l.
      boxes: float32 [B, R, (y1, x1, y2, x2)], network-input pixels.
      levels: int32 [B, R], the level of each box, one of `features`; None if there is one level.

    Returns:
      the table [T, C], the maps, and the boxes in pixels of their map, float32 [B, R, 4], no
      gradient to them.

    Raises:
      ValueError: `levels` is None although there are several, or the features skip a level.
    """
    names = sorted(features)
    if levels is None and len(names) != 1:
        raise ValueError(f"levels is None, but there are several: {names}")
    if names != list(range(names[0], names[-1] + 1)):
        raise ValueError(f"levels of the features must be consecutive, not {names}")
    channels = features[names[0]].shape[-1]
    boxes = tf.stop_gradient(tf.cast(boxes, tf.float32))
    shapes = tf.stack([tf.shape(features[level])[1:3] for level in names])  # [L, (Hl, Wl)]
    slot = tf.zeros(tf.shape(boxes)[:2], tf.int32)  # [B, R], which row of `shapes`
    if levels is not None:
        slot = tf.cast(levels, tf.int32) - names[0]
    stride = tf.gather(tf.constant([2.0**level for level in names]), slot)
    height, width = tf.unstack(tf.gather(shapes, slot), axis=-1)  # [B, R]
    # All pixels of all levels and images become the rows of one table, level by level.
    table = tf.concat([tf.reshape(features[level], [-1, channels]) for level in names], axis=0)
    maps = Maps(_first_row(shapes, slot), height, width)
    return table, maps, boxes / stride[..., tf.newaxis]


def to_cells(pooled: tf.Tensor, table: tf.Tensor, boxes: tf.Tensor, side: int) -> tf.Tensor:
    """Bring pooled cells into the table's type and the RoIs' shape.

    Args:
      pooled: [B * R * P * P, C].
      table: of `of_levels`.
      boxes: [B, R, 4].
      side: P.

    Returns:
      [B, R, P, P, C].
    """
    channels = table.shape[-1]
    cells = tf.concat([tf.shape(boxes)[:2], [side, side, channels]], axis=0)
    pooled = tf.reshape(tf.cast(pooled, table.dtype), cells)
    return tf.ensure_shape(pooled, [*boxes.shape[:2], side, side, channels])


def _first_row(shapes: tf.Tensor, slot: tf.Tensor) -> tf.Tensor:
    """Return where in the table the map of each RoI's level and image begins, int32 [B, R].

    Args:
      shapes: int32 [L, (Hl, Wl)].
      slot: int32 [B, R], level of each RoI, counted from 0.
    """
    num_images = tf.shape(slot)[0]
    pixels = tf.reduce_prod(shapes, axis=-1)  # [L]
    level_start = tf.cumsum(pixels, exclusive=True) * num_images
    image = tf.range(num_images)[:, tf.newaxis]
    return tf.gather(level_start, slot) + image * tf.gather(pixels, slot)
