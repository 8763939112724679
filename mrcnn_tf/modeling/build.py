"""From a configuration to a model whose variables exist."""

import functools
from typing import Any

import tensorflow as tf

from mrcnn_tf.modeling import (
    c4,
    faster_rcnn,
    first_stage,
    fpn,
    mask_rcnn,
    metrics,
    normalization,
    resnet,
    roi_heads,
)
from mrcnn_tf.modeling import rpn as rpn_lib
from mrcnn_tf.modeling.rpn_model import RPNModel

Model = RPNModel | faster_rcnn.FasterRCNN | mask_rcnn.MaskRCNN


def build_model(config: Any, num_classes: int, compiled: bool = False) -> Model:
    """Build the network that `config.system` names and create its variables, randomly initialised.

    Args:
      config: an object with the fields of `configs.Model`.
      num_classes: N, with background; unused by an RPN alone.
      compiled: whether the model will be traced for XLA.

    Returns:
      The model.
    """
    kinds: dict[str, type[FPNParts] | type[C4Parts]] = {"fpn": FPNParts, "c4": C4Parts}
    parts = kinds[config.features](config, num_classes, compiled)
    rpn = _first_stage(config, parts, compiled)
    if config.system == "rpn":
        model: Model = RPNModel(parts.backbone, parts.pyramid, rpn)
    elif config.system == "faster_rcnn":
        model = faster_rcnn.FasterRCNN(
            parts.backbone, parts.pyramid, rpn, parts.roi_heads(), _box_settings(config, compiled)
        )
    else:
        model = mask_rcnn.MaskRCNN(
            parts.backbone,
            parts.pyramid,
            rpn,
            parts.roi_heads(),
            _box_settings(config, compiled),
            mask_rcnn.MaskSettings(config.mask_head.target, config.mask_head.target_sampling_ratio),
        )
    _create_variables(model)
    return model


def loss_names(config: Any) -> tuple[str, ...]:
    """The terms of the network's loss, in the order in which its `losses_of` has them."""
    of_rpn = ("rpn_class_loss", "rpn_box_loss") if config.proposals == "rpn" else ()
    of_heads = {
        "rpn": (),
        "faster_rcnn": ("class_loss", "box_loss"),
        "mask_rcnn": ("class_loss", "box_loss", "mask_loss"),
    }[config.system]
    return of_rpn + of_heads


def measure_names(config: Any) -> tuple[str, ...]:
    """What `metrics.measures` returns for the network."""
    of_rpn = metrics.OF_RPN if config.proposals == "rpn" else ()
    return of_rpn + (metrics.OF_BOXES if config.system != "rpn" else ())


class FPNParts:
    """What a pyramid network is made of: levels 2..6, the RPN on all, the heads on 2..5."""

    def __init__(self, config: Any, num_classes: int, compiled: bool):
        self._config, self._num_classes, self._compiled = config, num_classes, compiled
        levels = range(2, 2 + len(config.rpn.anchor_sizes))
        self.backbone = _resnet(config.backbone, last_level=5)
        self.pyramid = fpn.FPN(
            channels=config.fpn.channels,
            min_level=levels[0],
            max_level=levels[-1],
            norm=config.fpn.norm or None,
        )
        self.pyramid.trainable = not config.fpn.frozen
        self.channels = config.fpn.channels
        # One size per level.
        self.anchor_sizes: dict[int, tuple[float, ...]] = {
            level: (size,) for level, size in zip(levels, config.rpn.anchor_sizes, strict=True)
        }

    def roi_heads(self) -> roi_heads.FPNRoIHeads:
        """Build both heads."""
        config = self._config
        box, mask = config.box_head, config.mask_head
        box_head = roi_heads.BoxHead(
            self._num_classes,
            box.fc_layers,
            box.fc_channels,
            box.conv_layers,
            box.conv_channels,
            _norm_builder(box.norm),
        )
        mask_head = roi_heads.MaskHead(
            self._num_classes, mask.conv_layers, mask.conv_channels, _norm_builder(mask.norm)
        )
        return roi_heads.FPNRoIHeads(
            box_head,
            mask_head if config.system == "mask_rcnn" else None,
            box_pool_size=config.box_head.pool_size,
            mask_size=config.mask_head.mask_size,
            sampling_ratio=config.roi_align.sampling_ratio,
            aligned=config.roi_align.aligned,
            log_epsilon=config.roi_align.log_epsilon,
            level_epsilon=config.roi_align.level_epsilon,
            compiled=self._compiled,
        )


