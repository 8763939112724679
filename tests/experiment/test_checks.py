"""Impossible systems and schedules are refused with a sentence that says what to change."""

import re

import pytest

from mrcnn_tf.experiment import loading

FILES = (
    "task.model.proposals=file,task.train_data.proposals=p/train,"
    "task.validation_data.proposals=p/validation"
)


@pytest.mark.parametrize(
    ("experiment", "override", "message"),
    [
        ("maskrcnn_r50_fpn", "task.model.system=yolo", "system: got 'yolo', allowed are"),
        ("maskrcnn_r50_fpn", "task.model.features=c3", "features: got 'c3', allowed are"),
        ("maskrcnn_r50_fpn", "stages.schedule=both", "schedule: got 'both', allowed are"),
        # Validation.
        (
            "maskrcnn_r50_fpn",
            "task.cocoeval=coco",
            "task.cocoeval: got 'coco', allowed are 'hotcoco', 'pycocotools'",
        ),
        # What RoIAlign is compared with.
        (
            "maskrcnn_r50_fpn",
            "task.model.roi_align.type=align",
            "type: got 'align', allowed are 'roi_align', 'roi_warp', 'roi_pool'",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.model.roi_align.type=roi_pool",
            "aggregate: got 'average', but RoIPool takes the largest pixel of each bin: set it to",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.model.roi_align.aggregate=max,task.model.roi_align.sampling_ratio=0",
            "sampling_ratio: got 0, which is adaptive; the maximum (aggregate: max) needs a fixed",
        ),
        # Backbones.
        (
            "maskrcnn_x101_32x8d_fpn",
            "task.model.backbone.base_width=8,task.model.backbone.width_per_group=4",
            "width_per_group: got 4, but with base_width 8 a group has 4 x 8 / 64 = 0.5",
        ),
        # Mask heads.
        ("maskrcnn_r50_fpn", "task.model.mask_head.type=rnn", "type: got 'rnn', allowed are 'fcn'"),
        (
            "maskrcnn_r50_fpn",
            "task.model.mask_head.classes=sigmoid",
            "classes: got 'sigmoid', allowed are 'independent', 'agnostic', 'softmax'",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.model.mask_head.type=mlp,task.model.mask_head.norm=group_norm",
            "norm: 'group_norm' would not be read: mask_head.type: mlp has no convolutions",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.model.mask_head.conv_layers=0,task.model.mask_head.norm=group_norm",
            "mask_head.norm: 'group_norm' would not be read: mask_head.conv_layers: 0 leaves no",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.model.box_head.norm=group_norm",
            "box_head.norm: 'group_norm' would not be read: box_head.conv_layers: 0 leaves no",
        ),
        # C4.
        (
            "maskrcnn_r50_c4",
            "task.model.mask_head.norm=group_norm",
            "mask_head.norm: 'group_norm' would not be read: with features: c4 stage 5 takes",
        ),
        (
            "maskrcnn_r50_c4",
            "task.model.fpn.norm=group_norm",
            "fpn.norm: 'group_norm' would not be read: features: c4 has no pyramid",
        ),
        (
            "maskrcnn_r50_c4",
            "task.model.mask_head.mask_size=28",
            "mask_size: got 28, but with features: c4 a mask is as large as the pooled RoI, "
            "box_head.pool_size, now 14. Set both to 14, or use features: fpn for 28 x 28 masks",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.model.features=c4,task.model.box_head.pool_size=7",
            "pool_size: got 7, but with features: c4 stage 5 halves it: it needs an even number, "
            "14 in the paper's code, and so does task.model.mask_head.mask_size",
        ),
        (
            "fasterrcnn_r50_c4",
            "task.model.box_head.pool_size=7",
            "pool_size: got 7, but with features: c4 stage 5 halves it: it needs an even number",
        ),
        (
            "maskrcnn_r50_c4",
            "task.model.fpn.frozen=true",
            "c4 has no pyramid; set it to false, and freeze the backbone up to stage 4 by "
            "backbone.freeze_at: 4",
        ),
        # Cascades.
        (
            "cascade_maskrcnn_r50_fpn",
            "task.model.cascade.positive_ious=[0.6]",
            "positive_ious (0.6,) and regression_factors (2.0, 3.0): each further box head needs",
        ),
        (
            "cascade_maskrcnn_r50_fpn",
            "task.model.cascade.positive_ious=[0.6,60]",
            "positive_ious: got (0.6, 60.0), each needs 0 to 1",
        ),
        (
            "cascade_maskrcnn_r50_fpn",
            "task.model.cascade.positive_ious=[0.0,0.7]",
            "positive_ious: got (0.0, 0.7), each needs 0 to 1, not 0",
        ),
        (
            "cascade_maskrcnn_r50_fpn",
            "task.model.box_head.class_agnostic=false",
            "class_agnostic: needs to be true with task.model.cascade: the next box head looks at",
        ),
        (
            "rpn_r50_fpn",
            "task.model.cascade.positive_ious=[0.6],task.model.cascade.regression_factors=[2]",
            "box heads follow each other only in system: mask_rcnn or faster_rcnn on features: fpn",
        ),
        # Test-time augmentation.
        (
            "rpn_r50_fpn",
            "task.tta.short_edges=[800]",
            "task.tta.short_edges: got (800,), but test-time augmentation is for detectors with",
        ),
        (
            "maskrcnn_r50_fpn",
            FILES + ",task.tta.short_edges=[800]",
            "test-time augmentation is for detectors with an RPN of their own",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.tta.short_edges=[800,0]",
            "task.tta.short_edges: got (800, 0), each needs 1 or more",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.tta.short_edges=[800],task.model.detection.soft_nms_sigma=0.5",
            "united by NMS, which would undo Soft-NMS. Set task.model.detection.soft_nms_sigma to",
        ),
        # PointRend.
        (
            "pointrend_r50_fpn",
            "task.model.system=faster_rcnn",
            "num_points: got 196, but PointRend is a mask branch for system: mask_rcnn on features",
        ),
        (
            "cascade_maskrcnn_r50_fpn",
            "task.model.point_rend.num_points=196",
            "num_points: got 196, but a network with task.model.cascade has the mask head of",
        ),
        (
            "pointrend_r50_fpn",
            "task.model.mask_head.classes=softmax",
            "num_points: got 196, but PointRend takes the place of task.model.mask_head, whose "
            "classes ('softmax') would not be read. Leave one of the two out: num_points 0, or "
            "classes 'independent'",
        ),
        (
            "pointrend_r50_fpn",
            "task.model.mask_head.mask_size=56,task.model.mask_head.conv_layers=8",
            "whose mask_size (56) would not be read",
        ),
        (
            "pointrend_shapes",  # its widths are those of maskrcnn_shapes
            "task.model.mask_head.conv_layers=8",
            "whose conv_layers (8) would not be read",
        ),
        (
            "pointrend_r50_fpn",
            "task.model.point_rend.oversampling=0",
            "task.model.point_rend.oversampling: got 0, needs 1 or more",
        ),
        (
            "pointrend_r50_fpn",
            "task.model.point_rend.uncertain_fraction=75",
            "uncertain_fraction: got 75.0, needs 0 to 1",
        ),
        # Boundary AP.
        (
            "fasterrcnn_r50_fpn",
            "task.boundary_ap=true",
            "task.boundary_ap: true, but task.model.system: faster_rcnn makes no masks",
        ),
        # Mask Scoring.
        (
            "pointrend_r50_fpn",
            "task.model.mask_scoring.conv_layers=4",
            "conv_layers: got 4, but masks are scored only of mask_head, in system: mask_rcnn on "
            "features: fpn, without cascade and point_rend; look at point_rend.num_points",
        ),
        (
            "maskscoring_r50_fpn",
            "task.model.mask_head.mask_size=14",
            "mask_size needs to be a multiple of 4, not 14",
        ),
        (
            "maskscoring_r50_fpn",
            "task.tta.short_edges=[400]",
            "conv_layers: got 4, but the mean of several views' masks is not scored",
        ),
        # Proposals from files.
        (
            "maskrcnn_r50_fpn",
            "task.model.proposals=file",
            "task.train_data.proposals: task.model.proposals: file needs the folder of proposals "
            "that an RPN wrote (python -m mrcnn_tf.write_proposals)",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.model.proposals=file,task.train_data.proposals=p",
            "task.validation_data.proposals: task.model.proposals: file needs the folder",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.train_data.proposals=p",
            "'p' would not be used: with task.model.proposals: rpn the network makes its own. Set "
            "that to file, or leave this empty",
        ),
        ("rpn_r50_fpn", FILES, "'file' is for a detector; an RPN makes its own. Set it to rpn"),
        # What a system is scored by.
        (
            "rpn_r50_fpn",
            "trainer.best_checkpoint_eval_metric=mask_ap",
            "got 'mask_ap', but task.model.system: rpn is scored by ar_...: set it to ar_1000",
        ),
        (
            "fasterrcnn_r50_fpn",
            "trainer.best_checkpoint_eval_metric=mask_ap50",
            "got 'mask_ap50', but task.model.system: faster_rcnn is scored by box_...: set it to "
            "box_ap",
        ),
        (
            "maskrcnn_r50_fpn",
            "trainer.best_checkpoint_eval_metric=ar_100",
            "is scored by mask_..., box_...: set it to mask_ap",
        ),
        ("maskrcnn_r50_fpn", "task.model.system=faster_rcnn", "set it to box_ap"),
        # Schedules.
        (
            "maskrcnn_r50_fpn",
            "stages.schedule=separate",
            "stages.rpn_experiment: schedule 'separate' needs the experiment that trains the RPN, "
            "rpn_r50_fpn for one",
        ),
        (
            "rpn_r50_fpn",
            "stages.schedule=alternating,stages.rpn_experiment=rpn_r50_fpn",
            "trains a detector after its RPN, but task.model.system is rpn. Set the schedule to "
            "joint",
        ),
        (
            "maskrcnn_r50_fpn_separate_rpn",
            FILES,
            "'separate' makes its own proposals: set task.model.proposals to rpn, or the schedule "
            "to joint",
        ),
        (
            "maskrcnn_r50_fpn",
            "stages.rpn_checkpoint=runs/rpn",
            "stages.rpn_checkpoint: which network is it of? Give stages.rpn_experiment too",
        ),
        # Federated losses.
        (
            "maskrcnn_r50_fpn",
            "task.model.federated.classes_per_image=-1",
            "classes_per_image: got -1, needs 0 or more",
        ),
        (
            "rpn_r50_fpn",
            "task.model.federated.classes_per_image=50",
            "classes_per_image: got 50, but an RPN knows no classes. Leave it 0",
        ),
        (
            "maskrcnn_r50_fpn_lvis",
            "task.model.federated.frequency_power=-0.5",
            "frequency_power: got -0.5, needs 0 to 10",
        ),
        (
            "maskrcnn_r50_fpn_lvis",
            "task.model.federated.frequency_power=11",
            "frequency_power: got 11",
        ),
        # Keypoints.
        (
            "maskrcnn_r50_c4",
            "task.model.keypoint_head.num_keypoints=17",
            "num_keypoints: got 17, but there is a keypoint branch only in system: mask_rcnn or",
        ),
        (
            "cascade_maskrcnn_r50_fpn",
            "task.model.keypoint_head.num_keypoints=17",
            "num_keypoints: got 17, but a network with task.model.cascade has no keypoint branch",
        ),
        (
            "keypointrcnn_r50_fpn",
            "task.tta.short_edges=[800]",
            "num_keypoints: got 17, but test-time augmentation (task.tta.short_edges) does not",
        ),
        (
            "keypointrcnn_r50_fpn",
            "task.model.keypoint_head.num_keypoints=-1",
            "num_keypoints: got -1, needs 0 or more",
        ),
        (
            "keypointrcnn_r50_fpn",
            "task.model.keypoint_head.num_keypoints=0",
            "best_checkpoint_eval_metric: got 'keypoint_ap', but task.model.system: faster_rcnn is",
        ),
        # Where to start.
        (
            "maskrcnn_r50_fpn",
            "task.init_checkpoint_modules=backbone",
            "got 'backbone', but task.init_checkpoint names no checkpoint to take them from",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.init_checkpoint=x,task.init_checkpoint_modules='backbone, fpn'",
            "got 'backbone, fpn'; allowed are 'all', or with commas between backbone, pyramid, rpn",
        ),
        (
            "rpn_r50_fpn",
            "task.init_checkpoint=x,task.init_checkpoint_modules=roi_heads",
            "an RPN alone (task.model.system: rpn) has no roi_heads",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.init_checkpoint=x,task.init_checkpoint_modules=rpn," + FILES,
            "with task.model.proposals: file there is no rpn to load",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.init_checkpoint=x,task.init_checkpoint_modules=pyramid,"
            "task.model.backbone.weights=''",
            "frozen_batch_norm' over random weights never learns",
        ),
        (
            "maskrcnn_shapes",
            "task.init_checkpoint=x,task.init_checkpoint_modules=pyramid,"
            "task.model.backbone.freeze_at=5",
            "freeze_at: 5 would freeze random weights",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.model.fpn.frozen=true",
            "task.model.fpn.frozen: would freeze random weights; give the network whose pyramid is "
            "to stay as task.init_checkpoint, or set this to false",
        ),
    ],
)
def test_refused(experiment, override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        loading.load(experiment, params_override=override)


@pytest.mark.parametrize(
    ("experiment", "override"),
    [
        ("maskrcnn_r50_fpn", FILES),
        ("maskrcnn_r50_c4", "trainer.best_checkpoint_eval_metric=box_ap75"),
        ("rpn_r50_fpn", "trainer.best_checkpoint_eval_metric=ar_small_1000"),
        ("rpn_r50_fpn", "trainer.best_checkpoint_eval_metric=validation_loss"),
        ("rpn_r50_fpn", "trainer.best_checkpoint_eval_metric=rpn_box_loss"),
        ("keypointrcnn_r50_fpn", "trainer.best_checkpoint_eval_metric=keypoint_ap75"),
        ("fasterrcnn_r50_c4", "task.model.mask_head.mask_size=28"),  # it has no masks
        # From another network's weights everything may be frozen, whatever its norm.
        (
            "maskrcnn_shapes",
            "task.init_checkpoint=x,task.model.backbone.freeze_at=5,task.model.fpn.frozen=true",
        ),
        (
            "maskrcnn_r50_fpn",
            "task.init_checkpoint=x,task.init_checkpoint_modules='backbone,pyramid',"
            "task.model.backbone.weights='',task.model.fpn.frozen=true",
        ),
    ],
)
def test_allowed(experiment, override):
    loading.load(experiment, params_override=override)
