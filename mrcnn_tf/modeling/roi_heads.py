"""The FPN heads: RoIAlign, the two-layer box head and the convolutional mask head (figure 4 right).

Shape letters: `B` images, `R` RoIs, `C` channels, `N` classes with background, `M` mask side.
"""

import functools
from typing import Any

import tensorflow as tf
import tf_keras

from mrcnn_tf.modeling.conv import MSRA, ConvNormReLU
from mrcnn_tf.modeling.normalization import NormBuilder
from mrcnn_tf.ops import roi_align


class BoxHead(tf_keras.layers.Layer):
    """Hidden layers, then class logits and class-specific box deltas (FPN section 4.2)."""

    def __init__(
        self,
        num_classes: int,
        fc_layers: int,
        fc_channels: int,
        conv_layers: int = 0,
        conv_channels: int = 256,
        build_norm: NormBuilder | None = None,
        name: str = "box_head",
    ):
        """Create the layers.

        Args:
          num_classes: N, with background.
          fc_layers: hidden dense layers.
          fc_channels: of each.
          conv_layers: 3x3 convolutions in front of them; none in the paper, four in Detectron2's
            and torchvision's later recipes.
          conv_channels: of each.
          build_norm: called with `name`, the norm after each convolution; None for none.
          name: layer name.
        """
        super().__init__(name=name)
        self.num_classes = num_classes
        self.convs = _convs(conv_layers, conv_channels, build_norm)
        self.hidden = [
            tf_keras.layers.Dense(
                fc_channels,
                activation="relu",
                # Caffe2's XavierFill, as Detectron: uniform, scaled by the inputs only.
                kernel_initializer=tf_keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
                name=f"fc{i + 1}",
            )
            for i in range(fc_layers)
        ]
        # Deviations 0.01 and 0.001: Fast R-CNN section 2.3.
        self.class_logits = tf_keras.layers.Dense(
            num_classes,
            kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.01),
            name="class_logits",
        )
        self.box_deltas = tf_keras.layers.Dense(
            (num_classes - 1) * 4,
            kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.001),
            name="box_deltas",
        )

    def call(self, roi_features: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Classify RoIs and refine their boxes.

        Args:
          roi_features: [B, R, side, side, C].
          training: whether norms use batch statistics.

        Returns:
          class logits, float32 [B, R, N], and deltas, float32 [B, R, N-1, (dy, dx, dh, dw)]: row
          k of the deltas belongs to class k + 1, background has none.
        """
        batch, rois = tf.shape(roi_features)[0], tf.shape(roi_features)[1]
        side, channels = roi_features.shape[2], roi_features.shape[-1]
        hidden = tf.reshape(roi_features, [batch * rois, side, side, channels])
        for layer in self.convs:
            hidden = layer(hidden, training=training)
        # [B*R, side, side, C] -> [B*R, side*side*C]
        hidden = tf.reshape(hidden, [batch * rois, side * side * hidden.shape[-1]])
        for layer in self.hidden:
            hidden = layer(hidden)
        logits = tf.cast(self.class_logits(hidden), tf.float32)
        deltas = tf.cast(self.box_deltas(hidden), tf.float32)
        return (
            tf.reshape(logits, [batch, rois, self.num_classes]),
            tf.reshape(deltas, [batch, rois, self.num_classes - 1, 4]),
        )


class MaskHead(tf_keras.layers.Layer):
    """3x3 convolutions, a 2x2 deconvolution and a 1x1 predictor with one map per class.

    Masks and classes are decoupled (section 3): map k is asked for class k only, so of the N - 1
    maps just the one that is needed is computed to the end.
    """

    def __init__(
        self,
        num_classes: int,
        conv_layers: int,
        conv_channels: int,
        build_norm: NormBuilder | None = None,
        name: str = "mask_head",
    ):
        """Create the layers.

        Args:
          num_classes: N, with background.
          conv_layers: 3x3 convolutions.
          conv_channels: of each and of the deconvolution.
          build_norm: called with `name`, the norm after each 3x3 convolution; None for none.
          name: layer name.
        """
        super().__init__(name=name)
        self.num_classes = num_classes
        self.convs = _convs(conv_layers, conv_channels, build_norm)
        self.deconv = tf_keras.layers.Conv2DTranspose(
            conv_channels,
            2,
            strides=2,
            activation="relu",
            # A copy of its own: an unseeded Keras initializer that is called twice warns.
            kernel_initializer=tf_keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
            name="deconv",
        )

    def build(self, input_shape) -> None:
        """Create the predictor's weights: one column per foreground class."""
        channels = self.deconv.filters
        self.predictor_kernel = self.add_weight(
            name="predictor_kernel",
            shape=[channels, self.num_classes - 1],
            # 0.001: Detectron; a mask starts near probability 0.5 everywhere.
            initializer=tf_keras.initializers.RandomNormal(stddev=0.001),
        )
        self.predictor_bias = self.add_weight(
            name="predictor_bias", shape=[self.num_classes - 1], initializer="zeros"
        )
        super().build(input_shape)

    def call(
        self, roi_features: tf.Tensor, classes: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Predict the mask of one class per RoI.

        Args:
          roi_features: [B, R, M/2, M/2, C].
          classes: int32 [B, R], 1..N-1; what stands where there is no RoI does not matter.
          training: whether norms use batch statistics.

        Returns:
          Mask logits, float32 [B, R, M, M].
        """
        batch, rois = tf.shape(roi_features)[0], tf.shape(roi_features)[1]
        side, channels = roi_features.shape[2], roi_features.shape[-1]
        hidden = tf.reshape(roi_features, [batch * rois, side, side, channels])
        for layer in self.convs:
            hidden = layer(hidden, training=training)
        hidden = self.deconv(hidden)  # [B*R, M, M, C]
        columns = tf.reshape(tf.clip_by_value(classes - 1, 0, self.num_classes - 2), [-1])
        kernel = tf.gather(tf.transpose(self.predictor_kernel), columns)  # [B*R, C]
        bias = tf.gather(self.predictor_bias, columns)  # [B*R]
        size = hidden.shape[1]
        # One 1x1 convolution per RoI: [B*R, M*M, C] x [B*R, C, 1]
        logits = tf.matmul(
            tf.reshape(hidden, [batch * rois, size * size, hidden.shape[-1]]),
            tf.cast(kernel, hidden.dtype)[:, :, tf.newaxis],
        )
        logits = tf.cast(logits, tf.float32) + tf.cast(bias, tf.float32)[:, tf.newaxis, tf.newaxis]
        return tf.reshape(logits, [batch, rois, size, size])


def _convs(count: int, channels: int, build_norm: NormBuilder | None) -> list[ConvNormReLU]:
    """Stack 3x3 convolutions, initialised as Detectron does in its heads (He et al. 2015)."""
    return [
        ConvNormReLU(
            channels, build_norm(name="norm") if build_norm else None, MSRA, name=f"conv{i + 1}"
        )
        for i in range(count)
    ]


class FPNRoIHeads(tf_keras.layers.Layer):
    """Both heads on a pyramid: each RoI is pooled from the level that suits its size."""

    def __init__(
        self,
        box_head: BoxHead,
        mask_head: MaskHead | None,
        *,
        box_pool_size: int,
        mask_size: int,
        sampling_ratio: int,
        aligned: bool,
        log_epsilon: float,
        level_epsilon: float,
        compiled: bool,
        name: str = "roi_heads",
    ):
        """Put the heads behind their RoIAlign.

        Args:
          box_head: takes [B, R, box_pool_size, box_pool_size, C].
          mask_head: takes [B, R, M/2, M/2, C]; None for Faster R-CNN.
          box_pool_size: 7.
          mask_size: M, 28.
          sampling_ratio: see `roi_align.roi_align`.
          aligned: see `roi_align.roi_align`.
          log_epsilon: `epsilon` of `roi_align.assign_levels`.
          level_epsilon: see `roi_align.assign_levels`.
          compiled: whether this is traced for XLA, see `roi_align.roi_align`.
          name: layer name.
        """
        super().__init__(name=name)
        self.box_head = box_head
        self.mask_head: Any = mask_head
        self.mask_size = mask_size
        self._box_pool_size = box_pool_size
        self._align = functools.partial(
            roi_align.roi_align,
            sampling_ratio=sampling_ratio,
            aligned=aligned,
            compiled=compiled,
        )
        self._assign_levels = functools.partial(
            roi_align.assign_levels, epsilon=log_epsilon, level_epsilon=level_epsilon
        )

    def pool(self, features: dict[int, tf.Tensor], rois: tf.Tensor, size: int) -> tf.Tensor:
        """RoIAlign from P2..P5 (P6 serves the RPN only: FPN section 4.1, footnote).

        Args:
          features: {level: [B, Hl, Wl, C]}.
          rois: float32 [B, R, 4], network-input pixels.
          size: side of the result.

        Returns:
          [B, R, size, size, C], no gradient to `rois`.
        """
        pooled_from = {level: f for level, f in features.items() if level <= 5}
        levels = self._assign_levels(rois, min(pooled_from), max(pooled_from))
        return self._align(pooled_from, rois, levels, size)

    def boxes(
        self, features: dict[int, tf.Tensor], rois: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Class logits [B, R, N] and deltas [B, R, N-1, 4] of `rois`; see `BoxHead.call`."""
        return self.box_head(self.pool(features, rois, self._box_pool_size), training=training)

    def masks(
        self,
        features: dict[int, tf.Tensor],
        rois: tf.Tensor,
        classes: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Mask logits [B, R, M, M] of `rois` for `classes` [B, R]; see `MaskHead.call`."""
        pooled = self.pool(features, rois, self.mask_size // 2)
        return self.mask_head(pooled, classes, training=training)

    def train(
        self,
        features: dict[int, tf.Tensor],
        rois: tf.Tensor,
        classes: tf.Tensor,
        num_masks: int,
        training: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Both branches on sampled RoIs.

        Args:
          features: {level: [B, Hl, Wl, C]}.
          rois: float32 [B, R, 4], positives first.
          classes: int32 [B, R], the true ones.
          num_masks: F; the mask branch runs on the first F RoIs.
          training: whether norms use batch statistics.

        Returns:
          Class logits [B, R, N], deltas [B, R, N-1, 4] and mask logits [B, F, M, M].
        """
        class_logits, box_deltas = self.boxes(features, rois, training)
        mask_logits = self.masks(features, rois[:, :num_masks], classes[:, :num_masks], training)
        return class_logits, box_deltas, mask_logits
