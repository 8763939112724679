"""Mask R-CNN: features -> proposals -> RoIs -> heads. The paper's figure 1 as code.

The same object trains and infers:

    detections = model(images, image_size_hw)              # inference: Detections
    outputs = model.train_forward(batch, seed, step)       # training: TrainOutputs
    sums = model.losses_of(outputs)                        # {name: LossSum}

Shape letters: `B` images, `H W` canvas, `A` anchors, `P` proposals, `G` padded objects, `S` sampled
anchors, `R` sampled RoIs, `F` of them possibly positive, `D` detections, `N` classes with
background, `M` mask side. Boxes are yxyx in network-input pixels.
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from mrcnn_tf import losses
from mrcnn_tf.data import schema
from mrcnn_tf.modeling import detections as detections_lib
from mrcnn_tf.modeling import rpn as rpn_lib
from mrcnn_tf.modeling import targets as targets_lib
from mrcnn_tf.ops import anchors as anchor_ops
from mrcnn_tf.ops import masks as mask_ops
from mrcnn_tf.ops import sampling


@dataclasses.dataclass(frozen=True)
class Settings:
    """The numbers of training and inference that are not in a layer; named as in `configs.py`.

    Attributes:
      anchor_sizes: {level: sides of its square anchors}, network-input pixels.
      mask_target: "detectron2" or "torchvision", see `masks.mask_targets`.
      ignore_crowds: anchors and RoIs on crowd regions are no negatives.
      compiled: XLA traces this model: operations without an XLA kernel are avoided.
    """

    anchor_sizes: dict[int, tuple[float, ...]]
    anchor_ratios: tuple[float, ...]
    anchors_rounded: bool
    anchor_offset: float
    anchor_strides: str
    rpn_positive_iou: float
    rpn_negative_iou: float
    anchors_per_image: int
    rpn_positive_fraction: float
    pre_nms_top_k_train: int
    pre_nms_top_k_test: int
    post_nms_top_k_train: int
    post_nms_top_k_test: int
    rpn_nms_iou: float
    min_box_size: float
    rpn_smooth_l1_beta: float
    rpn_loss_normalizer: str
    rois_per_image: int
    roi_positive_fraction: float
    roi_positive_iou: float
    regression_weights: tuple[float, ...]
    box_smooth_l1_beta: float
    mask_target: str
    mask_target_sampling_ratio: int
    score_threshold: float
    detection_nms_iou: float
    max_instances: int
    ignore_crowds: bool
    compiled: bool


class TrainOutputs(NamedTuple):
    """What the losses compare.

    Attributes:
      rpn_logits: float32 [B, S], of the sampled anchors.
      rpn_deltas: float32 [B, S, 4].
      anchor_targets: AnchorTargets.
      class_logits: float32 [B, R, N].
      box_deltas: float32 [B, R, N-1, 4].
      roi_targets: RoITargets.
      mask_logits: float32 [B, F, M, M], of the true class of the first F sampled RoIs (positives
        come first and are never more).
      target_masks: float32 [B, F, M, M].
      mask_valid: bool [B, F].
    """

    rpn_logits: tf.Tensor
    rpn_deltas: tf.Tensor
    anchor_targets: targets_lib.AnchorTargets
    class_logits: tf.Tensor
    box_deltas: tf.Tensor
    roi_targets: targets_lib.RoITargets
    mask_logits: tf.Tensor
    target_masks: tf.Tensor
    mask_valid: tf.Tensor


class MaskRCNN(tf_keras.Model):
    """The network and its two uses."""

    def __init__(
        self,
        backbone: tf_keras.layers.Layer,
        pyramid: tf_keras.layers.Layer,
        rpn_head: rpn_lib.RPNHead,
        roi_heads: tf_keras.layers.Layer,
        settings: Settings,
        name: str = "mask_rcnn",
    ):
        """Put the parts together.

        Args:
          backbone: images [B, H, W, 3] -> {level: [B, Hl, Wl, C]}.
          pyramid: backbone features -> {level: [B, Hl, Wl, C]} for the RPN and the heads.
          rpn_head: pyramid features -> objectness and deltas per level.
          roi_heads: `boxes(features, rois)`, `masks(features, rois, classes)`, `mask_size`.
          settings: everything else.
          name: model name.
        """
        super().__init__(name=name)
        self.backbone = backbone
        self.pyramid = pyramid
        self.rpn_head = rpn_head
        self.roi_heads = roi_heads
        self.settings = settings
        s = settings
        self._cell_anchors = {
            level: anchor_ops.cell_anchors(sizes, s.anchor_ratios, s.anchors_rounded)
            for level, sizes in s.anchor_sizes.items()
        }

    def features(self, images: tf.Tensor, training: bool) -> dict[int, tf.Tensor]:
        """Backbone and pyramid: [B, H, W, 3] -> {level: [B, Hl, Wl, C]}."""
        return self.pyramid(self.backbone(images, training=training), training=training)

    def anchors(self, features: dict[int, tf.Tensor]) -> dict[int, tf.Tensor]:
        """Anchors of every level: {level: float32 [Hl*Wl*K, 4]}, network-input pixels."""
        finest = min(features)
        canvas_hw = tf.shape(features[finest])[1:3] * 2**finest
        anchors = {}
        for level, feature in features.items():
            feature_hw = tf.shape(feature)[1:3]
            from_grid = self.settings.anchor_strides == "grid"
            anchors[level] = anchor_ops.grid_anchors(
                feature_hw,
                canvas_hw // feature_hw if from_grid else 2**level,
                self._cell_anchors[level],
                self.settings.anchor_offset,
            )
        return anchors

    def call(
        self, images: tf.Tensor, image_size_hw: tf.Tensor, training: bool = False
    ) -> detections_lib.Detections:
        """Find objects (section 3.1, "Inference").

        The box branch runs on all proposals, the mask branch on the best boxes only.

        Args:
          images: float [B, H, W, 3], normalised, zero-padded at the bottom and right to multiples
            of 32.
          image_size_hw: float32 [B, (height, width)], the picture inside the canvas.
          training: whether norms use batch statistics.

        Returns:
          Detections.
        """
        features = self.features(images, training)
        proposals = self.propose(features, image_size_hw, training=False)
        class_logits, box_deltas = self.roi_heads.boxes(features, proposals.boxes)
        detections = self.select(class_logits, box_deltas, proposals, image_size_hw)
        mask_logits = self.roi_heads.masks(features, detections.boxes, detections.classes)
        masks = tf.where(
            detections.valid[..., tf.newaxis, tf.newaxis], tf.sigmoid(mask_logits), 0.0
        )
        return detections._replace(masks=masks)

    def propose(
        self, features: dict[int, tf.Tensor], image_size_hw: tf.Tensor, training: bool
    ) -> rpn_lib.Proposals:
        """Run the RPN; see `rpn.generate_proposals`."""
        logits, deltas = self.rpn_head(features)
        return self._proposals(logits, deltas, self.anchors(features), image_size_hw, training)

    def select(
        self,
        class_logits: tf.Tensor,
        box_deltas: tf.Tensor,
        proposals: rpn_lib.Proposals,
        image_size_hw: tf.Tensor,
    ) -> detections_lib.Detections:
        """Final boxes, without masks; see `detections.select_detections`."""
        s = self.settings
        return detections_lib.select_detections(
            class_logits,
            box_deltas,
            proposals.boxes,
            proposals.valid,
            image_size_hw,
            regression_weights=s.regression_weights,
            score_threshold=s.score_threshold,
            nms_iou=s.detection_nms_iou,
            max_detections=s.max_instances,
            compiled=s.compiled,
        )

    def train_forward(
        self, batch: dict[str, tf.Tensor], seed: int, step: tf.Tensor, training: bool = True
    ) -> TrainOutputs:
        """Run the network on sampled anchors and RoIs (section 3.1, "Training").

        Args:
          batch: as in `data/schema.py`.
          seed: of the sampling.
          step: int [], the training step; seed, step and image alone decide what is sampled.
          training: whether norms use batch statistics.

        Returns:
          TrainOutputs.
        """
        s = self.settings
        gt_boxes, gt_valid = batch[schema.GT_BOXES], batch[schema.GT_VALID]
        gt_is_crowd = batch[schema.GT_IS_CROWD]
        image_size_hw, image_key = batch[schema.IMAGE_SIZE_HW], batch[schema.IMAGE_KEY]
        features = self.features(batch[schema.IMAGE], training)

        logits, deltas = self.rpn_head(features)
        anchors = self.anchors(features)
        for_anchors = targets_lib.anchor_targets(
            _concat_levels(anchors, axis=0),
            gt_boxes,
            gt_valid,
            gt_is_crowd,
            sampling.image_seeds(seed, step, image_key, stream=0),
            positive_iou=s.rpn_positive_iou,
            negative_iou=s.rpn_negative_iou,
            num_samples=s.anchors_per_image,
            positive_fraction=s.rpn_positive_fraction,
            ignore_crowds=s.ignore_crowds,
        )
        proposals = self._proposals(logits, deltas, anchors, image_size_hw, training=True)
        for_rois = targets_lib.roi_targets(
            proposals.boxes,
            proposals.valid,
            gt_boxes,
            batch[schema.GT_CLASSES],
            gt_valid,
            gt_is_crowd,
            sampling.image_seeds(seed, step, image_key, stream=1),
            positive_iou=s.roi_positive_iou,
            num_samples=s.rois_per_image,
            positive_fraction=s.roi_positive_fraction,
            regression_weights=s.regression_weights,
            ignore_crowds=s.ignore_crowds,
        )
        class_logits, box_deltas = self.roi_heads.boxes(features, for_rois.rois)
        mask_logits, target_masks, mask_valid = self._masks_of_positives(features, for_rois, batch)
        return TrainOutputs(
            tf.gather(_concat_levels(logits, axis=1), for_anchors.index, batch_dims=1),
            tf.gather(_concat_levels(deltas, axis=1), for_anchors.index, batch_dims=1),
            for_anchors,
            class_logits,
            box_deltas,
            for_rois,
            mask_logits,
            target_masks,
            mask_valid,
        )

    def losses_of(self, outputs: TrainOutputs) -> dict[str, losses.LossSum]:
        """The five terms, not yet divided; see `losses.py`."""
        s, anchors, rois = self.settings, outputs.anchor_targets, outputs.roi_targets
        rpn_class = losses.rpn_class_loss(outputs.rpn_logits, anchors.is_positive, anchors.valid)
        rpn_box = losses.rpn_box_loss(
            outputs.rpn_deltas,
            anchors.deltas,
            anchors.is_positive,
            anchors.valid,
            s.rpn_smooth_l1_beta,
        )
        if s.rpn_loss_normalizer == "anchors_per_image":
            nominal = tf.cast(tf.shape(outputs.rpn_logits)[0] * s.anchors_per_image, tf.float32)
            rpn_class, rpn_box = (t._replace(count=nominal) for t in (rpn_class, rpn_box))
        return {
            "rpn_class_loss": rpn_class,
            "rpn_box_loss": rpn_box,
            "class_loss": losses.class_loss(outputs.class_logits, rois.classes, rois.valid),
            "box_loss": losses.box_loss(
                outputs.box_deltas,
                rois.deltas,
                rois.classes,
                rois.is_positive,
                rois.valid,
                s.box_smooth_l1_beta,
            ),
            "mask_loss": losses.mask_loss(
                outputs.mask_logits, outputs.target_masks, outputs.mask_valid
            ),
        }

    def _proposals(
        self,
        logits: dict[int, tf.Tensor],
        deltas: dict[int, tf.Tensor],
        anchors: dict[int, tf.Tensor],
        image_size_hw: tf.Tensor,
        training: bool,
    ) -> rpn_lib.Proposals:
        s = self.settings
        return rpn_lib.generate_proposals(
            logits,
            deltas,
            anchors,
            image_size_hw,
            pre_nms_top_k=s.pre_nms_top_k_train if training else s.pre_nms_top_k_test,
            post_nms_top_k=s.post_nms_top_k_train if training else s.post_nms_top_k_test,
            nms_iou=s.rpn_nms_iou,
            min_box_size=s.min_box_size,
            compiled=s.compiled,
        )

    def _masks_of_positives(
        self,
        features: dict[int, tf.Tensor],
        rois: targets_lib.RoITargets,
        batch: dict[str, tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mask logits and targets of the RoIs that may be positive: logits, targets, valid."""
        s = self.settings
        count = int(s.rois_per_image * s.roi_positive_fraction)  # F
        boxes, classes = rois.rois[:, :count], rois.classes[:, :count]
        gt_index = rois.gt_index[:, :count]
        logits = self.roi_heads.masks(features, boxes, classes)
        target_masks = mask_ops.mask_targets(
            batch[schema.GT_MASK_BITS],
            batch[schema.GT_MASK_OFFSETS],
            batch[schema.GT_MASK_SIZES],
            batch[schema.GT_MASK_FRAMES],
            batch[schema.IMAGE_SIZE_HW],
            boxes,
            gt_index,
            self.roi_heads.mask_size,
            convention=s.mask_target,
            sampling_ratio=s.mask_target_sampling_ratio,
        )
        has_mask = tf.gather(batch[schema.GT_MASKS_VALID], gt_index, batch_dims=1)
        return logits, target_masks, rois.is_positive[:, :count] & has_mask


def _concat_levels(per_level: dict[int, tf.Tensor], axis: int) -> tf.Tensor:
    return tf.concat([per_level[level] for level in sorted(per_level)], axis=axis)
