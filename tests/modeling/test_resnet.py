import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.modeling.resnet import ResNet


def small(depth=18, **kwargs):
    kwargs.setdefault("norm", "batch_norm")
    return ResNet(depth, base_width=4, **kwargs)


def count(resnet):
    return sum(int(np.prod(w.shape)) for w in resnet.trainable_weights)


def expected_parameters(depth, blocks, bottleneck):
    """Kernels plus gamma and beta, summed from the paper's table 1."""
    total, channels = 7 * 7 * 3 * 64 + 2 * 64, 64
    for stage, num_blocks in enumerate(blocks):
        width = 64 * 2**stage
        out = 4 * width if bottleneck else width
        for i in range(num_blocks):
            if bottleneck:
                convs = [(1, channels, width), (9, width, width), (1, width, out)]
            else:
                convs = [(9, channels, width), (9, width, width)]
            if i == 0 and channels != out:
                convs.append((1, channels, out))
            total += sum(area * cin * cout + 2 * cout for area, cin, cout in convs)
            channels = out
    return total


# torchvision's published sizes, less its classifier's 512 or 2048 x 1000 + 1000.
@pytest.mark.parametrize(
    ("depth", "blocks", "published"),
    [
        (18, (2, 2, 2, 2), 11_689_512 - 513_000),
        (34, (3, 4, 6, 3), 21_797_672 - 513_000),
        (50, (3, 4, 6, 3), 25_557_032 - 2_049_000),
        pytest.param(101, (3, 4, 23, 3), 44_549_160 - 2_049_000, marks=pytest.mark.slow),
        pytest.param(152, (3, 8, 36, 3), 60_192_808 - 2_049_000, marks=pytest.mark.slow),
    ],
)
def test_number_of_parameters(depth, blocks, published):
    assert expected_parameters(depth, blocks, depth >= 50) == published
    resnet = ResNet(depth, norm="batch_norm", freeze_at=0)
    resnet(tf.zeros([1, 32, 32, 3]))
    assert count(resnet) == published


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("size", [(64, 96), (65, 33), (1, 1), (31, 100)])
def test_shapes_are_halved_and_rounded_up(depth, size):
    resnet = small(depth)
    features = resnet(tf.zeros([2, *size, 3]))
    want = {}
    height, width = size
    for level in range(1, 6):
        height, width = (height + 1) // 2, (width + 1) // 2
        want[level] = (2, height, width, 4 * 2 ** (level - 2) * (4 if depth == 50 else 1))
    del want[1]
    assert {level: tuple(f.shape) for level, f in features.items()} == want
    assert {level: shape[-1] for level, shape in want.items()} == resnet.out_channels


def test_stem_by_hand():
    # Ones everywhere: the convolution counts the pixels its 7x7 window finds inside the 8x8
    # image (rows -3..3, -1..5, 1..7, 3..9 -> 4, 6, 7, 5 of them), times 3 channels.
    stem = small(norm_epsilon=0.0).stem
    stem(tf.zeros([1, 8, 8, 3]))
    stem.conv1.kernel.assign(tf.ones_like(stem.conv1.kernel))
    inside = np.array([4, 6, 7, 5])
    conv = 3 * np.outer(inside, inside)
    # Pooling of 3x3, stride 2, padded by 1: rows {0, 1} and {1, 2, 3}.
    want = [[conv[:2, :2].max(), conv[:2, 1:].max()], [conv[1:, :2].max(), conv[1:, 1:].max()]]
    np.testing.assert_allclose(stem(tf.ones([1, 8, 8, 3]))[0, ..., 0], want, rtol=1e-6)


@pytest.mark.parametrize(("stride_in_1x1", "window"), [(True, {0, 2, 4}), (False, {1, 2, 3})])
def test_where_the_stride_stands(stride_in_1x1, window):
    # With the stride in the 1x1, the block's 3x3 sees every second row and column only.
    block = small(50, stride_in_1x1=stride_in_1x1).stage3.blocks[0]
    x = tf.Variable(tf.random.stateless_uniform([1, 8, 8, 16], [1, 2]))
    block(x)
    for conv in (block.conv1, block.conv2, block.conv3):
        conv.kernel.assign(tf.ones_like(conv.kernel))
    block.shortcut.kernel.assign(tf.zeros_like(block.shortcut.kernel))
    with tf.GradientTape() as tape:
        y = block(x)[0, 1, 1, 0]  # centre of its window: input pixel (2, 2)
    gradient = np.abs(tape.gradient(y, x).numpy()[0]).sum(-1)
    rows, columns = np.nonzero(gradient)
    assert y > 0
    assert len(rows) == 9
    assert set(rows) == set(columns) == window


def test_features_of_a_dark_image_do_not_depend_on_its_padding():
    # Symmetric padding is one more row of the zeros that are there already.
    resnet = small(34, freeze_at=0)
    x = tf.zeros([1, 64, 64, 3])
    for features in resnet(x).values():
        np.testing.assert_array_equal(features, tf.zeros_like(features))


