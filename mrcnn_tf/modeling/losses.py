"""The five losses of Mask R-CNN: L = L_rpn_class + L_rpn_box + L_class + L_box + L_mask.

And that of keypoints, where a network has them.

Each function returns a `LossSum`: the sum over what was sampled and the number to divide it by.
They stay apart because with several replicas the numbers are summed over all of them before the
division, so that two images on two devices weigh the same as two images on one. (Detectron2 and
torchvision average each device by itself, so there an image's weight depends on its neighbours.)

Shape letters: `B` images, `S` sampled anchors, `R` sampled RoIs, `N` classes with background, `M`
mask side, `K` keypoints, `S` side of their maps.
"""

from typing import NamedTuple

import tensorflow as tf


class LossSum(NamedTuple):
    """A loss before its division.

    Attributes:
      total: float32 [], sum over samples.
      count: float32 [], what to divide by; 0 if there is nothing to learn from.
    """

    total: tf.Tensor
    count: tf.Tensor

    def mean(self) -> tf.Tensor:
        """Return total / count, 0 where the count is 0."""
        return self.total / tf.maximum(self.count, 1.0)


def smooth_l1(error: tf.Tensor, beta: float) -> tf.Tensor:
    """Elementwise smooth L1: 0.5 e^2 / beta below `beta`, |e| - beta / 2 above; |e| for beta 0.

    Fast R-CNN section 3, equation 3 has beta 1; torchvision's and Detectron's RPN have 1/9.
    """
    size = tf.abs(error)
    if beta == 0.0:
        return size
    return tf.where(size < beta, 0.5 * error * error / beta, size - 0.5 * beta)


def rpn_class_loss(logits: tf.Tensor, is_positive: tf.Tensor, valid: tf.Tensor) -> LossSum:
    """Binary cross-entropy of sampled anchors (Faster R-CNN equation 1).

    Args:
      logits: float32 [B, S].
      is_positive: bool [B, S].
      valid: bool [B, S].
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(is_positive, tf.float32), logits)
    return LossSum(_sum_where(valid, entropy), _count(valid))


def rpn_box_loss(
    deltas: tf.Tensor,
    target_deltas: tf.Tensor,
    is_positive: tf.Tensor,
    valid: tf.Tensor,
    beta: float,
) -> LossSum:
    """Smooth L1 of positive anchors, divided by all sampled ones (as torchvision, Detectron).

    Args:
      deltas: float32 [B, S, 4].
      target_deltas: float32 [B, S, 4].
      is_positive: bool [B, S].
      valid: bool [B, S].
      beta: see `smooth_l1`.
    """
    error = tf.reduce_sum(smooth_l1(deltas - target_deltas, beta), axis=-1)
    return LossSum(_sum_where(is_positive & valid, error), _count(valid))


def class_loss(logits: tf.Tensor, target_classes: tf.Tensor, valid: tf.Tensor) -> LossSum:
    """Cross-entropy of sampled RoIs over all classes (Fast R-CNN equation 1).

    Args:
      logits: float32 [B, R, N].
      target_classes: int32 [B, R], 0 = background.
      valid: bool [B, R].
    """
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(target_classes, logits)
    return LossSum(_sum_where(valid, entropy), _count(valid))


def federated_class_loss(
    logits: tf.Tensor, target_classes: tf.Tensor, valid: tf.Tensor, taught: tf.Tensor
) -> LossSum:
    """Binary cross-entropy of those classes that an image teaches, divided by all sampled RoIs.

    Source: the federated loss of CenterNet2 (arXiv 2103.07461) and Detectron2.

    Args:
      logits: float32 [B, R, N]; background's column does not matter.
      target_classes: int32 [B, R], 0 = background.
      valid: bool [B, R].
      taught: bool [B, N], the classes that each image teaches; of the others a RoI teaches its own.
    """
    logits, taught = logits[..., 1:], taught[:, tf.newaxis, 1:]  # [B, R, N-1], [B, 1, N-1]
    column = target_classes - 1  # of background -1, whose one_hot is all False
    is_class = tf.one_hot(column, logits.shape[-1], on_value=True, off_value=False)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(is_class, tf.float32), logits)
    counts = valid[..., tf.newaxis] & (taught | is_class)
    return LossSum(_sum_where(counts, entropy), _count(valid))


def box_loss(
    deltas: tf.Tensor,
    target_deltas: tf.Tensor,
    target_classes: tf.Tensor,
    is_positive: tf.Tensor,
    valid: tf.Tensor,
    beta: float,
) -> LossSum:
    """Smooth L1 of the true class's deltas of positive RoIs, divided by all sampled RoIs.

    Args:
      deltas: float32 [B, R, N-1, 4].
      target_deltas: float32 [B, R, 4].
      target_classes: int32 [B, R], 0 = background.
      is_positive: bool [B, R].
      valid: bool [B, R].
      beta: see `smooth_l1`.
    """
    column = tf.maximum(target_classes - 1, 0)
    of_class = tf.gather(deltas, column, batch_dims=2)  # [B, R, 4]
    error = tf.reduce_sum(smooth_l1(of_class - target_deltas, beta), axis=-1)
    return LossSum(_sum_where(is_positive & valid, error), _count(valid))


def mask_loss(logits: tf.Tensor, target_masks: tf.Tensor, valid: tf.Tensor) -> LossSum:
    """Mean binary cross-entropy of the true class's mask (section 3, "L_mask").

    Defined on positive RoIs only.

    Args:
      logits: float32 [B, R, M, M], of the true class.
      target_masks: float32 [B, R, M, M], in 0..1.
      valid: bool [B, R], positive RoIs whose object has a mask.
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(target_masks, logits)
    return LossSum(_sum_where(valid, tf.reduce_mean(entropy, axis=[2, 3])), _count(valid))


