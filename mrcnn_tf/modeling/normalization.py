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
    if kind == "batch_norm":
        return tf_keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name=name)
    if kind == "sync_batch_norm":
        return SyncBatchNorm(epsilon, momentum, name=name)
    if kind == "group_norm":
        return GroupNorm(epsilon, name=name)
    raise ValueError(f"unknown normalisation {kind!r}; known: {', '.join(KINDS)}")


def builder(kind: str) -> NormBuilder | None:
    """Return what builds the norms of pyramid and heads, None for kind "".

    Epsilon and momentum are what every project has there.
    """
    return functools.partial(build, kind, epsilon=1e-5, momentum=0.9) if kind else None


def is_fixed(norm: tf_keras.layers.Layer, training: bool) -> bool:
    """Whether a norm is one scale and one offset per channel, whatever its input is."""
    if isinstance(norm, FrozenBatchNorm):
        return True
    learns = SyncBatchNorm, tf_keras.layers.BatchNormalization
    return isinstance(norm, learns) and not (training and norm.trainable)


def fixed_affine(norm: tf_keras.layers.Layer) -> tuple[tf.Tensor, tf.Tensor]:
    """Return scale and offset of a norm that `is_fixed`, float32 [C] each."""
    scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    return scale, norm.beta - norm.moving_mean * scale


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
        scale, offset = (tf.cast(x, inputs.dtype) for x in fixed_affine(self))
        return inputs * scale + offset


class SyncBatchNorm(tf_keras.layers.Layer):
    """Batch norm whose statistics are those of the batches of all replicas together.

    Unlike Keras' it sums over replicas only where there are several, so that with one it compiles
    under any strategy. Sums are taken of the distances to the moving mean, which all replicas
    share: E[(x - s)^2] - E[x - s]^2 loses no digits to a mean that is large against the deviation,
    and needs one exchange, not two.

    Args:
      epsilon: added to the variance.
      momentum: share of the moving statistics that one training step keeps.
      name: layer name.
    """

    def __init__(self, epsilon: float = 1e-5, momentum: float = 0.9, name: str | None = None):
        super().__init__(name=name)
        self.epsilon = epsilon
        self.momentum = momentum

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create the four variables [C], named as Keras names them."""
        shape = [input_shape[-1]]

        def statistic(name: str, initializer: str) -> tf.Variable:
            return self.add_weight(
                name,
                shape,
                initializer=initializer,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
                experimental_autocast=False,
            )

        self.gamma = self.add_weight(
            "gamma", shape, initializer="ones", experimental_autocast=False
        )
        self.beta = self.add_weight("beta", shape, initializer="zeros", experimental_autocast=False)
        self.moving_mean = statistic("moving_mean", "zeros")
        self.moving_variance = statistic("moving_variance", "ones")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalise [B, H, W, C] over all but the last axis, of all replicas."""
        x = tf.cast(inputs, tf.float32)
        mean, variance = tf.convert_to_tensor(self.moving_mean), self.moving_variance
        if training and self.trainable:
            mean, variance = self._statistics(x)
            self._follow(self.moving_mean, mean)
            self._follow(self.moving_variance, variance)
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast((x - mean) * scale + self.beta, inputs.dtype)

    def _statistics(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of x [B, H, W, C] over all replicas, [C] each."""
        shift = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        distance = x - shift
        count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
        sums = [
            count,
            tf.reduce_sum(distance, [0, 1, 2]),
            tf.reduce_sum(tf.square(distance), [0, 1, 2]),
        ]
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            sums = context.all_reduce("sum", sums)
        count, total, total_of_squares = sums
        offset = total / tf.maximum(count, 1.0)
        variance = total_of_squares / tf.maximum(count, 1.0) - tf.square(offset)
        return shift + offset, tf.maximum(variance, 0.0)

    def _follow(self, moving: tf.Variable, value: tf.Tensor) -> None:
        moving.assign(moving * self.momentum + tf.stop_gradient(value) * (1.0 - self.momentum))


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
