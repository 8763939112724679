import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.modeling import prepared
from mrcnn_tf.modeling.efficientnet_lite import EfficientNetLite0
from tests.marks import one_quick

PARTS = ("stem", "stage2", "stage3", "stage4", "stage5")


def network(**kwargs):
    """Built, with norms as far from the identity as training takes them."""
    backbone = EfficientNetLite0(**{"freeze_at": 0, "norm_epsilon": 1e-3} | kwargs)
    backbone(tf.zeros([1, 32, 32, 3]))
    rng = np.random.default_rng(0)
    for weight in backbone.weights:
        low, high = {
            "gamma:0": (0.5, 1.5),
            "beta:0": (-0.3, 0.6),
            "moving_mean:0": (-0.3, 0.3),
            "moving_variance:0": (0.5, 2.0),
        }.get(weight.name.rsplit("/", 1)[1], (None, None))
        if low is not None:
            weight.assign(rng.uniform(low, high, weight.shape))
    return backbone


def images(batch=1, size=(64, 64)):
    return tf.random.stateless_uniform([batch, *size, 3], [1, 2], -1.0, 1.0)


def test_has_the_published_number_of_parameters():
    """4,652,008 as published: 1280 channels with norm and a classifier of 1000 come on top."""
    backbone = network(norm="batch_norm")
    trained = sum(v.shape.num_elements() for v in backbone.trainable_variables)
    assert trained == 4_652_008 - (320 * 1280 + 2 * 1280) - (1280 * 1000 + 1000)


