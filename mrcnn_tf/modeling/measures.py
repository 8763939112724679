"""What to watch while the network trains, beside its losses: accuracies, recalls, counts.

Names follow Detectron2's logs where it has them. Shape letters as in `mask_rcnn.py`.
"""

import tensorflow as tf

from mrcnn_tf.modeling.mask_rcnn import TrainOutputs


def measures(outputs: TrainOutputs) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    """Return values and their weights, float32 scalars, the same keys for every batch.

    A weight is what the value is a mean over: a batch without positives must not count as a batch
    whose positives were all missed.

    `rpn_accuracy`: sampled anchors on the right side of probability 0.5. `rpn_recall`: of the
    positive ones. `class_accuracy`: sampled RoIs with the right class. `positive_class_accuracy`:
    of the positive ones. `positive_anchors`, `positive_rois`: sampled, per image.
    """
    anchors, rois = outputs.anchor_targets, outputs.roi_targets
    rpn_right = (outputs.rpn_logits > 0) == anchors.is_positive
    class_right = tf.argmax(outputs.class_logits, -1, tf.int32) == rois.classes
    images = tf.cast(tf.shape(rois.valid)[0], tf.float32)
    positive_anchors, positive_rois = _count(anchors.is_positive), _count(rois.is_positive)
    return {
        "rpn_accuracy": _part(rpn_right, anchors.valid),
        "rpn_recall": _part(rpn_right, anchors.is_positive & anchors.valid),
        "class_accuracy": _part(class_right, rois.valid),
        "positive_class_accuracy": _part(class_right, rois.is_positive),
        "positive_anchors": (positive_anchors / images, images),
        "positive_rois": (positive_rois / images, images),
    }


NAMES = (
    "rpn_accuracy",
    "rpn_recall",
    "class_accuracy",
    "positive_class_accuracy",
    "positive_anchors",
    "positive_rois",
)


def _count(selected: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(selected, tf.float32))


def _part(right: tf.Tensor, among: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    count = _count(among)
    return _count(right & among) / tf.maximum(count, 1.0), count
