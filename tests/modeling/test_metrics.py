import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.modeling import metrics
from mrcnn_tf.modeling.outputs import DetectorOutputs, RPNOutputs
from mrcnn_tf.modeling.targets import AnchorTargets, RoITargets


def outputs_of(rpn_logits, anchor_positive, anchor_valid, said, classes, roi_valid):
    """DetectorOutputs of two images with what measures look at; everything else is None."""
    anchors = dict.fromkeys(AnchorTargets._fields)
    anchors |= {"is_positive": tf.constant(anchor_positive), "valid": tf.constant(anchor_valid)}
    rois = dict.fromkeys(RoITargets._fields)
    rois |= {"classes": tf.constant(classes), "valid": tf.constant(roi_valid)}
    rois["is_positive"] = rois["classes"] > 0
    return DetectorOutputs(
        rpn=RPNOutputs(tf.constant(rpn_logits), None, AnchorTargets(**anchors)),
        class_logits=tf.one_hot(said, 3),
        box_deltas=None,
        roi_targets=RoITargets(**rois),
    )


T, F = True, False
SEEN = outputs_of(
    rpn_logits=[[1.0, -1.0, 2.0, 3.0], [-1.0, -2.0, 0.5, 4.0]],
    anchor_positive=[[T, T, F, F], [T, F, F, F]],
    anchor_valid=[[T, T, T, F], [T, T, T, F]],
    said=[[1, 2, 0], [2, 0, 0]],
    classes=[[1, 1, 0], [2, 0, 0]],
    roi_valid=[[T, T, T], [T, T, F]],
)
# By hand: right, out of how many.
WANT = {
    "rpn_accuracy": (2 / 6, 6),  # of the six valid anchors: the first and the fifth
    "rpn_recall": (1 / 3, 3),
    "class_accuracy": (4 / 5, 5),
    "positive_class_accuracy": (2 / 3, 3),
    "positive_anchors": (3 / 2, 2),
    "positive_rois": (3 / 2, 2),
}


@pytest.mark.parametrize("compiled", [False, True])
def test_values_and_what_they_are_a_mean_over(compiled):
    found = tf.function(lambda: metrics.metrics(SEEN), jit_compile=compiled)()
    assert tuple(found) == (*metrics.OF_RPN, *metrics.OF_BOXES)
    for name, want in WANT.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-6, err_msg=name)
        assert {t.dtype for t in found[name]} == {tf.float32}


def test_without_positives_recalls_weigh_nothing():
    nothing = outputs_of(
        [[1.0], [-1.0]], [[F], [F]], [[T], [T]], [[1], [0]], [[0], [0]], [[T], [T]]
    )
    found = metrics.metrics(nothing)
    for name in ("rpn_recall", "positive_class_accuracy"):
        assert [float(t) for t in found[name]] == [0, 0]
    assert [float(t) for t in found["rpn_accuracy"]] == [0.5, 2]
    assert [float(t) for t in found["positive_rois"]] == [0, 2]
