"""The fields that go with a file, and the comparison with an experiment."""

import json

import numpy as np

from mrcnn_tf.experiment import fields, loading, presets
from mrcnn_tf.weights import classes, comparison, conventions, recognize
from tests.weights import foreign_shapes as foreign

R50 = foreign.Sizes()


def recognized(shapes):
    return recognize.recognize({n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()})


def model_of(shapes):
    """The configuration that a file needs, as `convert_weights` lays it over the defaults."""
    needed, _ = conventions.model_fields(recognized(shapes))
    model = fields.Model()
    model.override(presets.PRESETS[needed["preset"]])
    model.override(needed)
    return model


def test_released_detectors_need_exactly_their_presets():
    for project, shapes in {
        "torchvision": foreign.torchvision(R50),
        "detectron2": foreign.detectron2(R50),
    }.items():
        want = fields.Model(preset=project)
        want.override(presets.PRESETS[project])
        want.override({"backbone": {"weights": ""}})
        assert model_of(shapes).as_dict() == want.as_dict()


def test_detectron2_on_c4_and_alone():
    c4 = model_of(foreign.detectron2(R50, features="c4"))
    assert (c4.system, c4.features) == ("mask_rcnn", "c4")
    assert (c4.rpn.pre_nms_top_k_train, c4.rpn.post_nms_top_k_train) == (12000, 2000)
    assert (c4.rpn.pre_nms_top_k_test, c4.rpn.post_nms_top_k_test) == (6000, 1000)
    assert c4.box_head.rois_per_image == 512
    alone = model_of(foreign.detectron2(R50, "rpn"))
    assert alone.system == "rpn"
    assert (alone.rpn.pre_nms_top_k_test, alone.rpn.post_nms_top_k_test) == (1000, 2000)


def test_detectron2s_models_for_lvis_find_more_and_fainter_objects():
    for classes_of_file in (1203, 1230):
        lvis = model_of(foreign.detectron2(R50, classes=classes_of_file))
        assert (lvis.max_instances, lvis.detection.score_threshold) == (300, 1e-4)
        assert lvis.federated.classes_per_image == 0
    of_sigmoids = lvis.as_dict()
    of_sigmoids["federated"] = {
        "classes_per_image": 50,
        "frequency_power": 1.0,
        "image_lists": True,
    }
    answers, free = comparison.differences(lvis.as_dict(), of_sigmoids)
    assert [text.split(":")[0] for text in answers] == ["task.model.federated.classes_per_image"]
    assert [text.split(":")[0] for text in free] == ["task.model.federated.frequency_power"]
    of_sigmoids["federated"]["classes_per_image"] = 30
    fewer = lvis.as_dict() | {"federated": of_sigmoids["federated"] | {"classes_per_image": 50}}
    assert comparison.differences(fewer, of_sigmoids) == ([], [])
    others = model_of(foreign.detectron2(R50, classes=1204))
    assert (others.max_instances, others.detection.score_threshold) == (100, 0.05)


def test_detectron2s_cascade_is_the_experiment():
    """Of one class, too, where the boxes' shape does not tell whether it is of all classes."""
    given = loading.load("cascade_maskrcnn_r50_fpn").task.model
    for classes_of_file in (80, 1):
        needed = model_of(foreign.detectron2(R50, classes=classes_of_file, cascade=True))
        answers, free = comparison.differences(needed.as_dict(), given.as_dict())
        assert answers == []
        assert all("backbone.weights" in text for text in free), free
    alone = model_of(foreign.detectron2(R50))
    answers, _ = comparison.differences(alone.as_dict(), given.as_dict())
    assert [text.split(":")[0] for text in answers] == [
        "task.model.box_head.class_agnostic",
        "task.model.cascade.regression_factors",
    ]


