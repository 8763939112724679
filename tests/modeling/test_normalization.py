import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.modeling import normalization
from mrcnn_tf.modeling.normalization import FrozenBatchNorm, GroupNorm, num_groups
from tests.marks import one_quick

BATCH_NORMS = ["frozen_batch_norm", "batch_norm", "sync_batch_norm"]


def random_features(shape=(2, 5, 4, 6), seed=0):
    return np.random.default_rng(seed).normal(1.0, 3.0, size=shape).astype(np.float32)


def set_batch_norm(layer, channels=6):
    rng = np.random.default_rng(1)
    values = {
        "gamma": rng.uniform(0.5, 2.0, channels),
        "beta": rng.normal(size=channels),
        "moving_mean": rng.normal(size=channels),
        "moving_variance": rng.uniform(0.1, 4.0, channels),
    }
    for name, value in values.items():
        getattr(layer, name).assign(value)
    return values


@pytest.mark.parametrize("kind", normalization.KINDS)
def test_variables_are_named_as_in_keras(kind):
    layer = normalization.build(kind, 1e-5, 0.9, "norm1")
    layer(tf.zeros([1, 2, 2, 8]))
    names = [w.name.split("/")[-1] for w in layer.weights]
    batch_norm = ["gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"]
    assert layer.name == "norm1"
    assert names == (["gamma:0", "beta:0"] if kind == "group_norm" else batch_norm)
    trainable = {"frozen_batch_norm": 0}.get(kind, 2)
    assert len(layer.trainable_weights) == trainable


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.1])
def test_frozen_batch_norm_by_hand(epsilon):
    layer = FrozenBatchNorm(epsilon)
    x = random_features()
    layer(x)
    v = set_batch_norm(layer)
    want = (x - v["moving_mean"]) / np.sqrt(v["moving_variance"] + epsilon) * v["gamma"] + v["beta"]
    np.testing.assert_allclose(layer(x), want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer(x, training=True), want, rtol=1e-5, atol=1e-5)
    compiled = tf.function(layer, jit_compile=True)
    np.testing.assert_allclose(compiled(x), want, rtol=1e-5, atol=1e-5)


def test_batch_norms_agree_in_inference_and_exchange_weights():
    x = random_features()
    layers = [normalization.build(kind, 1e-3, 0.9, kind) for kind in BATCH_NORMS]
    for layer in layers:
        layer(x)
    set_batch_norm(layers[1])
    for layer in layers:
        layer.set_weights(layers[1].get_weights())
    want = layers[0](x, training=False)
    for layer in layers[1:]:
        np.testing.assert_allclose(layer(x, training=False), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["batch_norm", "sync_batch_norm"])
def test_batch_norm_follows_the_batch_with_its_momentum(kind):
    x = random_features()
    layer = normalization.build(kind, 1e-5, 0.75, "norm")
    y = layer(x, training=True)
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), np.zeros(6), atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.25 * x.mean((0, 1, 2)), rtol=1e-4)
    layer.trainable = False  # as freeze_at does: statistics stand still
    before = layer.moving_mean.numpy()
    layer(x, training=True)
    np.testing.assert_array_equal(layer.moving_mean, before)


def test_frozen_batch_norm_computes_its_scale_in_float32_under_mixed_precision():
    # mean and variance far above 1: a bfloat16 subtraction of raw variables would lose the offset.
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = FrozenBatchNorm(1e-5)
        y = layer(tf.ones([1, 1, 1, 1]))
        layer.beta.assign([1001.0])
        layer.moving_mean.assign([1000.0])
        y = layer(tf.zeros([1, 1, 1, 1]))
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)
    assert y.dtype == tf.bfloat16
    assert layer.gamma.dtype == tf.float32
    assert float(y[0, 0, 0, 0]) == pytest.approx(1.0, abs=0.01)  # 0 with bfloat16 variables


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (3, 1), (8, 4), (24, 12), (48, 24), (64, 32), (2048, 32)]
)
def test_number_of_groups(channels, groups):
    assert num_groups(channels) == groups