class C4Parts:
    """What a C4 network is made of: one level of stride 16, stage 5 in the heads."""

    def __init__(self, config: Any, num_classes: int, compiled: bool):
        self._config, self._num_classes, self._compiled = config, num_classes, compiled
        self.backbone = _resnet(config.backbone, last_level=c4.LEVEL)
        self.pyramid = c4.C4Features()
        # As wide as the features: Faster R-CNN has 512 for VGG's 512, Detectron2 1024 here.
        self.channels = self.backbone.out_channels[c4.LEVEL]
        # All sizes at every place: 5 scales x 3 ratios.
        self.anchor_sizes = {c4.LEVEL: tuple(config.rpn.anchor_sizes)}

    def roi_heads(self) -> c4.C4RoIHeads:
        """Build both heads around the backbone's stage 5."""
        config = self._config
        mask_head = roi_heads.MaskHead(
            self._num_classes, conv_layers=0, conv_channels=config.mask_head.conv_channels
        )
        return c4.C4RoIHeads(
            self.backbone.stage5,
            roi_heads.BoxHead(self._num_classes, fc_layers=0, fc_channels=0),
            mask_head if config.system == "mask_rcnn" else None,
            pool_size=config.box_head.pool_size,
            sampling_ratio=config.roi_align.sampling_ratio,
            aligned=config.roi_align.aligned,
            compiled=self._compiled,
        )


def _resnet(config: Any, last_level: int) -> resnet.ResNet:
    return resnet.ResNet(
        depth=config.depth,
        base_width=config.base_width,
        stride_in_1x1=config.stride_in_1x1,
        norm=config.norm,
        norm_epsilon=config.norm_epsilon,
        norm_momentum=config.norm_momentum,
        freeze_at=config.freeze_at,
        last_level=last_level,
        groups=config.groups,
        width_per_group=config.width_per_group,
    )


def _norm_builder(kind: str) -> normalization.NormBuilder | None:
    """Norms of heads; epsilon and momentum are what every project has there."""
    if not kind:
        return None
    return functools.partial(normalization.build, kind, epsilon=1e-5, momentum=0.9)


def _first_stage(
    config: Any, parts: FPNParts | C4Parts, compiled: bool
) -> first_stage.RPN | first_stage.GivenProposals:
    if config.proposals == "file":
        return first_stage.GivenProposals(name="given_proposals")
    rpn, (sizes, *_) = config.rpn, parts.anchor_sizes.values()
    per_cell = len(sizes) * len(rpn.anchor_ratios)
    head = rpn_lib.RPNHead(parts.channels, per_cell, rpn.conv_layers)
    settings = first_stage.RPNSettings(
        anchor_sizes=parts.anchor_sizes,
        anchor_ratios=tuple(rpn.anchor_ratios),
        anchors_rounded=rpn.anchors_rounded,
        anchor_offset=rpn.anchor_offset,
        anchor_strides=rpn.anchor_strides,
        positive_iou=rpn.positive_iou,
        negative_iou=rpn.negative_iou,
        anchors_per_image=rpn.anchors_per_image,
        positive_fraction=rpn.positive_fraction,
        pre_nms_top_k_train=rpn.pre_nms_top_k_train,
        pre_nms_top_k_test=rpn.pre_nms_top_k_test,
        post_nms_top_k_train=rpn.post_nms_top_k_train,
        post_nms_top_k_test=rpn.post_nms_top_k_test,
        nms_iou=rpn.nms_iou,
        min_box_size=rpn.min_box_size,
        smooth_l1_beta=rpn.smooth_l1_beta,
        loss_normalizer=rpn.loss_normalizer,
        ignore_crowds=config.ignore_crowds,
        compiled=compiled,
    )
    return first_stage.RPN(head, settings)


def _box_settings(config: Any, compiled: bool) -> faster_rcnn.BoxSettings:
    box, detection = config.box_head, config.detection
    return faster_rcnn.BoxSettings(
        rois_per_image=box.rois_per_image,
        positive_fraction=box.positive_fraction,
        positive_iou=box.positive_iou,
        regression_weights=tuple(box.regression_weights),
        smooth_l1_beta=box.smooth_l1_beta,
        score_threshold=detection.score_threshold,
        nms_iou=detection.nms_iou,
        min_box_size=detection.min_box_size,
        soft_nms_sigma=detection.soft_nms_sigma,
        max_instances=config.max_instances,
        ignore_crowds=config.ignore_crowds,
        compiled=compiled,
    )


def _create_variables(model: Model) -> None:
    """Run each part once on the smallest input; a whole forward pass would take seconds."""
    features = model.features(tf.zeros([1, 64, 64, 3]), training=False)
    if isinstance(model.rpn, first_stage.RPN):
        model.rpn.head(features)
    model.rpn.built = True
    if not isinstance(model, RPNModel):
        roi, classes = tf.constant([[[0.0, 0.0, 32.0, 32.0]]]), tf.ones([1, 1], tf.int32)
        model.roi_heads.boxes(features, roi)
        if isinstance(model, mask_rcnn.MaskRCNN):
            model.roi_heads.masks(features, roi, classes)
        model.roi_heads.built = True
    model.built = True
