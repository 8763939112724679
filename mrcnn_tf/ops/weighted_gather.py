"""Weighted sums of table rows: the part of RoIAlign that touches the features.

Shape letters: `T` rows of the table (pixels), `C` channels, `N` sums (output cells), `K` taps of a
sum. There are two of it: what is fastest under XLA is not what is fastest without.
"""

import tensorflow as tf


def unrolled_sum(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return `sum_k weight[:, k] * table[index[:, k]]`, float32 [N, C], as one loop under XLA."""
    total = 0.0
    for k in range(index.shape[-1]):
        pixels = tf.cast(tf.gather(table, index[:, k]), tf.float32)
        total += pixels * weight[:, k, tf.newaxis]
    return total


@tf.custom_gradient
def weighted_gather(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor):
    """Return `sum_k weight[:, k] * table[index[:, k]]`, for XLA.

    XLA makes one loop of the unrolled sum: nothing of size N * K * C is ever stored, neither
    here nor, on GPUs, in the gradient's scatter.

    Args:
      table: [T, C], float32 or half precision.
      index: int32 [N, K], rows of the table.
      weight: float32 [N, K].

    Returns:
      float32 [N, C]; gradient to the table only.
    """

    def gradient(upstream):
        updates = upstream[:, tf.newaxis, :] * weight[:, :, tf.newaxis]  # [N, K, C]
        updates = tf.reshape(updates, [-1, table.shape[-1]])
        total = tf.math.unsorted_segment_sum(updates, tf.reshape(index, [-1]), tf.shape(table)[0])
        return tf.cast(total, table.dtype), None, None

    return unrolled_sum(table, index, weight), gradient


# Pixels gathered at a time outside XLA: 4 MiB of 256 float32 channels, which stay in the cache.
_CHUNK_PIXELS = 4096


@tf.custom_gradient
def weighted_gather_chunked(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor):
    """Return the same as `weighted_gather`, faster where no XLA fuses the steps.

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
