"""How much of a padded array is worth computing.

Counts are fixed and padded (objects, sampled RoIs, detections), with what is valid in front. Behind
the last valid row of any image there is nothing to compute. Where shapes may follow the data, as in
a graph on a CPU, the rest is cut off; accelerators, XLA above all, take arrays of one size.

Shape letters: `B` images, `N` padded rows.
"""

from collections.abc import Callable

import tensorflow as tf

from mrcnn_tf.ops import implementation


def num_rows(valid: tf.Tensor) -> tf.Tensor:
    """Return how many leading rows hold all that is valid in any image.

    Args:
      valid: bool [B, N].

    Returns:
      int32 [], from 1 (no operation need expect an empty array) to N; N on accelerators.
    """
    return _num_rows(valid)


def only(rows: tf.Tensor, function: Callable[..., tf.Tensor], *arrays: tf.Tensor) -> tf.Tensor:
    """Apply a function to leading rows, and pad what it returns with zeros.

    Args:
      rows: of `num_rows`.
      function: takes as many arrays [B, rows, ...], returns one [B, rows, ...].
      *arrays: [B, N, ...].

    Returns:
      [B, N, ...].
    """
    result = function(*(array[:, :rows] for array in arrays))
    missing = tf.shape(arrays[0])[1] - rows
    padded = tf.pad(result, [[0, 0], [0, missing], *[[0, 0]] * (len(result.shape) - 2)])
    return tf.ensure_shape(padded, [result.shape[0], arrays[0].shape[1], *result.shape[2:]])


def _up_to_the_last(valid: tf.Tensor) -> tf.Tensor:
    used = tf.reduce_any(valid, axis=0)  # [N]
    return tf.maximum(tf.reduce_max(tf.where(used, tf.range(1, tf.size(used) + 1), 0)), 1)


_num_rows = implementation.Either(
    for_accelerators=lambda valid: tf.shape(valid)[1], for_cpus=_up_to_the_last
)
