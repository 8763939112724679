"""Mask Scoring R-CNN: a head says how good each mask is.

A detection's score says how sure its class is, which tells little of its mask. So another head
looks at the RoI's features and the mask that was made of them, and learns the IoU of that mask with
its object (arXiv 1903.00241). At inference the class score times that IoU ranks masks; boxes keep
the class score.

Shape letters: `B` images, `G` padded ground-truth objects, `R` RoIs, `F` RoIs with a mask, `D`
detections, `C` channels, `N` classes with background, `M` mask side.
"""

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.experiment.fields import MaskScoring as Defaults
from mrcnn_tf.modeling import losses
from mrcnn_tf.modeling.conv import MSRA, Conv2D
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.modeling.outputs import DetectorOutputs, MaskIoUOutputs
from mrcnn_tf.modeling.roi_heads import BoxHead, FPNRoIHeads
from mrcnn_tf.modeling.roi_pooling import RoIPool
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import leading
from mrcnn_tf.ops import masks as mask_ops

# Samples per cell of a mask and axis, when areas are measured; odd as for the targets.
_AREA_SAMPLES = 3


class MaskIoUHead(tf_keras.layers.Layer):
    """3x3 convolutions over features and mask, hidden layers, one IoU per class.

    The numbers are described in `fields.MaskScoring`, whose names they have.

    Args:
      num_classes: N, with background.
      name: layer name.
    """

    def __init__(
        self,
        num_classes: int,
        conv_layers: int = Defaults.conv_layers,
        conv_channels: int = Defaults.conv_channels,
        fc_layers: int = Defaults.fc_layers,
        fc_channels: int = Defaults.fc_channels,
        name: str = "mask_iou_head",
    ):
        super().__init__(name=name)
        self.num_classes = num_classes
        self.convs = [
            Conv2D(
                conv_channels,
                3,
                stride=2 if i == conv_layers - 1 else 1,
                use_bias=True,
                kernel_initializer=MSRA,
                name=f"conv{i + 1}",
            )
            for i in range(conv_layers)
        ]
        self.hidden = [
            tf_keras.layers.Dense(
                fc_channels,
                activation="relu",
                kernel_initializer=tf_keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
                name=f"fc{i + 1}",
            )
            for i in range(fc_layers)
        ]
        self.mask_ious = tf_keras.layers.Dense(
            num_classes - 1,
            kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.01),
            name="mask_ious",
        )

    def call(self, roi_features: tf.Tensor, masks: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Say how good masks are.

        Args:
          roi_features: [B, R, M/2, M/2, C], what the mask head looked at.
          masks: float32 [B, R, M, M], probabilities.
          classes: int32 [B, R], 1..N-1; what stands where there is no RoI does not matter.

        Returns:
          float32 [B, R], the IoU expected of the mask with its object; not bounded.
        """
        batch, rois = tf.shape(masks)[0], tf.shape(masks)[1]
        side, channels = roi_features.shape[2], roi_features.shape[-1]
        hidden = tf.reshape(roi_features, [batch * rois, side, side, channels])
        # The largest of each 2 x 2: [B, R, M, M] -> [B*R, M/2, M/2, 1]
        pooled = tf.reshape(masks, [batch * rois, side, 2, side, 2])
        pooled = tf.reduce_max(pooled, axis=[2, 4])[..., tf.newaxis]
        hidden = tf.concat([hidden, tf.cast(pooled, hidden.dtype)], axis=-1)
        for layer in self.convs:
            hidden = tf.nn.relu(layer(hidden))
        hidden = tf.reshape(hidden, [batch * rois, hidden.shape[1] ** 2 * hidden.shape[3]])
        for layer in self.hidden:
            hidden = layer(hidden)
        ious = tf.reshape(
            tf.cast(self.mask_ious(hidden), tf.float32), [batch, rois, self.num_classes - 1]
        )
        column = tf.clip_by_value(classes - 1, 0, self.num_classes - 2)
        return tf.gather(ious, column, batch_dims=2)


class MaskScoringRoIHeads(FPNRoIHeads):
    """The FPN heads and one more, which looks at masks.

    Args:
      box_head: see `FPNRoIHeads`.
      mask_head: likewise; M is a multiple of 4.
      mask_iou_head: takes [B, R, M/2, M/2, C] and masks.
      roi_align: pools.
      name: layer name.
    """

    mask_head: tf_keras.layers.Layer

    def __init__(
        self,
        box_head: BoxHead,
        mask_head: tf_keras.layers.Layer,
        mask_iou_head: MaskIoUHead,
        roi_align: RoIPool,
        name: str = "roi_heads",
    ):
        super().__init__(box_head, mask_head, roi_align, name)
        self.mask_iou_head = mask_iou_head

    def mask_ious(
        self,
        features: dict[int, tf.Tensor],
        rois: tf.Tensor,
        masks: tf.Tensor,
        classes: tf.Tensor,
    ) -> tf.Tensor:
        """IoUs [B, R] expected of `masks` [B, R, M, M]; see `MaskIoUHead.call`."""
        pooled = self.pool(features, rois, self.mask_head.mask_size // 2)
        return self.mask_iou_head(pooled, masks, classes)


class MaskScoringRCNN(MaskRCNN):
    """A `MaskRCNN` that says how good its masks are; arguments as there."""

    roi_heads: MaskScoringRoIHeads

    def add_masks(
        self, features: dict[int, tf.Tensor], detections: Detections, training: bool = False
    ) -> Detections:
        """Masks and `mask_scores`: the class score times the IoU, taken as 0..1."""
        detections = super().add_masks(features, detections, training)
        ious = leading.only(
            leading.num_rows(detections.valid),
            lambda boxes, masks, classes: self.roi_heads.mask_ious(features, boxes, masks, classes),
            detections.boxes,
            detections.masks,
            detections.classes,
        )
        mask_scores = detections.scores * tf.clip_by_value(ious, 0.0, 1.0)
        return detections._replace(mask_scores=mask_scores)

    def with_later_parts(
        self,
        outputs: DetectorOutputs,
        features: dict[int, tf.Tensor],
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
        training: bool,
    ) -> DetectorOutputs:
        """The outputs, then the IoUs of their masks; see `MaskRCNN`."""
        del seed, step, training
        rois, masks = outputs.roi_targets, outputs.masks
        assert masks is not None
        count = tf.shape(masks.valid)[1]
        boxes, classes = rois.rois[:, :count], rois.classes[:, :count]
        probabilities = self.roi_heads.mask_head.kind.probabilities(masks.logits)
        ious = self.roi_heads.mask_ious(features, boxes, probabilities, classes)
        targets = mask_ious(
            probabilities, masks.targets, visible_part(batch, boxes, rois.gt_index[:, :count])
        )
        return outputs._replace(mask_ious=MaskIoUOutputs(ious, targets, masks.valid))

    def losses_of(self, outputs: DetectorOutputs) -> dict[str, losses.LossSum]:
        """Those of `MaskRCNN`, and `mask_iou_loss`."""
        found = outputs.mask_ious
        assert found is not None
        of_ious = losses.mask_iou_loss(found.ious, found.targets, found.valid)
        return super().losses_of(outputs) | {"mask_iou_loss": of_ious}


def mask_ious(masks: tf.Tensor, targets: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Return the IoU of masks with their whole objects, which may reach out of the RoIs.

    Args:
      masks: float32 [B, F, M, M], probabilities; a cell belongs to the mask from 0.5 on.
      targets: float32 [B, F, M, M], in 0..1; a cell belongs to the object from 0.5 on.
      part: float32 [B, F], which part of each object lies inside its RoI.

    Returns:
      float32 [B, F], in 0..1. No gradient.

    Source: Mask Scoring R-CNN section 3.3; areas outside the RoI as its code counts them.
    """
    mask = tf.cast(masks >= 0.5, tf.float32)
    inside = tf.cast(targets >= 0.5, tf.float32)
    shared, of_mask, of_object = (
        tf.reduce_sum(x, axis=[2, 3]) for x in (mask * inside, mask, inside)
    )
    union = of_mask + of_object / tf.clip_by_value(part, 1e-3, 1.0) - shared
    return tf.stop_gradient(shared / tf.maximum(union, 1.0))


def visible_part(batch: dict[str, tf.Tensor], rois: tf.Tensor, gt_index: tf.Tensor) -> tf.Tensor:
    """Return which part of its object lies inside each RoI, by area.

    Both areas are measured on 28 x 28 cells, of the RoI and of the object's frame, as far as it
    lies in the image.

    Args:
      batch: as in `data/schema.py`.
      rois: float32 [B, F, 4], network-input pixels.
      gt_index: int32 [B, F], the matched object.

    Returns:
      float32 [B, F], in 0..1; 0 for an object without a mask.
    """

    def area(boxes: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        covered = mask_ops.coverage(
            batch[schema.GT_MASK_BITS],
            batch[schema.GT_MASK_OFFSETS],
            batch[schema.GT_MASK_SIZES],
            batch[schema.GT_MASK_FRAMES],
            batch[schema.IMAGE_SIZE_HW],
            boxes,
            index,
            28,
            _AREA_SAMPLES,
        )
        return tf.reduce_mean(covered, axis=[2, 3]) * box_ops.area(boxes)

    y1, x1, y2, x2 = tf.unstack(batch[schema.GT_MASK_FRAMES], axis=-1)
    frames = tf.stack([y1, tf.minimum(x1, x2), y2, tf.maximum(x1, x2)], axis=-1)
    frames = box_ops.clip(frames, batch[schema.IMAGE_SIZE_HW])
    every = tf.broadcast_to(tf.range(tf.shape(frames)[1]), tf.shape(frames)[:2])
    whole = tf.gather(area(frames, every), gt_index, batch_dims=1)  # [B, F]
    return tf.clip_by_value(tf.math.divide_no_nan(area(rois, gt_index), whole), 0.0, 1.0)
