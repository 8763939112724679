"""Cascade R-CNN: box heads one after the other, each on the boxes of the one before.

A box that overlaps its object by 0.5 is a good input and a bad answer. So the first head learns
from RoIs positive from IoU 0.5 on, and what it makes of them, better boxes, is what the second one
learns from, positive from 0.6 on, then the third from 0.7 (arXiv 1712.00726). As Detectron2 has it:
RoIs are sampled once, the later heads match all of them anew; one mask head, on the RoIs of the
first in training and on the boxes of the last at inference.

Shape letters: `B` images, `P` proposals, `R` sampled RoIs, `C` channels, `N` classes with
background, `S` side of the pooled RoI.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import losses
from mrcnn_tf.modeling import targets as targets_lib
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.modeling.outputs import BoxOutputs, DetectorOutputs
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.modeling.roi_heads import BoxHead, FPNRoIHeads
from mrcnn_tf.modeling.roi_pooling import RoIPool
from mrcnn_tf.ops import boxes as box_ops


class CascadeRoIHeads(FPNRoIHeads):
    """The FPN heads with several box heads; the first of them is `box_head`.

    Args:
      box_heads: in their order, class-agnostic, each with the IoU from which its boxes are positive
        and its regression weights.
      mask_head: None for Faster R-CNN.
      roi_align: pools.
      name: layer name.

    Raises:
      ValueError: a box head is not class-agnostic: which class's box would the next one look at?
    """

    def __init__(
        self,
        box_heads: Sequence[BoxHead],
        mask_head: tf_keras.layers.Layer | None,
        roi_align: RoIPool,
        name: str = "roi_heads",
    ):
        if not all(head.class_agnostic for head in box_heads):
            raise ValueError(
                "the box heads of a cascade have one box per RoI: set box_head.class_agnostic"
            )
        super().__init__(box_heads[0], mask_head, roi_align, name)
        self.later_box_heads = list(box_heads[1:])

    @property
    def box_heads(self) -> list[BoxHead]:
        """All of them, in their order."""
        return [self.box_head, *self.later_box_heads]

    def boxes(
        self, features: dict[int, tf.Tensor], rois: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Class logits [B, R, N] and deltas [B, R, N-1, 4] by the first head; see `boxes_by`."""
        return self.boxes_by(self.box_head, features, rois, training)

    def boxes_by(
        self, head: BoxHead, features: dict[int, tf.Tensor], rois: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Classify RoIs and refine their boxes by one of the heads.

        Each head teaches the features a part of what one alone would, so that all together they
        weigh as much against RPN and mask branch (Detectron2; the authors' code has the mean of
        the heads' losses, and higher learning rates for the heads).

        Args:
          head: one of `box_heads`.
          features: {level: [B, Hl, Wl, C]}.
          rois: float32 [B, R, 4], network-input pixels.
          training: whether norms use batch statistics and gradients are wanted.

        Returns:
          Class logits [B, R, N] and deltas [B, R, N-1, 4], whose N-1 rows are the same.
        """
        pooled = self.pool(features, rois, head.pool_size)  # [B, R, S, S, C]
        if training:
            pooled = scale_gradient(pooled, 1.0 / len(self.box_heads))
        return head(pooled, training=training)


class CascadeRCNN(MaskRCNN):
    """A `MaskRCNN`, or Faster R-CNN, whose boxes go from head to head; arguments as there."""

    roi_heads: CascadeRoIHeads

    def find_boxes(
        self,
        features: dict[int, tf.Tensor],
        proposals: Proposals,
        image_size_hw: tf.Tensor,
        training: bool = False,
    ) -> Detections:
        """All heads on all proposals, then NMS of the last one's boxes.

        A box has the mean of the probabilities that the heads gave it, each for its own version of
        the box (Cascade R-CNN section 4.3).
        """
        heads = self.roi_heads.box_heads
        boxes, scores = proposals.boxes, []
        for number, head in enumerate(heads, start=1):
            logits, deltas = self.roi_heads.boxes_by(head, features, boxes, training)
            scores.append(head.kind.probabilities(logits))  # [B, P, N]
            if number < len(heads):
                boxes = refined(boxes, deltas, head, image_size_hw)
        return self._select_detections(
            tf.add_n(scores) / len(scores),
            deltas,
            boxes,
            proposals.valid,
            image_size_hw,
            regression_weights=heads[-1].regression_weights,
        )

    def with_later_parts(
        self,
        outputs: DetectorOutputs,
        features: dict[int, tf.Tensor],
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
        training: bool,
    ) -> DetectorOutputs:
        """The outputs of the first box head, then of the others; see `MaskRCNN`."""
        heads = self.roi_heads.box_heads
        deltas, rois, stages = outputs.box_deltas, outputs.roi_targets, []
        for before, head in zip(heads[:-1], heads[1:], strict=True):
            boxes = refined(rois.rois, deltas, before, batch[schema.IMAGE_SIZE_HW])
            rois = self._rematch(boxes, rois.valid, head, batch)
            logits, deltas = self.roi_heads.boxes_by(head, features, rois.rois, training)
            taught = head.kind.taught(rois.classes, rois.valid, batch, seed, step)
            stages.append(BoxOutputs(logits, deltas, rois, taught))
        return outputs._replace(later_stages=tuple(stages))

    def losses_of(self, outputs: DetectorOutputs) -> dict[str, losses.LossSum]:
        """Those of `MaskRCNN`, then `stage2_class_loss`, `stage2_box_loss`, `stage3_...`."""
        sums = super().losses_of(outputs)
        heads = self.roi_heads.later_box_heads
        for number, (head, stage) in enumerate(
            zip(heads, outputs.later_stages, strict=True), start=2
        ):
            rois = stage.roi_targets
            sums[f"stage{number}_class_loss"] = head.kind.loss(
                stage.class_logits, rois.classes, rois.valid, stage.taught_classes
            )
            sums[f"stage{number}_box_loss"] = losses.box_loss(
                stage.box_deltas,
                rois.deltas,
                rois.classes,
                rois.is_positive,
                rois.valid,
                head.smooth_l1_beta,
            )
        return sums

    def _rematch(
        self, boxes: tf.Tensor, valid: tf.Tensor, head: BoxHead, batch: dict[str, tf.Tensor]
    ) -> targets_lib.RoITargets:
        """See `targets.rematched_targets`."""
        return targets_lib.rematched_targets(
            boxes,
            valid,
            batch[schema.GT_BOXES],
            batch[schema.GT_CLASSES],
            batch[schema.GT_VALID],
            batch[schema.GT_IS_CROWD],
            positive_iou=head.positive_iou,
            regression_weights=head.regression_weights,
            ignore_crowds=self.ignore_crowds,
        )


def later_names(names: Sequence[str], num_stages: int) -> tuple[str, ...]:
    """What losses and metrics of a box head are called for the heads behind the first."""
    return tuple(f"stage{k}_{name}" for k in range(2, num_stages + 1) for name in names)


def box_heads(
    num_classes: int,
    box_head: dict[str, Any],
    positive_ious: Sequence[float],
    regression_factors: Sequence[float],
) -> list[BoxHead]:
    """Build the box heads of a cascade.

    Args:
      num_classes: N, with background.
      box_head: `fields.BoxHead`, of the first.
      positive_ious: see `fields.Cascade`.
      regression_factors: see there.

    Raises:
      ValueError: the two do not say the same number of heads.
    """
    if len(positive_ious) != len(regression_factors):
        raise ValueError(
            f"cascade: {len(positive_ious)} positive_ious, {len(regression_factors)} "
            "regression_factors: each further head needs one of both"
        )
    heads = [BoxHead(num_classes, **box_head)]
    for iou, factor in zip(positive_ious, regression_factors, strict=True):
        weights = [factor * weight for weight in box_head["regression_weights"]]
        differs = {"positive_iou": iou, "regression_weights": weights}
        name = f"box_head_{len(heads) + 1}"
        heads.append(BoxHead(num_classes, **box_head | differs, name=name))
    return heads


def refined(
    rois: tf.Tensor, deltas: tf.Tensor, head: BoxHead, image_size_hw: tf.Tensor
) -> tf.Tensor:
    """Return the boxes that the next head looks at.

    Args:
      rois: float32 [B, R, 4], network-input pixels.
      deltas: float32 [B, R, N-1, 4], class-agnostic.
      head: which said so.
      image_size_hw: float32 [B, (height, width)], the image inside the canvas.

    Returns:
      float32 [B, R, 4], clipped to the image, without a gradient; 0 where not finite.
    """
    boxes = box_ops.decode(deltas[:, :, 0], rois, head.regression_weights)
    finite = tf.reduce_all(tf.math.is_finite(boxes), axis=-1, keepdims=True)
    return tf.stop_gradient(box_ops.clip(tf.where(finite, boxes, 0.0), image_size_hw))


def scale_gradient(tensor: tf.Tensor, factor: float) -> tf.Tensor:
    """Return the tensor itself, whose gradient counts `factor` times."""

    @tf.custom_gradient
    def scaled(inputs: tf.Tensor) -> tuple[tf.Tensor, Any]:
        return tf.identity(inputs), lambda upstream: upstream * tf.cast(factor, upstream.dtype)

    return scaled(tensor)
