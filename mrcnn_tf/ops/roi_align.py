"""RoIAlign: features of a fixed size for boxes of any size, without rounding a coordinate.

Shape letters: `B` images, `Hl Wl` size of level l, `C` channels, `R` RoIs per image, `P` output
size, `K` taps of one bin along one axis, `N = B * R * P * P` output cells, `T` pixels of all levels
and images.

The average of a bin's bilinear samples is a weighted sum of feature pixels, and its weights are a
product of one factor per axis: what happens along y (where the samples lie, which two rows each
mixes, whether it fell off the map) does not depend on x. So the work is done in two steps:

1. `axis_taps` turns the box's extent along one axis into K rows (or columns) per bin, with weights.
2. `_weighted_gather` adds up the K * K pixels of each bin. It alone touches the features.

Another way to place samples (as many as the bin has pixels, say) is another list of taps.
"""

from collections.abc import Mapping

import tensorflow as tf


def assign_levels(
    boxes: tf.Tensor,
    min_level: int,
    max_level: int,
    canonical_level: int = 4,
    canonical_size: float = 224.0,
    epsilon: float = 1e-8,
    level_epsilon: float = 0.0,
) -> tf.Tensor:
    """Choose the pyramid level each box is pooled from, by its area.

    level = floor(canonical_level + log2(sqrt(area) / canonical_size + epsilon) + level_epsilon),
    clamped. Both epsilons only decide boxes that lie within rounding of a boundary.

    Args:
      boxes: float32 [B, R, (y1, x1, y2, x2)], network-input pixels.
      min_level: finest level.
      max_level: coarsest level.
      canonical_level: level of a box of `canonical_size`.
      canonical_size: side in network-input pixels of the square box that gets `canonical_level`.
      epsilon: added inside the logarithm. Detectron2: 1e-8; torchvision: 0.
      level_epsilon: added to the level. Detectron2: 0; torchvision: 1e-6.

    Returns:
      int32 [B, R], in min_level..max_level; empty and inverted boxes get `min_level`.

    Source: "Feature Pyramid Networks", equation 1.
    """
    y1, x1, y2, x2 = tf.unstack(tf.cast(boxes, tf.float32), axis=-1)
    side = tf.sqrt(tf.maximum(y2 - y1, 0.0) * tf.maximum(x2 - x1, 0.0))
    log_ratio = tf.math.log(side / canonical_size + epsilon) / tf.math.log(2.0)
    level = tf.floor(canonical_level + log_ratio + level_epsilon)
    # Clamped before the cast: an empty box is at minus infinity when epsilon is 0.
    return tf.cast(tf.clip_by_value(level, float(min_level), float(max_level)), tf.int32)


