"""What the network should have said: targets of sampled anchors and sampled RoIs.

Shape letters: `B` images, `A` anchors, `G` padded ground-truth objects, `P` proposals, `S` sampled
anchors, `R` sampled RoIs.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import leading, matching, sampling

# Which part of an anchor or RoI has to lie in a crowd region for it to be neither positive nor
# negative. Detectron drops proposals at the same value (`TRAIN.CROWD_FILTER_THRESH`).
CROWD_OVERLAP = 0.7


class AnchorTargets(NamedTuple):
    """Targets of the RPN.

    Attributes:
      index: int32 [B, S], positions among the anchors.
      is_positive: bool [B, S].
      valid: bool [B, S], False pads images with too few anchors to sample.
      deltas: float32 [B, S, (dy, dx, dh, dw)], meaningful where `is_positive`.
    """

    index: tf.Tensor
    is_positive: tf.Tensor
    valid: tf.Tensor
    deltas: tf.Tensor


class RoITargets(NamedTuple):
    """Sampled RoIs and their targets; positives first, unless they were matched anew.

    Attributes:
      rois: float32 [B, R, 4], network-input pixels.
      classes: int32 [B, R], 0 for negatives.
      is_positive: bool [B, R].
      valid: bool [B, R].
      gt_index: int32 [B, R], the matched object, meaningful where `is_positive`.
      deltas: float32 [B, R, (dy, dx, dh, dw)], meaningful where `is_positive`.
    """

    rois: tf.Tensor
    classes: tf.Tensor
    is_positive: tf.Tensor
    valid: tf.Tensor
    gt_index: tf.Tensor
    deltas: tf.Tensor


def without_padding(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Cut off the rows that hold no object in any image, as far as shapes may follow the data.

    COCO has 7 objects an image, and the overlaps of all anchors with 100 are what training's
    targets cost.

    Args:
      batch: as in `data/schema.py`; its keys of [B, G, ...] are cut to one number of rows.
    """
    rows = leading.num_rows(batch[schema.GT_VALID])
    of_objects = {key: batch[key][:, :rows] for key in schema.OF_OBJECTS if key in batch}
    return batch | of_objects


def anchor_targets(
    anchors: tf.Tensor,
    gt_boxes: tf.Tensor,
    gt_valid: tf.Tensor,
    gt_is_crowd: tf.Tensor,
    image_size_hw: tf.Tensor,
    seeds: tf.Tensor,
    *,
    positive_iou: float,
    negative_iou: float,
    num_samples: int,
    positive_fraction: float,
    ignore_crowds: bool,
    ignore_across_border: bool,
) -> AnchorTargets:
    """Match anchors to objects and sample some (Faster R-CNN section 3.1.2).

    Args:
      anchors: float32 [A, 4], network-input pixels.
      gt_boxes: float32 [B, G, 4], the same frame.
      gt_valid: bool [B, G].
      gt_is_crowd: bool [B, G]; crowd regions are no objects to match.
      image_size_hw: float32 [B, (height, width)], the image inside the canvas.
      seeds: [B, 2], see `sampling.image_seeds`.
      positive_iou: from here on an anchor is positive.
      negative_iou: below it is negative.
      num_samples: S.
      positive_fraction: at most this part of them is positive.
      ignore_crowds: anchors on a crowd region are not negatives.
      ignore_across_border: anchors that reach beyond the image, into the padding of its canvas or
        out of it, are neither positive nor negative.
    """
    batched = tf.broadcast_to(anchors, [tf.shape(gt_boxes)[0], *tf.unstack(tf.shape(anchors))])
    is_object = gt_valid & ~gt_is_crowd
    ignored = _on_crowd(batched, gt_boxes, gt_valid & gt_is_crowd) if ignore_crowds else None
    if ignore_across_border:
        across = box_ops.is_across_border(anchors, image_size_hw)  # [B, A]
        # Without area they overlap no object, so that they are the best match of none either.
        batched = tf.where(across[..., tf.newaxis], 0.0, batched)
        ignored = across if ignored is None else ignored | across
    matches = matching.match(
        box_ops.iou(batched, gt_boxes),
        is_object,
        positive_iou,
        negative_iou,
        allow_low_quality=True,
        ignored=ignored,
    )
    sample = sampling.sample(
        matches.is_positive, matches.is_negative, num_samples, positive_fraction, seeds
    )
    gt_index = tf.gather(matches.gt_index, sample.index, batch_dims=1)
    deltas = box_ops.encode(
        tf.gather(gt_boxes, gt_index, batch_dims=1), tf.gather(anchors, sample.index)
    )
    return AnchorTargets(
        sample.index,
        sample.is_positive,
        sample.valid,
        tf.where(sample.is_positive[..., tf.newaxis], deltas, 0.0),
    )


