"""Feature maps and masks at single points, and which points are worth a look (PointRend).

Shape letters: `B` images, `M` maps, `H W` size of a map, `C` channels, `R` RoIs per image, `P`
points, `S` side of a coarse mask.

A point lies in pixels of a map, whose pixel i has its centre at i + 0.5, or in the unit square of a
RoI: (0, 0) is its upper left corner, (1, 1) its lower right one.
"""

import tensorflow as tf

from mrcnn_tf.ops import sampling, weighted_gather


def neighbours(
    points: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the four pixels whose weighted sum is the map at a point, by bilinear interpolation.

    Beyond its border a map is 0, so that values fade from the outermost pixel centres to half a
    pixel outside (`grid_sample` of PyTorch with its defaults, which PointRend uses).

    Args:
      points: float32 [..., (y, x)], pixels of the map. They may lie anywhere; what is not finite
        lies outside.
      height: of the map, broadcastable to [...].
      width: likewise.

    Returns:
      rows: int32 [..., 4], within 0..height-1.
      cols: int32 [..., 4].
      weight: float32 [..., 4], 0 where a pixel would lie outside.
    """
    rows, row_weight = _two(points[..., 0], height)
    cols, col_weight = _two(points[..., 1], width)
    # [..., 2] of each axis -> [..., 4]: (low, low), (low, high), (high, low), (high, high).
    return (
        tf.gather(rows, [0, 0, 1, 1], axis=-1),
        tf.gather(cols, [0, 1, 0, 1], axis=-1),
        tf.gather(row_weight, [0, 0, 1, 1], axis=-1) * tf.gather(col_weight, [0, 1, 0, 1], axis=-1),
    )


def _two(position: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the two pixels around positions [...] along an axis, and their weights: [..., 2]."""
    size = tf.cast(size, tf.float32)
    position = tf.where(tf.math.is_finite(position), position - 0.5, -1.0)
    position = tf.minimum(tf.maximum(position, -1.0), size)
    low = tf.floor(position)
    pixel = tf.stack([low, low + 1.0], axis=-1)
    weight = tf.stack([low + 1.0 - position, position - low], axis=-1)
    size = size[..., tf.newaxis] if size.shape.rank else size
    inside = (pixel >= 0.0) & (pixel < size)
    return tf.cast(tf.where(inside, pixel, 0.0), tf.int32), tf.where(inside, weight, 0.0)


def sample(maps: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Read maps at points, see `neighbours`.

    Args:
      maps: [M, H, W, C], float32 or half precision.
      points: float32 [M, P, (y, x)], pixels of the map. No gradient to them.

    Returns:
      [M, P, C], the maps' dtype.
    """
    num_maps, height, width = tf.unstack(tf.shape(maps)[:3])
    channels, num_points = maps.shape[-1], tf.shape(points)[1]
    rows, cols, weight = neighbours(tf.stop_gradient(points), height, width)  # [M, P, 4]
    first = tf.range(num_maps)[:, tf.newaxis, tf.newaxis] * (height * width)
    values = weighted_gather.weighted_gather(
        tf.reshape(maps, [-1, channels]),
        tf.reshape(first + rows * width + cols, [-1, 4]),
        tf.reshape(weight, [-1, 4]),
    )
    values = tf.reshape(tf.cast(values, maps.dtype), [num_maps, num_points, channels])
    return tf.ensure_shape(values, [maps.shape[0], points.shape[1], channels])


def in_boxes(points: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Lay points of the unit square into boxes.

    Args:
      points: float32 [B, R, P, (y, x)].
      boxes: float32 [B, R, (y1, x1, y2, x2)].

    Returns:
      float32 [B, R, P, (y, x)], in pixels as the boxes.
    """
    corner, opposite = boxes[:, :, tf.newaxis, :2], boxes[:, :, tf.newaxis, 2:]
    return corner + points * (opposite - corner)


def cell_centres(index: tf.Tensor, side: int) -> tf.Tensor:
    """Return the centres of cells of a grid on the unit square.

    Args:
      index: int32 [...], row * side + column.
      side: cells along each axis.

    Returns:
      float32 [..., (y, x)].
    """
    cell = tf.stack([index // side, index % side], axis=-1)
    return (tf.cast(cell, tf.float32) + 0.5) / side


def uncertain(
    coarse_logits: tf.Tensor,
    seeds: tf.Tensor,
    max_rois: int,
    num_points: int,
    oversampling: int,
    uncertain_fraction: float,
) -> tf.Tensor:
    """Draw points to learn from, most of them where a coarse mask is undecided.

    Of `oversampling` times as many points, drawn uniformly, those are taken where the interpolated
    logit is closest to 0; the rest of the points is drawn uniformly too.

    Args:
      coarse_logits: float32 [B, R, S, S], of one class each.
      seeds: int64 [B, 2], of `sampling.image_seeds`.
      max_rois: at least R; what a RoI draws does not depend on how many there are.
      num_points: P.
      oversampling: k.
      uncertain_fraction: beta, the part of the points that is taken for being uncertain.

    Returns:
      float32 [B, R, P, (y, x)], in the unit square. No gradient.

    Source: PointRend (arXiv 1912.08193) section 3.1, "Point Selection for Training".
    """
    num_images, num_rois = tf.unstack(tf.shape(coarse_logits)[:2])
    side = coarse_logits.shape[-1]
    num_uncertain = int(uncertain_fraction * num_points)
    drawn, num_random = num_points * oversampling, num_points - num_uncertain
    numbers = sampling.random_numbers(seeds, max_rois * (drawn + num_random) * 2)
    points = tf.reshape(numbers, [num_images, max_rois, drawn + num_random, 2])[:, :num_rois]
    candidates, others = points[:, :, :drawn], points[:, :, drawn:]
    logits = sample(
        tf.reshape(coarse_logits, [-1, side, side, 1]),
        tf.reshape(candidates * float(side), [-1, drawn, 2]),
    )
    certainty = tf.abs(tf.reshape(logits, [num_images, num_rois, drawn]))
    _, index = tf.math.top_k(-certainty, num_uncertain)  # [B, R, beta * P]
    taken = tf.gather(candidates, index, batch_dims=2)
    return tf.stop_gradient(tf.concat([taken, others], axis=2))