@pytest.mark.parametrize("shape", [(2, 5, 4, 64), (3, 1, 1, 8), (1, 7, 2, 24), (2, 3, 3, 3)])
def test_group_norm_agrees_with_keras(shape):
    x = random_features(shape)
    layer = GroupNorm(1e-4)
    layer(x)
    keras = tf_keras.layers.GroupNormalization(num_groups(shape[-1]), epsilon=1e-4)
    keras.build(shape)
    rng = np.random.default_rng(2)
    weights = [rng.uniform(0.5, 2.0, shape[-1]), rng.normal(size=shape[-1])]
    for target in (layer, keras):
        target.set_weights(weights)
    want = keras(x)
    for function in (layer, tf.function(layer), tf.function(layer, jit_compile=True)):
        np.testing.assert_allclose(function(x), want, rtol=1e-4, atol=1e-4)


def test_group_norm_gradients_agree_with_keras():
    x = tf.constant(random_features((2, 4, 3, 8)))
    pull = tf.constant(random_features((2, 4, 3, 8), seed=5))
    gradients = []
    for layer in (GroupNorm(1e-5), tf_keras.layers.GroupNormalization(4, epsilon=1e-5)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) * pull)
        gradients.append(tape.gradient(loss, [x, layer.gamma, layer.beta]))
    for got, want in zip(*gradients, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_group_norm_of_a_constant_image_is_beta_with_finite_gradient():
    layer = GroupNorm(1e-5)
    x = tf.fill([1, 3, 3, 4], 7.3)
    layer(x)
    layer.beta.assign([1.0, 2.0, 3.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_allclose(y[0, 1, 1], [1.0, 2.0, 3.0, 4.0], atol=0.02)
    assert np.isfinite(tape.gradient(y, x)).all()


def test_group_norm_treats_images_of_a_batch_apart():
    x = random_features((2, 4, 4, 8))
    layer = GroupNorm(1e-5)
    np.testing.assert_allclose(layer(x)[:1], layer(x[:1]), atol=1e-6)


@pytest.mark.parametrize("kind", one_quick(normalization.KINDS, quick=2))
def test_gradients_agree_under_xla(kind):
    x = tf.constant(random_features((2, 4, 3, 8)))
    pull = tf.constant(random_features((2, 4, 3, 8), seed=5))
    layer = normalization.build(kind, 1e-5, 0.9, "norm")
    layer(x)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) * pull)
        return tape.gradient(loss, [x, *layer.trainable_weights])

    want = gradient(x)
    for function in (tf.function(gradient), tf.function(gradient, jit_compile=True)):
        for got, expected in zip(function(x), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_sync_batch_norm_is_batch_norm_where_there_is_one_replica():
    """Values and gradients of Keras', whose moving variance alone has Bessel's correction."""
    x = tf.constant(random_features((2, 4, 3, 8)))
    pull = tf.constant(random_features((2, 4, 3, 8), seed=5))
    results = []
    for kind in ("batch_norm", "sync_batch_norm"):
        layer = normalization.build(kind, 1e-5, 0.75, "norm")
        layer(x)
        layer.gamma.assign(tf.linspace(0.5, 2.0, 8))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y * pull)
        results.append([y, *tape.gradient(loss, [x, layer.gamma, layer.beta]), layer.moving_mean])
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        layer.moving_variance, 0.75 + 0.25 * np.var(x, axis=(0, 1, 2)), rtol=1e-5
    )


def test_sync_batch_norm_keeps_its_digits_where_the_mean_is_large():
    """Deviation 1 around 4096 in float32: E[x^2] - E[x]^2 would be wrong by whole units."""
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)) + 4096
    layer = normalization.build("sync_batch_norm", 1e-5, 0.0, "norm")  # statistics of the last step
    layer(x.astype(np.float32), training=True)
    layer(x.astype(np.float32), training=True)  # now near the moving mean
    np.testing.assert_allclose(layer.moving_variance, x.var((0, 1, 2)), rtol=1e-3)


def test_sync_batch_norm_compiles_on_one_replica_of_a_mirrored_strategy():
    x = tf.constant(random_features((2, 4, 3, 8)))
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        layer = normalization.build("sync_batch_norm", 1e-5, 0.9, "norm")
        layer(x)
    compiled = tf.function(lambda: layer(x, training=True), jit_compile=True)
    y = strategy.run(tf.function(lambda: compiled()))
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), np.zeros(8), atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * np.mean(x, (0, 1, 2)), rtol=1e-4)


def test_unknown_kind_lists_the_known_ones():
    with pytest.raises(ValueError, match="'layer_norm'; known: frozen_batch_norm, batch_norm"):
        normalization.build("layer_norm", 1e-5, 0.9, "norm")
