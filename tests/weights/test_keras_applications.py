import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment import loading
from mrcnn_tf.modeling.resnet import ResNet
from mrcnn_tf.weights import keras_applications, pretrained

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def perturbed_keras_model(depth):
    """Keras' own ResNet with norms and biases as far from their start as training takes them."""
    builder = {50: tf_keras.applications.ResNet50, 101: tf_keras.applications.ResNet101}[depth]
    model = builder(weights=None, include_top=False)
    rng = np.random.default_rng(depth)
    for layer in model.layers:
        if layer.name.endswith("_conv"):
            layer.bias.assign(rng.normal(0.0, 0.3, layer.bias.shape))
        elif layer.name.endswith("_bn"):
            shape = layer.gamma.shape
            # The last norm of a block stays small, or activations overflow after 33 blocks.
            top = 0.5 if layer.name.endswith("_3_bn") else 1.5
            layer.gamma.assign(rng.uniform(0.2, top, shape))
            layer.beta.assign(rng.normal(0.0, 0.3, shape))
            layer.moving_mean.assign(rng.normal(0.0, 0.3, shape))
            layer.moving_variance.assign(rng.uniform(0.3, 2.0, shape))
    return model


@pytest.fixture(scope="module")
def keras_resnet50():
    return perturbed_keras_model(50)


def built(*args, **kwargs):
    resnet = ResNet(*args, **kwargs)
    resnet(tf.zeros([1, 32, 32, 3]))
    return resnet


def assert_same_features(resnet, keras_model, blocks, size):
    names = [f"conv{level}_block{n}_out" for level, n in zip(range(2, 6), blocks, strict=True)]
    outputs = [keras_model.get_layer(name).output for name in names]
    images = np.random.default_rng(0).uniform(-120, 150, (1, *size, 3)).astype(np.float32)
    want = tf_keras.Model(keras_model.input, outputs)(images, training=False)
    got = resnet(images)
    for level, expected in zip(range(2, 6), want, strict=True):
        scale = float(tf.reduce_max(tf.abs(expected)))
        assert np.isfinite(scale)
        np.testing.assert_allclose(got[level], expected, atol=1e-4 * scale)
        np.testing.assert_allclose(np.std(got[level]), np.std(expected), rtol=1e-4)


# An epsilon that is not Keras' is folded into the variances.
@pytest.mark.parametrize(
    ("norm", "epsilon", "size"),
    [
        ("frozen_batch_norm", keras_applications.EPSILON, (97, 131)),
        ("frozen_batch_norm", 0.0, (64, 32)),
        ("batch_norm", 1e-5, (64, 32)),
    ],
)
def test_features_equal_those_of_keras_resnet50(keras_resnet50, norm, epsilon, size):
    resnet = built(50, norm=norm, norm_epsilon=epsilon)
    keras_applications.load(resnet, keras_resnet50)
    assert_same_features(resnet, keras_resnet50, BLOCKS[50], size)


@pytest.mark.slow
def test_features_equal_those_of_keras_resnet101():
    keras_model = perturbed_keras_model(101)
    resnet = built(101, norm_epsilon=keras_applications.EPSILON)
    keras_applications.load(resnet, keras_model)
    assert_same_features(resnet, keras_model, BLOCKS[101], (97, 131))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"depth": 101, "base_width": 1}, "the Keras model has 16 blocks, the backbone 33"),
        ({"depth": 34, "base_width": 1}, "bottleneck blocks"),
        ({"stride_in_1x1": False, "base_width": 1}, "stride_in_1x1=True"),
        ({"norm": "group_norm", "base_width": 1}, "batch norm, not group norm"),
        ({"base_width": 8}, r"conv1_conv/kernel \(7, 7, 3, 64\), for .*stem.* \(7, 7, 3, 8\)"),
    ],
)
def test_a_backbone_of_another_kind_is_refused(keras_resnet50, kwargs, message):
    with pytest.raises(ValueError, match=message):
        keras_applications.load(built(**{"depth": 50, **kwargs}), keras_resnet50)


def test_a_refused_backbone_keeps_its_weights(keras_resnet50):
    resnet = built(50)
    resnet.stage5.extra = resnet.stage5.add_weight("extra", [1])
    before = resnet.stem.conv1.kernel.numpy()
    with pytest.raises(ValueError, match=r"(?s)1 tensors of ours without a source:.*extra"):
        keras_applications.load(resnet, keras_resnet50)
    np.testing.assert_array_equal(resnet.stem.conv1.kernel, before)


def test_backbone_must_be_built(keras_resnet50):
    with pytest.raises(ValueError, match="build the backbone"):
        keras_applications.load(ResNet(50), keras_resnet50)


def test_without_network_the_error_names_file_and_place(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("URL fetch failure")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(keras_applications._BUILDERS, 50, refuse)
    with pytest.raises(FileNotFoundError) as caught:
        keras_applications.load_imagenet(built(50), 50)
    message = str(caught.value)
    file_name = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert f"keras-applications/resnet/{file_name}" in message
    assert str(tmp_path / ".keras" / "models" / file_name) in message
    assert "URL fetch failure" in message


def test_no_imagenet_weights_for_basic_blocks():
    with pytest.raises(ValueError, match=r"\[50, 101, 152\], not 18"):
        keras_applications.load_imagenet(built(18), 18)


_LEARNS = "task.model.backbone.norm=group_norm,task.model.backbone.freeze_at=0"


def test_imagenet_with_group_norms_is_refused_before_anything_is_downloaded():
    with pytest.raises(ValueError, match="batch norms, not with backbone.norm: group_norm"):
        loading.load("maskrcnn_r50_fpn", params_override=_LEARNS)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (_LEARNS, "weights with batch norms"),
        (_LEARNS.replace("group_norm", "batch_norm"), "could not be read or downloaded"),
        (_LEARNS + ",task.model.pixels.order=rgb", "which want pixels.order: bgr"),
    ],
)
def test_auto_starts_from_random_weights_and_says_why(monkeypatch, capsys, override, reason):
    def refuse(*args, **kwargs):
        raise OSError("URL fetch failure")

    monkeypatch.setitem(keras_applications._BUILDERS, 50, refuse)
    override += ",task.model.backbone.weights=auto"
    model = loading.load("maskrcnn_r50_fpn", params_override=override).task.model
    backbone = built(50, norm=model.backbone.norm, freeze_at=0)
    before = backbone.stem.conv1.kernel.numpy()
    pretrained.load(backbone, model)
    printed = capsys.readouterr().out
    assert "starts from random weights" in printed
    assert reason in printed
    np.testing.assert_array_equal(backbone.stem.conv1.kernel, before)
