"""What a file holds, from names and shapes; and what is refused by name."""

import json
import re

import numpy as np
import pytest

from mrcnn_tf.weights import recognize
from tests.weights import foreign_shapes as foreign

R50, R101 = foreign.Sizes(), foreign.Sizes(depth=101)
X101 = foreign.Sizes(depth=101, groups=32, width_per_group=8)


def found(shapes):
    """Recognize without the memory that real tensors would take."""
    return recognize.recognize({n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()})


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (foreign.torchvision(R50), "torchvision: Mask R-CNN, ResNet-50-FPN, 90 classes"),
        (foreign.torchvision(R50, newer=True), "torchvision: Mask R-CNN, ResNet-50-FPN, 90 cl"),
        (
            foreign.torchvision(R101, "faster_rcnn", outputs=3),
            "torchvision: Faster R-CNN, ResNet-101-FPN, 2 classes and background",
        ),
        (foreign.torchvision_v2(R50), "torchvision version 2: Mask R-CNN, ResNet-50-FPN, 90 cl"),
        (foreign.torchvision_backbone(R50), "torchvision: ImageNet backbone, ResNet-50"),
        (
            foreign.torchvision_backbone(foreign.Sizes(depth=18), classifier=False),
            "torchvision: ImageNet backbone, ResNet-18",
        ),
        (foreign.detectron2(R50), "detectron2: Mask R-CNN, ResNet-50-FPN, 80 classes and"),
        (foreign.detectron2(X101), "detectron2: Mask R-CNN, ResNeXt-101-FPN, 80 classes and"),
        (
            foreign.detectron2(R101, "faster_rcnn", "c4", classes=20),
            "detectron2: Faster R-CNN, ResNet-101-C4, 20 classes and background",
        ),
        (
            foreign.detectron2(R50, cascade=True),
            "detectron2: Cascade Mask R-CNN, ResNet-50-FPN, 80 classes and",
        ),
        (
            foreign.detectron2(R50, point_rend=True),
            "detectron2: Mask R-CNN with PointRend, ResNet-50-FPN, 80 classes and",
        ),
        (
            foreign.detectron2(R50, "faster_rcnn", classes=1, cascade=True),
            "detectron2: Cascade Faster R-CNN, ResNet-50-FPN, 1 class and",
        ),
        (foreign.detectron2(R101, features="dc5"), "detectron2: Mask R-CNN, ResNet-101-DC5, 80 cl"),
        (foreign.detectron2_norms(R50), "detectron2: Mask R-CNN, ResNet-50-FPN, 80 classes and"),
        (foreign.caffe2_backbone(R101, "gn", "conv1"), "detectron2: ImageNet backbone, ResNet-101"),
        (
            foreign.detectron2(R50, "faster_rcnn", classes=1, keypoints=17),
            "detectron2: Keypoint R-CNN, ResNet-50-FPN, 1 class and background, 17 keypoints",
        ),
        (
            foreign.torchvision(R50, "faster_rcnn", outputs=2, keypoints=17),
            "torchvision: Keypoint R-CNN, ResNet-50-FPN, 1 class and background, 17 keypoints",
        ),
        (
            foreign.detectron2(R50, classes=3, keypoints=5),
            "detectron2: Mask R-CNN with keypoints, ResNet-50-FPN, 3 classes and background, 5 k",
        ),
        (foreign.detectron2(R101, "rpn", "c4"), "detectron2: RPN without RoI heads, ResNet-101-C4"),
        (foreign.detectron2(R50, "rpn", "fpn"), "detectron2: RPN without RoI heads, ResNet-50-FPN"),
        (foreign.detectron2_backbone(R50), "detectron2: ImageNet backbone, ResNet-50"),
        (foreign.caffe2_backbone(R101), "detectron2: ImageNet backbone, ResNet-101"),
        (foreign.caffe2_backbone(X101), "detectron2: ImageNet backbone, ResNeXt-101"),
        (foreign.keras(R50), "keras: ImageNet backbone, ResNet-50"),
        (foreign.model_garden(R101), "model_garden: ImageNet backbone, ResNet-101"),
        (
            foreign.model_garden(R50, "model/layer_with_weights-0/"),
            "model_garden: ImageNet backbone, ResNet-50",
        ),
    ],
)
def test_what_it_is(shapes, said):
    assert str(found(shapes)).startswith(said)


def test_sizes():
    sizes = foreign.Sizes(base_width=32, channels=64, hidden=100, pool=5, convs=3)
    for shapes in (foreign.torchvision(sizes), foreign.detectron2(sizes)):
        got = found(shapes)
        assert got.base_width == 32
        assert got.groups == 1
        assert got.sizes == {
            "fpn": {"channels": 64},
            "box_head": {"fc_layers": 2, "fc_channels": 100, "pool_size": 5},
            "mask_head": {"conv_layers": 3, "conv_channels": 64},
        }
    got = found(foreign.detectron2(sizes, features="c4"))
    assert got.sizes == {"mask_head": {"conv_channels": 64}}
    got = found(foreign.detectron2(sizes, features="dc5"))
    assert got.sizes == {
        "box_head": {"fc_layers": 2, "fc_channels": 100, "pool_size": 5},
        "mask_head": {"conv_layers": 3, "conv_channels": 64},
    }
    assert found(foreign.detectron2(X101)).groups == 32
    assert found(foreign.detectron2(X101)).base_width == 64