def axis_taps(
    start: tf.Tensor,
    end: tf.Tensor,
    size: tf.Tensor,
    num_bins: int,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Place the samples of RoIAlign along one axis and say which pixels they mix.

    A bin's value along this axis is `sum_k weight[k] * pixel[index[k]]`: `sampling_ratio` samples,
    each the mean of its two neighbours. A sample below -1 or above `size` counts as zero (its
    weights are 0); between there and the outermost pixel centres it repeats the outermost pixel.

    Args:
      start: float32 [...], first edge of each box, in pixels of the map being sampled.
      end: float32 [...], second edge.
      size: float32 or int32, broadcastable to [...]: number of pixels of the map along the axis.
      num_bins: bins per box, P.
      sampling_ratio: samples per bin.
      aligned: pixel i has its centre at i + 0.5 (boxes are shifted by half a pixel to say so);
        otherwise the centre is taken to lie at i, and boxes are at least one pixel long.

    Returns:
      index: int32 [..., P, K], K = 2 * sampling_ratio, within 0..size-1.
      weight: float32 [..., P, K]; they sum to 1 where no sample fell off the map.
    """
    if sampling_ratio < 1:
        raise ValueError(f"sampling_ratio must be at least 1, not {sampling_ratio}")
    start, end = tf.cast(start, tf.float32), tf.cast(end, tf.float32)
    size = tf.cast(size, tf.float32)[..., tf.newaxis]
    start = start - 0.5 if aligned else start
    length = end - 0.5 - start if aligned else tf.maximum(end - start, 1.0)
    step = length / (num_bins * sampling_ratio)
    ordinal = tf.range(num_bins * sampling_ratio, dtype=tf.float32) + 0.5
    position = start[..., tf.newaxis] + ordinal * step[..., tf.newaxis]  # [..., P * ratio]

    on_map = (position >= -1.0) & (position <= size)
    last = tf.maximum(size - 1.0, 0.0)
    # Replaced before it is used: a NaN or a huge number would become an index out of range.
    position = tf.clip_by_value(tf.where(on_map, position, 0.0), 0.0, last)
    low = tf.floor(position)
    high = tf.minimum(low + 1.0, last)
    share = tf.where(on_map, 1.0 / sampling_ratio, 0.0)
    high_weight = (position - low) * share
    index = tf.cast(tf.stack([low, high], axis=-1), tf.int32)  # [..., P * ratio, 2]
    weight = tf.stack([share - high_weight, high_weight], axis=-1)
    taps_shape = tf.concat([tf.shape(position)[:-1], [num_bins, 2 * sampling_ratio]], axis=0)
    static_shape = position.shape[:-1] + [num_bins, 2 * sampling_ratio]
    index = tf.ensure_shape(tf.reshape(index, taps_shape), static_shape)
    weight = tf.ensure_shape(tf.reshape(weight, taps_shape), static_shape)
    return index, weight


@tf.custom_gradient
def _weighted_gather(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor):
    """Return `sum_k weight[:, k] * table[index[:, k]]`, float32 [N, C]; table [T, C]."""

    def gradient(upstream):
        total = tf.zeros_like(table, dtype=tf.float32)
        for k in range(index.shape[1]):
            total = tf.tensor_scatter_nd_add(
                total, index[:, k, tf.newaxis], upstream * weight[:, k, tf.newaxis]
            )
        return tf.cast(total, table.dtype), None, None

    total = 0.0
    for k in range(index.shape[1]):
        pixels = tf.cast(tf.gather(table, index[:, k]), tf.float32)
        total += pixels * weight[:, k, tf.newaxis]
    return total, gradient


def roi_align(
    features: Mapping[int, tf.Tensor],
    boxes: tf.Tensor,
    levels: tf.Tensor | None,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> tf.Tensor:
    """Pool each box from its pyramid level into [P, P] cells by averaging bilinear samples.

    Coordinates are float32 whatever the features are. No gradient flows to the boxes.

    Args:
      features: {level: [B, Hl, Wl, C]}, float32, bfloat16 or float16; level l has stride 2**l.
      boxes: float32 [B, R, (y1, x1, y2, x2)], network-input pixels. Any value is allowed; boxes
        without area give finite numbers.
      levels: int32 [B, R], the level of each box, one of `features`; None if there is one level.
      output_size: P.
      sampling_ratio: samples per bin and axis, at least 1.
      aligned: True is Detectron2's ROIAlignV2 (pixel centres at i + 0.5, a box may shrink to
        nothing); False is the first RoIAlign and torchvision's default (centres at i, a box is at
        least one feature pixel high and wide).

    Returns:
      [B, R, P, P, C], the features' dtype.

    Raises:
      ValueError: `levels` is None although there are several, or sampling_ratio < 1.

    Source: Mask R-CNN section 3; numbers as the kernels of Detectron2 and torchvision compute them
    with a fixed sampling ratio.
    """
    if levels is None and len(features) != 1:
        raise ValueError(f"levels is None, but there are several: {sorted(features)}")
    names = sorted(features)
    boxes = tf.stop_gradient(tf.cast(boxes, tf.float32))
    num_images, num_rois = tf.unstack(tf.shape(boxes)[:2])
    shapes = tf.stack([tf.shape(features[level])[1:3] for level in names])  # [L, (Hl, Wl)]
    slot = tf.zeros([num_images, num_rois], tf.int32)  # which row of `shapes`
    if levels is not None:
        slot = tf.searchsorted(tf.constant(names), tf.reshape(levels, [-1]))
        slot = tf.reshape(slot, [num_images, num_rois])
    stride = tf.gather(tf.constant([2.0**level for level in names]), slot)
    height, width = tf.unstack(tf.gather(shapes, slot), axis=-1)  # [B, R]

    y1, x1, y2, x2 = tf.unstack(boxes / stride[..., tf.newaxis], axis=-1)
    rows, row_weight = axis_taps(y1, y2, height, output_size, sampling_ratio, aligned)
    cols, col_weight = axis_taps(x1, x2, width, output_size, sampling_ratio, aligned)

    # All pixels of all levels and images as rows of one table, level by level.
    pixels = tf.reduce_prod(shapes, axis=-1)  # [L]
    level_start = tf.cumsum(pixels, exclusive=True) * num_images
    image = tf.range(num_images)[:, tf.newaxis]
    first = tf.gather(level_start, slot) + image * tf.gather(pixels, slot)  # [B, R]
    rows = first[..., tf.newaxis, tf.newaxis] + rows * width[..., tf.newaxis, tf.newaxis]
    # [B, R, P, K] twice -> [B, R, P, P, K, K] -> [N, K * K]
    taps = rows.shape[-1]
    index = rows[:, :, :, tf.newaxis, :, tf.newaxis] + cols[:, :, tf.newaxis, :, tf.newaxis, :]
    weight = row_weight[:, :, :, tf.newaxis, :, tf.newaxis]
    weight = weight * col_weight[:, :, tf.newaxis, :, tf.newaxis, :]
    index = tf.reshape(index, [-1, taps * taps])
    weight = tf.reshape(weight, [-1, taps * taps])

    channels = features[names[0]].shape[-1]
    table = tf.concat([tf.reshape(features[level], [-1, channels]) for level in names], axis=0)
    pooled = tf.cast(_weighted_gather(table, index, weight), table.dtype)
    return tf.reshape(pooled, [num_images, num_rois, output_size, output_size, channels])
