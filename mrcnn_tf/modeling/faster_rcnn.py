"""Faster R-CNN: features -> proposals -> RoIs -> box branch. Mask R-CNN without its third output.

Used exactly as `mask_rcnn.MaskRCNN`, which adds the mask branch to it.

Shape letters: `B` images, `H W` canvas, `P` proposals, `G` padded objects, `R` sampled RoIs, `D`
detections, `N` classes with background. Boxes are yxyx in network-input pixels.
"""

import dataclasses
from typing import Any

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import detections as detections_lib
from mrcnn_tf.modeling import first_stage as first_stage_lib
from mrcnn_tf.modeling import losses
from mrcnn_tf.modeling import rpn as rpn_lib
from mrcnn_tf.modeling import targets as targets_lib
from mrcnn_tf.modeling.outputs import DetectorOutputs
from mrcnn_tf.ops import sampling


@dataclasses.dataclass(frozen=True)
class BoxSettings:
    """The numbers of the second stage that are not in its layers; named as in `configs.py`.

    Attributes:
      ignore_crowds: RoIs on crowd regions are no negatives.
      compiled: XLA traces this model: operations without an XLA kernel are avoided.
    """

    rois_per_image: int
    positive_fraction: float
    positive_iou: float
    regression_weights: tuple[float, ...]
    smooth_l1_beta: float
    score_threshold: float
    nms_iou: float
    min_box_size: float
    soft_nms_sigma: float
    max_instances: int
    ignore_crowds: bool
    compiled: bool

    @property
    def max_positives(self) -> int:
        """How many of an image's sampled RoIs may be positive; they come first."""
        return int(self.rois_per_image * self.positive_fraction)


class FasterRCNN(tf_keras.Model):
    """The network and its two uses."""

    def __init__(
        self,
        backbone: tf_keras.layers.Layer,
        pyramid: tf_keras.layers.Layer,
        rpn: first_stage_lib.RPN | first_stage_lib.GivenProposals,
        roi_heads: tf_keras.layers.Layer,
        settings: BoxSettings,
        name: str = "faster_rcnn",
    ):
        """Put the parts together.

        Args:
          backbone: images [B, H, W, 3] -> {level: [B, Hl, Wl, C]}.
          pyramid: backbone features -> {level: [B, Hl, Wl, C]} for the RPN and the heads.
          rpn: the first stage.
          roi_heads: `boxes(features, rois, training)`, see `roi_heads.py` and `c4.py`.
          settings: everything else.
          name: model name.
        """
        super().__init__(name=name)
        self.backbone = backbone
        self.pyramid = pyramid
        self.rpn: Any = rpn
        self.roi_heads = roi_heads
        self.settings = settings

    def features(self, images: tf.Tensor, training: bool) -> dict[int, tf.Tensor]:
        """Backbone and pyramid: [B, H, W, 3] -> {level: [B, Hl, Wl, C]}."""
        return self.pyramid(self.backbone(images, training=training), training=training)

    def call(
        self,
        images: tf.Tensor,
        image_size_hw: tf.Tensor,
        proposals: rpn_lib.Proposals | None = None,
        training: bool = False,
    ) -> detections_lib.Detections:
        """Find objects.

        Args:
          images: float [B, H, W, 3], normalised, zero-padded at the bottom and right to multiples
            of 32.
          image_size_hw: float32 [B, (height, width)], the image inside the canvas.
          proposals: for a network without an RPN.
          training: whether norms use batch statistics.

        Returns:
          Detections, masks None.
        """
        features = self.features(images, training)
        proposals = self.rpn(features, image_size_hw, proposals)
        return self.find_boxes(features, proposals, image_size_hw, training)

    def infer(self, batch: dict[str, tf.Tensor]) -> detections_lib.Detections:
        """Find objects in a batch as in `data/schema.py`, on its proposals if it has some."""
        given = first_stage_lib.given_proposals(batch)
        return self(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW], given)

    def train_forward(
        self, batch: dict[str, tf.Tensor], seed: int, step: tf.Tensor, training: bool = True
    ) -> DetectorOutputs:
        """Run the network on sampled anchors and RoIs.

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
        class_logits, box_deltas = self.roi_heads.boxes(features, rois.rois, training)
        return DetectorOutputs(rpn_outputs, class_logits, box_deltas, rois)

    def losses_of(self, outputs: DetectorOutputs) -> dict[str, losses.LossSum]:
        """The RPN's terms, `class_loss` and `box_loss`, not yet divided; see `losses.py`."""
        rois = outputs.roi_targets
        return self.rpn.losses_of(outputs.rpn) | {
            "class_loss": losses.class_loss(outputs.class_logits, rois.classes, rois.valid),
            "box_loss": losses.box_loss(
                outputs.box_deltas,
                rois.deltas,
                rois.classes,
                rois.is_positive,
                rois.valid,
                self.settings.smooth_l1_beta,
            ),
        }

    def find_boxes(
        self,
        features: dict[int, tf.Tensor],
        proposals: rpn_lib.Proposals,
        image_size_hw: tf.Tensor,
        training: bool = False,
    ) -> detections_lib.Detections:
        """Box branch on all proposals, then NMS; see `detections.select_detections`."""
        class_logits, box_deltas = self.roi_heads.boxes(features, proposals.boxes, training)
        s = self.settings
        return detections_lib.select_detections(
            class_logits,
            box_deltas,
            proposals.boxes,
            proposals.valid,
            image_size_hw,
            regression_weights=s.regression_weights,
            score_threshold=s.score_threshold,
            nms_iou=s.nms_iou,
            min_box_size=s.min_box_size,
            soft_nms_sigma=s.soft_nms_sigma,
            max_detections=s.max_instances,
            compiled=s.compiled,
        )

    def sample_rois(
        self,
        proposals: rpn_lib.Proposals,
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
    ) -> targets_lib.RoITargets:
        """Sample N RoIs per image, positives:negatives at most 1:3; see `targets.roi_targets`."""
        s = self.settings
        return targets_lib.roi_targets(
            proposals.boxes,
            proposals.valid,
            batch[schema.GT_BOXES],
            batch[schema.GT_CLASSES],
            batch[schema.GT_VALID],
            batch[schema.GT_IS_CROWD],
            sampling.image_seeds(seed, step, batch[schema.IMAGE_KEY], stream=1),
            positive_iou=s.positive_iou,
            num_samples=s.rois_per_image,
            positive_fraction=s.positive_fraction,
            regression_weights=s.regression_weights,
            ignore_crowds=s.ignore_crowds,
        )
