"""Mask R-CNN: features -> proposals -> RoIs -> box and mask branch. The paper's figure 1 as code.

The same object trains and infers:

    detections = model(images, image_size_hw)              # inference: Detections
    outputs = model.train_forward(batch, seed, step)       # training: DetectorOutputs
    sums = model.losses_of(outputs)                        # {name: LossSum}

What it has in common with Faster R-CNN (how RoIs are sampled, how boxes are found) is written
there: `faster_rcnn.py`. The parts are interchangeable: `fpn.py` with `roi_heads.py`, or `c4.py`.

Shape letters: `B` images, `H W` canvas, `P` proposals, `G` padded objects, `R` sampled RoIs, `F` of
them possibly positive, `D` detections, `N` classes with background, `M` mask side. Boxes are yxyx
in network-input pixels.
"""

import dataclasses

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import detections as detections_lib
from mrcnn_tf.modeling import faster_rcnn, losses
from mrcnn_tf.modeling import first_stage as first_stage_lib
from mrcnn_tf.modeling import rpn as rpn_lib
from mrcnn_tf.modeling import targets as targets_lib
from mrcnn_tf.modeling.outputs import DetectorOutputs, MaskOutputs
from mrcnn_tf.ops import masks as mask_ops


@dataclasses.dataclass(frozen=True)
class MaskSettings:
    """How mask targets are made; named as in `configs.MaskHead`.

    Attributes:
      target: "detectron2" or "torchvision", see `masks.mask_targets`.
      target_sampling_ratio: see there.
    """

    target: str
    target_sampling_ratio: int


class MaskRCNN(faster_rcnn.FasterRCNN):
    """The network and its two uses."""

    def __init__(
        self,
        backbone: tf_keras.layers.Layer,
        pyramid: tf_keras.layers.Layer,
        rpn: first_stage_lib.RPN | first_stage_lib.GivenProposals,
        roi_heads: tf_keras.layers.Layer,
        settings: faster_rcnn.BoxSettings,
        mask_settings: MaskSettings,
        name: str = "mask_rcnn",
    ):
        """Put the parts together.

        Args:
          backbone: as for `FasterRCNN`.
          pyramid: likewise.
          rpn: likewise.
          roi_heads: also `masks(features, rois, classes, training)`, `train(features, rois,
            classes, num_masks, training)` and `mask_size`, see `roi_heads.py` and `c4.py`.
          settings: as for `FasterRCNN`.
          mask_settings: of the mask targets.
          name: model name.
        """
        super().__init__(backbone, pyramid, rpn, roi_heads, settings, name)
        self.mask_settings = mask_settings

    def call(
        self,
        images: tf.Tensor,
        image_size_hw: tf.Tensor,
        proposals: rpn_lib.Proposals | None = None,
        training: bool = False,
    ) -> detections_lib.Detections:
        """Find objects (section 3.1, "Inference").

        The box branch runs on all proposals, the mask branch on the best boxes only; of the K
        masks of a box only that of its class is computed to the end.

        Args:
          images: float [B, H, W, 3], normalised, zero-padded at the bottom and right to multiples
            of 32.
          image_size_hw: float32 [B, (height, width)], the image inside the canvas.
          proposals: for a network without an RPN.
          training: whether norms use batch statistics.

        Returns:
          Detections.
        """
        features = self.features(images, training)
        proposals = self.rpn(features, image_size_hw, proposals)
        detections = self.find_boxes(features, proposals, image_size_hw, training)
        mask_logits = self.roi_heads.masks(features, detections.boxes, detections.classes, training)
        masks = tf.where(
            detections.valid[..., tf.newaxis, tf.newaxis], tf.sigmoid(mask_logits), 0.0
        )
        return detections._replace(masks=masks)

    def train_forward(
        self, batch: dict[str, tf.Tensor], seed: int, step: tf.Tensor, training: bool = True
    ) -> DetectorOutputs:
        """Run the network on sampled anchors and RoIs (section 3.1, "Training").

        Args:
          batch: as in `data/schema.py`.
          seed: of the sampling.
          step: int [], the training step; seed, step and image alone decide what is sampled.
          training: whether norms use batch statistics.

        Returns:
          DetectorOutputs.
        """
        features = self.features(batch[schema.IMAGE], training)
        rpn_outputs, proposals = self.rpn.train_forward(features, batch, seed, step)
        rois = self.sample_rois(proposals, batch, seed, step)
        class_logits, box_deltas, mask_logits = self.roi_heads.train(
            features, rois.rois, rois.classes, self.settings.max_positives, training
        )
        masks = MaskOutputs(mask_logits, *self._mask_targets(rois, batch))
        return DetectorOutputs(rpn_outputs, class_logits, box_deltas, rois, masks)

    def losses_of(self, outputs: DetectorOutputs) -> dict[str, losses.LossSum]:
        """The five terms, not yet divided; see `losses.py`."""
        masks = outputs.masks
        assert masks is not None
        mask_loss = losses.mask_loss(masks.logits, masks.targets, masks.valid)
        return super().losses_of(outputs) | {"mask_loss": mask_loss}

    def _mask_targets(
        self, rois: targets_lib.RoITargets, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The RoI ∩ its mask: targets [B, F, M, M] and valid [B, F], True on positives only."""
        count = self.settings.max_positives  # F
        gt_index = rois.gt_index[:, :count]
        target_masks = mask_ops.mask_targets(
            batch[schema.GT_MASK_BITS],
            batch[schema.GT_MASK_OFFSETS],
            batch[schema.GT_MASK_SIZES],
            batch[schema.GT_MASK_FRAMES],
            batch[schema.IMAGE_SIZE_HW],
            rois.rois[:, :count],
            gt_index,
            self.roi_heads.mask_size,
            convention=self.mask_settings.target,
            sampling_ratio=self.mask_settings.target_sampling_ratio,
        )
        has_mask = tf.gather(batch[schema.GT_MASKS_VALID], gt_index, batch_dims=1)
        return target_masks, rois.is_positive[:, :count] & has_mask
