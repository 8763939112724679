"""The network's detections in the terms of the TF Object Detection API, inside the graph.

Shape letters: `B` images, `D` detections, `M` mask side.

A client of the Object Detection API reads our answers unchanged: same names, same frames and, as
its exporter casts every output to float32, the same types. Two outputs are ours: the exact
integer ids, because float32 rounds category ids above 2**24, and the picture's size, with which a
client turns boxes into pixels without decoding the picture.
"""

from typing import Protocol

import tensorflow as tf


class Detections(Protocol):
    """What the network answers, padded to D rows per image.

    Attributes:
      boxes: float32 [B, D, (y1, x1, y2, x2)], pixels of the network input.
      scores: float32 [B, D], in [0, 1].
      classes: int32 [B, D], contiguous, 1..N-1.
      valid: bool [B, D], False for padding.
      masks: float32 [B, D, M, M], probabilities inside the box, or None.
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor
    valid: tf.Tensor
    masks: tf.Tensor | None


def object_detection_outputs(
    detections: Detections,
    image_size_hw: tf.Tensor,
    original_size_hw: tf.Tensor,
    category_ids: tuple[int, ...],
) -> dict[str, tf.Tensor]:
    """Name, scale and order detections as the TF Object Detection API does.

    Valid rows move to the front in their order, wherever the network left its padding; everything
    behind them is zero.

    Args:
      detections: the network's answer, see `Detections`.
      image_size_hw: float32 [B, (height, width)], the resized picture inside the network input.
      original_size_hw: int32 [B, (height, width)], the picture as it was sent.
      category_ids: the data set's own id of class k + 1 at place k.

    Returns:
      num_detections: float32 [B], how many leading rows are detections.
      detection_boxes: float32 [B, D, (y1, x1, y2, x2)], fractions of the original picture, in
        [0, 1].
      detection_classes: float32 [B, D], the data set's own ids, rounded beyond 2**24.
      detection_class_ids: int64 [B, D], the same ids, exact.
      detection_scores: float32 [B, D].
      detection_masks: float32 [B, D, M, M], probabilities inside the box; absent if there are
        no masks.
      image_size: int32 [B, (height, width)], the original picture, pixels.

    Source:
      object_detection/exporter_lib_v2.py and core/standard_fields.py of tensorflow/models. That
      exporter adds 1 to the class; here the label map says the id, whatever it is.
    """
    order = tf.argsort(tf.cast(detections.valid, tf.int32), direction="DESCENDING", stable=True)

    def front(rows: tf.Tensor) -> tf.Tensor:  # [B, D, ...], valid rows first, zeros behind
        rows = tf.gather(rows, order, batch_dims=1)
        valid = tf.gather(detections.valid, order, batch_dims=1)
        valid = tf.reshape(valid, tf.concat([tf.shape(valid), [1] * (rows.shape.rank - 2)], 0))
        return tf.where(valid, rows, tf.zeros([], rows.dtype))

    # Both pictures cover the same scene edge to edge, so fractions of one are fractions of the
    # other; the resized size itself carries no error although it was rounded to whole pixels.
    extent = tf.concat([image_size_hw, image_size_hw], axis=-1)[:, tf.newaxis, :]
    boxes = tf.clip_by_value(detections.boxes / extent, 0.0, 1.0)
    ids = tf.gather(tf.constant((0, *category_ids), tf.int64), front(detections.classes))
    answer = {
        "num_detections": tf.reduce_sum(tf.cast(detections.valid, tf.float32), axis=-1),
        "detection_boxes": front(boxes),
        "detection_classes": tf.cast(ids, tf.float32),
        "detection_class_ids": ids,
        "detection_scores": front(tf.cast(detections.scores, tf.float32)),
        "image_size": original_size_hw,
    }
    if detections.masks is not None:
        answer["detection_masks"] = front(tf.cast(detections.masks, tf.float32))
    return answer
