"""Weighted sums of table rows: the part of RoIAlign that touches the features.

Shape letters: `T` rows of the table (pixels), `C` channels, `N` sums (output cells), `K` taps of a
sum. Sum and gradient are written twice, see `implementation.py`.
"""

import tensorflow as tf

from mrcnn_tf.ops import implementation, padding


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


def sparse_product(table: tf.Tensor, index: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return the sums of `weighted_gather`: a sparse matrix [N, T] times the table.

    The kernel adds rows up as it reads them. To gather pixels and multiply them afterwards takes
    two to three times as long (`benchmarks/op_choices.py`, `weighted_sums`).
    """
    num_cells = tf.shape(index)[0]
    table = padding.at_least_one(tf.cast(table, tf.float32), axis=0)
    matrix = _matrix(index, weight, tf.shape(table)[0])
    product = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=table)[:num_cells]
    return tf.ensure_shape(product, [index.shape[0], table.shape[-1]])


def _scatter_products(upstream, index, weight, num_rows):
    """Return the gradient of the table, float32 [T, C], of `upstream`, float32 [N, C].

    Under XLA on GPUs nothing of size N * K * C is stored.
    """
    products = upstream[:, tf.newaxis, :] * weight[:, :, tf.newaxis]  # [N, K, C]
    products = tf.reshape(products, [-1, upstream.shape[-1]])
    return tf.math.unsorted_segment_sum(products, tf.reshape(index, [-1]), num_rows)


def transposed_product(upstream, index, weight, num_rows):
    """Return the same: the transposed matrix of `sparse_product` times `upstream`.

    Transposed by itself, it is multiplied row by row: a third of the time of `transpose_a`.
    """
    matrix = tf.raw_ops.SparseMatrixTranspose(
        input=_matrix(index, weight, tf.maximum(num_rows, 1)), type=tf.float32
    )
    upstream = padding.at_least_one(upstream, axis=0)
    product = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=upstream)[:num_rows]
    return tf.ensure_shape(product, [None, upstream.shape[-1]])


def _matrix(index: tf.Tensor, weight: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
    """Return `weight` [N, K] at the columns `index` of N rows and `num_rows` columns, compressed.

    What occurs twice in a row counts twice. The kernels crash on matrices of nothing: one of no
    rows has one, empty.
    """
    index, weight = (padding.at_least_one(x, axis=0) for x in (index, weight))
    num_cells = tf.shape(index)[0]
    cell = tf.zeros_like(index) + tf.range(num_cells)[:, tf.newaxis]
    entries = tf.cast(tf.reshape(tf.stack([cell, index], axis=-1), [-1, 2]), tf.int64)
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=entries,
        values=tf.reshape(weight, [-1]),
        dense_shape=tf.cast(tf.stack([num_cells, num_rows]), tf.int64),
    )


_sum = implementation.Either(for_accelerators=unrolled_sum, for_cpus=sparse_product)
_scatter = implementation.Either(for_accelerators=_scatter_products, for_cpus=transposed_product)
