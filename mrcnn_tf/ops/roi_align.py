"""RoIAlign: features of a fixed size for boxes of any size, without rounding a coordinate.

Shape letters: `B` images, `Hl Wl` size of level l, `C` channels, `R` RoIs per image, `P` output
size, `K` taps of one bin along one axis, `N = B * R * P * P` output cells, `T` pixels of all levels
and images.

The average of a bin's bilinear samples is a weighted sum of feature pixels, and its weights are a
product of one factor per axis: what happens along y (where the samples lie, which two rows each
mixes, whether it fell off the map) does not depend on x. So the work is done in two steps:

1. `axis_taps` turns the box's extent along one axis into K rows (or columns) per bin, with weights.
2. `weighted_gather` adds up the K * K pixels of each bin. It alone touches the features.

The largest of a bin's samples, instead of their average, takes each sample by itself.

Adaptive sampling, as many samples as a bin has pixels, has another K for every box: it goes through
`adaptive_taps` and `adaptive_pooling` instead.
"""

from collections.abc import Mapping

import tensorflow as tf

from mrcnn_tf.ops import adaptive_pooling, adaptive_taps, feature_table, weighted_gather


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
    # Decided before the cast, which has no answer for an empty box (minus infinity) or NaN.
    level = tf.where(side > 0.0, level, float(min_level))
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


def roi_align(
    features: Mapping[int, tf.Tensor],
    boxes: tf.Tensor,
    levels: tf.Tensor | None,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    aggregate: str = "average",
) -> tf.Tensor:
    """Pool each box from its pyramid level into [P, P] cells by averaging bilinear samples.

    Coordinates are float32 whatever the features are. No gradient flows to the boxes.

    Args:
      features: {level: [B, Hl, Wl, C]}, float32, bfloat16 or float16; level l has stride 2**l.
      boxes: float32 [B, R, (y1, x1, y2, x2)], network-input pixels. Any value is allowed; boxes
        without area give finite numbers.
      levels: int32 [B, R], the level of each box, one of `features`; None if there is one level.
      output_size: P.
      sampling_ratio: samples per bin and axis; 0 is adaptive: ceil(box length / P) of them, for
        each box and axis (Detectron2's 0, torchvision's -1).
      aligned: True is Detectron2's ROIAlignV2 (pixel centres at i + 0.5, a box may shrink to
        nothing, of which adaptive sampling makes zeros); False is the first RoIAlign and
        torchvision's default (centres at i, a box is at least one feature pixel high and wide).
      aggregate: "average", or "max" for the largest sample of each bin and channel (table 2c), for
        which their number has to be fixed. Samples off the map are zeros in both.

    Returns:
      [B, R, P, P, C], the features' dtype.

    Raises:
      ValueError: `levels` is None although there are several, the features skip a level, or
        sampling_ratio < 0, or 0 with "max".

    Source: Mask R-CNN section 3; numbers as the kernels of Detectron2 and torchvision compute them.
    """
    table, maps, boxes = feature_table.of_levels(features, boxes, levels)
    if aggregate == "max":
        pooled = _pool_maximum(table, maps, boxes, output_size, sampling_ratio, aligned)
    elif sampling_ratio == 0:
        pooled = _pool_adaptive(table, maps, boxes, output_size, aligned)
    else:
        pooled = _pool_fixed(table, maps, boxes, output_size, sampling_ratio, aligned)
    return feature_table.to_cells(pooled, table, boxes, output_size)


def _pool_fixed(table, maps, boxes, output_size, sampling_ratio, aligned):
    """Return float32 [N, C]; boxes [B, R, 4] in pixels of their map."""
    first_row, height, width = (tf.reshape(x, [-1]) for x in maps)  # [B * R]
    y1, x1, y2, x2 = tf.unstack(tf.reshape(boxes, [-1, 4]), axis=-1)
    rows, row_weight = axis_taps(y1, y2, height, output_size, sampling_ratio, aligned)
    cols, col_weight = axis_taps(x1, x2, width, output_size, sampling_ratio, aligned)
    rows = first_row[:, tf.newaxis, tf.newaxis] + rows * width[:, tf.newaxis, tf.newaxis]
    # [B * R, P, K] of each axis -> [B * R, P, P, K, K] -> [N, K * K]. By reshapes, and with the
    # RoIs of all images in one row, because LiteRT's slices have five dimensions at most.
    taps = 2 * sampling_ratio
    of_row, of_col = [-1, output_size, 1, taps, 1], [-1, 1, output_size, 1, taps]
    index = tf.reshape(rows, of_row) + tf.reshape(cols, of_col)
    weight = tf.reshape(row_weight, of_row) * tf.reshape(col_weight, of_col)
    taps = taps**2
    index, weight = (tf.reshape(x, [-1, taps]) for x in (index, weight))
    return weighted_gather.weighted_gather(table, index, weight)


def _pool_maximum(table, maps, boxes, output_size, sampling_ratio, aligned):
    """Return float32 [N, C]: sample by sample, the first of equals before the others.

    A gradient goes to the sample that was largest.
    """
    first_row, height, width = (tf.reshape(x, [-1]) for x in maps)
    y1, x1, y2, x2 = tf.unstack(tf.reshape(boxes, [-1, 4]), axis=-1)
    rows, row_weight = axis_taps(y1, y2, height, output_size, sampling_ratio, aligned)
    cols, col_weight = axis_taps(x1, x2, width, output_size, sampling_ratio, aligned)
    rows = first_row[:, tf.newaxis, tf.newaxis] + rows * width[:, tf.newaxis, tf.newaxis]
    # [B * R, P, ratio * 2] of each axis, weights as parts of an average.
    row_weight, col_weight = row_weight * sampling_ratio, col_weight * sampling_ratio
    of_row, of_col = [-1, output_size, 1, 2, 1], [-1, 1, output_size, 1, 2]
    largest = None
    for i in range(sampling_ratio):
        for j in range(sampling_ratio):
            y, x = slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2)
            index = tf.reshape(rows[..., y], of_row) + tf.reshape(cols[..., x], of_col)
            weight = tf.reshape(row_weight[..., y], of_row) * tf.reshape(col_weight[..., x], of_col)
            index, weight = (tf.reshape(t, [-1, 4]) for t in (index, weight))
            sample = weighted_gather.weighted_gather(table, index, weight)
            largest = sample if largest is None else tf.where(sample > largest, sample, largest)
    return largest


def _pool_adaptive(table, maps, boxes, output_size, aligned):
    """Return float32 [N, C]; boxes [B, R, 4] in pixels of their map."""
    first_row, height, width = (tf.reshape(x, [-1]) for x in maps)
    y1, x1, y2, x2 = tf.unstack(tf.reshape(boxes, [-1, 4]), axis=-1)
    rois = adaptive_pooling.RoIs(
        adaptive_taps.adaptive_axis(y1, y2, height, output_size, aligned),
        adaptive_taps.adaptive_axis(x1, x2, width, output_size, aligned),
        first_row,
        width,
    )
    return adaptive_pooling.pool(table, rois, output_size)
