"""The FPN heads: RoIAlign, the two-layer box head and the convolutional mask head (figure 4 right).

Shape letters: `B` images, `R` RoIs, `F` RoIs with a mask, `C` channels, `N` classes with
background, `M` mask side.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment.fields import BoxHead as BoxDefaults
from mrcnn_tf.experiment.fields import MaskHead as MaskDefaults
from mrcnn_tf.modeling import box_classes, mask_classes, normalization
from mrcnn_tf.modeling.conv import MSRA, ConvNormReLU
from mrcnn_tf.modeling.roi_pooling import RoIPool

SOFTMAX = box_classes.Softmax()


class BoxHead(tf_keras.layers.Layer):
    """Hidden layers, then class logits and box deltas, of each class or of all (FPN section 4.2).

    The numbers are described in `fields.BoxHead`, whose names they have; how many RoIs it learns
    from and which are positive is asked by the network, which samples them.

    Args:
      num_classes: N, with background.
      pool_size: side of the RoI features in front of it.
      norm: after each convolution, one of `normalization.KINDS` or "" for none.
      kind: what the class logits mean.
      name: layer name.
    """

    def __init__(
        self,
        num_classes: int,
        pool_size: int = BoxDefaults.pool_size,
        fc_layers: int = BoxDefaults.fc_layers,
        fc_channels: int = BoxDefaults.fc_channels,
        conv_layers: int = BoxDefaults.conv_layers,
        conv_channels: int = BoxDefaults.conv_channels,
        norm: str = BoxDefaults.norm,
        rois_per_image: int = BoxDefaults.rois_per_image,
        positive_fraction: float = BoxDefaults.positive_fraction,
        positive_iou: float = BoxDefaults.positive_iou,
        regression_weights: Sequence[float] = BoxDefaults.regression_weights,
        smooth_l1_beta: float = BoxDefaults.smooth_l1_beta,
        class_agnostic: bool = BoxDefaults.class_agnostic,
        kind: box_classes.Softmax = SOFTMAX,
        name: str = "box_head",
    ):
        super().__init__(name=name)
        self.num_classes = num_classes
        self.pool_size = pool_size
        self.rois_per_image = rois_per_image
        self.positive_fraction = positive_fraction
        self.positive_iou = positive_iou
        self.regression_weights = tuple(regression_weights)
        self.smooth_l1_beta = smooth_l1_beta
        self.class_agnostic = class_agnostic
        self.kind = kind
        self.convs = _convs(conv_layers, conv_channels, norm)
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
            bias_initializer=tf_keras.initializers.Constant(kind.first_logit),
            name="class_logits",
        )
        self.box_deltas = tf_keras.layers.Dense(
            4 if class_agnostic else (num_classes - 1) * 4,
            kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.001),
            name="box_deltas",
        )

    @property
    def max_positives(self) -> int:
        """F, how many of an image's sampled RoIs may be positive; they come first."""
        return int(self.rois_per_image * self.positive_fraction)

    def call(self, roi_features: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Classify RoIs and refine their boxes.

        Args:
          roi_features: [B, R, side, side, C].
          training: whether norms use batch statistics.

        Returns:
          class logits, float32 [B, R, N], and deltas, float32 [B, R, N-1, (dy, dx, dh, dw)]: row
          k of the deltas belongs to class k + 1, background has none. All rows are the same if
          the head is class-agnostic.
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
        logits = self.kind.logits(tf.cast(self.class_logits(hidden), tf.float32))
        deltas = tf.cast(self.box_deltas(hidden), tf.float32)
        deltas = tf.reshape(deltas, [batch, rois, self.box_deltas.units // 4, 4])
        if self.class_agnostic:
            deltas = tf.broadcast_to(deltas, [batch, rois, self.num_classes - 1, 4])
        return tf.reshape(logits, [batch, rois, self.num_classes]), deltas


class MaskHead(tf_keras.layers.Layer):
    """3x3 convolutions, a 2x2 deconvolution and a 1x1 predictor with one map per class.

    Masks and classes are decoupled (section 3): map k is asked for class k only, so of the N - 1
    maps just the one that is needed is computed to the end. `mask_classes.py` has the alternatives
    that the paper compares this with. The numbers are described in `fields.MaskHead`, whose names
    they have.

    Args:
      num_classes: N, with background.
      mask_size: M, side of what comes out.
      norm: after each 3x3 convolution, one of `normalization.KINDS` or "" for none.
      classes: one of `mask_classes.KINDS`.
      target: how the network makes the targets that it learns from.
      target_sampling_ratio: likewise.
      name: layer name.
    """

    def __init__(
        self,
        num_classes: int,
        mask_size: int = MaskDefaults.mask_size,
        conv_layers: int = MaskDefaults.conv_layers,
        conv_channels: int = MaskDefaults.conv_channels,
        norm: str = MaskDefaults.norm,
        classes: str = MaskDefaults.classes,
        target: str = MaskDefaults.target,
        target_sampling_ratio: int = MaskDefaults.target_sampling_ratio,
        name: str = "mask_head",
    ):
        super().__init__(name=name)
        self.num_classes = num_classes
        self.mask_size = mask_size
        self.kind = mask_classes.KINDS[classes]()
        self.target = target
        self.target_sampling_ratio = target_sampling_ratio
        self.convs = _convs(conv_layers, conv_channels, norm)
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

    @property
    def per_class(self) -> tuple[int, bool] | None:
        """Of the predictor's last axis, see `mask_classes.Independent.per_class`."""
        return self.kind.per_class(1)

    def build(self, input_shape) -> None:
        """Create the predictor's weights: one column per map, foreground classes by default."""
        channels = self.deconv.filters
        maps = self.kind.num_maps(self.num_classes)
        self.predictor_kernel = self.add_weight(
            name="predictor_kernel",
            shape=[channels, maps],
            # 0.001: Detectron; a mask starts near probability 0.5 everywhere.
            initializer=tf_keras.initializers.RandomNormal(stddev=0.001),
        )
        self.predictor_bias = self.add_weight(
            name="predictor_bias", shape=[maps], initializer="zeros"
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
          Mask logits, float32 [B, R, M, M], or [B, R, M, M, 2] of `mask_classes.Softmax`.
        """
        batch, rois = tf.shape(roi_features)[0], tf.shape(roi_features)[1]
        side, channels = roi_features.shape[2], roi_features.shape[-1]
        hidden = tf.reshape(roi_features, [batch * rois, side, side, channels])
        for layer in self.convs:
            hidden = layer(hidden, training=training)
        hidden = self.deconv(hidden)  # [B*R, M, M, C]
        maps = _Maps(hidden, self.predictor_kernel, self.predictor_bias)
        logits = self.kind.logits(maps, tf.reshape(classes, [-1]), self.num_classes)
        return tf.reshape(logits, [batch, rois, *logits.shape[1:]])


class _Maps:
    """A 1x1 convolution of [F, M, M, C] with a kernel [C, maps], F RoIs, of which parts are asked.

    See `mask_classes.Maps`.
    """

    def __init__(self, hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor):
        self._size, channels = hidden.shape[1], hidden.shape[-1]
        self._pixels = tf.reshape(hidden, [tf.shape(hidden)[0], self._size**2, channels])
        self._kernel, self._bias = kernel, bias

    def one(self, index: tf.Tensor) -> tf.Tensor:
        """Each RoI with a column of its own: [F, M*M, C] x [F, C, 1]."""
        kernel = tf.gather(tf.transpose(self._kernel), index)  # [F, C]
        bias = tf.gather(self._bias, index)  # [F]
        logits = tf.matmul(self._pixels, tf.cast(kernel, self._pixels.dtype)[:, :, tf.newaxis])
        logits = tf.cast(logits, tf.float32) + tf.cast(bias, tf.float32)[:, tf.newaxis, tf.newaxis]
        return tf.reshape(logits, [-1, self._size, self._size])

    def every(self) -> tf.Tensor:
        """[F, M*M, C] x [C, maps]."""
        logits = tf.matmul(self._pixels, tf.cast(self._kernel, self._pixels.dtype))
        logits = tf.cast(logits, tf.float32) + tf.cast(self._bias, tf.float32)
        return tf.reshape(logits, [-1, self._size, self._size, logits.shape[-1]])


def _convs(count: int, channels: int, norm: str) -> list[ConvNormReLU]:
    """Stack 3x3 convolutions, initialised as Detectron does in its heads (He et al. 2015)."""
    build_norm = normalization.builder(norm)
    return [
        ConvNormReLU(
            channels, build_norm(name="norm") if build_norm else None, MSRA, name=f"conv{i + 1}"
        )
        for i in range(count)
    ]


class FPNRoIHeads(tf_keras.layers.Layer):
    """Both heads on a pyramid: each RoI is pooled from the level that suits its size.

    Or on one level, the backbone's last (C5), from which all are pooled.

    Args:
      box_head: takes [B, R, side, side, C] with side its `pool_size`.
      mask_head: one of `mask_heads.py`, takes [B, R, M/2, M/2, C]; None for Faster R-CNN.
      roi_align: pools, one of `roi_pooling.POOLINGS`.
      name: layer name.
    """

    def __init__(
        self,
        box_head: BoxHead,
        mask_head: tf_keras.layers.Layer | None,
        roi_align: RoIPool,
        name: str = "roi_heads",
    ):
        super().__init__(name=name)
        self.box_head = box_head
        self.mask_head = mask_head
        self._align = roi_align

    def pool(self, features: dict[int, tf.Tensor], rois: tf.Tensor, size: int) -> tf.Tensor:
        """RoIAlign from P2..P5 (P6 serves the RPN only: FPN section 4.1, footnote).

        Args:
          features: {level: [B, Hl, Wl, C]}.
          rois: float32 [B, R, 4], network-input pixels.
          size: side of the result.

        Returns:
          [B, R, size, size, C], no gradient to `rois`.
        """
        return self._align({level: f for level, f in features.items() if level <= 5}, rois, size)

    def boxes(
        self, features: dict[int, tf.Tensor], rois: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Class logits [B, R, N] and deltas [B, R, N-1, 4] of `rois`; see `BoxHead.call`."""
        pooled = self.pool(features, rois, self.box_head.pool_size)
        return self.box_head(pooled, training=training)

    def masks(
        self,
        features: dict[int, tf.Tensor],
        rois: tf.Tensor,
        classes: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Mask logits [B, R, M, M] of `rois` for `classes` [B, R]; see `MaskHead.call`."""
        assert self.mask_head is not None
        pooled = self.pool(features, rois, self.mask_head.mask_size // 2)
        return self.mask_head(pooled, classes, training=training)

    def train(
        self,
        features: dict[int, tf.Tensor],
        rois: tf.Tensor,
        classes: tf.Tensor,
        num_masks: tf.Tensor,
        training: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Both branches on sampled RoIs.

        Args:
          features: {level: [B, Hl, Wl, C]}.
          rois: float32 [B, R, 4], positives first.
          classes: int32 [B, R], the true ones.
          num_masks: int32 [], F: on how many of them the mask branch runs.
          training: whether norms use batch statistics.

        Returns:
          Class logits [B, R, N], deltas [B, R, N-1, 4] and mask logits [B, F, M, M], None without
          a mask head.
        """
        class_logits, box_deltas = self.boxes(features, rois, training)
        if self.mask_head is None:
            return class_logits, box_deltas, None
        mask_logits = self.masks(features, rois[:, :num_masks], classes[:, :num_masks], training)
        return class_logits, box_deltas, mask_logits
