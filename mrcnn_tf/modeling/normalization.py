"""The normalisations that a backbone or a head can stand on, behind one builder.

All kinds name their variables as Keras does (`gamma`, `beta`, `moving_mean`, `moving_variance`),
so that weights trained under one kind of batch norm load into another.
"""

import functools
from collections.abc import Callable

import tensorflow as tf
import tf_keras

NormBuilder = Callable[..., tf_keras.layers.Layer]  # called with `name=` only
KINDS = ("frozen_batch_norm", "batch_norm", "sync_batch_norm", "group_norm")


def build(kind: str, epsilon: float, momentum: float, name: str) -> tf_keras.layers.Layer:
    """Build one normalisation layer over the last axis.

    Args:
      kind: one of `KINDS`.
      epsilon: added to the variance; may be 0 for `frozen_batch_norm` (torchvision's COCO weights).
      momentum: share of the moving statistics that one training step keeps (torch states 1 minus
        it); only batch norms that learn use it.
      name: layer name.

    Returns:
      A layer [..., C] -> [..., C].

    Raises:
      ValueError: `kind` is unknown.
    """
    if kind == "frozen_batch_norm":
        return FrozenBatchNorm(epsilon, name=name)
    if kind in ("batch_norm", "sync_batch_norm"):
        return tf_keras.layers.BatchNormalization(
            momentum=momentum, epsilon=epsilon, synchronized=kind == "sync_batch_norm", name=name
        )
    if kind == "group_norm":
        return GroupNorm(epsilon, name=name)
    raise ValueError(f"unknown normalisation {kind!r}; known: {', '.join(KINDS)}")


def builder(kind: str) -> NormBuilder | None:
    """Return what builds the norms of pyramid and heads, None for kind "".

    Epsilon and momentum are what every project has there.
    """
    return functools.partial(build, kind, epsilon=1e-5, momentum=0.9) if kind else None


class FrozenBatchNorm(tf_keras.layers.Layer):
    """Batch norm that neither learns nor follows its input: one scale and one offset per channel.

    `scale = gamma / sqrt(moving_variance + epsilon)`, `offset = beta - moving_mean * scale`, both
    computed in float32 and then cast to the input's type. All four variables are not trainable.

    Args:
      epsilon: added to the variance, may be 0.
      name: layer name.

    Source: Mask R-CNN (arXiv:1703.06870) fine-tunes with the batch norm of ImageNet training
    frozen, as its batch of two images per device is too small for statistics.
    """

    def __init__(self, epsilon: float = 1e-5, name: str | None = None):
        super().__init__(name=name)
        self.epsilon = epsilon

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create the four variables, an identity (but for epsilon) until weights are loaded."""

        def add(name: str, initializer: str) -> tf.Variable:
            return self.add_weight(
                name,
                [input_shape[-1]],
                initializer=initializer,
                trainable=False,
                experimental_autocast=False,
            )

        self.gamma = add("gamma", "ones")
        self.beta = add("beta", "zeros")
        self.moving_mean = add("moving_mean", "zeros")
        self.moving_variance = add("moving_variance", "ones")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Apply scale and offset: [..., C] -> [..., C]."""
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        offset = self.beta - self.moving_mean * scale
        return inputs * tf.cast(scale, inputs.dtype) + tf.cast(offset, inputs.dtype)


def num_groups(channels: int) -> int:
    """Return how many groups `GroupNorm` makes of so many channels.

    32 as published wherever a group then has at least two channels, else the largest number that
    divides the channels into groups of two or more (a group of one would be instance norm).
    """
    return max(g for g in range(1, min(32, max(channels // 2, 1)) + 1) if channels % g == 0)


class GroupNorm(tf_keras.layers.Layer):
    """Group normalisation (Wu and He, arXiv:1803.08494) of a feature map, statistics in float32.

    The sums run over height and width first, channel by channel, and only the [B, C] sums are
    grouped: no five-dimensional view of the feature map, whose reduction over a split last axis is
    slow on CPUs. Mean and variance come from one pass, E[x^2] - E[x]^2, as in Flax.

    Args:
      epsilon: added to the variance.
      name: layer name.
    """

    def __init__(self, epsilon: float = 1e-5, name: str | None = None):
        super().__init__(name=name)
        self.epsilon = epsilon

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create `gamma` and `beta` [C]."""
        channels = input_shape[-1]
        self.groups = num_groups(channels)
        self.gamma = self.add_weight(
            "gamma", [channels], initializer="ones", experimental_autocast=False
        )
        self.beta = self.add_weight(
            "beta", [channels], initializer="zeros", experimental_autocast=False
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise [B, H, W, C] over height, width and the channels of each group."""
        x = tf.cast(inputs, tf.float32)
        mean = self._group_mean(tf.reduce_mean(x, [1, 2]))  # [B, C]
        variance = self._group_mean(tf.reduce_mean(tf.square(x), [1, 2])) - tf.square(mean)
        # Rounding may push the variance of a constant group just below zero.
        scale = self.gamma * tf.math.rsqrt(tf.maximum(variance, 0.0) + self.epsilon)
        offset = self.beta - mean * scale
        outputs = x * scale[:, None, None] + offset[:, None, None]
        return tf.cast(outputs, inputs.dtype)

    def _group_mean(self, channel_means: tf.Tensor) -> tf.Tensor:
        """Replace each channel's entry by the mean of its group: [B, C] -> [B, C]."""
        channels = channel_means.shape[-1]
        grouped = tf.reshape(channel_means, [-1, self.groups, channels // self.groups])
        return tf.repeat(tf.reduce_mean(grouped, -1), channels // self.groups, axis=-1)
