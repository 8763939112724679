"""ImageNet weights of `tf_keras.applications` into our ResNet: names and layouts, nothing else.

Those are the original MSRA models: stride in the 1x1, a bias in every convolution, batch norm with
epsilon 1.001e-5, and pixels in BGR order, 0..255, minus `PIXEL_MEAN_BGR`.
"""

import os
import re

import tensorflow as tf
import tf_keras

from mrcnn_tf.modeling.normalization import GroupNorm
from mrcnn_tf.modeling.resnet import ResNet, Stage

PIXEL_MEAN_BGR = (103.939, 116.779, 123.68)
EPSILON = 1.001e-5

_BUILDERS = {
    50: tf_keras.applications.ResNet50,
    101: tf_keras.applications.ResNet101,
    152: tf_keras.applications.ResNet152,
}


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


def load(resnet: ResNet, keras_model: tf_keras.Model) -> None:
    """Assign the weights of a `tf_keras.applications.ResNet50/101/152` to our backbone.

    Two things are folded into the norms, so that the features are the same: the bias of the
    convolution before (`moving_mean -= bias`) and the difference between our epsilon and Keras'
    (`moving_variance += 1.001e-5 - epsilon`). Nothing is assigned unless everything fits.

    Args:
      resnet: built backbone of bottleneck blocks with the stride in the 1x1 and batch norms.
      keras_model: the Keras model, with or without its classifier.

    Raises:
      ValueError: the networks differ in kind, depth or width, or a tensor of ours got no value.
    """
    _check(resnet)
    ours = sum(len(stage.blocks) for stage in _stages(resnet))
    theirs = sum(bool(re.search(r"_block\d+_out$", layer.name)) for layer in keras_model.layers)
    if theirs != ours:
        raise ValueError(f"the Keras model has {theirs} blocks, the backbone {ours}")
    pairs = []
    for conv, norm, prefix in _convs_and_norms(resnet):
        pairs += _match(conv, norm, keras_model, prefix)
    matched = {id(variable) for variable, _ in pairs}
    unassigned = [w.name for w in resnet.weights if id(w) not in matched]
    if unassigned:
        raise ValueError(f"{len(unassigned)} backbone tensors without a value: {unassigned[:5]}")
    for variable, value in pairs:
        variable.assign(value)


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


def _convs_and_norms(resnet: ResNet) -> list[tuple]:
    """List (convolution, its norm, Keras' name before `_conv` and `_bn`) of the whole backbone."""
    found = [(resnet.stem.conv1, resnet.stem.norm1, "conv1")]
    for level, stage in enumerate(_stages(resnet), start=2):
        if not stage.built:  # an RPN on C4 has no use for stage 5
            continue
        for i, block in enumerate(stage.blocks, start=1):
            prefix = f"conv{level}_block{i}"
            found.append((block.conv1, block.norm1, f"{prefix}_1"))
            found.append((block.conv2, block.norm2, f"{prefix}_2"))
            found.append((block.conv3, block.norm3, f"{prefix}_3"))
            if block.shortcut is not None:
                found.append((block.shortcut, block.shortcut_norm, f"{prefix}_0"))
    return found


def _match(
    conv: tf_keras.layers.Layer,
    norm: tf_keras.layers.Layer,
    keras_model: tf_keras.Model,
    prefix: str,
) -> list[tuple[tf.Variable, tf.Tensor]]:
    """List (our variable, its value) of one convolution and its norm."""
    keras_conv = keras_model.get_layer(f"{prefix}_conv")
    keras_norm = keras_model.get_layer(f"{prefix}_bn")
    pairs = [
        (conv.kernel, keras_conv.kernel),
        (norm.gamma, keras_norm.gamma),
        (norm.beta, keras_norm.beta),
        (norm.moving_mean, keras_norm.moving_mean - keras_conv.bias),
        (norm.moving_variance, keras_norm.moving_variance + (keras_norm.epsilon - norm.epsilon)),
    ]
    for variable, value in pairs:
        if variable.shape != value.shape:
            raise ValueError(
                f"{variable.name} has shape {variable.shape}, Keras' {prefix} has {value.shape}"
            )
    return pairs


def _file_name(depth: int) -> str:
    return f"resnet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5"


def _url(depth: int) -> str:
    base = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    return base + _file_name(depth)


def _cache_path(depth: int) -> str:
    keras_home = os.path.join(os.path.expanduser("~"), ".keras")
    return os.path.join(keras_home, "models", _file_name(depth))
