"""The keypoint branch: a head beside the others, and the networks that have it (section 5).

Masks of one hot pixel: of K maps over a RoI, each is a softmax over its places, since one place at
most is the keypoint. As Detectron has it, and after it Detectron2 and torchvision.

The network is one with boxes, and masks or not, and one branch more: on the positive RoIs in
training, on the boxes found at inference.

Shape letters: `B` images, `R` RoIs, `C` channels, `K` keypoints, `S` side of a map.
"""

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.experiment.fields import KeypointHead as Defaults
from mrcnn_tf.modeling import losses
from mrcnn_tf.modeling.conv import MSRA, ConvNormReLU
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.modeling.outputs import DetectorOutputs, KeypointOutputs
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.modeling.roi_heads import BoxHead, FPNRoIHeads
from mrcnn_tf.modeling.roi_pooling import RoIPool
from mrcnn_tf.ops import heatmaps, leading


class KeypointHead(tf_keras.layers.Layer):
    """3x3 convolutions, a 4x4 deconvolution to K maps, bilinear upsampling.

    The numbers are described in `fields.KeypointHead`, whose names they have.

    Args:
      num_keypoints: K.
      pool_size: side of the RoI features; S is four times as long.
      name: layer name.
    """

    def __init__(
        self,
        num_keypoints: int = Defaults.num_keypoints,
        pool_size: int = Defaults.pool_size,
        conv_layers: int = Defaults.conv_layers,
        conv_channels: int = Defaults.conv_channels,
        name: str = "keypoint_head",
    ):
        super().__init__(name=name)
        self.num_keypoints = num_keypoints
        self.pool_size = pool_size
        self.convs = [
            ConvNormReLU(conv_channels, None, MSRA, name=f"conv{i + 1}") for i in range(conv_layers)
        ]
        self.deconv = tf_keras.layers.Conv2DTranspose(
            num_keypoints,
            4,
            strides=2,
            padding="same",  # a pixel on each side, as in PyTorch
            # A copy of its own: an unseeded Keras initializer that is called twice warns.
            kernel_initializer=tf_keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
            name="deconv",
        )

    @property
    def map_size(self) -> int:
        """S."""
        return 4 * self.pool_size

    def call(self, roi_features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Say where each keypoint may be.

        Args:
          roi_features: [B, R, side, side, C].
          training: whether norms use batch statistics; there are none.

        Returns:
          Logits, float32 [B, R, K, S, S].
        """
        batch, rois = tf.shape(roi_features)[0], tf.shape(roi_features)[1]
        side, channels = roi_features.shape[2], roi_features.shape[-1]
        hidden = tf.reshape(roi_features, [batch * rois, side, side, channels])
        for layer in self.convs:
            hidden = layer(hidden, training=training)
        maps = self.deconv(hidden)  # [B*R, S/2, S/2, K]
        maps = heatmaps.upsample_twice(tf.cast(maps, tf.float32))
        maps = tf.transpose(maps, [0, 3, 1, 2])  # [B*R, S, S, K] -> [B*R, K, S, S]
        size = self.map_size
        return tf.reshape(maps, [batch, rois, self.num_keypoints, size, size])


class KeypointRoIHeads(FPNRoIHeads):
    """The FPN heads and a keypoint head; other arguments as there."""

    def __init__(
        self,
        box_head: BoxHead,
        mask_head: tf_keras.layers.Layer | None,
        keypoint_head: KeypointHead,
        roi_align: RoIPool,
        name: str = "roi_heads",
    ):
        super().__init__(box_head, mask_head, roi_align, name)
        self.keypoint_head = keypoint_head

    def keypoints(
        self, features: dict[int, tf.Tensor], rois: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Keypoint logits [B, R, K, S, S] of `rois`; see `KeypointHead.call`."""
        pooled = self.pool(features, rois, self.keypoint_head.pool_size)
        return self.keypoint_head(pooled, training=training)


class KeypointRCNN(MaskRCNN):
    """A `MaskRCNN`, or Faster R-CNN, with a keypoint branch; arguments as there."""

    roi_heads: KeypointRoIHeads

    def detect(
        self,
        features: dict[int, tf.Tensor],
        image_size_hw: tf.Tensor,
        proposals: Proposals | None = None,
        training: bool = False,
    ) -> Detections:
        """Find objects, then their keypoints; see `MaskRCNN.detect`."""
        detections = super().detect(features, image_size_hw, proposals, training)

        def keypoints(boxes: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
            logits = self.roi_heads.keypoints(features, boxes, training)
            return heatmaps.decode(logits, boxes, valid)

        rows = leading.num_rows(detections.valid)
        found = leading.only(rows, keypoints, detections.boxes, detections.valid)
        return detections._replace(keypoints=found)

    def with_later_parts(
        self,
        outputs: DetectorOutputs,
        features: dict[int, tf.Tensor],
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
        training: bool,
    ) -> DetectorOutputs:
        """The outputs, then those of the keypoint branch on their positive RoIs; see `MaskRCNN`.

        The batch has keypoints.
        """
        del seed, step
        rois = outputs.roi_targets
        count = leading.num_rows(rois.is_positive[:, : self.roi_heads.box_head.max_positives])
        logits = self.roi_heads.keypoints(features, rois.rois[:, :count], training)
        gt_index = rois.gt_index[:, :count]
        valid = tf.gather(batch[schema.GT_KEYPOINTS_VALID], gt_index, batch_dims=1)
        cells, valid = heatmaps.cells(
            tf.gather(batch[schema.GT_KEYPOINTS], gt_index, batch_dims=1),
            valid & rois.is_positive[:, :count, tf.newaxis],
            rois.rois[:, :count],
            self.roi_heads.keypoint_head.map_size,
        )
        return outputs._replace(keypoints=KeypointOutputs(logits, cells, valid))

    def losses_of(self, outputs: DetectorOutputs) -> dict[str, losses.LossSum]:
        """Those of `MaskRCNN`, then `keypoint_loss`."""
        sums = super().losses_of(outputs)
        keypoints = outputs.keypoints
        assert keypoints is not None
        sums["keypoint_loss"] = losses.keypoint_loss(
            keypoints.logits, keypoints.cells, keypoints.valid
        )
        return sums
