"""The few of many scores that have a chance: what is decoded and suppressed is done for them only.

Shape letters: `B` images, `N` scores each, `K` that are left.
"""

import tensorflow as tf

from mrcnn_tf.ops import implementation

_NONE = -1.0  # a score that no threshold lets pass


def above(scores: tf.Tensor, threshold: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Leave out scores that are not above a threshold, where shapes may follow the data.

    Accelerators get all, as they are: NMS there looks at the best only, and XLA has to know K.

    Args:
      scores: float32 [B, N], probabilities; NaN is above nothing.
      threshold: at least 0.

    Returns:
      scores: float32 [B, K], K at least 1; -1 where it is not above.
      index: int32 [B, K], where each stood. Of equal scores the one that stood first comes first.
    """
    scores = tf.where(scores > threshold, scores, _NONE)
    return _select(scores)


def _all(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return scores, tf.broadcast_to(tf.range(tf.shape(scores)[1]), tf.shape(scores))


def _best_first(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    most = tf.reduce_max(tf.math.count_nonzero(scores > _NONE, axis=1, dtype=tf.int32))
    scores, index = tf.math.top_k(scores, tf.maximum(most, 1))
    return scores, index


_select = implementation.Either(for_accelerators=_all, for_cpus=_best_first)
