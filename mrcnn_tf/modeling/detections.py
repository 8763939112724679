"""From the box head's outputs to the final boxes.

Shape letters: `B` images, `P` proposals, `N` classes with background, `D` detections, `M` mask
side.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import nms, padding, soft_nms


class Detections(NamedTuple):
    """Found objects, best first, padded with zeros to a fixed count.

    Attributes:
      boxes: float32 [B, D, (y1, x1, y2, x2)], network-input pixels, clipped to the image.
      classes: int32 [B, D], contiguous, 1..N-1; 0 where not valid.
      scores: float32 [B, D], in 0..1.
      valid: bool [B, D].
      masks: float32 [B, D, M, M], probabilities inside the box; None without a mask branch.
    """

    boxes: tf.Tensor
    classes: tf.Tensor
    scores: tf.Tensor
    valid: tf.Tensor
    masks: tf.Tensor | None = None


def select_detections(
    class_logits: tf.Tensor,
    box_deltas: tf.Tensor,
    rois: tf.Tensor,
    rois_valid: tf.Tensor,
    image_size_hw: tf.Tensor,
    *,
    regression_weights: tuple[float, ...],
    score_threshold: float,
    nms_iou: float,
    min_box_size: float,
    soft_nms_sigma: float,
    max_detections: int,
) -> Detections:
    """Decode every class's box of every RoI, suppress per class, keep the best over all classes.

    Section 3.1, "Inference"; thresholds and order as Detectron2 and torchvision.

    Args:
      class_logits: float32 [B, P, N].
      box_deltas: float32 [B, P, N-1, 4].
      rois: float32 [B, P, 4], network-input pixels.
      rois_valid: bool [B, P].
      image_size_hw: float32 [B, (height, width)], the image inside the canvas, pixels.
      regression_weights: of (dy, dx, dh, dw).
      score_threshold: only scores above count.
      nms_iou: of boxes of one class that overlap by more, the better stays.
      min_box_size: boxes with a side that is not longer, in pixels, are dropped before.
      soft_nms_sigma: 0 for that; above, Soft-NMS with this sigma instead, see `soft_nms.py`.
      max_detections: D.
    """
    # NMS answers places among the candidates, also where it found nothing.
    class_logits, box_deltas, rois, rois_valid = (
        padding.at_least_one(x, axis=1) for x in (class_logits, box_deltas, rois, rois_valid)
    )
    batch, count, foreground = tf.shape(rois)[0], tf.shape(rois)[1], class_logits.shape[2] - 1
    scores = tf.nn.softmax(class_logits)[:, :, 1:]  # [B, P, N-1]
    boxes = box_ops.decode(box_deltas, rois[:, :, tf.newaxis, :], regression_weights)
    # [B, P, N-1, ...] -> [B, P*(N-1), ...]: candidate p * (N-1) + k has class k + 1.
    boxes = tf.reshape(boxes, [batch, count * foreground, 4])
    scores = tf.reshape(scores, [batch, count * foreground])
    classes = tf.tile(tf.range(1, foreground + 1), [count])  # [P*(N-1)]
    finite = tf.math.is_finite(scores) & tf.reduce_all(tf.math.is_finite(boxes), axis=-1)
    boxes = box_ops.clip(tf.where(finite[..., tf.newaxis], boxes, 0.0), image_size_hw)
    valid = finite & (scores > score_threshold) & tf.repeat(rois_valid, foreground, axis=1)
    valid &= box_ops.is_nonempty(boxes, min_box_size)
    groups = tf.broadcast_to(classes, tf.shape(scores))
    if soft_nms_sigma:
        index, kept_scores, valid = soft_nms.soft_nms(
            boxes, scores, valid, groups, soft_nms_sigma, score_threshold, max_detections
        )
    else:
        index, valid = nms.nms(
            boxes,
            scores,
            valid,
            iou_threshold=nms_iou,
            max_outputs=max_detections,
            groups=groups,
        )
        kept_scores = tf.gather(scores, index, batch_dims=1)
    return Detections(
        tf.where(valid[..., tf.newaxis], tf.gather(boxes, index, batch_dims=1), 0.0),
        tf.where(valid, tf.gather(classes, index), 0),
        tf.where(valid, kept_scores, 0.0),
        valid,
    )
