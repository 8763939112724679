"""Mask R-CNN: features -> proposals -> RoIs -> box branch -> mask branch. Figure 1 as code.

The same object trains and infers:

    detections = model(images, image_size_hw)              # inference: Detections
    outputs = model.train_forward(batch, seed, step)       # training: DetectorOutputs
    sums = model.losses_of(outputs)                        # {name: LossSum}

Without a mask head it is Faster R-CNN; without an RPN its proposals are given (section 3.1: "RPN is
trained separately and does not share features with Mask R-CNN, unless specified"). The parts are
interchangeable: `fpn.py` with `FPNRoIHeads`, or no pyramid with `C4RoIHeads`, or with the former.

Shape letters: `B` images, `H W` canvas, `P` proposals, `G` padded objects, `R` sampled RoIs, the
first `F` of them with a mask, `D` detections, `N` classes with background, `M` mask side. Boxes are
yxyx in network-input pixels.
"""

import functools
from typing import Any

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import losses
from mrcnn_tf.modeling import targets as targets_lib
from mrcnn_tf.modeling.c4 import C4RoIHeads
from mrcnn_tf.modeling.detections import Detections, select_detections
from mrcnn_tf.modeling.outputs import DetectorOutputs, MaskOutputs
from mrcnn_tf.modeling.proposals import Proposals, given_proposals
from mrcnn_tf.modeling.roi_heads import FPNRoIHeads
from mrcnn_tf.modeling.rpn import RPN
from mrcnn_tf.ops import leading, padding, sampling
from mrcnn_tf.ops import masks as mask_ops

Defaults = fields.Detection


