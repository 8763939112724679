"""Table 2d and DC5: heads on the last features, of stride 32, or dilated of stride 16."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf import models
from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import build
from mrcnn_tf.modeling.conv import DilatedConv2D
from mrcnn_tf.modeling.resnet import ResNet
from tests import tiny_network
from tests.marks import one_quick
from tests.tiny_network import EMPTY, MAX_INSTANCES, TWO_OBJECTS, WITH_CROWD


def slow_dilated(x, kernel, groups):
    """Loops over taps two pixels apart, float64."""
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)]).astype(np.float64)
    inputs, outputs = x.shape[3] // groups, kernel.shape[3] // groups
    out = np.zeros([x.shape[0], height, width, kernel.shape[3]])
    for i, j in np.ndindex(3, 3):
        window = padded[:, 2 * i : 2 * i + height, 2 * j : 2 * j + width]
        for g in range(groups):
            part = slice(g * outputs, (g + 1) * outputs)
            of_group = window[..., g * inputs : (g + 1) * inputs]
            out[..., part] += of_group @ kernel[i, j][:, part]
    return out


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)])
def test_dilated_convolution_agrees_with_loops(size, groups):
    x = np.random.default_rng(0).normal(size=(2, *size, 4)).astype(np.float32)
    conv = DilatedConv2D(6, 3, groups=groups)
    conv(x)
    want = slow_dilated(x, conv.kernel.numpy(), groups)
    np.testing.assert_allclose(conv(x), want, atol=1e-5)
    for jit_compile in (False, True):
        compiled = tf.function(
            conv, jit_compile=jit_compile, input_signature=[tf.TensorSpec([None, None, None, 4])]
        )
        np.testing.assert_allclose(compiled(x), want, atol=1e-5)
        assert compiled.get_concrete_function().output_shapes.as_list() == [None, None, None, 6]


def test_gradients_of_a_dilated_convolution_are_linear_maps_transposed():
    """A convolution is linear in each of its arguments: <f(x), u> = <x, gradient>."""
    rng = np.random.default_rng(1)
    x, u = (tf.constant(rng.normal(size=(2, 7, 6, c)), tf.float32) for c in (3, 5))
    conv = DilatedConv2D(5, 3)
    with tf.GradientTape() as tape:
        tape.watch(x)
        product = tf.reduce_sum(conv(x) * u)
    of_x, of_kernel = tape.gradient(product, [x, conv.kernel])
    want = np.sum(slow_dilated(x.numpy(), conv.kernel.numpy(), 1) * u.numpy())
    np.testing.assert_allclose(np.sum(of_x * x), want, rtol=1e-4)
    np.testing.assert_allclose(np.sum(of_kernel * conv.kernel), want, rtol=1e-4)
    other = rng.normal(size=x.shape)  # in another direction
    np.testing.assert_allclose(
        np.sum(of_x * other), np.sum(slow_dilated(other, conv.kernel.numpy(), 1) * u), rtol=1e-3
    )


@pytest.mark.parametrize("size", [(64, 96), (70, 50)])
def test_every_second_place_of_dilated_c5_is_c5(size):
    """Where the stride is in the first 1x1: it picks places, and 3x3 taps lie as far apart."""
    resnets = [
        ResNet(50, base_width=4, norm="frozen_batch_norm", freeze_at=0, dilated=dilated)
        for dilated in (False, True)
    ]
    images = tf.random.stateless_normal([1, *size, 3], [1, 2])
    strided, dilated = (resnet(images) for resnet in resnets)
    for ours, theirs in zip(resnets[1].weights, resnets[0].weights, strict=True):
        ours.assign(theirs)
    strided, dilated = (resnet(images) for resnet in resnets)
    assert set(dilated) == set(resnets[1].out_channels) == {2, 3, 4}
    assert resnets[1].out_channels[4] == resnets[0].out_channels[5] == 128
    assert dilated[4].shape[1:3] == strided[4].shape[1:3]
    size = np.std(strided[5])
    assert size > 0.01
    np.testing.assert_allclose(dilated[4][:, ::2, ::2], strided[5], atol=1e-4 * size)


def config(features, system="mask_rcnn") -> fields.Model:
    model = tiny_network.config()
    model.override({"features": features, "system": system})
    return model


@pytest.mark.parametrize(("features", "stride"), [("c5", 32), ("dc5", 16)])
def test_anchors_and_rois_know_the_stride(features, stride):
    network = tiny_network.build_network(config(features))
    assert network.pyramid is None
    maps = network.features(tf.zeros([1, 96, 128, 3]), training=False)
    ((level, feature),) = maps.items()
    assert 2**level == stride
    assert feature.shape == (1, 96 // stride, 128 // stride, 64)
    anchors = network.rpn.anchors(maps)[level].numpy()
    assert anchors.shape == (96 * 128 // stride**2 * 15, 4)
    np.testing.assert_allclose((anchors[15, 1] + anchors[15, 3]) / 2, stride, atol=1e-4)
    # A feature that says where it is: the box's middle, in pixels of the image.
    x = (tf.range(128 // stride, dtype=tf.float32) + 0.5) * stride
    places = tf.broadcast_to(x[:, tf.newaxis], [1, 96 // stride, 128 // stride, 1])
    box = tf.constant([[[16.0, 32.0, 80.0, 96.0]]])
    pooled = network.roi_heads.pool({level: places}, box, 1)
    np.testing.assert_allclose(pooled[0, 0, 0, 0, 0], 64.0)


@pytest.mark.parametrize(
    ("features", "system"), one_quick([("c5", "mask_rcnn"), ("dc5", "faster_rcnn")])
)
def test_trains_and_finds(features, system):
    model = config(features, system)
    network = tiny_network.build_network(model)
    batch = tiny_network.batch([TWO_OBJECTS, WITH_CROWD, EMPTY])
    with tf.GradientTape() as tape:
        sums = network.losses_of(network.train_forward(batch, 3, tf.constant(0, tf.int64)))
        loss = tf.add_n([term.mean() for term in sums.values()])
    assert tuple(sums) == build.loss_names(model)
    variables = network.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.name
        if "stage5" in variable.name and "kernel" in variable.name:
            assert np.any(tf.convert_to_tensor(gradient))
    want = network.infer(batch)
    assert want.valid.numpy().any()
    assert want.boxes.shape == (3, MAX_INSTANCES, 4)
    if system == "mask_rcnn":
        assert want.masks.shape == (3, MAX_INSTANCES, 14, 14)
    compiled = tf.function(network.infer, jit_compile=True, autograph=False)(batch)
    np.testing.assert_allclose(compiled.boxes, want.boxes, atol=2e-3)
    np.testing.assert_allclose(compiled.scores, want.scores, atol=1e-4)


def test_numbers_of_detectron2():
    """Its Base-RCNN-DilatedC5.yaml, which the defaults of both are taken from."""
    for features in ("c5", "dc5"):
        small = {"backbone": {"base_width": 8}}
        model = models.mask_rcnn("resnet18", 4, features=features, overrides=small)
        assert model.rpn.pre_nms_top_k_train == 12000
        assert model.rpn.pre_nms_top_k_test == 6000
        assert model.rpn.post_nms_top_k_test == 1000
        assert model.roi_heads.box_head.rois_per_image == 512
        assert len(model.roi_heads.box_head.hidden) == 2
        assert (model.roi_heads.mask_head.mask_size, len(model.roi_heads.mask_head.convs)) == (
            28,
            4,
        )
