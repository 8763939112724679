"""What to watch while a network trains, beside its losses: accuracies, recalls, counts.

Names follow Detectron2's logs where it has them. Every function returns values and their weights,
float32 scalars, the same keys for every batch. A weight is what the value is a mean over: a batch
without positives must not count as a batch whose positives were all missed.
"""

import tensorflow as tf

from mrcnn_tf.modeling.outputs import BoxOutputs, DetectorOutputs, RPNOutputs

Weighted = tuple[tf.Tensor, tf.Tensor]

OF_RPN = ("rpn_accuracy", "rpn_recall", "positive_anchors")
OF_BOXES = ("class_accuracy", "positive_class_accuracy", "positive_rois")


def metrics(outputs: RPNOutputs | DetectorOutputs) -> dict[str, Weighted]:
    """Return those of the RPN and those of the boxes, as far as the network has these parts.

    Those of a cascade's further box heads begin with `stage2_`, `stage3_`, ...
    """
    if isinstance(outputs, RPNOutputs):
        return of_rpn(outputs)
    found = (of_rpn(outputs.rpn) if outputs.rpn else {}) | of_boxes(outputs)
    for number, stage in enumerate(outputs.later_stages, start=2):
        found |= {f"stage{number}_{name}": value for name, value in of_boxes(stage).items()}
    return found


def of_rpn(outputs: RPNOutputs) -> dict[str, Weighted]:
    """Look at the sampled anchors.

    `rpn_accuracy`: those on the right side of probability 0.5. `rpn_recall`: of the positive ones.
    `positive_anchors`: sampled, per image.
    """
    anchors = outputs.targets
    right = (outputs.logits > 0) == anchors.is_positive
    return {
        "rpn_accuracy": _part(right, anchors.valid),
        "rpn_recall": _part(right, anchors.is_positive & anchors.valid),
        "positive_anchors": _per_image(anchors.is_positive),
    }


def of_boxes(outputs: DetectorOutputs | BoxOutputs) -> dict[str, Weighted]:
    """Look at the sampled RoIs.

    `class_accuracy`: those with the right class. `positive_class_accuracy`: of the positive ones.
    `positive_rois`: sampled, per image.
    """
    rois = outputs.roi_targets
    right = tf.argmax(outputs.class_logits, -1, tf.int32) == rois.classes
    return {
        "class_accuracy": _part(right, rois.valid),
        "positive_class_accuracy": _part(right, rois.is_positive),
        "positive_rois": _per_image(rois.is_positive),
    }


def _count(selected: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(selected, tf.float32))


def _part(right: tf.Tensor, among: tf.Tensor) -> Weighted:
    count = _count(among)
    return _count(right & among) / tf.maximum(count, 1.0), count


def _per_image(selected: tf.Tensor) -> Weighted:
    images = tf.cast(tf.shape(selected)[0], tf.float32)
    return _count(selected) / images, images