def test_detectron2_on_dilated_c5():
    """Base-RCNN-DilatedC5.yaml."""
    shapes = foreign.detectron2(R50, features="dc5")
    dc5 = model_of(shapes)
    assert (dc5.system, dc5.features) == ("mask_rcnn", "dc5")
    assert (dc5.rpn.pre_nms_top_k_train, dc5.rpn.post_nms_top_k_train) == (12000, 2000)
    assert (dc5.rpn.pre_nms_top_k_test, dc5.rpn.post_nms_top_k_test) == (6000, 1000)
    assert (dc5.box_head.fc_layers, dc5.box_head.pool_size) == (2, 7)
    assert (dc5.mask_head.conv_layers, dc5.mask_head.mask_size) == (4, 28)
    assert dc5.backbone.stride_in_1x1
    _, notes = conventions.model_fields(recognized(shapes))
    assert any("If it was trained with RES5_DILATION 1" in note for note in notes)


def test_norms_of_detectron2():
    """Misc/mask_rcnn_R_50_FPN_3x_gn.yaml and _syncbn.yaml."""
    group = model_of(foreign.detectron2_norms(R50))
    assert (group.backbone.norm, group.fpn.norm) == ("group_norm", "group_norm")
    assert not group.backbone.stride_in_1x1
    assert tuple(group.pixels.std) == (1.0, 1.0, 1.0)
    batch = model_of(foreign.detectron2_norms(R50, group=False))
    assert (batch.backbone.norm, batch.mask_head.norm) == ("batch_norm", "batch_norm")
    assert batch.backbone.stride_in_1x1
    assert batch.backbone.norm_epsilon == 1e-5
    backbone = model_of(foreign.caffe2_backbone(R50, "gn", "conv1"))
    assert (backbone.backbone.norm, backbone.backbone.stride_in_1x1) == ("group_norm", False)
    # A group norm is no batch norm: an experiment with the usual ones is refused.
    answers, _ = comparison.differences(
        group.as_dict(), model_of(foreign.detectron2(R50)).as_dict()
    )
    assert any(
        "backbone.norm: 'frozen_batch_norm', the weights need 'group_norm'" in a for a in answers
    )


def test_detectron2s_pointrend_is_the_experiment():
    given = loading.load("pointrend_r50_fpn").task.model
    needed = model_of(foreign.detectron2(R50, point_rend=True))
    answers, free = comparison.differences(needed.as_dict(), given.as_dict())
    assert answers == []
    assert all("backbone.weights" in text for text in free), free


def test_detectron2s_keypoints_are_the_experiment():
    given = loading.load("keypointrcnn_r50_fpn").task.model
    shapes = foreign.detectron2(R50, "faster_rcnn", classes=1, keypoints=17)
    needed = model_of(shapes)
    answers, free = comparison.differences(needed.as_dict(), given.as_dict())
    assert answers == []
    assert all("backbone.weights" in text for text in free), free
    label_map = classes.label_map(recognized(shapes))
    assert label_map.names == ("person",)
    assert label_map.keypoints.names[:3] == ("nose", "left_eye", "right_eye")
    assert label_map.keypoints.names[-1] == "right_ankle"
    assert label_map.keypoints.mirrored()[5:7] == (6, 5)
    joined = {tuple(label_map.keypoints.names[k] for k in e) for e in label_map.keypoints.skeleton}
    assert ("left_ankle", "left_knee") in joined
    assert ("left_shoulder", "right_shoulder") in joined


def test_backbones():
    msra = model_of(foreign.caffe2_backbone(R50))
    assert msra.backbone.stride_in_1x1
    assert (msra.pixels.order, tuple(msra.pixels.mean)) == ("bgr", (103.53, 116.28, 123.675))
    theirs = model_of(foreign.detectron2_backbone(R50))
    assert not theirs.backbone.stride_in_1x1
    assert (theirs.pixels.order, tuple(theirs.pixels.std)) == ("rgb", (58.395, 57.12, 57.375))
    ours = model_of(foreign.torchvision_backbone(R50))
    assert ours.backbone.norm_epsilon == 1e-5
    assert not ours.backbone.stride_in_1x1
    keras = model_of(foreign.keras(R50))
    assert (keras.preset, keras.backbone.norm_epsilon) == ("paper", 1.001e-5)
    garden = model_of(foreign.model_garden(R50))
    assert garden.pixels.order == "rgb"
    assert not garden.backbone.stride_in_1x1
    _, notes = conventions.model_fields(recognized(foreign.model_garden(R50)))
    assert any("not the same numbers" in note for note in notes)


