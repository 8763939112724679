"""RoIAlign: features of a fixed size for boxes of any size, without rounding a coordinate.

Shape letters: `B` images, `Hl Wl` size of level l, `C` channels, `R` RoIs per image, `P` output
size, `K` taps of one bin along one axis, `N = B * R * P * P` output cells, `T` pixels of all levels
and images.

The average of a bin's bilinear samples is a weighted sum of feature pixels, and its weights are a
product of one factor per axis: what happens along y (where the samples lie, which two rows each
mixes, whether it fell off the map) does not depend on x. So the work is done in two steps:

1. `axis_taps` turns the box's extent along one axis into K rows (or columns) per bin, with weights.
2. `_weighted_gather` adds up the K * K pixels of each bin. It alone touches the features. (There
   are two of it: what is fastest under XLA is not what is fastest without.)

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


@tf.custom_gradient
def _weighted_gather(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor):
    """Return `sum_k weight[:, k] * table[index[:, k]]`, float32 [N, C], for XLA; table [T, C].

    XLA makes one loop of the unrolled sum: nothing of size N * K * K * C is ever stored, neither
    here nor, on GPUs, in the gradient's scatter.
    """

    def gradient(upstream):
        updates = upstream[:, tf.newaxis, :] * weight[:, :, tf.newaxis]  # [N, K * K, C]
        updates = tf.reshape(updates, [-1, table.shape[-1]])
        total = tf.math.unsorted_segment_sum(updates, tf.reshape(index, [-1]), tf.shape(table)[0])
        return tf.cast(total, table.dtype), None, None

    total = 0.0
    for k in range(index.shape[-1]):
        pixels = tf.cast(tf.gather(table, index[:, k]), tf.float32)
        total += pixels * weight[:, k, tf.newaxis]
    return total, gradient


# Pixels gathered at a time outside XLA: 4 MiB of 256 float32 channels, which stay in the cache.
_CHUNK_PIXELS = 4096


@tf.custom_gradient
def _weighted_gather_chunked(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor):
    """Return the same as `_weighted_gather`, faster where no XLA fuses the steps.

    The cells go through in chunks that fit a processor's cache. The gradient is the transposed
    sparse matrix times the upstream one, whose kernel stores no products either (XLA has none).
    """
    num_cells, taps = tf.shape(index)[0], index.shape[-1]
    channels = table.shape[-1]
    chunk = max(_CHUNK_PIXELS // taps, 1)

    def gradient(upstream):
        cell = tf.repeat(tf.range(num_cells), taps)
        entries = tf.cast(tf.stack([cell, tf.reshape(index, [-1])], axis=-1), tf.int64)
        shape = tf.cast(tf.stack([num_cells, tf.shape(table)[0]]), tf.int64)
        matrix = tf.SparseTensor(entries, tf.reshape(weight, [-1]), shape)
        total = tf.sparse.sparse_dense_matmul(matrix, upstream, adjoint_a=True)
        return tf.cast(total, table.dtype), None, None

    def pool(taps_of_chunk):
        chunk_index, chunk_weight = taps_of_chunk
        pixels = tf.cast(tf.gather(table, chunk_index), tf.float32)  # [chunk, K * K, C]
        return tf.squeeze(chunk_weight[:, tf.newaxis, :] @ pixels, axis=1)

    num_chunks = -(-num_cells // chunk)
    fill = [[0, num_chunks * chunk - num_cells], [0, 0]]
    pooled = tf.map_fn(
        pool,
        tuple(tf.reshape(tf.pad(x, fill), [num_chunks, chunk, taps]) for x in (index, weight)),
        fn_output_signature=tf.TensorSpec([chunk, channels], tf.float32),
    )
    return tf.reshape(pooled, [-1, channels])[:num_cells], gradient


def roi_align(
    features: Mapping[int, tf.Tensor],
    boxes: tf.Tensor,
    levels: tf.Tensor | None,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    compiled: bool = True,
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
      compiled: True for the implementation that XLA compiles (and that also suits a GPU without
        XLA); False for the one that is faster on CPUs without XLA. Same numbers up to rounding.

    Returns:
      [B, R, P, P, C], the features' dtype.

    Raises:
      ValueError: `levels` is None although there are several, the features skip a level, or
        sampling_ratio < 1.

    Source: Mask R-CNN section 3; numbers as the kernels of Detectron2 and torchvision compute them
    with a fixed sampling ratio.
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

    y1, x1, y2, x2 = tf.unstack(boxes / stride[..., tf.newaxis], axis=-1)
    rows, row_weight = axis_taps(y1, y2, height, output_size, sampling_ratio, aligned)
    cols, col_weight = axis_taps(x1, x2, width, output_size, sampling_ratio, aligned)

    # All pixels of all levels and images become the rows of one table, level by level.
    table = tf.concat([tf.reshape(features[level], [-1, channels]) for level in names], axis=0)
    rows = _first_row(shapes, slot)[..., tf.newaxis, tf.newaxis] + (
        rows * width[..., tf.newaxis, tf.newaxis]
    )
    # [B, R, P, K] of each axis -> [B, R, P, P, K, K] -> [N, K * K]
    index = rows[:, :, :, tf.newaxis, :, tf.newaxis] + cols[:, :, tf.newaxis, :, tf.newaxis, :]
    weight = row_weight[:, :, :, tf.newaxis, :, tf.newaxis]
    weight = weight * col_weight[:, :, tf.newaxis, :, tf.newaxis, :]
    taps = index.shape[-1] * index.shape[-2]
    gather = _weighted_gather if compiled else _weighted_gather_chunked
    pooled = gather(table, tf.reshape(index, [-1, taps]), tf.reshape(weight, [-1, taps]))

    cells = tf.concat([tf.shape(boxes)[:2], [output_size, output_size, channels]], axis=0)
    pooled = tf.reshape(tf.cast(pooled, table.dtype), cells)
    return tf.ensure_shape(pooled, [*boxes.shape[:2], output_size, output_size, channels])


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