def roi_targets(
    proposal_boxes: tf.Tensor,
    proposal_valid: tf.Tensor,
    gt_boxes: tf.Tensor,
    gt_classes: tf.Tensor,
    gt_valid: tf.Tensor,
    gt_is_crowd: tf.Tensor,
    seeds: tf.Tensor,
    *,
    positive_iou: float,
    num_samples: int,
    positive_fraction: float,
    regression_weights: tuple[float, ...],
    ignore_crowds: bool,
) -> RoITargets:
    """Sample RoIs from proposals and objects (section 3.1: positive at IoU >= 0.5, 1:3).

    The objects' own boxes join the proposals, as in every reference implementation: without them
    an untrained RPN offers no positives.

    Args:
      proposal_boxes: float32 [B, P, 4], network-input pixels.
      proposal_valid: bool [B, P].
      gt_boxes: float32 [B, G, 4], the same frame.
      gt_classes: int32 [B, G], 1..N-1.
      gt_valid: bool [B, G].
      gt_is_crowd: bool [B, G].
      seeds: [B, 2], see `sampling.image_seeds`.
      positive_iou: from here on a RoI is positive, below it is negative.
      num_samples: R.
      positive_fraction: at most this part of them is positive.
      regression_weights: of (dy, dx, dh, dw).
      ignore_crowds: RoIs on a crowd region are not negatives.
    """
    is_object = gt_valid & ~gt_is_crowd
    candidates = tf.concat([proposal_boxes, gt_boxes], axis=1)  # [B, P+G, 4]
    candidate_valid = tf.concat([proposal_valid, is_object], axis=1)
    matches = matching.match(
        box_ops.iou(candidates, gt_boxes),
        is_object,
        positive_iou,
        positive_iou,
        allow_low_quality=False,
        ignored=_on_crowd(candidates, gt_boxes, gt_valid & gt_is_crowd) if ignore_crowds else None,
    )
    sample = sampling.sample(
        matches.is_positive & candidate_valid,
        matches.is_negative & candidate_valid,
        num_samples,
        positive_fraction,
        seeds,
    )
    rois = tf.gather(candidates, sample.index, batch_dims=1)
    rois = tf.stop_gradient(tf.where(sample.valid[..., tf.newaxis], rois, 0.0))
    gt_index = tf.gather(matches.gt_index, sample.index, batch_dims=1)
    classes = tf.gather(gt_classes, gt_index, batch_dims=1)
    deltas = box_ops.encode(tf.gather(gt_boxes, gt_index, batch_dims=1), rois, regression_weights)
    return RoITargets(
        rois,
        tf.where(sample.is_positive, classes, 0),
        sample.is_positive,
        sample.valid,
        gt_index,
        tf.where(sample.is_positive[..., tf.newaxis], deltas, 0.0),
    )


def rematched_targets(
    boxes: tf.Tensor,
    valid: tf.Tensor,
    gt_boxes: tf.Tensor,
    gt_classes: tf.Tensor,
    gt_valid: tf.Tensor,
    gt_is_crowd: tf.Tensor,
    *,
    positive_iou: float,
    regression_weights: tuple[float, ...],
    ignore_crowds: bool,
) -> RoITargets:
    """Match boxes that were RoIs and have been moved, all of them (Cascade R-CNN section 4.1).

    Nothing is sampled, and the objects' own boxes do not join again, as in Detectron2.

    Args:
      boxes: float32 [B, R, 4], network-input pixels, inside their image. No gradient to them.
      valid: bool [B, R].
      gt_boxes: float32 [B, G, 4], the same frame.
      gt_classes: int32 [B, G], 1..N-1.
      gt_valid: bool [B, G].
      gt_is_crowd: bool [B, G].
      positive_iou: from here on a box is positive, below it is negative.
      regression_weights: of (dy, dx, dh, dw).
      ignore_crowds: boxes on a crowd region are not negatives.

    Returns:
      RoITargets in the order of `boxes`; those without area are not valid.
    """
    boxes = tf.stop_gradient(boxes)
    matches = matching.match(
        box_ops.iou(boxes, gt_boxes),
        gt_valid & ~gt_is_crowd,
        positive_iou,
        positive_iou,
        allow_low_quality=False,
        ignored=_on_crowd(boxes, gt_boxes, gt_valid & gt_is_crowd) if ignore_crowds else None,
    )
    valid &= (matches.is_positive | matches.is_negative) & box_ops.is_nonempty(boxes)
    is_positive = matches.is_positive & valid
    classes = tf.gather(gt_classes, matches.gt_index, batch_dims=1)
    matched = tf.gather(gt_boxes, matches.gt_index, batch_dims=1)
    deltas = box_ops.encode(matched, boxes, regression_weights)
    return RoITargets(
        tf.where(valid[..., tf.newaxis], boxes, 0.0),
        tf.where(is_positive, classes, 0),
        is_positive,
        valid,
        matches.gt_index,
        tf.where(is_positive[..., tf.newaxis], deltas, 0.0),
    )


def _on_crowd(boxes: tf.Tensor, gt_boxes: tf.Tensor, is_crowd: tf.Tensor) -> tf.Tensor:
    """Whether most of each box lies in one crowd region: bool [B, N].

    Few images have crowds, and the overlaps of all anchors cost as much as matching does.
    """

    def overlaps() -> tf.Tensor:
        inside = box_ops.ioa(boxes, gt_boxes)  # [B, N, G]
        return tf.reduce_any((inside >= CROWD_OVERLAP) & is_crowd[:, tf.newaxis, :], axis=-1)

    return tf.cond(
        tf.reduce_any(is_crowd), overlaps, lambda: tf.zeros(tf.shape(boxes)[:2], tf.bool)
    )
