import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import depthwise

pytestmark = pytest.mark.usefixtures("each_implementation")


def slow_conv(x, kernel, stride):
    """Loops over output pixels, each padded side written out from SAME's definition, float64."""
    k = kernel.shape[0]
    outputs = [-(-side // stride) for side in x.shape[1:3]]
    totals = [
        max((n - 1) * stride + k - side, 0) for n, side in zip(outputs, x.shape[1:3], strict=True)
    ]
    before_after = [(total // 2, total - total // 2) for total in totals]
    padded = np.pad(x, [(0, 0), *before_after, (0, 0)]).astype(np.float64)
    out = np.zeros([x.shape[0], *outputs, x.shape[3]])
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            window = padded[:, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, i, j] = (window * kernel[None, :, :, 0]).sum((1, 2))
    return out


def drawn(size, kernel_size, channels=3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, channels)).astype(np.float32)
    return x, rng.normal(size=(kernel_size, kernel_size, 1, channels)).astype(np.float32)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 6), (9, 5), (8, 7), (1, 1)])
def test_agrees_with_loops_eager_graph_and_xla(kernel_size, stride, size):
    x, kernel = drawn(size, kernel_size)
    want = slow_conv(x, kernel, stride)
    for jit_compile in (None, True):
        compiled = tf.function(depthwise.depthwise_conv, jit_compile=jit_compile)
        np.testing.assert_allclose(compiled(x, kernel, stride), want, atol=1e-5)
    np.testing.assert_allclose(depthwise.depthwise_conv(x, kernel, stride), want, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel_size", "side", "seen"),
    [
        # Outputs 0, 1, 2 see pixels 0..2, 2..4, 4..6: nothing above, one row below.
        (3, 6, [[0], [0], [0, 1], [1], [1, 2], [2]]),
        # -1..1, 1..3, 3..5: an odd side is padded on both.
        (3, 5, [[0], [0, 1], [1], [1, 2], [2]]),
        # -1..3, 1..5, 3..7: one above, two below.
        (5, 6, [[0], [0, 1], [0, 1], [0, 1, 2], [1, 2], [1, 2]]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_impulse_shows_where_same_pads(kernel_size, side, seen, dtype):
    ones = tf.ones([kernel_size, 1, 1, 1], dtype) * tf.ones([1, kernel_size, 1, 1], dtype)
    for pixel, want in enumerate(seen):
        image = tf.one_hot(pixel, side, dtype=dtype)[None, :, None, None]
        got = depthwise.depthwise_conv(tf.repeat(image, side, axis=2), ones, 2)
        assert np.flatnonzero(tf.cast(got, tf.float32)[0, :, 1, 0]).tolist() == want


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("size", [(8, 6), (9, 5)])
def test_half_precision_has_the_gradients_of_float32(dtype, kernel_size, stride, size):
    # Small whole numbers: products and sums are exact in eight bits.
    rng = np.random.default_rng(1)
    x = tf.constant(rng.integers(-2, 3, (1, *size, 3)), tf.float32)
    kernel = tf.constant(rng.integers(-1, 2, (kernel_size, kernel_size, 1, 3)), tf.float32)

    def run(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = depthwise.depthwise_conv(x, kernel, stride)
            upstream = tf.reshape(tf.range(tf.size(y)) % 2, tf.shape(y))
            loss = tf.reduce_sum(y * tf.cast(upstream, y.dtype))
        return y, *tape.gradient(loss, [x, kernel])

    want = run(x, kernel)
    for jit_compile in (None, True):
        got = tf.function(run, jit_compile=jit_compile)(tf.cast(x, dtype), tf.cast(kernel, dtype))
        for ours, expected in zip(got, want, strict=True):
            assert ours.dtype == dtype
            np.testing.assert_array_equal(tf.cast(ours, tf.float32), expected)


def test_shapes_may_be_unknown():
    x, kernel = drawn((9, 6), 5)
    spec = [tf.TensorSpec([None, None, None, 3], tf.bfloat16), tf.TensorSpec(kernel.shape)]

    @tf.function(input_signature=spec)
    def gradient(x, kernel):
        kernel = tf.cast(kernel, tf.bfloat16)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = depthwise.depthwise_conv(x, kernel, 2)
        return tape.gradient(y, x)

    assert gradient(tf.cast(x, tf.bfloat16), kernel).shape == x.shape
