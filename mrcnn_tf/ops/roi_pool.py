"""RoIPool: box edges and bins rounded to whole feature pixels, of each bin the largest value.

What RoIAlign replaced (Mask R-CNN section 3, table 2c and 2d).

Shape letters: `B` images, `Hl Wl` size of level l, `C` channels, `R` RoIs per image, `P` output
size, `N = B * R * P * P` bins, `T` pixels of all levels and images.

Bins have any number of pixels, from none to hundreds. All bins look at their first pixel, then at
their second, and so on as long as one has more. The maximum is written twice, see
`implementation.py`; on CPUs, bins that are done are left out.
"""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.ops import feature_table, implementation

# Beyond any map, so that what is computed from such a coordinate fits int32.
_FAR = 2.0**20


def roi_pool(
    features: Mapping[int, tf.Tensor],
    boxes: tf.Tensor,
    levels: tf.Tensor | None,
    output_size: int,
) -> tf.Tensor:
    """Pool each box from its pyramid level into [P, P] cells by the largest pixel of each.

    1. Edges are divided by the stride and rounded, halves away from zero; the box covers the pixels
       from the one to the other, both included, so at least one.
    2. Bin p of h pixels is those from floor(p * h / P) to ceil((p + 1) * h / P): they overlap.
    3. Of a bin, what lies on the map counts; a bin without any is 0.

    A gradient goes to the first pixel, row by row, that has the largest value.

    Args:
      features: {level: [B, Hl, Wl, C]}, float32, bfloat16 or float16; level l has stride 2**l.
      boxes: float32 [B, R, (y1, x1, y2, x2)], network-input pixels; any value is allowed.
      levels: int32 [B, R], the level of each box, one of `features`; None if there is one level.
      output_size: P.

    Returns:
      [B, R, P, P, C], the features' dtype.

    Raises:
      ValueError: see `feature_table.of_levels`.

    Source: Fast R-CNN (arXiv 1504.08083) section 2.1; as the kernels of Caffe and torchvision, but
    that bins are computed in whole numbers: theirs, in float32, have a pixel more or less in a few
    boxes of 57 pixels or more.
    """
    table, maps, boxes = feature_table.of_levels(features, boxes, levels)
    bins = _bins(maps, boxes, output_size)

    @tf.custom_gradient
    def pooled(table):
        best, place = _maximum(table, bins)

        def gradient(upstream):
            return _scatter(upstream, place, table)

        return best, gradient

    return feature_table.to_cells(pooled(table), table, boxes, output_size)


def rounded(coordinate: tf.Tensor) -> tf.Tensor:
    """Round to whole numbers, halves away from zero, as C does and `tf.round` does not."""
    size = tf.abs(coordinate)
    whole = tf.floor(size)
    return tf.sign(coordinate) * tf.where(size - whole >= 0.5, whole + 1.0, whole)


class _Bins(NamedTuple):
    """N bins, int32 [N] each."""

    first_row: tf.Tensor  # of the table, the bin's first pixel
    width: tf.Tensor  # of the bin, pixels; at least 1
    map_width: tf.Tensor
    count: tf.Tensor  # pixels

    def pixel(self, ordinal: tf.Tensor) -> tf.Tensor:
        """Row of the table of each bin's pixel of this number, int32 [N]."""
        return self.first_row + ordinal // self.width * self.map_width + ordinal % self.width


