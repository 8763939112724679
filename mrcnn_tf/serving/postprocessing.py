"""The network's detections in the terms of the TF Object Detection API, inside the graph.

Shape letters: `B` images, `D` detections, `M` mask side, `K` keypoints.

A client of the Object Detection API reads our answers unchanged: same names, same frames and, as
its exporter casts every output to float32, the same types. Two outputs are ours: the exact
integer ids, because float32 rounds category ids above 2**24, and the image's size, with which a
client turns boxes into pixels without decoding the image.
"""

import tensorflow as tf

from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.ops import boxes as box_ops


def object_detection_outputs(
    detections: Detections,
    image_size_hw: tf.Tensor,
    original_size_hw: tf.Tensor,
    category_ids: tuple[int, ...],
) -> dict[str, tf.Tensor]:
    """Name and scale detections as the TF Object Detection API does.

    Rows behind `num_detections` are zero, as they are in `Detections`. A box that is empty, here or
    after the division, which float32 rounds, is no detection: those behind it move up.

    Args:
      detections: the network's answer, best first, in pixels of the network input.
      image_size_hw: float32 [B, (height, width)], the resized image inside the network input.
      original_size_hw: int32 [B, (height, width)], the image as it was sent.
      category_ids: the data set's own id of class k + 1 at place k.

    Returns:
      num_detections: float32 [B], how many leading rows are detections.
      detection_boxes: float32 [B, D, (y1, x1, y2, x2)], fractions of the original image, in
        [0, 1].
      detection_classes: float32 [B, D], the data set's own ids, rounded beyond 2**24.
      detection_class_ids: int64 [B, D], the same ids, exact.
      detection_scores: float32 [B, D].
      detection_masks: float32 [B, D, M, M], probabilities inside the box; absent if there are
        no masks.
      detection_mask_scores: float32 [B, D], by which masks are ranked; absent if they are by
        `detection_scores`.
      detection_keypoints: float32 [B, D, K, (y, x)], fractions of the original image; absent
        without a keypoint branch, as the next.
      detection_keypoint_scores: float32 [B, D, K], probabilities.
      image_size: int32 [B, (height, width)], the original image, pixels.

    Source:
      object_detection/exporter_lib_v2.py and core/standard_fields.py of tensorflow/models. That
      exporter adds 1 to the class; here the label map says the id, whatever it is.
    """
    # Both images cover the same scene edge to edge, so fractions of one are fractions of the
    # other; the resized size itself carries no error although it was rounded to whole pixels.
    extent = tf.concat([image_size_hw, image_size_hw], axis=-1)[:, tf.newaxis, :]
    boxes = tf.clip_by_value(detections.boxes / extent, 0.0, 1.0)
    detections = _keep(detections._replace(boxes=boxes), box_ops.is_nonempty(boxes))
    ids = tf.gather(tf.constant((0, *category_ids), tf.int64), detections.classes)
    answer = {
        "num_detections": tf.reduce_sum(tf.cast(detections.valid, tf.float32), axis=-1),
        "detection_boxes": detections.boxes,
        "detection_classes": tf.cast(ids, tf.float32),
        "detection_class_ids": ids,
        "detection_scores": detections.scores,
        "image_size": original_size_hw,
    }
    if detections.masks is not None:
        answer["detection_masks"] = detections.masks
    if detections.mask_scores is not None:
        answer["detection_mask_scores"] = detections.mask_scores
    if detections.keypoints is not None:
        size_hw = image_size_hw[:, tf.newaxis, tf.newaxis, :]
        answer["detection_keypoints"] = detections.keypoints[..., :2] / size_hw
        answer["detection_keypoint_scores"] = detections.keypoints[..., 2]
    return answer


def _keep(detections: Detections, kept: tf.Tensor) -> Detections:
    """Return the rows that are valid and kept (bool [B, D]), in their order, then zeros."""
    kept &= detections.valid
    order = tf.argsort(tf.cast(kept, tf.int32), direction="DESCENDING", stable=True)

    def pick(rows: tf.Tensor | None) -> tf.Tensor | None:
        if rows is None:
            return None
        chosen = tf.reshape(kept, tf.concat([tf.shape(kept), [1] * (rows.shape.rank - 2)], 0))
        rows = tf.where(chosen, rows, tf.zeros([], rows.dtype))
        return tf.gather(rows, order, batch_dims=1)

    return Detections(*(pick(rows) for rows in detections))
