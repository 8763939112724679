import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.modeling.conv import MSRA, XAVIER, Conv2D


def slow_conv(x, kernel, stride):
    """Loops over output pixels of a symmetrically padded convolution, float64."""
    k = kernel.shape[0]
    padded = np.pad(x, [(0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)]).astype(np.float64)
    height, width = ((s - 1) // stride + 1 for s in x.shape[1:3])
    out = np.zeros([x.shape[0], height, width, kernel.shape[3]])
    for i in range(height):
        for j in range(width):
            window = padded[:, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, i, j] = np.tensordot(window, kernel, axes=3)
    return out


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 6), (9, 5), (1, 1)])
def test_agrees_with_loops_eager_graph_and_xla(kernel_size, stride, size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    conv = Conv2D(4, kernel_size, stride, use_bias=True)
    got = conv(x)
    conv.bias.assign([1.0, 2.0, 3.0, 4.0])
    got = conv(x)
    want = slow_conv(x, conv.kernel.numpy(), stride) + [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose(got, want, atol=1e-5)
    for jit_compile in (False, True):
        compiled = tf.function(conv, jit_compile=jit_compile)
        np.testing.assert_allclose(compiled(x), want, atol=1e-5)


def test_impulse_shows_symmetric_padding():
    # A kernel of all ones, stride 2, even side: outputs 0, 1, 2 see pixels -1..1, 1..3, 3..5.
    conv = Conv2D(1, 3, 2, kernel_initializer=tf_keras.initializers.Ones())
    seen = [np.flatnonzero(conv(tf.reshape(tf.one_hot([i], 6), [1, 6, 1, 1]))) for i in range(6)]
    assert [s.tolist() for s in seen] == [[0], [0, 1], [1], [1, 2], [2], [2]]


def test_gradients_equal_those_of_a_padded_convolution():
    x = tf.constant(np.random.default_rng(1).normal(size=(1, 7, 10, 2)), tf.float32)
    conv = Conv2D(3, 3, 2)
    conv(x)

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(function(x)))
        return tape.gradient(loss, [x, conv.kernel])

    def padded(x):
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.nn.conv2d(x, conv.kernel, 2, "VALID")

    want = gradients(padded)
    for got in (gradients(conv), tf.function(gradients, jit_compile=True)(conv)):
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)


def test_initialisers_have_the_published_spread():
    # fan_out of 3x3x256: std sqrt(2 / 2304) = 0.02946. fan_in of 1x1x256: bound sqrt(3 / 256).
    msra = Conv2D(256, 3, kernel_initializer=MSRA)
    msra.build(tf.TensorShape([None, None, None, 64]))
    assert np.std(msra.kernel) == pytest.approx(0.02946, rel=0.01)
    assert np.abs(msra.kernel).max() > 3 * 0.02946  # not truncated at two deviations
    xavier = Conv2D(512, 1, kernel_initializer=XAVIER)
    xavier.build(tf.TensorShape([None, None, None, 256]))
    assert np.abs(xavier.kernel).max() == pytest.approx(0.10825, rel=0.001)


def test_each_layer_draws_its_own_kernel():
    first, second = Conv2D(4, 3), Conv2D(4, 3)
    for conv in (first, second):
        conv(tf.zeros([1, 4, 4, 2]))
    assert np.abs(first.kernel - second.kernel).max() > 0.01


def test_seed_of_the_program_decides_the_kernels():
    kernels = []
    for _ in range(2):
        tf_keras.utils.set_random_seed(7)
        conv = Conv2D(4, 3)
        conv(tf.zeros([1, 4, 4, 2]))
        kernels.append(conv.kernel.numpy())
    np.testing.assert_array_equal(*kernels)


def test_even_kernel_is_refused():
    with pytest.raises(ValueError, match="must be odd to pad symmetrically, not 2"):
        Conv2D(4, 2)


def test_unknown_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="number of input channels must be known"):
        Conv2D(4, 1).build(tf.TensorShape([None, None, None, None]))


@pytest.mark.parametrize("stride", [1, 2])
def test_groups_see_only_their_own_channels(stride):
    """As separate convolutions of each third of the channels, gradients too."""
    x = tf.constant(np.random.default_rng(2).normal(size=(1, 7, 10, 6)), tf.float32)
    conv = Conv2D(9, 3, stride, groups=3)
    conv(x)
    assert conv.kernel.shape == (3, 3, 2, 9)

    def apart(x):
        parts = zip(tf.split(x, 3, axis=-1), tf.split(conv.kernel, 3, axis=-1), strict=True)
        padded = [(tf.pad(p, [[0, 0], [1, 1], [1, 1], [0, 0]]), k) for p, k in parts]
        return tf.concat([tf.nn.conv2d(p, k, stride, "VALID") for p, k in padded], axis=-1)

    def run(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = function(x)
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, *tape.gradient(loss, [x, conv.kernel])

    for jit_compile in (False, True):
        got = tf.function(lambda: run(conv), jit_compile=jit_compile)()
        for ours, want in zip(got, run(apart), strict=True):
            np.testing.assert_allclose(ours, want, rtol=1e-4, atol=1e-4)
