"""From the box head's outputs to the final boxes.

Shape letters: `B` images, `P` proposals, `N` classes with background, `K` (proposal, class)
pairs that may become detections, `D` detections, `M` mask side, `O` keypoints.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import candidates, nms, padding, soft_nms


class Detections(NamedTuple):
    """Found objects, best first, padded with zeros to a fixed count.

    Attributes:
      boxes: float32 [B, D, (y1, x1, y2, x2)], network-input pixels, clipped to the image.
      classes: int32 [B, D], contiguous, 1..N-1; 0 where not valid.
      scores: float32 [B, D], in 0..1.
      valid: bool [B, D].
      masks: float32 [B, D, M, M], probabilities inside the box; None without a mask branch.
      mask_scores: float32 [B, D], how good the masks are, by which they are ranked: the score times
        the IoU that the mask is expected to have; None where nothing says so.
      keypoints: float32 [B, D, O, (y, x, score)], network-input pixels; None without a keypoint
        branch. Of every object, also of a class that has no keypoints.
    """

    boxes: tf.Tensor
    classes: tf.Tensor
    scores: tf.Tensor
    valid: tf.Tensor
    masks: tf.Tensor | None = None
    mask_scores: tf.Tensor | None = None
    keypoints: tf.Tensor | None = None


def select_detections(
    class_scores: tf.Tensor,
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
    """Decode the boxes of (RoI, class) pairs, suppress per class, keep the best over all classes.

    Section 3.1, "Inference"; thresholds and order as Detectron2 and torchvision.

    Args:
      class_scores: float32 [B, P, N], probabilities.
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
    class_scores, box_deltas, rois, rois_valid = (
        padding.at_least_one(x, axis=1) for x in (class_scores, box_deltas, rois, rois_valid)
    )
    batch, foreground = tf.shape(rois)[0], class_scores.shape[2] - 1
    scores = tf.where(rois_valid[..., tf.newaxis], class_scores[:, :, 1:], 0.0)
    # [B, P, N-1] -> [B, P*(N-1)] -> [B, K]: pair p * (N-1) + k is RoI p as class k + 1.
    scores, index = candidates.above(tf.reshape(scores, [batch, -1]), score_threshold)
    classes = index % foreground + 1
    boxes = box_ops.decode(
        tf.gather(tf.reshape(box_deltas, [batch, -1, 4]), index, batch_dims=1),
        tf.gather(rois, index // foreground, batch_dims=1),
        regression_weights,
    )
    valid = (scores > score_threshold) & tf.reduce_all(tf.math.is_finite(boxes), axis=-1)
    boxes = box_ops.clip(tf.where(valid[..., tf.newaxis], boxes, 0.0), image_size_hw)
    valid &= box_ops.is_nonempty(boxes, min_box_size)
    if soft_nms_sigma:
        index, kept_scores, valid = soft_nms.soft_nms(
            boxes, scores, valid, classes, soft_nms_sigma, score_threshold, max_detections
        )
    else:
        index, valid = nms.nms(
            boxes,
            scores,
            valid,
            iou_threshold=nms_iou,
            max_outputs=max_detections,
            groups=classes,
        )
        kept_scores = tf.gather(scores, index, batch_dims=1)
    return Detections(
        tf.where(valid[..., tf.newaxis], tf.gather(boxes, index, batch_dims=1), 0.0),
        tf.where(valid, tf.gather(classes, index, batch_dims=1), 0),
        tf.where(valid, kept_scores, 0.0),
        valid,
    )
