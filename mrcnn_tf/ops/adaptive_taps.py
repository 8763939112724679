"""Adaptive sampling of RoIAlign: as many samples per bin as it has pixels, exactly.

Shape letters: `R` RoIs (of all images), `P` bins per axis, `I` work items of one round, `T` taps of
an item.

Detectron2's `sampling_ratio=0` and torchvision's -1 place ceil(RoI length / P) samples in a bin,
per RoI and axis. That is 1 to 6 for most RoIs, and 47 for one of 1300 x 9 pixels on stride 4. To
pad all of them to the most would be many times the work, a cap would be wrong. Two observations:

1. The n samples of a bin are at most one pixel apart, so they mix at most n + 1 pixels. `Axis` says
   which, and `axis_weights` adds up the bilinear weights of the (at most 5) samples near a pixel.
   A bin is n + 1 taps per axis instead of 2 n.
2. The taps of a RoI's bins, (n_y + 1) * (n_x + 1) each, are cut into work items of T taps. How
   many items there are in all depends on the boxes; `for_all_items` goes through them in rounds of
   a fixed number. Shapes are fixed, so XLA compiles it, and a thin RoI costs what it needs, not
   what it needs times the number of RoIs.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

# Samples that can lie within one pixel of a pixel: they are more than half a pixel apart (unless
# there is one), so 4, and two more for positions that are rounded.
_NEAR = 6


class Axis(NamedTuple):
    """Where the samples of each RoI lie along one axis, in pixels of the map being sampled.

    Attributes:
      start: float32 [R], first edge; pixel i has its centre at i.
      bin_length: float32 [R].
      num_samples: float32 [R], whole numbers, samples per bin; 0 for RoIs without extent.
      size: float32 [R], pixels of the map.
      num_taps: int32 [R], pixels that one bin may mix; 0 if it has no samples.
    """

    start: tf.Tensor
    bin_length: tf.Tensor
    num_samples: tf.Tensor
    size: tf.Tensor
    num_taps: tf.Tensor

    def of(self, roi: tf.Tensor) -> "Axis":
        """Return the entries of the RoIs `roi`, int32 [I]."""
        return Axis(*(tf.gather(field, roi) for field in self))


def adaptive_axis(
    start: tf.Tensor, end: tf.Tensor, size: tf.Tensor, num_bins: int, aligned: bool
) -> Axis:
    """Count the samples of each RoI along one axis.

    Args:
      start: float32 [R], first edge of each box, in pixels of the map being sampled.
      end: float32 [R], second edge. NaN, infinity and end < start give boxes without samples, or
        samples off the map.
      size: float32 or int32 [R], pixels of the map along the axis.
      num_bins: P.
      aligned: as in `roi_align.axis_taps`.

    Returns:
      The axis.
    """
    start, end = tf.cast(start, tf.float32), tf.cast(end, tf.float32)
    size = tf.cast(size, tf.float32)
    start = start - 0.5 if aligned else start
    length = end - 0.5 - start if aligned else tf.maximum(end - start, 1.0)
    bin_length = length / num_bins
    # ceil(length / P), as the kernels have it. XLA multiplies by 1 / P instead, so that 42 pixels
    # are just above 6 per bin and would get 7 samples. The products below are exact.
    num_samples = tf.math.ceil(bin_length)
    num_samples -= tf.cast((num_samples - 1.0) * num_bins >= length, tf.float32)
    num_samples += tf.cast(num_samples * num_bins < length, tf.float32)
    num_samples = tf.where(num_samples > 0.0, num_samples, 0.0)  # NaN has none either
    num_taps = tf.where(num_samples > 0.0, tf.minimum(num_samples + 1.0, size), 0.0)
    return Axis(start, bin_length, num_samples, size, tf.cast(num_taps, tf.int32))


def axis_weights(axis: Axis, tap: tf.Tensor, num_bins: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Say which pixels taps stand for, and the weight of each in its bin's mean.

    The weight of pixel p is the mean over the bin's samples x of max(0, 1 - |x - p|), where a
    sample below -1 or above `size` counts as zero, and one between there and the outermost pixel
    centres lies on that centre.

    Args:
      axis: of I RoIs.
      tap: int32 [I, T], ordinal of the pixel in each bin. Beyond the RoI's `num_taps` the weight
        is zero.
      num_bins: P.

    Returns:
      index: int32 [I, P, T], within 0..size-1.
      weight: float32 [I, P, T]; all taps of a bin sum to 1 where no sample fell off the map.
    """
    # [I] -> [I, 1, 1, 1]; the last dimension is that of samples.
    start, length, count, size = (x[:, tf.newaxis, tf.newaxis, tf.newaxis] for x in axis[:4])
    last = tf.maximum(size - 1.0, 0.0)
    step = length / tf.maximum(count, 1.0)
    bin_start = start + tf.range(num_bins, dtype=tf.float32)[:, tf.newaxis, tf.newaxis] * length

    first = _on_map(bin_start + 0.5 * step, size)[1]
    pixel = tf.floor(first) + tf.cast(tap, tf.float32)[:, tf.newaxis, :, tf.newaxis]  # [I, P, T, 1]

    nearest = tf.floor((pixel - 1.0 - bin_start) / step - 0.5)
    # Also where that is no number: step is zero for a box without length.
    nearest = tf.where(nearest > 0.0, tf.minimum(nearest, tf.maximum(count - _NEAR, 0.0)), 0.0)
    sample = nearest + tf.range(_NEAR, dtype=tf.float32)  # [I, P, T, _NEAR]
    is_on, position = _on_map(bin_start + (sample + 0.5) * step, size)
    share = tf.maximum(1.0 - tf.abs(position - pixel), 0.0)
    share = tf.where(is_on & (sample < count), share, 0.0)
    weight = tf.reduce_sum(share, axis=-1) / tf.maximum(count, 1.0)[..., 0]
    return tf.cast(tf.minimum(pixel, last)[..., 0], tf.int32), weight


