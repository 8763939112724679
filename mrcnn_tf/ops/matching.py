"""Matching: which anchor or proposal belongs to which ground-truth object.

Shape letters: `B` images, `A` anchors (or proposals) per image, `G` padded ground-truth objects.
"""

from typing import NamedTuple

import tensorflow as tf


class Matches(NamedTuple):
    """Labels of anchors; one that is neither positive nor negative takes no part in training.

    Attributes:
      gt_index: int32 [B, A], the object of highest IoU (of equal ones the first); 0 if there is
        none. Has a meaning where is_positive.
      is_positive: bool [B, A].
      is_negative: bool [B, A], disjoint from is_positive.
      max_iou: float32 [B, A], IoU with that object; 0 in images without objects.
    """

    gt_index: tf.Tensor
    is_positive: tf.Tensor
    is_negative: tf.Tensor
    max_iou: tf.Tensor


def match(iou, gt_valid, positive_iou, negative_iou, allow_low_quality, ignored=None):
    """Label anchors by their overlap with ground-truth objects.

    1. An anchor's object is the valid one of highest IoU.
    2. IoU >= positive_iou: positive. IoU < negative_iou: negative. Between: neither.
    3. With allow_low_quality every anchor becomes positive that reaches the highest IoU any anchor
       has with some object (all anchors of a tie, if it is above 0), so that no object is left
       without an anchor. It keeps its own object of step 1, which may be another one.
    4. Negatives that are `ignored` become neither.

    Args:
      iou: float32 [B, A, G] in [0, 1]. The largest tensor of training: no more than two of this
        size are made here outside XLA.
      gt_valid: bool [B, G], the column is an object. False for padding and for crowd regions.
      positive_iou: 0.7 for the RPN, 0.5 for the RoI heads.
      negative_iou: 0.3 for the RPN, 0.5 for the RoI heads.
      allow_low_quality: True for the RPN, False for the RoI heads.
      ignored: bool [B, A] or None: never negative, because it lies on a crowd region, whose
        objects are not annotated one by one.

    Returns:
      `Matches`. In an image without objects every anchor is negative.

    Raises:
      ValueError: negative_iou is above positive_iou, or G is known to be 0.

    Source: Detectron2's `Matcher` and torchvision's, which agree, except that both make an
    object that no anchor touches (highest IoU 0) match every anchor it does not touch; here such
    an object matches none.
    """
    if negative_iou > positive_iou:
        raise ValueError(f"negative_iou {negative_iou} is above positive_iou {positive_iou}")
    if iou.shape[-1] == 0:
        raise ValueError("pad the ground truth to at least one row (G >= 1)")
    valid_iou = tf.where(gt_valid[:, tf.newaxis, :], iou, -1.0)  # [B, A, G]
    gt_index = tf.argmax(valid_iou, axis=-1, output_type=tf.int32)
    max_iou = tf.maximum(tf.reduce_max(valid_iou, axis=-1), 0.0)
    is_positive = max_iou >= positive_iou
    is_negative = max_iou < negative_iou
    if allow_low_quality:
        gt_max_iou = tf.reduce_max(valid_iou, axis=1, keepdims=True)  # [B, 1, G]
        reachable = tf.where(gt_max_iou > 0, gt_max_iou, 2.0)  # 2: an IoU that no anchor has
        is_positive |= tf.reduce_any(valid_iou == reachable, axis=-1)
    # An image without objects has no positives even if positive_iou is 0.
    is_positive &= tf.reduce_any(gt_valid, axis=-1, keepdims=True)
    is_negative &= ~is_positive
    if ignored is not None:
        is_negative &= ~ignored
    return Matches(gt_index, is_positive, is_negative, max_iou)
