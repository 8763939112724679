"""From the fields of an experiment to a network whose variables exist."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import (
    backbones,
    box_classes,
    c4,
    cascade,
    fpn,
    keypoint_head,
    mask_heads,
    mask_scoring,
    metrics,
    point_rend,
    roi_heads,
    roi_pooling,
)
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.modeling.rpn import RPN
from mrcnn_tf.modeling.rpn_model import RPNModel
from mrcnn_tf.modeling.tta import AugmentedInference

Model = RPNModel | MaskRCNN


def build_model(config: fields.Model, num_classes: int, image_counts: Sequence[int] = ()) -> Model:
    """Build the network that `config.system` names and create its variables, randomly initialised.

    Args:
      config: every field becomes the keyword argument of the same name of its layer.
      num_classes: N, with background; unused by an RPN alone.
      image_counts: in how many images of training each class is, background left out: what a
        federated loss learns by.

    Returns:
      The model.
    """
    is_c4 = config.features == "c4"
    backbone = backbones.build(
        config.backbone, last_level=c4.LEVEL if is_c4 else 5, dilated=config.features == "dc5"
    )
    pyramid = fpn.FPN(**vars(config.fpn)) if config.features == "fpn" else None
    rpn = None
    if config.proposals == "rpn":
        # One level: as wide as the features. Faster R-CNN has 512 for VGG's 512, Detectron2 1024.
        level = c4.LEVEL if is_c4 else max(backbone.out_channels)
        rpn = RPN(
            pyramid.channels if pyramid else backbone.out_channels[level],
            tuple(pyramid.levels) if pyramid else (level,),
            ignore_crowds=config.ignore_crowds,
            **vars(config.rpn),
        )
    model: Model
    if config.system == "rpn":
        assert rpn is not None  # checked with the experiment
        model = RPNModel(backbone, pyramid, rpn)
    else:
        detector, heads = _detector(config)
        kind = box_classes.build(config.federated, image_counts)
        box_head = vars(config.box_head) | {"kind": kind}
        detection = {k: v for k, v in vars(config.detection).items() if k != "mask_paste"}
        model = detector(
            backbone,
            pyramid,
            rpn,
            heads(config, num_classes, backbone, box_head),
            max_instances=config.max_instances,
            ignore_crowds=config.ignore_crowds,
            **detection,
        )
    _create_variables(model)
    return model


def augmented_inference(config: fields.Model, tta: fields.TTA) -> AugmentedInference | None:
    """Return what takes the place of the network's `infer` with test-time augmentation."""
    if not tta.short_edges:
        return None
    return AugmentedInference(tta.flips, config.detection.nms_iou, config.max_instances)


def loss_names(config: fields.Model) -> tuple[str, ...]:
    """The terms of the network's loss, in the order in which its `losses_of` has them."""
    of_rpn = ("rpn_class_loss", "rpn_box_loss") if config.proposals == "rpn" else ()
    of_heads = {
        "rpn": (),
        "faster_rcnn": ("class_loss", "box_loss"),
        "mask_rcnn": ("class_loss", "box_loss", "mask_loss"),
    }[config.system]
    num_stages = 1 + len(config.cascade.positive_ious)
    later = cascade.later_names(("class_loss", "box_loss"), num_stages)
    of_masks = (("point_loss",) if config.point_rend.num_points else ()) + (
        ("mask_iou_loss",) if config.mask_scoring.conv_layers else ()
    )
    of_keypoints = ("keypoint_loss",) if config.keypoint_head.num_keypoints else ()
    return of_rpn + of_heads + later + of_masks + of_keypoints


def metric_names(config: fields.Model) -> tuple[str, ...]:
    """What `metrics.metrics` returns for the network."""
    of_rpn = metrics.OF_RPN if config.proposals == "rpn" else ()
    of_boxes = metrics.OF_BOXES if config.system != "rpn" else ()
    num_stages = 1 + len(config.cascade.positive_ious)
    return of_rpn + of_boxes + cascade.later_names(of_boxes, num_stages)


def _detector(config: fields.Model) -> tuple[type[MaskRCNN], Callable]:
    """Which network it is, and what builds its heads."""
    if config.cascade.positive_ious:
        return cascade.CascadeRCNN, _cascade_heads
    if config.point_rend.num_points:
        return point_rend.PointRendRCNN, _point_rend_heads
    if config.mask_scoring.conv_layers:
        return mask_scoring.MaskScoringRCNN, _mask_scoring_heads
    if config.keypoint_head.num_keypoints:
        return keypoint_head.KeypointRCNN, _keypoint_heads
    return MaskRCNN, _c4_heads if config.features == "c4" else _fpn_heads


