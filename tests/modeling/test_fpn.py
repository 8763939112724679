import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.modeling.fpn import FPN, enlarge_like

CHANNELS = {2: 3, 3: 4, 4: 5, 5: 6}


def backbone_features(height, width, seed=0):
    rng = np.random.default_rng(seed)
    features = {}
    for level in range(1, 6):
        height, width = (height + 1) // 2, (width + 1) // 2
        if level > 1:
            shape = (2, height, width, CHANNELS[level])
            features[level] = tf.constant(rng.normal(size=shape), tf.float32)
    return features


def numpy_fpn(fpn, features):
    """Slow twin: 1x1 as a matrix product, enlargement by index, 3x3 by nine shifted products."""

    def conv3(x, layer):
        kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
        padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        height, width = x.shape[1:3]
        return bias + sum(
            padded[:, dy : dy + height, dx : dx + width] @ kernel[dy, dx]
            for dy in range(3)
            for dx in range(3)
        )

    merged, pyramid = None, {}
    for level in (5, 4, 3, 2):
        lateral = getattr(fpn, f"lateral{level}")
        x = features[level].numpy() @ lateral.kernel.numpy()[0, 0] + lateral.bias.numpy()
        if merged is not None:
            height, width = x.shape[1:3]
            rows = np.arange(height) * merged.shape[1] // height
            columns = np.arange(width) * merged.shape[2] // width
            x = x + merged[:, rows][:, :, columns]
        merged = x
        pyramid[level] = conv3(merged, getattr(fpn, f"output{level}"))
    pyramid[6] = pyramid[5][:, ::2, ::2]
    return pyramid


@pytest.mark.parametrize("size", [(64, 96), (65, 33), (100, 31), (1, 1)])
def test_agrees_with_numpy_eager_graph_and_xla(size):
    features = backbone_features(*size)
    fpn = FPN(channels=7)
    fpn(features)
    for weight in fpn.weights:  # biases start at 0
        weight.assign(tf.random.stateless_normal(weight.shape, [len(weight.name), 3]))
    want = numpy_fpn(fpn, features)
    spec = {level: tf.TensorSpec([None, None, None, c]) for level, c in CHANNELS.items()}
    functions = (fpn, tf.function(fpn, [spec]), tf.function(fpn, jit_compile=True))
    for function in functions:
        got = function(features)
        assert list(got) == [2, 3, 4, 5, 6]
        for level, expected in want.items():
            scale = np.abs(expected).max()
            np.testing.assert_allclose(got[level], expected, atol=1e-5 * scale)


def test_enlarging_by_hand():
    coarse = tf.reshape([1.0, 2.0, 3.0, 4.0], [1, 2, 2, 1])
    even = enlarge_like(coarse, tf.zeros([1, 4, 4, 1]))[0, ..., 0]
    np.testing.assert_array_equal(even, [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
    odd = enlarge_like(coarse, tf.zeros([1, 3, 4, 1]))[0, ..., 0]
    np.testing.assert_array_equal(odd, [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4]])


@pytest.mark.parametrize("fine", [1, 2, 3, 5, 25, 51, 200])
def test_enlarging_takes_the_pixels_of_nearest_interpolation(fine):
    coarse = (fine + 1) // 2
    row = tf.reshape(tf.range(coarse, dtype=tf.float32), [1, 1, coarse, 1])
    got = enlarge_like(row, tf.zeros([1, 1, fine, 1]))[0, 0, :, 0]
    np.testing.assert_array_equal(got, np.arange(fine) * coarse // fine)


def test_p6_is_every_second_pixel_of_p5():
    pyramid = FPN(channels=4)(backbone_features(160, 96))
    assert pyramid[5].shape == [2, 5, 3, 4]
    np.testing.assert_array_equal(pyramid[6], pyramid[5].numpy()[:, [0, 2, 4]][:, :, [0, 2]])


def test_number_of_parameters_of_the_published_pyramid():
    fpn = FPN()
    fpn({level: tf.zeros([1, 1, 1, 64 * 2**level]) for level in range(2, 6)})
    lateral = (256 + 512 + 1024 + 2048) * 256 + 4 * 256
    output = 4 * (9 * 256 * 256 + 256)
    assert fpn.count_params() == lateral + output == 3_344_384


def test_level_range_and_norm():
    fpn = FPN(channels=4, min_level=3, max_level=7, norm="batch_norm")
    pyramid = fpn(backbone_features(256, 256))
    assert {level: p.shape[1] for level, p in pyramid.items()} == {3: 32, 4: 16, 5: 8, 6: 4, 7: 2}
    kinds = {w.name.split("/", 1)[1] for w in fpn.weights}
    assert "lateral3_norm/gamma:0" in kinds
    assert "output5/kernel:0" in kinds
    assert not any("bias" in kind or "2" in kind for kind in kinds)


def test_gradients_reach_every_level_and_weight():
    features = backbone_features(65, 64)
    fpn = FPN(channels=4)
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = tf.add_n([tf.reduce_sum(tf.square(p)) for p in fpn(features).values()])
    for gradient in tape.gradient(loss, [*features.values(), *fpn.trainable_weights]):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("levels", [(1, 6), (6, 6), (2, 4)])
def test_wrong_levels_are_refused(levels):
    with pytest.raises(ValueError, match="2 <= min_level <= 5 <= max_level"):
        FPN(4, min_level=levels[0], max_level=levels[1])
