"""Proposals: from the RPN's outputs to the boxes that the heads look at.

Shape letters: `B` images, `L` levels, `A` anchors per image over all levels, `P` proposals.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import nms


class Proposals(NamedTuple):
    """Class-agnostic boxes, best first, padded to a fixed count.

    Attributes:
      boxes: float32 [B, P, (y1, x1, y2, x2)], network-input pixels, clipped to the image.
      scores: float32 [B, P], objectness logits; -inf where not valid.
      valid: bool [B, P].
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    valid: tf.Tensor


def given_proposals(batch: dict[str, tf.Tensor]) -> Proposals | None:
    """Return the proposals that the input pipeline joined to the images; None if it did not.

    Their scores are not used by the heads and are not carried along: 0, -inf on padding.
    """
    if schema.PROPOSAL_BOXES not in batch:
        return None
    valid = batch[schema.PROPOSALS_VALID]
    scores = tf.where(valid, 0.0, -float("inf"))
    return Proposals(batch[schema.PROPOSAL_BOXES], scores, valid)


def generate_proposals(
    logits: dict[int, tf.Tensor],
    deltas: dict[int, tf.Tensor],
    anchors: dict[int, tf.Tensor],
    image_size_hw: tf.Tensor,
    *,
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_iou: float,
    min_box_size: float,
) -> Proposals:
    """Turn the head's outputs into proposals (FPN section 4.1; as Detectron2 and torchvision).

    1. Per level, keep the `pre_nms_top_k` best anchors, decode and clip them.
    2. Drop boxes with a side not larger than `min_box_size` and non-finite ones; NMS per level.
       Anchors whose logit is not finite are dropped before step 1.
    3. Over all levels, keep the `post_nms_top_k` best.

    No gradient flows through proposals (Faster R-CNN section 3.2, approximate joint training).

    Args:
      logits: {level: float32 [B, Al]}.
      deltas: {level: float32 [B, Al, 4]}.
      anchors: {level: float32 [Al, 4]}, network-input pixels.
      image_size_hw: float32 [B, (height, width)], the image inside the canvas, pixels.
      pre_nms_top_k: per level.
      post_nms_top_k: P, in total.
      nms_iou: boxes that overlap a better one by more are dropped.
      min_box_size: pixels.

    Returns:
      Proposals with P = `post_nms_top_k`.
    """
    level_boxes, level_scores = [], []
    for level in sorted(logits):
        count = tf.minimum(pre_nms_top_k, tf.shape(logits[level])[1])
        # Without this a NaN could rank first and take a good anchor's place.
        scores = tf.where(tf.math.is_finite(logits[level]), logits[level], -float("inf"))
        scores, index = tf.math.top_k(tf.stop_gradient(scores), count)  # [B, k]
        selected_deltas = tf.gather(tf.stop_gradient(deltas[level]), index, batch_dims=1)
        decoded = box_ops.decode(selected_deltas, tf.gather(anchors[level], index))
        padding = pre_nms_top_k - count
        level_boxes.append(tf.pad(decoded, [[0, 0], [0, padding], [0, 0]]))
        level_scores.append(tf.pad(scores, [[0, 0], [0, padding]], constant_values=-float("inf")))
    num_levels = len(level_boxes)
    boxes = tf.concat(level_boxes, axis=1)  # [B, L*k, 4]
    scores = tf.concat(level_scores, axis=1)  # [B, L*k]
    finite = tf.math.is_finite(scores) & tf.reduce_all(tf.math.is_finite(boxes), axis=-1)
    boxes = tf.where(finite[..., tf.newaxis], boxes, 0.0)
    boxes = box_ops.clip(boxes, image_size_hw)
    valid = finite & box_ops.is_nonempty(boxes, min_box_size)

    # NMS of all levels of all images at once: [B, L*k, ...] -> [B*L, k, ...]
    kept, kept_valid = nms.nms(
        tf.reshape(boxes, [-1, pre_nms_top_k, 4]),
        tf.reshape(scores, [-1, pre_nms_top_k]),
        tf.reshape(valid, [-1, pre_nms_top_k]),
        iou_threshold=nms_iou,
        max_outputs=min(pre_nms_top_k, post_nms_top_k),
    )
    kept_per_level = kept.shape[1]
    first = pre_nms_top_k * (tf.range(tf.shape(kept)[0]) % num_levels)
    kept = tf.reshape(kept + first[:, tf.newaxis], [-1, num_levels * kept_per_level])
    kept_valid = tf.reshape(kept_valid, [-1, num_levels * kept_per_level])  # [B, L*k']

    scores = tf.where(kept_valid, tf.gather(scores, kept, batch_dims=1), -float("inf"))
    missing = max(0, post_nms_top_k - num_levels * kept_per_level)
    if missing:
        scores = tf.pad(scores, [[0, 0], [0, missing]], constant_values=-float("inf"))
        kept = tf.pad(kept, [[0, 0], [0, missing]])
    scores, best = tf.math.top_k(scores, post_nms_top_k)  # [B, P]
    valid = scores > -float("inf")
    boxes = tf.gather(boxes, tf.gather(kept, best, batch_dims=1), batch_dims=1)
    return Proposals(tf.where(valid[..., tf.newaxis], boxes, 0.0), scores, valid)
