import inspect
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf import models
from mrcnn_tf.experiment import fields, loading
from mrcnn_tf.modeling import (
    backbones,
    cascade,
    efficientnet_lite,
    fpn,
    keypoint_head,
    mask_rcnn,
    mask_scoring,
    mlp_mask_head,
    point_rend,
    resnet,
    roi_heads,
    roi_pooling,
    rpn,
)
from mrcnn_tf.weights import assign, no_pretrained
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS

SMALL = {
    "backbone": {"base_width": 8, "norm": "group_norm", "freeze_at": 0},
    "fpn": {"channels": 16},
    "box_head": {"fc_channels": 32, "rois_per_image": 16},
    "mask_head": {"mask_size": 14, "conv_layers": 1, "conv_channels": 8},
}


def test_the_papers_network_in_one_line():
    model = models.mask_rcnn(backbone="resnet50", num_classes=91)
    # Detectron2 counts 44.4M with 81 classes; each further one has 5 rows of 1025 and one of 257.
    assert model.count_params() == pytest.approx(44.4e6 + 10 * (5 * 1025 + 257), rel=0.005)
    assert model.roi_heads.box_head.num_classes == 91
    same = loading.load("maskrcnn_r50_fpn").task.model
    assert model.rpn.post_nms_top_k_test == same.rpn.post_nms_top_k_test == 1000


@pytest.mark.parametrize("features", ["fpn", "c4"])
def test_trains_and_infers(features):
    overrides = SMALL | ({"box_head": {"pool_size": 14}} if features == "c4" else {})
    for build, has_masks in ((models.mask_rcnn, True), (models.faster_rcnn, False)):
        model = build("resnet18", 4, features=features, overrides=overrides)
        found = model(tf.zeros([1, 64, 64, 3]), tf.constant([[64.0, 64.0]]))
        assert (found.masks is not None) == has_masks
        batch = tiny_network.batch([TWO_OBJECTS, EMPTY])
        sums = model.losses_of(model.train_forward(batch, seed=0, step=tf.constant(0, tf.int64)))
        assert list(sums) == [
            *("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss"),
            *(["mask_loss"] if has_masks else []),
        ]
        assert all(np.isfinite(term.mean()) for term in sums.values())


def test_an_rpn_alone():
    model = models.rpn("resnet18", overrides=SMALL)
    proposals = model(tf.zeros([1, 64, 64, 3]), tf.constant([[64.0, 64.0]]))
    assert proposals.boxes.shape == (1, 1000, 4)


def test_c4_has_the_numbers_of_the_experiment():
    """Section 3.1: N = 64, 300 proposals, 14x14 masks."""
    model = models.mask_rcnn(
        "resnet18", 4, features="c4", overrides={"backbone": {"base_width": 8}}
    )
    assert model.pyramid is None
    assert model.roi_heads.box_head.rois_per_image == 64
    assert model.rpn.post_nms_top_k_test == 300
    assert model.roi_heads.mask_head.mask_size == 14