def test_differences():
    needed = model_of(foreign.torchvision(R50)).as_dict()
    assert comparison.differences(needed, needed) == ([], [])
    given = model_of(foreign.torchvision(R50))
    given.override(
        {
            "pixels": {"mean": [123.675, 116.28, 103.530000001]},  # the same but for rounding
            "backbone": {"norm": "sync_batch_norm", "freeze_at": 0, "norm_epsilon": 1e-5},
            "rpn": {"anchors_rounded": False},
            "max_instances": 300,
        }
    )
    answers, free = comparison.differences(needed, given.as_dict())
    assert answers == [
        "task.model.backbone.norm_epsilon: 1e-05, the weights need 0.0",
        "task.model.rpn.anchors_rounded: False, the weights need True",
    ]
    assert [text.split(":")[0] for text in free] == [
        "task.model.max_instances",
        "task.model.backbone.freeze_at",
    ]
    given.override({"backbone": {"norm": "group_norm"}})
    answers, _ = comparison.differences(needed, given.as_dict())
    assert any("backbone.norm: 'group_norm'" in text for text in answers)


def test_what_no_part_reads_does_not_differ():
    needed = model_of(foreign.detectron2(R50, "faster_rcnn", "c4")).as_dict()
    given = model_of(foreign.detectron2(R50, "faster_rcnn", "c4"))
    given.override({"mask_head": {"conv_layers": 2}, "fpn": {"channels": 3}})
    assert comparison.differences(needed, given.as_dict()) == ([], [])
    given.override({"box_head": {"pool_size": 8}})
    assert len(comparison.differences(needed, given.as_dict())[0]) == 1


def test_cocos_classes():
    assert len(classes.COCO) == 80
    assert (min(classes.COCO), max(classes.COCO)) == (1, 90)
    assert list(classes.COCO) == sorted(classes.COCO)
    assert len(set(classes.COCO.values())) == 80
    d2 = classes.label_map(recognized(foreign.detectron2(R50)))
    assert d2.ids[79] == 90
    assert d2.names[11] == "stop sign"
    assert d2.ids[11] == 13
    tv = classes.label_map(recognized(foreign.torchvision(R50)))
    assert tv.ids == tuple(range(1, 91))
    assert [i for i, n in zip(tv.ids, tv.names, strict=True) if n == "N/A"] == [
        *(12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
    ]
    other = classes.label_map(recognized(foreign.torchvision(R50, outputs=3)))
    assert other.names == ("class 1", "class 2")
    assert classes.label_map(recognized(foreign.keras(R50))) is None


def test_cocos_classes_are_those_of_the_annotations(shared):
    files = sorted((shared / "data" / "coco_small").rglob("*.json"))
    categories = next(
        found["categories"]
        for found in (json.loads(file.read_text()) for file in files)
        if isinstance(found, dict) and "categories" in found
    )
    named = {c["id"]: c["name"] for c in categories}
    assert {i: classes.COCO[i] for i in named} == named


def test_torchvisions_second_version():
    model = model_of(foreign.torchvision_v2(R50))
    assert model.backbone.norm == model.fpn.norm == "batch_norm"
    assert model.box_head.norm == model.mask_head.norm == "batch_norm"
    assert model.backbone.norm_epsilon == 1e-5
    assert model.rpn.conv_layers == 2
    assert (model.box_head.conv_layers, model.box_head.conv_channels) == (4, 256)
    assert (model.box_head.fc_layers, model.box_head.pool_size) == (1, 7)
    assert model.mask_head.conv_layers == 4


def test_resnext():
    x101 = foreign.Sizes(depth=101, groups=32, width_per_group=8)
    for shapes in (foreign.detectron2(x101), foreign.caffe2_backbone(x101)):
        model = model_of(shapes)
        assert (model.backbone.groups, model.backbone.width_per_group) == (32, 8)
        assert not model.backbone.stride_in_1x1
        assert tuple(model.pixels.std) == (57.375, 57.120, 58.395)
        assert model.pixels.order == "bgr"
    theirs = model_of(foreign.torchvision(foreign.Sizes(groups=32, width_per_group=4)))
    assert (theirs.backbone.groups, theirs.backbone.width_per_group) == (32, 4)
    assert theirs.pixels.order == "rgb"
