"""ImageNet weights of `tf_keras.applications` into our ResNet: names, nothing else.

Those are the original MSRA models: stride in the 1x1, a bias in every convolution, batch norm with
epsilon 1.001e-5, and pixels in BGR order, 0..255, minus `PIXEL_MEAN_BGR`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tf_keras

from mrcnn_tf.modeling.normalization import GroupNorm
from mrcnn_tf.modeling.resnet import ResNet, Stage
from mrcnn_tf.weights import assign, layouts

PIXEL_MEAN_BGR = (103.939, 116.779, 123.68)
EPSILON = 1.001e-5
NOT_NEEDED = {
    r"conv\d(_block\d+_\d)?_conv/bias": "folded into the mean of the norm behind it",
    r"(predictions|probs)/(kernel|bias)": "ImageNet's classifier, which a detector has no use for",
}

_BUILDERS = {
    50: tf_keras.applications.ResNet50,
    101: tf_keras.applications.ResNet101,
    152: tf_keras.applications.ResNet152,
}

DEPTHS = tuple(_BUILDERS)


def load_imagenet(resnet: ResNet, depth: int) -> None:
    """Assign Keras' ImageNet weights, downloaded once into Keras' own cache.

    Args:
      resnet: built backbone; see `load` for what it must look like.
      depth: number of layers, 50, 101 or 152.

    Raises:
      ValueError: there are no such weights for this depth, or see `load`.
      FileNotFoundError: the file is neither in the cache nor to be had from the network.
    """
    if depth not in _BUILDERS:
        raise ValueError(f"Keras has ImageNet weights for ResNet {sorted(_BUILDERS)}, not {depth}")
    try:
        keras_model = _BUILDERS[depth](weights="imagenet", include_top=False)
    except Exception as error:  # Keras' downloader raises nothing more specific.
        raise FileNotFoundError(
            f"ImageNet weights of ResNet-{depth} could not be read or downloaded ({error}). "
            f"Without a network, put the file\n  {_url(depth)}\nat\n  "
            f"{_cache_path(depth)}"
        ) from error
    load(resnet, keras_model)


def load(resnet: ResNet, keras_model: tf_keras.Model) -> assign.Report:
    """Assign the weights of a `tf_keras.applications.ResNet50/101/152`; see `load_backbone`."""
    weights = {w.name.removesuffix(":0"): w.numpy() for w in keras_model.weights}
    return load_backbone(resnet, weights)


def load_backbone(resnet: ResNet, state_dict: Mapping[str, Any]) -> assign.Report:
    """Assign the weights of a `tf_keras.applications.ResNet50/101/152` to our backbone.

    Two things are folded into the norms, so that the features are the same: the bias of the
    convolution before (`moving_mean -= bias`) and the difference between our epsilon and Keras'
    (`moving_variance += 1.001e-5 - epsilon`). Nothing is assigned unless everything fits.

    Args:
      resnet: built backbone of bottleneck blocks with the stride in the 1x1 and batch norms.
      state_dict: {"conv1_conv/kernel": array, ...}, with or without the classifier.

    Returns:
      What became of each tensor.

    Raises:
      ValueError: the networks differ in kind, depth or width, or a tensor of ours got no value.
    """
    _check(resnet)
    ours = sum(len(stage.blocks) for stage in _stages(resnet))
    theirs = sum(bool(re.search(r"_block\d+_3_conv/kernel$", name)) for name in state_dict)
    if theirs != ours:
        raise ValueError(f"the Keras model has {theirs} blocks, the backbone {ours}")
    listed = [
        entry
        for conv, norm, prefix in _convs_and_norms(resnet)
        for entry in _entries(conv, norm, prefix, state_dict)
    ]
    return assign.assign(listed, state_dict, resnet.weights, NOT_NEEDED)


def _check(resnet: ResNet) -> None:
    """Refuse a backbone that no file of Keras can fill."""
    if not resnet.built:
        raise ValueError("build the backbone (call it once) before loading weights")
    if not hasattr(resnet.stage2.blocks[0], "conv3"):
        raise ValueError("Keras' ResNet weights need a backbone of bottleneck blocks")
    if not resnet.stride_in_1x1:
        raise ValueError("Keras' ResNet weights need a backbone with stride_in_1x1=True")
    if isinstance(resnet.stem.norm1, GroupNorm):
        raise ValueError("Keras' ResNet weights need a backbone with batch norm, not group norm")


def _stages(resnet: ResNet) -> list[Stage]:
    return [resnet.stage2, resnet.stage3, resnet.stage4, resnet.stage5]


def _convs_and_norms(resnet: ResNet) -> Iterator[tuple[Any, Any, str]]:
    """Walk: convolution, its norm, Keras' name before `_conv` and `_bn`."""
    yield resnet.stem.conv1, resnet.stem.norm1, "conv1"
    for level, index, name, conv, norm in assign.residual_convs(resnet):
        k = 0 if name == "shortcut" else int(name[-1])
        yield conv, norm, f"conv{level}_block{index + 1}_{k}"


def _entries(
    conv: tf_keras.layers.Layer,
    norm: tf_keras.layers.Layer,
    prefix: str,
    state_dict: Mapping[str, Any],
) -> list[assign.Entry]:
    """Entries of one convolution and its norm."""
    bias = np.asarray(state_dict.get(f"{prefix}_conv/bias", 0.0), np.float32)
    without_bias = layouts.Layout(lambda mean: mean - bias, lambda mean: mean + bias)
    more = np.float32(EPSILON - norm.epsilon)
    of_our_epsilon = layouts.Layout(lambda v: v + more, lambda v: v - more)
    tensors = {
        "conv/kernel": (conv.kernel, layouts.SAME),
        "bn/gamma": (norm.gamma, layouts.SAME),
        "bn/beta": (norm.beta, layouts.SAME),
        "bn/moving_mean": (norm.moving_mean, without_bias),
        "bn/moving_variance": (norm.moving_variance, of_our_epsilon),
    }
    return [
        assign.Entry(variable, (f"{prefix}_{name}",), layout)
        for name, (variable, layout) in tensors.items()
    ]


def _file_name(depth: int) -> str:
    return f"resnet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5"


def _url(depth: int) -> str:
    base = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    return base + _file_name(depth)


def _cache_path(depth: int) -> str:
    keras_home = os.path.join(os.path.expanduser("~"), ".keras")
    return os.path.join(keras_home, "models", _file_name(depth))