def softmax_mask_loss(
    log_probabilities: tf.Tensor, target_masks: tf.Tensor, valid: tf.Tensor
) -> LossSum:
    """Mean cross-entropy of the true class on the object's pixels, of background beside them.

    The paper's alternative to `mask_loss` (table 2b).

    Args:
      log_probabilities: float32 [B, R, M, M, (background, true class)], logarithms.
      target_masks: float32 [B, R, M, M], in 0..1.
      valid: bool [B, R], positive RoIs whose object has a mask.
    """
    background, of_class = tf.unstack(log_probabilities, axis=-1)
    entropy = -(target_masks * of_class + (1.0 - target_masks) * background)
    return LossSum(_sum_where(valid, tf.reduce_mean(entropy, axis=[2, 3])), _count(valid))


def point_loss(logits: tf.Tensor, targets: tf.Tensor, valid: tf.Tensor) -> LossSum:
    """Mean binary cross-entropy of the true class at points of positive RoIs (PointRend).

    Args:
      logits: float32 [B, R, P], of the true class.
      targets: float32 [B, R, P], in 0..1.
      valid: bool [B, R], positive RoIs whose object has a mask.
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    return LossSum(_sum_where(valid, tf.reduce_mean(entropy, axis=2)), _count(valid))


def mask_iou_loss(ious: tf.Tensor, target_ious: tf.Tensor, valid: tf.Tensor) -> LossSum:
    """Half the squared error of predicted IoUs, of masks that overlap their object (Mask Scoring).

    Args:
      ious: float32 [B, R], predicted.
      target_ious: float32 [B, R], in 0..1.
      valid: bool [B, R], positive RoIs whose object has a mask.
    """
    learned = valid & (target_ious > 0.0)
    return LossSum(_sum_where(learned, 0.5 * (ious - target_ious) ** 2), _count(learned))


def keypoint_loss(logits: tf.Tensor, target_cells: tf.Tensor, valid: tf.Tensor) -> LossSum:
    """Cross-entropy of each keypoint over the places of its map (section 5).

    Divided by the number of keypoints that teach, so that each weighs the same; Detectron2 (its
    default) and torchvision do so. Section 5 does not say.

    Args:
      logits: float32 [B, R, K, S, S].
      target_cells: int32 [B, R, K], row * S + column.
      valid: bool [B, R, K], annotated keypoints inside positive RoIs.
    """
    places = logits.shape[3] * logits.shape[4]
    flat = tf.reshape(logits, tf.concat([tf.shape(logits)[:3], [places]], axis=0))
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(target_cells, flat)
    return LossSum(_sum_where(valid, entropy), _count(valid))


def _sum_where(condition: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.where(condition, value, 0.0))


def _count(condition: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(condition, tf.float32))
