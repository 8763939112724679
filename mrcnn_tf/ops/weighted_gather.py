"""Weighted sums of table rows: the part of RoIAlign that touches the features.

Shape letters: `T` rows of the table (pixels), `C` channels, `N` sums (output cells), `K` taps of a
sum. Sum and gradient are written twice, see `implementation.py`.
"""

import tensorflow as tf

from mrcnn_tf.ops import implementation

# Pixels gathered at a time on CPUs: 4 MiB of 256 float32 channels, which stay in the cache.
_CHUNK_PIXELS = 4096


@tf.custom_gradient
def weighted_gather(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor):
    """Return `sum_k weight[:, k] * table[index[:, k]]`.

    Args:
      table: [T, C], float32 or half precision.
      index: int32 [N, K], rows of the table.
      weight: float32 [N, K].

    Returns:
      float32 [N, C]; gradient to the table only.
    """
    scatter = _scatter.here()

    def gradient(upstream):
        total = scatter(upstream, index, weight, tf.shape(table)[0])
        return tf.cast(tf.ensure_shape(total, table.shape), table.dtype), None, None

    return _sum(table, index, weight), gradient


def unrolled_sum(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return the sums of `weighted_gather`: one loop under XLA, which stores no products."""
    total = 0.0
    for k in range(index.shape[-1]):
        pixels = tf.cast(tf.gather(table, index[:, k]), tf.float32)
        total += pixels * weight[:, k, tf.newaxis]
    return total


def chunked_sum(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return the sums of `weighted_gather`, in chunks that fit a processor's cache."""
    num_cells, taps = tf.shape(index)[0], index.shape[-1]
    channels = table.shape[-1]
    chunk = max(_CHUNK_PIXELS // taps, 1)

    def sum_of(taps_of_chunk):
        chunk_index, chunk_weight = taps_of_chunk
        pixels = tf.cast(tf.gather(table, chunk_index), tf.float32)  # [chunk, K, C]
        return tf.squeeze(chunk_weight[:, tf.newaxis, :] @ pixels, axis=1)

    num_chunks = -(-num_cells // chunk)
    fill = [[0, num_chunks * chunk - num_cells], [0, 0]]
    sums = tf.map_fn(
        sum_of,
        tuple(tf.reshape(tf.pad(x, fill), [num_chunks, chunk, taps]) for x in (index, weight)),
        fn_output_signature=tf.TensorSpec([chunk, channels], tf.float32),
    )
    return tf.reshape(sums, [-1, channels])[:num_cells]


def _scatter_products(upstream, index, weight, num_rows):
    """Return the gradient of the table, float32 [T, C], of `upstream`, float32 [N, C].

    Under XLA on GPUs nothing of size N * K * C is stored.
    """
    products = upstream[:, tf.newaxis, :] * weight[:, :, tf.newaxis]  # [N, K, C]
    products = tf.reshape(products, [-1, upstream.shape[-1]])
    return tf.math.unsorted_segment_sum(products, tf.reshape(index, [-1]), num_rows)


def sparse_product(upstream, index, weight, num_rows):
    """Return the same: the transposed sparse matrix times `upstream`, which stores no products."""
    num_cells, taps = tf.shape(index)[0], index.shape[-1]
    cell = tf.repeat(tf.range(num_cells), taps)
    entries = tf.cast(tf.stack([cell, tf.reshape(index, [-1])], axis=-1), tf.int64)
    shape = tf.cast(tf.stack([num_cells, num_rows]), tf.int64)
    matrix = tf.SparseTensor(entries, tf.reshape(weight, [-1]), shape)
    return tf.sparse.sparse_dense_matmul(matrix, upstream, adjoint_a=True)


_sum = implementation.Either(for_accelerators=unrolled_sum, for_cpus=chunked_sum)
_scatter = implementation.Either(for_accelerators=_scatter_products, for_cpus=sparse_product)