def test_shifting_the_image_by_the_stride_shifts_the_features():
    resnet = small(50)
    x = np.zeros([1, 256, 256, 3], np.float32)
    x[:, 96:160, 96:160] = np.random.default_rng(0).normal(size=(64, 64, 3))
    shifted = np.roll(x, (32, -32), (1, 2))
    features, moved = resnet(x), resnet(shifted)
    for level in (2, 3):
        step = 32 // 2**level
        want = np.roll(features[level], (step, -step), (1, 2))
        np.testing.assert_allclose(moved[level], want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize(
    ("freeze_at", "frozen"),
    [
        (0, []),
        (1, ["stem"]),
        (2, ["stem", "stage2"]),
        (5, ["stem"] + [f"stage{i}" for i in range(2, 6)]),
    ],
)
def test_freeze_at(freeze_at, frozen):
    resnet = small(18, freeze_at=freeze_at)
    x = tf.random.stateless_normal([2, 64, 64, 3], [1, 2])
    resnet(x)
    statistics = {w.name: w.numpy() for w in resnet.weights if "moving" in w.name}
    resnet(x, training=True)
    moved = {
        w.name.split("/")[1]
        for w in resnet.weights
        if "moving" in w.name and np.any(w.numpy() != statistics[w.name])
    }
    parts = {"stem", "stage2", "stage3", "stage4", "stage5"}
    assert {w.name.split("/")[1] for w in resnet.trainable_weights} == parts - set(frozen)
    assert moved == parts - set(frozen)


def test_frozen_norm_ignores_training_and_leaves_only_kernels_to_train():
    resnet = small(50, norm="frozen_batch_norm")
    x = tf.random.stateless_normal([1, 64, 64, 3], [1, 2])
    resnet(x)
    before, after = resnet(x, training=False), resnet(x, training=True)
    np.testing.assert_array_equal(before[5], after[5])
    assert {w.name.rsplit("/", 1)[1] for w in resnet.trainable_weights} == {"kernel:0"}


def test_graph_and_xla_agree_and_gradients_are_finite():
    resnet = small(18, norm="frozen_batch_norm", freeze_at=0)
    x = tf.random.stateless_normal([2, 64, 32, 3], [1, 2])
    resnet(x)

    def step(x):
        with tf.GradientTape() as tape:
            features = resnet(x, training=False)
            loss = tf.add_n([tf.reduce_mean(tf.square(f)) for f in features.values()])
        return features, tape.gradient(loss, resnet.trainable_weights)

    features, gradients = step(x)
    spec = [tf.TensorSpec([None, None, None, 3])]
    for compiled in (tf.function(step, spec), tf.function(step, jit_compile=True)):
        got_features, got_gradients = compiled(x)
        for level, want in features.items():
            atol = 1e-4 * float(tf.reduce_max(want))
            np.testing.assert_allclose(got_features[level], want, atol=atol)
        for got, want in zip(got_gradients, gradients, strict=True):
            scale = float(tf.reduce_max(tf.abs(want)))
            np.testing.assert_allclose(got, want, atol=1e-3 * scale + 1e-6)
            assert np.isfinite(got).all()


def test_mixed_precision_keeps_variables_in_float32():
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        resnet = small(18, norm="frozen_batch_norm")
        features = resnet(tf.ones([1, 32, 32, 3]))
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)
    assert {f.dtype for f in features.values()} == {tf.bfloat16}
    assert {w.dtype for w in resnet.weights} == {tf.float32}


def test_stage5_runs_alone():
    # As the head of a C4 model: 14x14 regions of C4 in, 7x7 out.
    resnet = small(50)
    assert resnet.stage5(tf.zeros([6, 14, 14, 64])).shape == [6, 7, 7, 128]


def test_layers_are_named_as_documented():
    resnet = small(50)
    resnet(tf.zeros([1, 32, 32, 3]))
    names = {w.name for w in resnet.weights}
    assert "resnet/stem/conv1/kernel:0" in names
    assert "resnet/stage2/block0/shortcut/kernel:0" in names
    assert "resnet/stage4/block5/norm3/moving_variance:0" in names
    assert "resnet/stage5/block2/conv3/kernel:0" in names


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"depth": 26}, r"depth must be one of \(18, 34, 50, 101, 152\), not 26"),
        ({"freeze_at": 6}, "freeze_at must be 0 .nothing. .. 5 .all., not 6"),
        ({"norm": "bn"}, "unknown normalisation 'bn'"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**kwargs)


def test_resnext_has_the_published_number_of_parameters():
    """ResNeXt-101 32x8d: 88,791,336 in torchvision, 2,049,000 of them in its classifier."""
    network = ResNet(101, groups=32, width_per_group=8, norm="batch_norm", freeze_at=0)
    network(tf.zeros([1, 32, 32, 3]))
    trained = sum(v.shape.num_elements() for v in network.trainable_variables)
    assert trained == 88_791_336 - 2_049_000
    block = network.stage3.blocks[0]
    assert block.conv2.kernel.shape == (3, 3, 16, 512)
    assert network.out_channels == {2: 256, 3: 512, 4: 1024, 5: 2048}