def _fpn_heads(
    config: fields.Model, num_classes: int, backbone: Any, box_head: dict[str, Any]
) -> roi_heads.FPNRoIHeads:
    has_masks = config.system == "mask_rcnn"
    return roi_heads.FPNRoIHeads(
        roi_heads.BoxHead(num_classes, **box_head),
        mask_heads.build(config.mask_head, num_classes) if has_masks else None,
        roi_pooling.build(config.roi_align),
    )


def _cascade_heads(
    config: fields.Model, num_classes: int, backbone: Any, box_head: dict[str, Any]
) -> cascade.CascadeRoIHeads:
    if config.features != "fpn":
        raise ValueError(f"cascade: there is none on features: {config.features}, only on fpn")
    has_masks = config.system == "mask_rcnn"
    return cascade.CascadeRoIHeads(
        cascade.box_heads(num_classes, box_head, **vars(config.cascade)),
        mask_heads.build(config.mask_head, num_classes) if has_masks else None,
        roi_pooling.build(config.roi_align),
    )


def _point_rend_heads(
    config: fields.Model, num_classes: int, backbone: Any, box_head: dict[str, Any]
) -> point_rend.PointRendRoIHeads:
    if config.features != "fpn" or config.system != "mask_rcnn":
        raise ValueError("point_rend: it is a mask branch for features: fpn, system: mask_rcnn")
    return point_rend.PointRendRoIHeads(
        roi_heads.BoxHead(num_classes, **box_head),
        point_rend.PointRendMaskHead(
            num_classes,
            target=config.mask_head.target,
            target_sampling_ratio=config.mask_head.target_sampling_ratio,
            **vars(config.point_rend),
        ),
        roi_pooling.build(config.roi_align),
    )


def _mask_scoring_heads(
    config: fields.Model, num_classes: int, backbone: Any, box_head: dict[str, Any]
) -> mask_scoring.MaskScoringRoIHeads:
    if config.features != "fpn" or config.system != "mask_rcnn":
        raise ValueError("mask_scoring: it scores masks of features: fpn, system: mask_rcnn")
    return mask_scoring.MaskScoringRoIHeads(
        roi_heads.BoxHead(num_classes, **box_head),
        mask_heads.build(config.mask_head, num_classes),
        mask_scoring.MaskIoUHead(num_classes, **vars(config.mask_scoring)),
        roi_pooling.build(config.roi_align),
    )


def _keypoint_heads(
    config: fields.Model, num_classes: int, backbone: Any, box_head: dict[str, Any]
) -> keypoint_head.KeypointRoIHeads:
    if config.features != "fpn":
        raise ValueError(
            f"keypoint_head: there is none on features: {config.features}, only on fpn"
        )
    has_masks = config.system == "mask_rcnn"
    return keypoint_head.KeypointRoIHeads(
        roi_heads.BoxHead(num_classes, **box_head),
        mask_heads.build(config.mask_head, num_classes) if has_masks else None,
        keypoint_head.KeypointHead(**vars(config.keypoint_head)),
        roi_pooling.build(config.roi_align),
    )


def _c4_heads(
    config: fields.Model, num_classes: int, backbone: Any, box_head: dict[str, Any]
) -> c4.C4RoIHeads:
    """Stage 5 stands where the pyramid's heads have their hidden layers."""
    backbones.check_roi_stage(config.backbone)
    box_head = box_head | {"fc_layers": 0, "conv_layers": 0}
    has_masks = config.system == "mask_rcnn"
    return c4.C4RoIHeads(
        backbone.roi_stage,
        roi_heads.BoxHead(num_classes, **box_head),
        mask_heads.build(config.mask_head, num_classes, conv_layers=0) if has_masks else None,
        roi_pooling.build(config.roi_align),
    )


def _create_variables(model: Model) -> None:
    """Run each part once on the smallest input; a whole forward pass would take seconds."""
    features = model.features(tf.zeros([1, 64, 64, 3]), training=False)
    if model.rpn is not None:
        model.rpn.head(features)
        model.rpn.built = True
    if isinstance(model, MaskRCNN):
        roi, classes = tf.constant([[[0.0, 0.0, 32.0, 32.0]]]), tf.ones([1, 1], tf.int32)
        proposal = Proposals(roi, tf.zeros([1, 1]), tf.constant([[True]]))
        model.find_boxes(features, proposal, tf.constant([[64.0, 64.0]]))
        if model.roi_heads.mask_head is not None:
            one = Detections(roi, classes, tf.ones([1, 1]), tf.constant([[True]]))
            model.add_masks(features, one)
        if isinstance(model, keypoint_head.KeypointRCNN):
            model.roi_heads.keypoints(features, roi)
        model.roi_heads.built = True
    model.built = True