@pytest.mark.parametrize("size", [(64, 96), (65, 33), (1, 1), (31, 100)])
def test_shapes_are_halved_and_rounded_up(size):
    backbone = network()
    features = backbone(tf.zeros([2, *size, 3]))
    height, width = (-(-side // 2) for side in size)
    for level, channels in {2: 24, 3: 40, 4: 112, 5: 320}.items():
        height, width = -(-height // 2), -(-width // 2)
        assert features[level].shape == (2, height, width, channels)
        assert backbone.out_channels[level] == channels


def test_activations_end_at_six_but_features_are_linear():
    backbone = network()
    block = backbone.stage2.blocks[0]
    block.depthwise_norm.beta.assign(tf.fill(block.depthwise_norm.beta.shape, 100.0))
    for layer, value in ((block.project, 1.0), (block.project_norm, None)):
        if value is not None:
            layer.kernel.assign(tf.ones_like(layer.kernel))
        else:
            layer.gamma.assign(-tf.ones_like(layer.gamma))
            layer.beta.assign(tf.zeros_like(layer.beta))
            layer.moving_mean.assign(tf.zeros_like(layer.moving_mean))
            layer.moving_variance.assign(tf.fill(layer.moving_variance.shape, 1.0 - 1e-3))
    # 96 channels at 6 each, negated: neither clipped nor rectified.
    np.testing.assert_allclose(block(tf.zeros([1, 4, 4, 16])), -576.0, rtol=1e-5)


def test_the_identity_goes_around_blocks_that_keep_their_shape():
    backbone = network()
    blocks = backbone.stage3.blocks
    for block in blocks:
        block.project_norm.gamma.assign(tf.zeros_like(block.project_norm.gamma))
        block.project_norm.beta.assign(tf.zeros_like(block.project_norm.beta))
    x = tf.random.stateless_normal([1, 8, 8, 24], [3, 4])
    y = blocks[0](x)
    np.testing.assert_array_equal(y, tf.zeros([1, 4, 4, 40]))
    y = tf.random.stateless_normal([1, 4, 4, 40], [3, 4])
    np.testing.assert_array_equal(blocks[1](y), y)


@pytest.mark.parametrize(
    ("freeze_at", "frozen"), [(0, ()), (1, PARTS[:1]), (2, PARTS[:2]), (5, PARTS)]
)
def test_freeze_at(freeze_at, frozen):
    backbone = network(norm="batch_norm", freeze_at=freeze_at)
    statistics = {w.name: w.numpy() for w in backbone.weights if "moving" in w.name}
    backbone(images(2), training=True)
    moved = {
        w.name.split("/")[1]
        for w in backbone.weights
        if "moving" in w.name and np.any(w.numpy() != statistics[w.name])
    }
    trained = {w.name.split("/")[1] for w in backbone.trainable_weights}
    assert trained == moved == set(PARTS) - set(frozen)


@pytest.mark.parametrize("kind", ["frozen_batch_norm", "batch_norm"])
def test_norms_in_kernels_equal_norms_behind(kind):
    """Of depthwise kernels, too: `normalised` puts them there after the first call only."""
    backbone = network(norm=kind)
    x = images()
    block = backbone.stage3.blocks[0]
    c2 = backbone(x)[2]
    y = c2
    for name in ("expand", "depthwise", "project"):
        conv, norm = getattr(block, name), getattr(block, f"{name}_norm")
        y = norm(conv(y), training=False)
        y = y if name == "project" else tf.nn.relu6(y)
    scale = float(tf.reduce_max(tf.abs(y)))
    np.testing.assert_allclose(block(c2), y, atol=1e-5 * scale)


def test_prepared_once_gives_the_same_features():
    """As an export makes them."""
    backbone = network()
    x = images()
    want = backbone(x)
    with prepared.once():
        run = tf.function(lambda x: backbone(x)).get_concrete_function(x)
        got = run(x)
    for level, expected in want.items():
        scale = float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(got[level], expected, atol=1e-5 * scale)


def gradients_of(backbone, x):
    with tf.GradientTape() as tape:
        features = backbone(x, training=True)
        terms = [tf.reduce_mean(tf.square(tf.cast(f, tf.float32))) for f in features.values()]
        loss = tf.add_n(terms)
    return features, tape.gradient(loss, backbone.trainable_weights)


def test_graph_with_unknown_shapes_agrees_with_eager_and_gradients_are_finite():
    backbone = network()
    x = images(2, (64, 33))
    features, gradients = gradients_of(backbone, x)
    step = tf.function(lambda x: gradients_of(backbone, x), [tf.TensorSpec([None, None, None, 3])])
    got_features, got_gradients = step(x)
    for level, want in features.items():
        atol = 1e-4 * float(tf.reduce_max(tf.abs(want)))
        np.testing.assert_allclose(got_features[level], want, atol=atol)
    for got, want in zip(got_gradients, gradients, strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, want, atol=1e-3 * float(tf.reduce_max(tf.abs(want))) + 1e-6)


@pytest.mark.parametrize("policy", one_quick(["mixed_bfloat16", "mixed_float16"]))
def test_trains_in_half_precision_with_variables_in_float32(policy):
    x = images(1, (32, 32))
    want_features, want = gradients_of(network(), x)
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        backbone = network()
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
    # The kernels of the other: those that are drawn differ.
    source = network()
    for ours, theirs in zip(backbone.weights, source.weights, strict=True):
        ours.assign(theirs)
    want_features, want = gradients_of(source, x)
    features, gradients = tf.function(lambda x: gradients_of(backbone, x))(x)
    assert {f.dtype.name for f in features.values()} == {policy.removeprefix("mixed_")}
    assert {w.dtype for w in backbone.weights} == {tf.float32}
    for level in want_features:
        expected = want_features[level].numpy().ravel()
        assert (
            np.corrcoef(tf.cast(features[level], tf.float32).numpy().ravel(), expected)[0, 1] > 0.99
        )
    # The classifier's end sees little rounding, the stem sees all of it.
    assert all(np.isfinite(g).all() for g in gradients)
    for got, expected in zip(gradients[-6:], want[-6:], strict=True):
        assert np.corrcoef(np.ravel(got), np.ravel(expected))[0, 1] > 0.9


def test_layers_are_named_as_documented():
    names = {w.name for w in network().weights}
    assert "efficientnet_lite0/stem/conv1/kernel:0" in names
    assert "efficientnet_lite0/stem/stage1/block0/depthwise/kernel:0" in names
    assert "efficientnet_lite0/stage4/block5/expand_norm/moving_variance:0" in names
    assert "efficientnet_lite0/stage5/block4/project/kernel:0" in names


def test_initialisers_keep_the_size_of_features():
    """Reference: deviation sqrt(2 / fan-out), of a depthwise kernel's single output k * k."""
    block = network().stage5.blocks[1]
    assert block.depthwise.kernel.shape == (5, 5, 1, 1152)
    assert np.std(block.depthwise.kernel) == pytest.approx((2 / 25) ** 0.5, rel=0.02)
    assert np.std(block.expand.kernel) == pytest.approx((2 / 1152) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"freeze_at": 6}, "freeze_at must be 0 .nothing. .. 5 .all., not 6"),
        ({"norm": "bn"}, "unknown normalisation 'bn'"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetLite0(**kwargs)
