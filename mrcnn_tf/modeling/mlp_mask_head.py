"""A mask branch of fully connected layers, which the paper compares its FCN with (table 2e).

Shape letters: `B` images, `R` RoIs, `F = B * R`, `S` side of the RoI features, `C` channels, `N`
classes with background, `M` mask side, `K` maps, one per class but background by default.
"""

import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment.fields import MaskHead as Defaults
from mrcnn_tf.modeling import mask_classes


class MLPMaskHead(tf_keras.layers.Layer):
    """Hidden layers over the flattened RoI, then all pixels of all maps: 1024 -> 1024 -> K * M * M.

    The paper says what the layers are, not what the first one sees: here it is what the FCN sees.
    As `roi_heads.MaskHead`, whose place it takes; the numbers are described in `fields.MaskHead`.

    Args:
      num_classes: N, with background.
      mask_size: M, side of what comes out.
      fc_layers: hidden ones, two or three in the paper.
      fc_channels: of each.
      classes: one of `mask_classes.KINDS`.
      target: how the network makes the targets that it learns from.
      target_sampling_ratio: likewise.
      name: layer name.
    """

    def __init__(
        self,
        num_classes: int,
        mask_size: int = Defaults.mask_size,
        fc_layers: int = Defaults.fc_layers,
        fc_channels: int = Defaults.fc_channels,
        classes: str = Defaults.classes,
        target: str = Defaults.target,
        target_sampling_ratio: int = Defaults.target_sampling_ratio,
        name: str = "mask_head",
    ):
        super().__init__(name=name)
        self.num_classes = num_classes
        self.mask_size = mask_size
        self.kind = mask_classes.KINDS[classes]()
        self.target = target
        self.target_sampling_ratio = target_sampling_ratio
        self.hidden = [
            tf_keras.layers.Dense(
                fc_channels,
                activation="relu",
                # As the box head's.
                kernel_initializer=tf_keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
                name=f"fc{i + 1}",
            )
            for i in range(fc_layers)
        ]

    @property
    def per_class(self) -> tuple[int, bool] | None:
        """Of the predictor's last axis, see `mask_classes.Independent.per_class`."""
        return self.kind.per_class(self.mask_size**2)

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create the predictor's weights: M * M columns per map, map after map."""
        *_, side, channels = input_shape
        inputs = self.hidden[-1].units if self.hidden else side * side * channels
        outputs = self.kind.num_maps(self.num_classes) * self.mask_size**2
        self.predictor_kernel = self.add_weight(
            name="predictor_kernel",
            shape=[inputs, outputs],
            initializer=tf_keras.initializers.RandomNormal(stddev=0.001),  # as the FCN's
        )
        self.predictor_bias = self.add_weight(
            name="predictor_bias", shape=[outputs], initializer="zeros"
        )
        super().build(input_shape)

    def call(
        self, roi_features: tf.Tensor, classes: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Predict the mask of one class per RoI.

        Args:
          roi_features: [B, R, S, S, C].
          classes: int32 [B, R], 1..N-1; what stands where there is no RoI does not matter.
          training: unused; there is no norm.

        Returns:
          Mask logits, float32 [B, R, M, M], or [B, R, M, M, 2] of `mask_classes.Softmax`.
        """
        batch, rois = tf.shape(roi_features)[0], tf.shape(roi_features)[1]
        side, channels = roi_features.shape[2], roi_features.shape[-1]
        hidden = tf.reshape(roi_features, [batch * rois, side * side * channels])
        for layer in self.hidden:
            hidden = layer(hidden)
        values = tf.matmul(hidden, tf.cast(self.predictor_kernel, hidden.dtype))
        values = tf.cast(values, tf.float32) + tf.cast(self.predictor_bias, tf.float32)
        # [F, K * M * M] -> [F, K, M, M]
        maps = _Maps(tf.reshape(values, [batch * rois, -1, self.mask_size, self.mask_size]))
        logits = self.kind.logits(maps, tf.reshape(classes, [-1]), self.num_classes)
        return tf.reshape(logits, [batch, rois, *logits.shape[1:]])


class _Maps:
    """Of [F, K, M, M]; the layer computes all of them at once."""

    def __init__(self, values: tf.Tensor):
        self._values = values

    def one(self, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._values, index, batch_dims=1)

    def every(self) -> tf.Tensor:
        return tf.transpose(self._values, [0, 2, 3, 1])
