"""From a configuration to a model whose variables exist."""

from typing import Any

import tensorflow as tf

from mrcnn_tf.modeling import fpn, resnet, roi_heads
from mrcnn_tf.modeling import rpn as rpn_lib
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN, Settings


def build_model(config: Any, num_classes: int, compiled: bool = False) -> MaskRCNN:
    """Build Mask R-CNN with ResNet-FPN and create its variables, randomly initialised.

    Args:
      config: an object with the fields of `configs.Model`.
      num_classes: N, with background.
      compiled: whether the model will be traced for XLA.

    Returns:
      The model.
    """
    backbone = resnet.ResNet(
        depth=config.backbone.depth,
        base_width=config.backbone.base_width,
        stride_in_1x1=config.backbone.stride_in_1x1,
        norm=config.backbone.norm,
        norm_epsilon=config.backbone.norm_epsilon,
        norm_momentum=config.backbone.norm_momentum,
        freeze_at=config.backbone.freeze_at,
    )
    levels = range(2, 2 + len(config.rpn.anchor_sizes))
    pyramid = fpn.FPN(
        channels=config.fpn.channels,
        min_level=levels[0],
        max_level=levels[-1],
        norm=config.fpn.norm or None,
    )
    rpn_head = rpn_lib.RPNHead(config.fpn.channels, len(config.rpn.anchor_ratios))
    heads = roi_heads.FPNRoIHeads(
        roi_heads.BoxHead(num_classes, config.box_head.fc_layers, config.box_head.fc_channels),
        roi_heads.MaskHead(
            num_classes, config.mask_head.conv_layers, config.mask_head.conv_channels
        ),
        box_pool_size=config.box_head.pool_size,
        mask_pool_size=config.mask_head.pool_size,
        sampling_ratio=config.roi_align.sampling_ratio,
        aligned=config.roi_align.aligned,
        log_epsilon=config.roi_align.log_epsilon,
        level_epsilon=config.roi_align.level_epsilon,
        compiled=compiled,
    )
    anchor_sizes: dict[int, tuple[float, ...]] = {
        level: (size,) for level, size in zip(levels, config.rpn.anchor_sizes, strict=True)
    }
    model = MaskRCNN(backbone, pyramid, rpn_head, heads, settings(config, anchor_sizes, compiled))
    _create_variables(model, config)
    return model


def settings(config: Any, anchor_sizes: dict[int, tuple[float, ...]], compiled: bool) -> Settings:
    """Collect the numbers that are not in a layer."""
    return Settings(
        anchor_sizes=anchor_sizes,
        anchor_ratios=tuple(config.rpn.anchor_ratios),
        anchors_rounded=config.rpn.anchors_rounded,
        anchor_offset=config.rpn.anchor_offset,
        anchor_strides=config.rpn.anchor_strides,
        rpn_positive_iou=config.rpn.positive_iou,
        rpn_negative_iou=config.rpn.negative_iou,
        anchors_per_image=config.rpn.anchors_per_image,
        rpn_positive_fraction=config.rpn.positive_fraction,
        pre_nms_top_k_train=config.rpn.pre_nms_top_k_train,
        pre_nms_top_k_test=config.rpn.pre_nms_top_k_test,
        post_nms_top_k_train=config.rpn.post_nms_top_k_train,
        post_nms_top_k_test=config.rpn.post_nms_top_k_test,
        rpn_nms_iou=config.rpn.nms_iou,
        min_box_size=config.rpn.min_box_size,
        rpn_smooth_l1_beta=config.rpn.smooth_l1_beta,
        rpn_loss_normalizer=config.rpn.loss_normalizer,
        rois_per_image=config.box_head.rois_per_image,
        roi_positive_fraction=config.box_head.positive_fraction,
        roi_positive_iou=config.box_head.positive_iou,
        regression_weights=tuple(config.box_head.regression_weights),
        box_smooth_l1_beta=config.box_head.smooth_l1_beta,
        mask_target=config.mask_head.target,
        mask_target_sampling_ratio=config.mask_head.target_sampling_ratio,
        score_threshold=config.detection.score_threshold,
        detection_nms_iou=config.detection.nms_iou,
        max_instances=config.max_instances,
        ignore_crowds=config.ignore_crowds,
        compiled=compiled,
    )


def _create_variables(model: MaskRCNN, config: Any) -> None:
    """Run each part once on the smallest input; a whole forward pass would take seconds."""
    features = model.features(tf.zeros([1, 64, 64, 3]), training=False)
    model.rpn_head(features)
    channels = config.fpn.channels
    box_side, mask_side = config.box_head.pool_size, config.mask_head.pool_size
    model.roi_heads.box_head(tf.zeros([1, 1, box_side, box_side, channels]))
    model.roi_heads.mask_head(
        tf.zeros([1, 1, mask_side, mask_side, channels]), tf.ones([1, 1], tf.int32)
    )
    model.roi_heads.built = True
    model.built = True
