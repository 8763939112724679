"""Table 2b and 2e: what a mask head's maps stand for, and heads of fully connected layers."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import losses, mask_classes, mask_heads
from mrcnn_tf.modeling.mlp_mask_head import MLPMaskHead
from mrcnn_tf.modeling.roi_heads import MaskHead
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS, WITH_CROWD

NUM_CLASSES = 4
CLASSES = np.array([[1, 3, 2], [2, 0, 1]], np.int32)  # one is padding
EACH_KIND = pytest.mark.parametrize("classes", mask_classes.KINDS)
EACH_TYPE = pytest.mark.parametrize("kind", mask_heads.MASK_HEADS)


def head_of(kind, classes, **differs):
    """A small head with weights that are no zeros, and features for it: masks of 6 x 6."""
    config = fields.MaskHead(
        type=kind, classes=classes, mask_size=6, conv_layers=1, conv_channels=5, fc_channels=7
    )
    config.override(differs)
    head = mask_heads.build(config, NUM_CLASSES)
    features = tf.random.stateless_normal([2, 3, 3, 3, 4], [1, 2])
    head(features, CLASSES)
    for i, variable in enumerate(head.trainable_variables):
        variable.assign(0.4 * tf.random.stateless_normal(variable.shape, [i, 5]))
    return head, features


def all_maps(head, features):
    """Twin: every map of every RoI, float64 [R, M, M, maps], from the weights alone."""
    pixels = features.numpy().reshape(6, 3, 3, 4).astype(np.float64)
    kernel, bias = head.predictor_kernel.numpy(), head.predictor_bias.numpy()
    if isinstance(head, MaskHead):
        hidden = head.deconv(head.convs[0](tf.constant(pixels, tf.float32))).numpy()
        return hidden.astype(np.float64) @ kernel + bias
    rows = pixels.reshape(6, -1)
    for layer in head.hidden:
        rows = np.maximum(rows @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    side = head.mask_size
    return (rows @ kernel + bias).reshape(6, -1, side, side).transpose(0, 2, 3, 1)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@EACH_TYPE
@EACH_KIND
def test_probabilities_equal_the_twin(kind, classes):
    head, features = head_of(kind, classes)
    maps = all_maps(head, features)
    assert maps.shape[-1] == {"independent": 3, "agnostic": 1, "softmax": 4}[classes]
    got = head.kind.probabilities(head(features, CLASSES)).numpy().reshape(6, 6, 6)
    for row, class_id in enumerate(CLASSES.ravel()):
        if class_id == 0:
            assert np.isfinite(got[row]).all()
            continue
        if classes == "softmax":
            want = softmax(maps[row])[..., class_id]
        else:
            column = class_id - 1 if classes == "independent" else 0
            want = 1 / (1 + np.exp(-maps[row, ..., column]))
        np.testing.assert_allclose(got[row], want, rtol=1e-4, atol=1e-6)


@EACH_TYPE
@EACH_KIND
def test_same_in_a_graph_and_under_xla_with_any_number_of_rois(kind, classes):
    head, features = head_of(kind, classes)
    want = head(features, CLASSES)
    specs = [tf.TensorSpec([None, None, 3, 3, 4]), tf.TensorSpec([None, None], tf.int32)]
    for jit in (False, True):
        got = tf.function(head, jit_compile=jit, input_signature=specs)(features, CLASSES)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@EACH_TYPE
def test_padded_rois_of_any_class_are_finite(kind):
    for classes in mask_classes.KINDS:
        head, features = head_of(kind, classes)
        for class_id in (-1, 0, NUM_CLASSES, 99):
            assert np.isfinite(head(features, np.full([2, 3], class_id, np.int32))).all()


def test_the_loss_of_competing_classes_by_hand():
    """Three classes and background at 0.1, 0.2, 0.3 and 0.4: the object is of the second."""
    probabilities = np.log([0.4, 0.1, 0.2, 0.3])

    class Maps:
        def every(self):
            return tf.constant(np.tile(probabilities, (1, 1, 2, 1)), tf.float32)

    kind = mask_classes.Softmax()
    logits = kind.logits(Maps(), tf.constant([2]), 4)[tf.newaxis]
    np.testing.assert_allclose(kind.probabilities(logits), np.full([1, 1, 1, 2], 0.2), rtol=1e-6)
    target = tf.constant([[[[1.0, 0.0]]]])  # a pixel of the object, one of background
    loss = kind.loss(logits, target, tf.constant([[True]]))
    np.testing.assert_allclose(loss.total, -(np.log(0.2) + np.log(0.4)) / 2, rtol=1e-6)
    assert float(loss.count) == 1.0
    soft = kind.loss(logits, tf.fill([1, 1, 1, 2], 0.25), tf.constant([[True]]))
    np.testing.assert_allclose(soft.total, -(np.log(0.2) + 3 * np.log(0.4)) / 4, rtol=1e-6)


def test_with_one_class_a_softmax_is_a_sigmoid_of_the_difference():
    """Background and one class: the binary loss of their difference, values and gradients."""
    maps = tf.random.stateless_normal([1, 5, 4, 4, 2], [3, 4])
    targets = tf.cast(tf.random.stateless_uniform([1, 5, 4, 4], [5, 6]) > 0.5, tf.float32)
    valid = tf.constant([[True, True, False, True, True]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(maps)
        multinomial = losses.softmax_mask_loss(tf.nn.log_softmax(maps), targets, valid)
        binary = losses.mask_loss(maps[..., 1] - maps[..., 0], targets, valid)
    np.testing.assert_allclose(multinomial.total, binary.total, rtol=1e-6)
    assert float(multinomial.count) == float(binary.count) == 4.0
    got, want = (tape.gradient(loss.total, maps) for loss in (multinomial, binary))
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert not np.any(got[:, 2])


def test_competing_classes_are_taught_by_every_roi_independent_ones_by_their_own():
    """RoIs of class 2 alone: with a softmax all columns of the predictor learn."""
    for classes, learn in (("independent", [0, 1, 0]), ("softmax", [1, 1, 1, 1])):
        head, features = head_of("fcn", classes)
        twos = np.full([2, 3], 2, np.int32)
        with tf.GradientTape() as tape:
            logits = head(features, twos)
            loss = head.kind.loss(logits, tf.ones([2, 3, 6, 6]), tf.ones([2, 3], tf.bool))
        kernel = tf.convert_to_tensor(tape.gradient(loss.total, head.predictor_kernel)).numpy()
        assert (np.abs(kernel).sum(0) > 0).tolist() == [bool(x) for x in learn]


@pytest.mark.parametrize("count", [2, 3])
def test_layers_of_table_2e(count):
    """1024 -> 1024 (-> 1024) -> classes * 28 * 28, over a RoI of 14 x 14 x 256."""
    config = fields.MaskHead(type="mlp", fc_layers=count)
    head = mask_heads.build(config, NUM_CLASSES)
    assert isinstance(head, MLPMaskHead)
    shape = tf.TensorShape([1, 1, 14, 14, 256])
    head.build(shape)
    assert [layer.units for layer in head.hidden] == [1024] * count
    assert head.predictor_kernel.shape == (1024, 3 * 28 * 28)
    assert np.std(head.predictor_kernel[:, :99]) == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "classes", "features"),
    [
        ("fcn", "softmax", "fpn"),
        ("fcn", "agnostic", "c4"),
        ("mlp", "independent", "fpn"),
        ("mlp", "softmax", "c4"),
    ],
)
def test_networks_train_and_find(kind, classes, features):
    config = tiny_network.config()
    differs = {"features": features, "mask_head": {"type": kind, "classes": classes}}
    differs["mask_head"]["fc_channels"] = 12
    if features == "c4":
        differs["box_head"] = {"pool_size": 6}
        differs["mask_head"]["mask_size"] = 6
    config.override(differs)
    network = tiny_network.build_network(config)
    batch = tiny_network.batch([TWO_OBJECTS, WITH_CROWD, EMPTY])
    with tf.GradientTape() as tape:
        outputs = network.train_forward(batch, 3, tf.constant(0, tf.int64))
        loss = network.losses_of(outputs)["mask_loss"]
        assert float(loss.total) > 0
        # A RoI without an object has no part in it.
        assert float(loss.count) == float(tf.reduce_sum(tf.cast(outputs.masks.valid, tf.float32)))
        mean = loss.mean()
    head = network.roi_heads.mask_head
    for gradient in tape.gradient(mean, head.trainable_variables):
        assert np.any(tf.convert_to_tensor(gradient))
    found = network.infer(batch)
    side = {"fpn": 14, "c4": 6}[features]
    assert found.masks.shape == (3, 5, side, side)
    assert found.valid.numpy().any()
    masks = found.masks.numpy()
    assert (masks >= 0).all()
    assert (masks <= 1).all()
    assert not masks[~found.valid.numpy()].any()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_keeps_logits_in_float32(policy, mixed_precision):
    mixed_precision(policy)
    for kind in mask_heads.MASK_HEADS:
        for classes in mask_classes.KINDS:
            head, features = head_of(kind, classes)
            assert head(features, CLASSES).dtype == tf.float32
