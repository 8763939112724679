"""RoIAlign with adaptive sampling, over the work items of `adaptive_taps`.

Shape letters: `R` RoIs (of all images), `P` output size, `N = R * P * P` output cells, `T` rows of
the table (pixels of all maps), `C` channels, `I` work items.

Written twice, see `implementation.py`. On CPUs all items are pooled, however many there are. XLA
has to know how many: most RoIs need one item of `_ITEM_TAPS` taps, about what 2 x 2 samples of a
fixed ratio cost, so the first item of every RoI is pooled at once, and the rest in rounds.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.ops import adaptive_taps, implementation, weighted_gather

_ITEM_TAPS = 16
# 128 items of 7 x 7 cells and 256 channels are 100 MB of products in the gradient, if stored.
_ROUND = 128


class RoIs(NamedTuple):
    """What is pooled, R of each.

    Attributes:
      rows: vertical samples.
      cols: horizontal samples.
      first_row: int32, row of the table that holds the first pixel of the RoI's map.
      width: int32, pixels in a row of the map.
    """

    rows: adaptive_taps.Axis
    cols: adaptive_taps.Axis
    first_row: tf.Tensor
    width: tf.Tensor

    def num_items(self) -> tf.Tensor:
        """Return the work items of each RoI, int32 [R]."""
        return adaptive_taps.num_items(self.rows, self.cols, _ITEM_TAPS)

    def taps(
        self, roi: tf.Tensor, ordinal: tf.Tensor, num_bins: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return rows of the table and their weights, [I * P * P, _ITEM_TAPS], of some items.

        Args:
          roi: int32 [I].
          ordinal: int32 [I], which of the RoI's items; beyond its last one weights are 0.
          num_bins: P.
        """
        row, col, row_weight, col_weight = adaptive_taps.item_weights(
            self.rows.of(roi), self.cols.of(roi), ordinal * _ITEM_TAPS, _ITEM_TAPS, num_bins
        )
        first_row, width = (
            tf.gather(x, roi)[:, tf.newaxis, tf.newaxis, tf.newaxis]
            for x in (self.first_row, self.width)
        )
        index = first_row + row * width + col  # [I, P, P, _ITEM_TAPS]
        weight = row_weight * col_weight
        return tf.reshape(index, [-1, _ITEM_TAPS]), tf.reshape(weight, [-1, _ITEM_TAPS])


def pool(table: tf.Tensor, rois: RoIs, num_bins: int) -> tf.Tensor:
    """Pool all RoIs.

    Args:
      table: [T, C], float32 or half precision.
      rois: R of them.
      num_bins: P.

    Returns:
      float32 [N, C]; gradient to the table only.
    """
    scatter = _scatter.here()

    @tf.custom_gradient
    def pooled(table):
        def gradient(upstream):
            total = scatter(upstream, rois, tf.shape(table)[0], num_bins)
            return tf.cast(tf.ensure_shape(total, table.shape), table.dtype)

        return _pool(table, rois, num_bins), gradient

    return pooled(table)


def _pool_in_rounds(table, rois, num_bins):
    """Return float32 [N, C]: the first item of each RoI, then a fixed number at a time."""
    # The arrays in the loops have one row of C channels per cell: with R rows of P * P * C, XLA's
    # code on CPUs is slower by two thirds (`benchmarks/op_choices.py`, `scatter_rows`).
    every = tf.range(tf.shape(rois.width)[0])

    def add(roi, ordinal, valid, total):
        index, weight = rois.taps(roi, ordinal + 1, num_bins)
        weight = _zero_unless(valid, weight, num_bins)
        part = weighted_gather.unrolled_sum(table, index, weight)
        return tf.tensor_scatter_nd_add(total, _cells(roi, num_bins)[:, tf.newaxis], part)

    index, weight = rois.taps(every, tf.zeros_like(every), num_bins)
    total = weighted_gather.unrolled_sum(table, index, weight)
    rest = tf.maximum(rois.num_items() - 1, 0)
    return adaptive_taps.for_all_items(rest, _ROUND, add, total)


def _pool_at_once(table, rois, num_bins):
    """Return the same from all items, however many they are, which XLA could not compile."""
    roi, index, weight = _all_items(rois, num_bins)
    parts = weighted_gather.sparse_product(table, index, weight)  # [I * P * P, C]
    num_cells = tf.shape(rois.width)[0] * num_bins**2
    return tf.math.unsorted_segment_sum(parts, _cells(roi, num_bins), num_cells)


def _scatter_in_rounds(upstream, rois, num_rows, num_bins):
    """Scatter `upstream`, float32 [N, C], to where it was pooled from: float32 [T, C]."""
    channels = upstream.shape[-1]

    def add(roi, ordinal, valid, total):
        index, weight = rois.taps(roi, ordinal, num_bins)
        weight = _zero_unless(valid, weight, num_bins)
        part = tf.gather(upstream, _cells(roi, num_bins))
        products = part[:, tf.newaxis, :] * weight[:, :, tf.newaxis]
        products = tf.reshape(products, [-1, channels])
        return tf.tensor_scatter_nd_add(total, tf.reshape(index, [-1, 1]), products)

    total = tf.zeros([num_rows, channels])
    return adaptive_taps.for_all_items(rois.num_items(), _ROUND, add, total)


def _scatter_at_once(upstream, rois, num_rows, num_bins):
    """Return the same from all items. Their taps are made anew rather than kept since `pool`."""
    roi, index, weight = _all_items(rois, num_bins)
    part = tf.gather(upstream, _cells(roi, num_bins))
    return weighted_gather.transposed_product(part, index, weight, num_rows)


def _all_items(rois, num_bins):
    """Return the RoI of each item, int32 [I], and the taps of all, see `RoIs.taps`."""
    num_items = rois.num_items()
    roi = tf.repeat(tf.range(tf.shape(num_items)[0]), num_items)  # [I]
    ordinal = tf.range(tf.shape(roi)[0]) - tf.gather(tf.cumsum(num_items, exclusive=True), roi)
    return roi, *rois.taps(roi, ordinal, num_bins)


def _cells(roi: tf.Tensor, num_bins: int) -> tf.Tensor:
    """Return the output cells of RoIs [I]: int32 [I * P * P]."""
    cell = roi[:, tf.newaxis] * num_bins**2 + tf.range(num_bins**2)
    return tf.reshape(cell, [-1])


def _zero_unless(valid: tf.Tensor, weight: tf.Tensor, num_bins: int) -> tf.Tensor:
    """Zero the weights [I * P * P, taps] of items that are not valid, bool [I]."""
    valid = tf.repeat(valid, num_bins**2)
    return tf.where(valid[:, tf.newaxis], weight, 0.0)


_pool = implementation.Either(for_accelerators=_pool_in_rounds, for_cpus=_pool_at_once)
_scatter = implementation.Either(for_accelerators=_scatter_in_rounds, for_cpus=_scatter_at_once)