def test_presets_and_variants():
    model = models.mask_rcnn(
        "resnext50_32x4d", 3, preset="torchvision", overrides={"fpn": {"channels": 8}}
    )
    block = model.backbone.stage2.blocks[0]
    assert (block.conv2.groups, block.conv2.filters) == (32, 128)
    assert block.conv1.stride == 1
    assert model.roi_heads.mask_head.target == "torchvision"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet51"}, "unknown backbone 'resnet51'; known are resnet18, resnet34"),
        ({"preset": "caffe"}, "unknown preset 'caffe'; known are paper, torchvision, detectron2"),
        ({"num_classes": 1}, "num_classes must be 2 or more, not 1: background counts"),
        ({"num_classes": 0}, "num_classes must be 2 or more, not 0"),
        (
            {"backbone": "efficientnet_lite0", "features": "c4"},
            "'efficientnet_lite0' has no stage that could be applied to RoIs; use features: fpn",
        ),
        ({"features": "c3"}, "features must be one of 'fpn', 'c4', 'c5', 'dc5', not 'c3'"),
        (
            {"backbone": "efficientnet_lite0", "features": "dc5"},
            "the last stage of backbone.type 'efficientnet_lite0' cannot be dilated",
        ),
        ({"overrides": {"backbone": {"type": "vgg"}}}, "got 'vgg', allowed are 'resnet'"),
        ({"overrides": {"backbone": {"freeze_at": 9}}}, "freeze_at: got 9, allowed are 0"),
        ({"backbone": "resnet18", "overrides": {"backbone": {"groups": 2}}}, "no bottlenecks"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        models.mask_rcnn(**arguments)


_OF_RESNETS = ("depth", "base_width", "groups", "width_per_group", "stride_in_1x1")
# Layers, and the fields that they take under the same name with the same default.
_TAKES = {
    resnet.ResNet: (fields.Backbone, {"type", "weights"}),
    efficientnet_lite.EfficientNetLite0: (
        fields.Backbone,
        {"type", "weights", *_OF_RESNETS},
    ),
    fpn.FPN: (fields.FPN, set()),
    rpn.RPN: (fields.RPN, set()),
    roi_pooling.RoIAlign: (fields.RoIAlign, {"type"}),
    roi_pooling.RoIWarp: (fields.RoIAlign, {"type"}),
    roi_pooling.RoIPool: (
        fields.RoIAlign,
        {"type", "aligned", "sampling_ratio", "aggregate"},
    ),
    roi_heads.BoxHead: (fields.BoxHead, set()),
    roi_heads.MaskHead: (fields.MaskHead, {"type", "fc_layers", "fc_channels"}),
    mlp_mask_head.MLPMaskHead: (
        fields.MaskHead,
        {"type", "conv_layers", "conv_channels", "norm"},
    ),
    keypoint_head.KeypointHead: (fields.KeypointHead, set()),
    mask_rcnn.MaskRCNN: (fields.Detection, {"mask_paste"}),
    cascade.CascadeRCNN: (fields.Detection, {"mask_paste"}),
    point_rend.PointRendMaskHead: (fields.PointRend, set()),
    mask_scoring.MaskIoUHead: (fields.MaskScoring, set()),
}


@pytest.mark.parametrize("layer", _TAKES)
def test_every_number_reaches_its_layer_under_its_own_name(layer):
    group, elsewhere = _TAKES[layer]
    takes = inspect.signature(layer).parameters
    for name, value in vars(group()).items():
        if name not in elsewhere:
            assert takes[name].default == value, name


def test_a_backbone_is_an_entry(monkeypatch):
    """A made-up one: two levels out of average pooling, without a stage for C4."""

    class Pooling(tf_keras.layers.Layer):
        def __init__(self, freeze_at=0, last_level=5, name="pooling"):
            super().__init__(name=name)
            self.out_channels = dict.fromkeys(range(2, 6), 3)

        def call(self, images, training=False):
            return {k: tf.nn.avg_pool2d(images, 2**k, 2**k, "VALID") for k in range(2, 6)}

    variants = {"pooling": {"norm": "group_norm", "freeze_at": 0, "weights": ""}}
    entry = backbones.Entry(Pooling, variants, lambda given: None)
    monkeypatch.setitem(backbones.BACKBONES, "pooling", entry)
    small = {k: v for k, v in SMALL.items() if k != "backbone"}
    model = models.mask_rcnn("pooling", 3, overrides=small)
    assert isinstance(model.backbone, Pooling)
    assert model(tf.zeros([1, 64, 64, 3]), tf.constant([[64.0, 64.0]])).boxes.shape == (1, 100, 4)
    override = "task.model.backbone.type=pooling"
    with pytest.raises(ValueError, match="weights: there are no ImageNet weights of pooling; set"):
        loading.load("maskrcnn_r50_fpn", params_override=override)
    with pytest.raises(ValueError, match="torchvision has no detector on pooling"):
        assign.backbone_entries("torchvision", model.backbone)
    with pytest.raises(FileNotFoundError, match="no ImageNet weights of pooling"):
        no_pretrained.load_imagenet(model.backbone)
    override += ",task.model.backbone.weights=''"
    with pytest.raises(ValueError, match="'pooling' has no stage that could be applied to RoIs"):
        loading.load("maskrcnn_r50_c4", params_override=override)


_WITHOUT_MODEL_GARDEN = """
import sys
for name in ("official", "orbit"):
    sys.modules[name] = None  # importing it raises ImportError
import tensorflow as tf
import tf_keras
from mrcnn_tf import models
model = models.mask_rcnn("resnet18", num_classes=4, overrides={"backbone": {"base_width": 8}})
found = model(tf.zeros([1, 64, 64, 3]), tf.constant([[64.0, 64.0]]))
print(found.boxes.shape)
"""


def test_built_without_tf_models_official():
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT_MODEL_GARDEN], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().endswith("(1, 100, 4)")