class MaskRCNN(tf_keras.Model):
    """The network and its two uses.

    Args:
      backbone: images [B, H, W, 3] -> {level: [B, Hl, Wl, C]}.
      pyramid: backbone features -> {level: [B, Hl, Wl, C]} for the RPN and the heads; None: they
        look at the backbone's last level.
      rpn: proposes; None where proposals are given.
      roi_heads: box head and, unless this is Faster R-CNN, mask head.
      max_instances: D.
      ignore_crowds: RoIs on crowd regions are no negatives.
      score_threshold: see `fields.Detection`, here and below.
      name: model name.
    """

    def __init__(
        self,
        backbone: tf_keras.layers.Layer,
        pyramid: tf_keras.layers.Layer | None,
        rpn: RPN | None,
        roi_heads: FPNRoIHeads | C4RoIHeads,
        *,
        max_instances: int = fields.Model.max_instances,
        ignore_crowds: bool = fields.Model.ignore_crowds,
        score_threshold: float = Defaults.score_threshold,
        nms_iou: float = Defaults.nms_iou,
        min_box_size: float = Defaults.min_box_size,
        soft_nms_sigma: float = Defaults.soft_nms_sigma,
        name: str = "mask_rcnn",
    ):
        super().__init__(name=name)
        self.backbone = backbone
        self.pyramid = pyramid
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.ignore_crowds = ignore_crowds
        self._select_detections = functools.partial(
            select_detections,
            regression_weights=roi_heads.box_head.regression_weights,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            min_box_size=min_box_size,
            soft_nms_sigma=soft_nms_sigma,
            max_detections=max_instances,
        )

    def features(self, images: tf.Tensor, training: bool) -> dict[int, tf.Tensor]:
        """What RPN and heads look at: [B, H, W, 3] -> {level: [B, Hl, Wl, C]}."""
        return features_of(self.backbone, self.pyramid, images, training)

    def call(
        self,
        images: tf.Tensor,
        image_size_hw: tf.Tensor,
        proposals: Proposals | None = None,
        training: bool = False,
    ) -> Detections:
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
          Detections; masks None without a mask head.

        Raises:
          ValueError: the network has no RPN, and there are no proposals.
        """
        sent = images
        images, image_size_hw, proposals = with_an_image(images, image_size_hw, proposals)
        features = self.features(images, training)
        return of_images(sent, self.detect(features, image_size_hw, proposals, training))

    def detect(
        self,
        features: dict[int, tf.Tensor],
        image_size_hw: tf.Tensor,
        proposals: Proposals | None = None,
        training: bool = False,
    ) -> Detections:
        """Find objects in what `features` made of the images; see `call`."""
        if self.rpn is not None:
            proposals = self.rpn(features, image_size_hw)
        detections = self.find_boxes(features, _needed(proposals), image_size_hw, training)
        if self.roi_heads.mask_head is None:
            return detections
        return self.add_masks(features, detections, training)

    def add_masks(
        self, features: dict[int, tf.Tensor], detections: Detections, training: bool = False
    ) -> Detections:
        """Mask branch on the boxes that were found, each for its class."""
        head = self.roi_heads.mask_head
        assert head is not None
        mask_logits = leading.only(
            leading.num_rows(detections.valid),
            lambda boxes, classes: self.roi_heads.masks(features, boxes, classes, training),
            detections.boxes,
            detections.classes,
        )
        is_found = detections.valid[..., tf.newaxis, tf.newaxis]
        masks = tf.where(is_found, head.kind.probabilities(mask_logits), 0.0)
        return detections._replace(masks=masks)

    def find_boxes(
        self,
        features: dict[int, tf.Tensor],
        proposals: Proposals,
        image_size_hw: tf.Tensor,
        training: bool = False,
    ) -> Detections:
        """Box branch on all proposals, then NMS; see `detections.select_detections`."""
        class_logits, box_deltas = self.roi_heads.boxes(features, proposals.boxes, training)
        return self._select_detections(
            self.roi_heads.box_head.kind.probabilities(class_logits),
            box_deltas,
            proposals.boxes,
            proposals.valid,
            image_size_hw,
        )

    def infer(
        self, batch: dict[str, tf.Tensor], features: dict[int, tf.Tensor] | None = None
    ) -> Detections:
        """Find objects in a batch as in `data/schema.py`, on its proposals if it has some.

        Args:
          batch: the batch.
          features: of its images, if they have been computed.

        Returns:
          Detections.
        """
        if features is not None:
            return self.detect(features, batch[schema.IMAGE_SIZE_HW], given_proposals(batch))
        return self(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW], given_proposals(batch))

    def train_forward(
        self,
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
        training: bool = True,
        features: dict[int, tf.Tensor] | None = None,
    ) -> DetectorOutputs:
        """Run the network on sampled anchors and RoIs (section 3.1, "Training").

        Args:
          batch: as in `data/schema.py`.
          seed: of the sampling.
          step: int [], the training step; seed, step and image alone decide what is sampled.
          training: whether norms use batch statistics.
          features: of the batch's images, if they have been computed.

        Returns:
          DetectorOutputs.
        """
        if features is None:
            features = self.features(batch[schema.IMAGE], training)
        batch = targets_lib.without_padding(batch)
        rpn_outputs, proposals = None, given_proposals(batch)
        if self.rpn is not None:
            rpn_outputs, proposals = self.rpn.train_forward(features, batch, seed, step)
        rois = self.sample_rois(_needed(proposals), batch, seed, step)
        num_masks = leading.num_rows(rois.is_positive[:, : self.roi_heads.box_head.max_positives])
        class_logits, box_deltas, mask_logits = self.roi_heads.train(
            features, rois.rois, rois.classes, num_masks, training
        )
        masks = None
        if mask_logits is not None:
            masks = MaskOutputs(mask_logits, *self._mask_targets(rois, num_masks, batch))
        taught = self.roi_heads.box_head.kind.taught(rois.classes, rois.valid, batch, seed, step)
        outputs = DetectorOutputs(
            rpn_outputs, class_logits, box_deltas, rois, masks, taught_classes=taught
        )
        return self.with_later_parts(outputs, features, batch, seed, step, training)

    def with_later_parts(
        self,
        outputs: DetectorOutputs,
        features: dict[int, tf.Tensor],
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
        training: bool,
    ) -> DetectorOutputs:
        """What `train_forward` returns: here the paper's parts alone, in a subclass more.

        Args:
          outputs: of the paper's parts.
          features: of the batch's images.
          batch: of `train_forward`, its ground truth without padding.
          seed: as in `train_forward`.
          step: as in `train_forward`.
          training: as in `train_forward`.
        """
        del features, batch, seed, step, training
        return outputs

    def losses_of(self, outputs: DetectorOutputs) -> dict[str, losses.LossSum]:
        """The RPN's two terms, `class_loss`, `box_loss` and `mask_loss`, of the parts there are.

        Not yet divided; see `losses.py`.
        """
        rois, masks = outputs.roi_targets, outputs.masks
        sums = {}
        if self.rpn is not None and outputs.rpn is not None:
            sums = self.rpn.losses_of(outputs.rpn)
        sums["class_loss"] = self.roi_heads.box_head.kind.loss(
            outputs.class_logits, rois.classes, rois.valid, outputs.taught_classes
        )
        sums["box_loss"] = losses.box_loss(
            outputs.box_deltas,
            rois.deltas,
            rois.classes,
            rois.is_positive,
            rois.valid,
            self.roi_heads.box_head.smooth_l1_beta,
        )
        if masks is not None:
            assert self.roi_heads.mask_head is not None
            kind = self.roi_heads.mask_head.kind
            sums["mask_loss"] = kind.loss(masks.logits, masks.targets, masks.valid)
        return sums

    def sample_rois(
        self,
        proposals: Proposals,
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
    ) -> targets_lib.RoITargets:
        """Sample N RoIs per image, positives:negatives at most 1:3; see `targets.roi_targets`."""
        head = self.roi_heads.box_head
        return targets_lib.roi_targets(
            proposals.boxes,
            proposals.valid,
            batch[schema.GT_BOXES],
            batch[schema.GT_CLASSES],
            batch[schema.GT_VALID],
            batch[schema.GT_IS_CROWD],
            sampling.image_seeds(seed, step, batch[schema.IMAGE_KEY], stream=1),
            positive_iou=head.positive_iou,
            num_samples=head.rois_per_image,
            positive_fraction=head.positive_fraction,
            regression_weights=head.regression_weights,
            ignore_crowds=self.ignore_crowds,
        )

    def _mask_targets(
        self, rois: targets_lib.RoITargets, count: tf.Tensor, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The first F RoIs ∩ their masks: [B, F, M, M]; valid [B, F], True on positives only."""
        head = self.roi_heads.mask_head
        assert head is not None
        gt_index = rois.gt_index[:, :count]
        target_masks = mask_ops.mask_targets(
            batch[schema.GT_MASK_BITS],
            batch[schema.GT_MASK_OFFSETS],
            batch[schema.GT_MASK_SIZES],
            batch[schema.GT_MASK_FRAMES],
            batch[schema.IMAGE_SIZE_HW],
            rois.rois[:, :count],
            gt_index,
            head.mask_size,
            convention=head.target,
            sampling_ratio=head.target_sampling_ratio,
        )
        has_mask = tf.gather(batch[schema.GT_MASKS_VALID], gt_index, batch_dims=1)
        return target_masks, rois.is_positive[:, :count] & has_mask