def _bins(maps: feature_table.Maps, boxes: tf.Tensor, side: int) -> _Bins:
    """Cut boxes [B, R, 4], in pixels of their map, into bins."""
    first_row, height, width = (tf.reshape(x, [-1]) for x in maps)  # [B * R]
    boxes = tf.where(tf.math.is_finite(boxes), tf.clip_by_value(boxes, -_FAR, _FAR), 0.0)
    y1, x1, y2, x2 = tf.unstack(tf.cast(rounded(tf.reshape(boxes, [-1, 4])), tf.int32), axis=-1)
    top, bottom = _axis(y1, y2, height, side)  # [B * R, P]
    left, right = _axis(x1, x2, width, side)
    first = first_row[:, tf.newaxis] + top * width[:, tf.newaxis]
    first = first[:, :, tf.newaxis] + left[:, tf.newaxis, :]  # [B * R, P, P]
    bin_width = tf.zeros_like(first) + (right - left)[:, tf.newaxis, :]
    count = (bottom - top)[:, :, tf.newaxis] * bin_width
    map_width = tf.zeros_like(first) + width[:, tf.newaxis, tf.newaxis]
    flat = (tf.reshape(x, [-1]) for x in (first, tf.maximum(bin_width, 1), map_width, count))
    return _Bins(*flat)


def _axis(
    start: tf.Tensor, end: tf.Tensor, size: tf.Tensor, side: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """First pixel of each bin along an axis and the one behind its last, on the map: [R, P]."""
    length = tf.maximum(end - start + 1, 1)[:, tf.newaxis]
    ordinal = tf.range(side)
    low = start[:, tf.newaxis] + ordinal * length // side
    high = start[:, tf.newaxis] + ((ordinal + 1) * length + side - 1) // side
    last = size[:, tf.newaxis]
    low, high = (tf.clip_by_value(x, 0, last) for x in (low, high))
    return low, tf.maximum(high, low)


def _in_step(table: tf.Tensor, bins: _Bins) -> tuple[tf.Tensor, tf.Tensor]:
    """Largest value of each bin and its row of the table, -1 for empty bins; both [N, C]."""

    def look(ordinal, best, place):
        there = ordinal < bins.count
        row = tf.where(there, bins.pixel(ordinal), 0)
        value = tf.gather(table, row)
        better = there[:, tf.newaxis] & (value > best)
        best = tf.where(better, value, best)
        return ordinal + 1, best, tf.where(better, row[:, tf.newaxis], place)

    return _look_at_all(look, table, bins)


def _of_those_left(table: tf.Tensor, bins: _Bins) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the same; in each round of those bins only that have so many pixels."""

    def look(ordinal, best, place):
        left = tf.where(bins.count > ordinal)  # [n, 1]
        row = _Bins(*(tf.gather_nd(x, left) for x in bins)).pixel(ordinal)
        value, before = tf.gather(table, row), tf.gather_nd(best, left)
        better = value > before
        best = tf.tensor_scatter_nd_update(best, left, tf.where(better, value, before))
        row = tf.where(better, row[:, tf.newaxis], tf.gather_nd(place, left))
        return ordinal + 1, best, tf.tensor_scatter_nd_update(place, left, row)

    return _look_at_all(look, table, bins)


def _look_at_all(look, table, bins):
    shape = tf.stack([tf.shape(bins.count)[0], table.shape[-1]])
    start = 0, tf.fill(shape, table.dtype.min), tf.fill(shape, -1)
    most = tf.reduce_max(tf.concat([bins.count, [0]], axis=0))
    _, best, place = tf.while_loop(lambda ordinal, *_: ordinal < most, look, start)
    return tf.where(place >= 0, best, tf.zeros([], best.dtype)), place


def _scatter(upstream: tf.Tensor, place: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Add `upstream` [N, C] up where it came from, rows `place` [N, C]: [T, C].

    Number by number, as the channels of a bin come from different pixels.
    """
    channels = table.shape[-1]
    index = place * channels + tf.range(channels)  # negative for empty bins, and then left out
    size = tf.shape(table)[0] * channels
    total = tf.math.unsorted_segment_sum(
        tf.reshape(tf.cast(upstream, tf.float32), [-1]), tf.reshape(index, [-1]), size
    )
    return tf.cast(tf.ensure_shape(tf.reshape(total, tf.shape(table)), table.shape), table.dtype)


_maximum = implementation.Either(for_accelerators=_in_step, for_cpus=_of_those_left)
