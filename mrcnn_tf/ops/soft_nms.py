"""Soft-NMS: overlapping boxes lose score instead of being dropped.

Shape letters: `B` images, `N` boxes each, `M` outputs each.
"""

import tensorflow as tf

from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import padding


def soft_nms(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    valid: tf.Tensor,
    groups: tf.Tensor,
    sigma: float,
    score_threshold: float,
    max_outputs: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Take the best box, lower the scores of its group's others by exp(-IoU^2 / sigma); repeat.

    No gradient flows. Groups are suppressed each by itself but ranked together: the M boxes are the
    best of all groups, as if each group had been gone through to its end.

    Args:
      boxes: float32 [B, N, (y1, x1, y2, x2)], any unit.
      scores: float32 [B, N], in 0..1.
      valid: bool [B, N]: boxes that take part.
      groups: int32 [B, N]: boxes of different groups (classes) leave each other alone.
      sigma: of the Gaussian, 0.5 in the paper; larger ones lower scores less.
      score_threshold: boxes are taken while their lowered score is above.
      max_outputs: Python int M.

    Returns:
      index: int32 [B, M], in order of descending lowered score; 0 where not valid.
      scores: float32 [B, M], lowered; 0 where not valid.
      valid: bool [B, M].

    Raises:
      ValueError: sigma is not positive.

    Source: Bodla et al. 2017, arXiv 1704.04503, figure 2 with equation 4.
    """
    if sigma <= 0.0:
        raise ValueError(f"sigma must be positive, not {sigma}")
    boxes = tf.stop_gradient(tf.cast(boxes, tf.float32))
    left = tf.where(valid, tf.stop_gradient(tf.cast(scores, tf.float32)), -1.0)
    # There is no best of no boxes.
    boxes, groups = padding.at_least_one(boxes, axis=1), padding.at_least_one(groups, axis=1)
    left = padding.at_least_one(left, axis=1, value=-1.0)
    batch, count = tf.unstack(tf.shape(left))
    places = tf.range(max_outputs)

    def take_best(m, left, index, taken):
        best = tf.argmax(left, axis=1, output_type=tf.int32)  # [B]
        best_score = tf.gather(left, best, batch_dims=1)
        best_box = tf.gather(boxes, best, batch_dims=1)[:, tf.newaxis]  # [B, 1, 4]
        overlap = box_ops.iou(best_box, boxes)[:, 0]  # [B, N]
        same = groups == tf.gather(groups, best, batch_dims=1)[:, tf.newaxis]
        left = tf.where(same & (left > 0.0), left * tf.exp(-tf.square(overlap) / sigma), left)
        is_best = tf.range(count) == best[:, tf.newaxis]
        left = tf.ensure_shape(tf.where(is_best, -1.0, left), left.shape)
        # No tensor list, whose elements LiteRT wants to be of static shape.
        index = tf.where(places == m, best[:, tf.newaxis], index)  # [B, M]
        return m + 1, left, index, tf.where(places == m, best_score[:, tf.newaxis], taken)

    _, _, index, scores = tf.while_loop(
        lambda m, *_: m < max_outputs,
        take_best,
        (0, left, tf.zeros([batch, max_outputs], tf.int32), tf.zeros([batch, max_outputs])),
        maximum_iterations=max_outputs,
    )
    kept = scores > score_threshold
    index = tf.ensure_shape(tf.where(kept, index, 0), [boxes.shape[0], max_outputs])
    return index, tf.where(kept, scores, 0.0), kept