def _on_map(position: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return whether samples lie on the map (bool) and which point of it they read."""
    is_on = (position >= -1.0) & (position <= size)
    inside = tf.clip_by_value(position, 0.0, tf.maximum(size - 1.0, 0.0))
    return is_on, tf.where(tf.math.is_nan(position), 0.0, inside)


def num_items(rows: Axis, cols: Axis, taps: int) -> tf.Tensor:
    """Return how many work items of so many taps each RoI is cut into, int32 [R]."""
    # Rounded up by an addition: ONNX divides integers towards zero, so that -(-a // b), which is
    # the same in Python and TensorFlow, silently becomes a // b there.
    return (rows.num_taps * cols.num_taps + taps - 1) // taps


def item_weights(
    rows: Axis, cols: Axis, first_tap: tf.Tensor, num_taps: int, num_bins: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Say which rows and columns the taps of a work item read, and how much each pixel weighs.

    Args:
      rows: vertical axis of I RoIs.
      cols: horizontal axis.
      first_tap: int32 [I]; the taps of a bin are numbered row by row.
      num_taps: T.
      num_bins: P.

    Returns:
      row: int32 [I, P, 1, T].
      col: int32 [I, 1, P, T].
      row_weight: float32 [I, P, 1, T]; a pixel's weight is the product of both.
      col_weight: float32 [I, 1, P, T].
    """
    tap = first_tap[:, tf.newaxis] + tf.range(num_taps)  # [I, T]
    per_row = tf.maximum(cols.num_taps, 1)[:, tf.newaxis]
    row, row_weight = axis_weights(rows, tap // per_row, num_bins)
    col, col_weight = axis_weights(cols, tap % per_row, num_bins)
    return (
        row[:, :, tf.newaxis],
        col[:, tf.newaxis],
        row_weight[:, :, tf.newaxis],
        col_weight[:, tf.newaxis],
    )


def for_all_items(
    num_items: tf.Tensor,
    items_per_round: int,
    add: Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    total: tf.Tensor,
) -> tf.Tensor:
    """Go through the work items of all RoIs, a fixed number at a time.

    Args:
      num_items: int32 [R], items of each RoI.
      items_per_round: I.
      add: `add(roi, ordinal, valid, total)` returns the new total: for RoIs int32 [I] the items
        int32 [I], counted from 0 within their RoI, where valid, bool [I].
      total: what the items are added to, of any shape.

    Returns:
      The total after all items. No gradient.
    """
    end = tf.cumsum(num_items)  # [R]
    num_all = tf.reduce_sum(num_items)
    if not num_items.shape[0]:
        # Without RoIs there is nothing to gather from or to add to. The loop is not entered then,
        # but XLA compiles it all the same.
        items_per_round = tf.where(tf.shape(num_items)[0] > 0, items_per_round, 0)

    def one_round(begin, total):
        item = begin + tf.range(items_per_round)
        valid = item < num_all
        # The RoIs that end before the item. XLA makes the same of `tf.searchsorted`, which neither
        # LiteRT nor ONNX knows.
        roi = tf.reduce_sum(tf.cast(end <= item[:, tf.newaxis], tf.int32), axis=1)
        roi = tf.where(valid, roi, 0)
        ordinal = tf.where(valid, item - tf.gather(end - num_items, roi), 0)
        return begin + items_per_round, add(roi, ordinal, valid, total)

    return tf.while_loop(
        lambda begin, total: begin < num_all,
        one_round,
        (tf.constant(0), total),
        shape_invariants=(tf.TensorShape([]), total.shape),
        parallel_iterations=1,
    )[1]