def features_of(
    backbone: tf_keras.layers.Layer,
    pyramid: tf_keras.layers.Layer | None,
    images: tf.Tensor,
    training: bool,
) -> dict[int, tf.Tensor]:
    """Backbone and pyramid, or the backbone's last level: [B, H, W, 3] -> {level: [.., C]}."""
    features = backbone(images, training=training)
    if pyramid is not None:
        return pyramid(features, training=training)
    last = max(features)
    return {last: features[last]}


def with_an_image(*inputs: Any) -> Any:
    """Give a batch of no images a blank one; `of_images` takes its part out of the results.

    TensorFlow's convolutions on CPUs (2.20, oneDNN) give an empty batch the wrong shape.
    """
    return tf.nest.map_structure(
        lambda x: None if x is None else padding.at_least_one(x, axis=0), inputs
    )


def of_images(images: tf.Tensor, results: Any) -> Any:
    """Leave of results as many rows as there are images."""
    if images.shape[0]:
        return results
    count = tf.shape(images)[0]
    return tf.nest.map_structure(lambda x: None if x is None else x[:count], results)


def _needed(proposals: Proposals | None) -> Proposals:
    if proposals is None:
        raise ValueError(
            "this network has no RPN of its own (task.model.proposals: file): it needs proposals "
            "beside the images"
        )
    return proposals
