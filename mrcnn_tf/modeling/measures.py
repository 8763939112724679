"""What to watch while the network trains, beside its losses: accuracies, recalls, counts.

Names follow Detectron2's logs where it has them. Shape letters as in `mask_rcnn.py`.
"""

import tensorflow as tf

from mrcnn_tf.modeling.mask_rcnn import TrainOutputs


def measures(outputs: TrainOutputs) -> dict[str, tf.Tensor]:
    """Return float32 scalars, the same keys for every batch.

    `rpn_accuracy`: sampled anchors on the right side of probability 0.5. `rpn_recall`: of the
    positive ones. `class_accuracy`: sampled RoIs with the right class. `positive_class_accuracy`:
    of the positive ones. `positive_anchors`, `positive_rois`: sampled, per image.
    """
    anchors, rois = outputs.anchor_targets, outputs.roi_targets
    rpn_right = (outputs.rpn_logits > 0) == anchors.is_positive
    class_right = tf.argmax(outputs.class_logits, -1, tf.int32) == rois.classes
    images = tf.cast(tf.shape(rois.valid)[0], tf.float32)
    return {
        "rpn_accuracy": _part(rpn_right, anchors.valid),
        "rpn_recall": _part(rpn_right, anchors.is_positive & anchors.valid),
        "class_accuracy": _part(class_right, rois.valid),
        "positive_class_accuracy": _part(class_right, rois.is_positive),
        "positive_anchors": _count(anchors.is_positive) / images,
        "positive_rois": _count(rois.is_positive) / images,
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


def _part(right: tf.Tensor, among: tf.Tensor) -> tf.Tensor:
    return _count(right & among) / tf.maximum(_count(among), 1.0)