def test_norms_of_detectron2():
    for group, norm in ((True, "group_norm"), (False, "batch_norm")):
        got = found(foreign.detectron2_norms(R50, group=group))
        assert got.norm == norm
        assert got.sizes["fpn"] == {"channels": 256, "norm": norm}
        assert got.sizes["box_head"] == {
            "fc_layers": 1,
            "fc_channels": 1024,
            "pool_size": 7,
            "conv_layers": 4,
            "conv_channels": 256,
            "norm": norm,
        }
        assert got.sizes["mask_head"] == {"conv_layers": 4, "conv_channels": 256, "norm": norm}
    assert found(foreign.caffe2_backbone(R50, "gn", "conv1")).norm == "group_norm"
    for usual in (foreign.detectron2(R50), foreign.caffe2_backbone(R50), foreign.torchvision(R50)):
        assert found(usual).norm == ""
    # Its recipe of large-scale jitter has two convolutions in the RPN.
    shapes = foreign.detectron2_norms(R50, group=False)
    weight, bias = (shapes.pop(f"proposal_generator.rpn_head.conv.{x}") for x in ("weight", "bias"))
    for i in (0, 1):
        name = f"proposal_generator.rpn_head.conv.conv{i}"
        shapes |= {f"{name}.weight": weight, f"{name}.bias": bias}
    assert found(shapes).sizes["rpn"] == {"conv_layers": 2}


def test_names_and_shapes_are_those_of_released_files(shared):
    for name, shapes in {
        "maskrcnn_r50_fpn_torchvision": foreign.torchvision(R50),
        "maskrcnn_r50_fpn_detectron2": foreign.detectron2(R50),
        "maskrcnn_r50_c4_detectron2": foreign.detectron2(R50, features="c4"),
    }.items():
        released = json.loads((shared / "golden" / f"{name}_shapes.json").read_text())
        assert {n: list(s) for n, s in shapes.items()} == released


TV, D2 = foreign.torchvision(R50), foreign.detectron2(R50)
REFUSED = {
    "half a keypoint head": (
        D2,
        "roi_heads.keypoint_head.conv_fcn1.weight",
        "a keypoint head that",
    ),
    "panoptic": (D2, "sem_seg_head.predictor.weight", "panoptic"),
    "Implicit PointRend": (D2, "roi_heads.mask_head.parameter_head.fc1.weight", "Implicit Po"),
    "deformable": (D2, "backbone.bottom_up.res3.0.conv2_offset.weight", "deformable"),
    "RetinaNet, torchvision": (TV, "head.classification_head.conv.0.0.weight", "a RetinaNet"),
    "RetinaNet, Detectron2": (D2, "head.cls_subnet.0.weight", "a RetinaNet"),
    "SSD": ({}, "head.classification_head.module_list.0.weight", "SSD"),
    "FCOS": (TV, "head.regression_head.bbox_ctrness.weight", "FCOS"),
    "MobileNet": ({}, "backbone.body.0.0.weight", "a network on a MobileNet"),
    "MobileNet-FPN": ({}, "backbone.body.4.block.0.0.weight", "a network on a MobileNet"),
    "MobileNet classifier": ({}, "features.1.conv.0.0.weight", "a network on a MobileNet"),
    "ViTDet": ({}, "backbone.net.blocks.0.attn.qkv.weight", "a vision transformer"),
    "ViT": ({}, "encoder.layers.encoder_layer_0.ln_1.weight", "a vision transformer"),
    "DETR": (TV, "transformer.encoder.layers.0.linear1.weight", "a DETR"),
    "deep stem": (D2, "backbone.bottom_up.stem.conv1_1.weight", "a stem of three convolutions"),
    "Keras V2": ({}, "conv2_block1_preact_bn/gamma", "a ResNet V2 of Keras"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_by_name(case):
    shapes, name, said = REFUSED[case]
    with pytest.raises(ValueError, match="this is ") as error:
        found(shapes | {name: (3, 3)})
    assert said in str(error.value)
    assert repr(name) in str(error.value)


def test_variants_that_only_their_shapes_tell():
    three = foreign.detectron2(R50, cascade=True)
    two = {n: s for n, s in three.items() if not re.match(r"roi_heads\.box_\w+\.2", n)}
    with pytest.raises(ValueError, match="a Cascade R-CNN of 2 box heads with boxes of all cl"):
        found(two)
    agnostic = {"roi_heads.box_predictor.bbox_pred.weight": (4, 1024)}
    assert found(D2 | agnostic).sizes["box_head"]["class_agnostic"]
    with pytest.raises(ValueError, match="boxes that do not depend on the class, which torchvi"):
        found(TV | agnostic)


def test_what_is_not_recognized():
    with pytest.raises(ValueError, match="not recognized: .* 2 tensors are a.weight, b.weight"):
        found({"b.weight": (1,), "a.weight": (2,)})
    cut = {n: s for n, s in D2.items() if "res4" not in n}
    with pytest.raises(ValueError, match=r"with \(3, 4, 0, 3\) bottleneck blocks"):
        found(cut)
    cut = {n: s for n, s in D2.items() if "res2.0" not in n}
    with pytest.raises(ValueError, match="the first residual block is incomplete"):
        found(cut)
    no_pyramid = {n: s for n, s in TV.items() if "fpn" not in n}
    with pytest.raises(ValueError, match="torchvision without a feature pyramid"):
        found(no_pyramid)
