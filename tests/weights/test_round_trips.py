"""Every kind of file into a small model and, where there is a way back, back."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.experiment import fields, presets
from mrcnn_tf.modeling import build
from mrcnn_tf.weights import (
    assign,
    conventions,
    detectron2,
    files,
    keras_applications,
    model_garden,
    recognize,
    torchvision,
)
from tests import tiny_network
from tests.weights import foreign_shapes as foreign

SMALL = foreign.small()
R50 = foreign.small(depth=50)
X50 = foreign.small(depth=50, groups=2, width_per_group=3)
DETECTORS = {
    "torchvision Mask R-CNN, version 2": (torchvision, foreign.torchvision_v2(SMALL, outputs=4)),
    "torchvision Mask R-CNN, ResNeXt": (torchvision, foreign.torchvision(X50, outputs=4)),
    "Detectron2 Faster R-CNN C4, ResNeXt": (
        detectron2,
        foreign.detectron2(X50, "faster_rcnn", "c4", classes=3),
    ),
    "torchvision Mask R-CNN": (torchvision, foreign.torchvision(SMALL, outputs=4)),
    "torchvision Faster R-CNN": (
        torchvision,
        foreign.torchvision(SMALL, "faster_rcnn", outputs=4),
    ),
    "Detectron2 Mask R-CNN FPN": (detectron2, foreign.detectron2(SMALL, classes=3)),
    "Detectron2 Faster R-CNN FPN": (
        detectron2,
        foreign.detectron2(SMALL, "faster_rcnn", classes=3),
    ),
    "Detectron2 Cascade Mask R-CNN": (
        detectron2,
        foreign.detectron2(SMALL, classes=3, cascade=True),
    ),
    "Detectron2 Cascade R-CNN": (
        detectron2,
        foreign.detectron2(SMALL, "faster_rcnn", classes=3, cascade=True),
    ),
    "Detectron2 PointRend": (detectron2, foreign.detectron2(SMALL, classes=3, point_rend=True)),
    "Detectron2 Keypoint R-CNN": (
        detectron2,
        foreign.detectron2(SMALL, "faster_rcnn", classes=1, keypoints=17),
    ),
    "Detectron2 Mask R-CNN with keypoints": (
        detectron2,
        foreign.detectron2(SMALL, classes=3, keypoints=5),
    ),
    "torchvision Keypoint R-CNN": (
        torchvision,
        foreign.torchvision(SMALL, "faster_rcnn", outputs=2, keypoints=17),
    ),
    "Detectron2 RPN FPN": (detectron2, foreign.detectron2(SMALL, "rpn")),
    "Detectron2 Mask R-CNN C4": (detectron2, foreign.detectron2(SMALL, features="c4", classes=3)),
    "Detectron2 Faster R-CNN C4": (
        detectron2,
        foreign.detectron2(SMALL, "faster_rcnn", "c4", classes=3),
    ),
    "Detectron2 RPN C4": (detectron2, foreign.detectron2(SMALL, "rpn", "c4")),
    "Detectron2 Mask R-CNN DC5": (detectron2, foreign.detectron2(SMALL, features="dc5", classes=3)),
    "Detectron2 Faster R-CNN DC5": (
        detectron2,
        foreign.detectron2(R50, "faster_rcnn", "dc5", classes=3),
    ),
    "Detectron2 RPN DC5": (detectron2, foreign.detectron2(SMALL, "rpn", "dc5")),
    "Detectron2 Mask R-CNN X-FPN": (detectron2, foreign.detectron2(X50, classes=3)),
    "Detectron2 group norm": (detectron2, foreign.detectron2_norms(R50, classes=3)),
    "Detectron2 batch norm": (
        detectron2,
        foreign.detectron2_norms(SMALL, classes=3, group=False),
    ),
}


def model_for(state):
    found = recognize.recognize(state)
    needed, _ = conventions.model_fields(found)
    config = fields.Model()
    config.override(presets.PRESETS[needed["preset"]])
    if found.features in presets.FEATURES:
        config.override(presets.FEATURES[found.features])
    if found.features == "c4":
        config.override({"box_head": {"pool_size": 14}, "mask_head": {"mask_size": 14}})
    config.override(needed)
    return build.build_model(config, found.num_classes or 2)


def randomize(model, seed):
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape))


@pytest.mark.parametrize("case", DETECTORS)
def test_there_and_back(case):
    module, shapes = DETECTORS[case]
    state = foreign.state_dict(shapes)
    model = model_for(state)
    report = module.load(model, state)
    state = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert set(report.loaded) == set(state)
    assert all(name.endswith("num_batches_tracked") for name in report.dropped)
    # The file again, but for what torchvision never uses.
    written = assign.export(module.entries(model), model.weights)
    assert written.keys() == state.keys()
    for name, tensor in state.items():
        if module is torchvision and ("bbox_pred" in name or "mask_fcn_logits" in name):
            unused = 4 if "box_predictor" in name else 1 if "mask" in name else 0
            assert not written[name][:unused].any()
            written[name], tensor = written[name][unused:], tensor[unused:]
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)
    # Any weights of ours.
    randomize(model, 1)
    want = model.get_weights()
    written = assign.export(module.entries(model), model.weights)
    randomize(model, 2)
    module.load(model, written)
    for got, expected in zip(model.get_weights(), want, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_box_rows_of_c4_and_its_stage_5():
    """Spot checks against the tensors themselves, in Detectron2's layout."""
    _, shapes = DETECTORS["Detectron2 Mask R-CNN C4"]
    state = foreign.state_dict(shapes)
    model = model_for(state)
    detectron2.load(model, state)
    heads = model.roi_heads
    np.testing.assert_array_equal(
        heads.stage5.blocks[1].conv2.kernel,
        state["roi_heads.res5.1.conv2.weight"].transpose(2, 3, 1, 0),
    )
    deltas = state["roi_heads.box_predictor.bbox_pred.bias"].reshape(3, 4)
    np.testing.assert_array_equal(
        np.reshape(heads.box_head.box_deltas.bias, (3, 4)), deltas[:, [1, 0, 3, 2]]
    )
    logits = state["roi_heads.box_predictor.cls_score.bias"]
    np.testing.assert_array_equal(heads.box_head.class_logits.bias, logits[[3, 0, 1, 2]])
    anchors = state["proposal_generator.rpn_head.anchor_deltas.bias"].reshape(15, 4)
    np.testing.assert_array_equal(
        np.reshape(model.rpn.head.deltas.bias, (15, 4)), anchors[:, [1, 0, 3, 2]]
    )


@pytest.mark.parametrize("project", ["Detectron2", "torchvision"])
def test_the_keypoint_head(project):
    """Spot checks: the last convolution, and one tap of the deconvolution for one keypoint."""
    module, shapes = DETECTORS[f"{project} Keypoint R-CNN"]
    state = foreign.state_dict(shapes)
    model = model_for(state)
    module.load(model, state)
    name, maps = {
        "Detectron2": ("keypoint_head.conv_fcn8", "keypoint_head.score_lowres"),
        "torchvision": ("keypoint_head.14", "keypoint_predictor.kps_score_lowres"),
    }[project]
    head = model.roi_heads.keypoint_head
    theirs = state[f"roi_heads.{name}.weight"]
    np.testing.assert_array_equal(head.convs[7].conv.kernel, theirs.transpose(2, 3, 1, 0))
    theirs = state[f"roi_heads.{maps}.weight"]  # [in, keypoints, 4, 4]
    np.testing.assert_array_equal(head.deconv.kernel[1, 2, 16], theirs[:, 16, 1, 2])
    np.testing.assert_array_equal(head.deconv.bias, state[f"roi_heads.{maps}.bias"])


def test_the_box_heads_of_a_cascade():
    """Spot checks of the last head, whose deltas are of all classes."""
    _, shapes = DETECTORS["Detectron2 Cascade Mask R-CNN"]
    state = foreign.state_dict(shapes)
    model = model_for(state)
    detectron2.load(model, state)
    head = model.roi_heads.later_box_heads[1]
    deltas = state["roi_heads.box_predictor.2.bbox_pred.weight"]
    np.testing.assert_array_equal(head.box_deltas.kernel, deltas[[1, 0, 3, 2]].T)
    logits = state["roi_heads.box_predictor.2.cls_score.bias"]
    np.testing.assert_array_equal(head.class_logits.bias, logits[[3, 0, 1, 2]])
    hidden = state["roi_heads.box_head.2.fc2.weight"]
    np.testing.assert_array_equal(head.hidden[1].kernel, hidden.T)
    assert head.regression_weights == (30.0, 30.0, 15.0, 15.0)
    with pytest.raises(ValueError, match="torchvision has no models with class-agnostic boxes"):
        torchvision.entries(model)


def test_one_mask_for_all_classes():
    shapes = foreign.detectron2(SMALL, classes=3)
    shapes["roi_heads.mask_head.predictor.weight"] = (1, 8, 1, 1)
    shapes["roi_heads.mask_head.predictor.bias"] = (1,)
    state = foreign.state_dict(shapes)
    model = model_for(state)
    detectron2.load(model, state)
    written = assign.export(detectron2.entries(model), model.weights)
    for name, tensor in state.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)
    with pytest.raises(
        ValueError, match="torchvision has no masks of .*classes: agnostic, only of"
    ):
        torchvision.entries(model)


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        ({"classes": "softmax"}, "no masks of .*classes: softmax, only of independent"),
        ({"type": "mlp"}, "has no mask head like ours, a MLPMaskHead"),
    ],
)
def test_mask_heads_that_no_other_project_has(differs, message):
    config = tiny_network.config()
    config.mask_head.override(differs)
    model = build.build_model(config, 3)
    for module in (detectron2, torchvision):
        with pytest.raises(ValueError, match=message):
            module.entries(model)


def test_the_heads_of_pointrend():
    """Spot checks, and the names of its first files."""
    _, shapes = DETECTORS["Detectron2 PointRend"]
    state = foreign.state_dict(shapes)
    model = model_for(state)
    detectron2.load(model, state)
    coarse, points = (getattr(model.roi_heads.mask_head, k) for k in ("coarse_head", "point_head"))
    name = "roi_heads.mask_head."
    masks = state[f"{name}coarse_head.prediction.bias"].reshape(3, 7, 7)
    np.testing.assert_array_equal(
        np.reshape(coarse.mask_logits.bias, (7, 7, 3)), masks.transpose(1, 2, 0)
    )
    fc = state[f"{name}coarse_head.fc1.weight"]  # of features that were flattened as NCHW
    ours = np.reshape(coarse.hidden[0].kernel, (7, 7, -1, len(fc)))
    np.testing.assert_array_equal(ours[2, 5], fc.reshape(len(fc), -1, 7, 7)[:, :, 2, 5].T)
    fc = state[f"{name}point_head.fc3.weight"]
    np.testing.assert_array_equal(points.hidden[2].kernel, fc[:, :, 0].T)
    predictor = state[f"{name}point_head.predictor.weight"]
    np.testing.assert_array_equal(points.predictor_kernel, predictor[:, :, 0].T)
    old = {
        key.replace("mask_head.coarse_head.fc", "mask_coarse_head.coarse_mask_fc")
        .replace("mask_head.coarse_head", "mask_coarse_head")
        .replace("mask_head.point_head", "mask_point_head"): value
        for key, value in state.items()
    }
    assert old.keys() != state.keys()
    again = model_for(old)
    detectron2.load(again, old)
    for a, b in zip(again.variables, model.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_torchvision_writes_no_c4():
    _, shapes = DETECTORS["Detectron2 RPN C4"]
    model = model_for(foreign.state_dict(shapes))
    with pytest.raises(ValueError, match="torchvision has no models without a feature pyramid"):
        torchvision.entries(model)


BOTTLENECK = foreign.small(depth=50, base_width=4)
BACKBONES = {
    "torchvision": (
        torchvision,
        foreign.torchvision_backbone(SMALL),
        "layer4.0.downsample.0.weight",
        "bn1.running_var",
    ),
    "Detectron2": (
        detectron2,
        foreign.detectron2_backbone(BOTTLENECK),
        "res5.0.shortcut.weight",
        "stem.conv1.norm.running_var",
    ),
    "Caffe2": (detectron2, foreign.caffe2_backbone(BOTTLENECK), "res5_0_branch1_w", None),
    "Keras": (keras_applications, foreign.keras(BOTTLENECK), "conv5_block1_0_conv/kernel", None),
    "Model Garden": (
        model_garden,
        foreign.model_garden(BOTTLENECK),
        "backbone/layer_with_weights-15/_shortcut/kernel",
        "backbone/layer_with_weights-1/moving_variance",
    ),
}


@pytest.mark.parametrize("case", BACKBONES)
def test_backbones(case):
    module, shapes, shortcut, variance = BACKBONES[case]
    state = foreign.state_dict(shapes)
    resnet = model_for(state).backbone
    report = module.load_backbone(resnet, state)
    assert len(report.loaded) + len(report.dropped) == len(state)
    assert len(report.loaded) + len(report.filled) == len(resnet.weights)
    if variance:
        np.testing.assert_array_equal(resnet.stem.norm1.moving_variance, state[variance])
    kernel = state[shortcut]
    if case not in ("Keras", "Model Garden"):
        kernel = kernel.transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(resnet.stage5.blocks[0].shortcut.kernel, kernel)


def test_caffe2_norms_stand_for_no_statistics():
    state = foreign.state_dict(foreign.caffe2_backbone(BOTTLENECK))
    resnet = model_for(state).backbone
    randomize(resnet, 0)
    report = detectron2.load_backbone(resnet, state)
    norm = resnet.stage3.blocks[0].shortcut_norm
    np.testing.assert_array_equal(norm.gamma, state["res3_0_branch1_bn_s"])
    np.testing.assert_array_equal(norm.beta, state["res3_0_branch1_bn_b"])
    assert not np.any(norm.moving_mean)
    assert np.all(np.equal(norm.moving_variance, 1))
    assert {*report.filled.values()} == {0.0, 1.0}
    assert report.dropped.keys() == {"conv1_b", "fc1000_w", "fc1000_b"}


def test_caffe2_norms_with_statistics():
    """X-101-32x8d.pkl has them, as Detectron2 names them when it reads it."""
    shapes = foreign.caffe2_backbone(BOTTLENECK, leaves=("s", "b", "rm", "riv"))
    state = foreign.state_dict(shapes)
    resnet = model_for(state).backbone
    report = detectron2.load_backbone(resnet, state)
    assert not report.filled
    norm = resnet.stage3.blocks[0].shortcut_norm
    np.testing.assert_array_equal(norm.moving_mean, state["res3_0_branch1_bn_rm"])
    np.testing.assert_array_equal(norm.moving_variance, state["res3_0_branch1_bn_riv"])
    del state["res5_2_branch2c_bn_riv"]
    with pytest.raises(ValueError, match="1 tensors missing:.*\n.*res5_2_branch2c_bn_riv"):
        detectron2.load_backbone(resnet, state)


def test_caffe2_group_norms():
    """R-50-GN.pkl: the stem's norm is called after its convolution."""
    state = foreign.state_dict(foreign.caffe2_backbone(BOTTLENECK, "gn", "conv1"))
    resnet = model_for(state).backbone
    report = detectron2.load_backbone(resnet, state)
    assert len(report.loaded) == len(resnet.weights)
    assert not report.filled
    np.testing.assert_array_equal(resnet.stem.norm1.gamma, state["conv1_gn_s"])
    np.testing.assert_array_equal(resnet.stage4.blocks[1].norm2.beta, state["res4_1_branch2b_gn_b"])


def test_dc5_by_its_tensors():
    _, shapes = DETECTORS["Detectron2 Mask R-CNN DC5"]
    state = foreign.state_dict(shapes)
    model = model_for(state)
    detectron2.load(model, state)
    assert model.backbone.dilated
    np.testing.assert_array_equal(
        model.backbone.stage5.blocks[1].conv2.kernel,
        state["backbone.res5.1.conv2.weight"].transpose(2, 3, 1, 0),
    )
    # 2 x 2 places of 32 channels: flattened there channel by channel, here place by place.
    kernel = state["roi_heads.box_head.fc1.weight"].reshape(6, 32, 2, 2)
    np.testing.assert_array_equal(
        np.reshape(model.roi_heads.box_head.hidden[0].kernel, (2, 2, 32, 6)),
        kernel.transpose(2, 3, 1, 0),
    )
    assert model.rpn.head.convs[0].filters == 32


def test_single_missing_statistics_are_an_error():
    state = foreign.state_dict(foreign.detectron2(SMALL))
    del state["backbone.bottom_up.res3.0.conv1.norm.running_var"]
    with pytest.raises(ValueError, match=r"1 tensors missing:\n.*res3.0.conv1.norm.running_var"):
        detectron2.load(model_for(state), state)


def test_numbers_that_are_none_are_an_error():
    state = foreign.state_dict(foreign.torchvision(SMALL))
    state["backbone.body.bn1.bias"][1] = np.nan
    with pytest.raises(ValueError, match=r"1 tensors not finite:\n  backbone.body.bn1.bias"):
        torchvision.load(model_for(state), state)


def test_a_resnet_50_offered_as_r101():
    model = model_for(foreign.state_dict(foreign.torchvision(foreign.small(depth=101))))
    state = foreign.state_dict(foreign.torchvision(foreign.small(depth=50)))
    with pytest.raises(ValueError, match=r"255 tensors missing:\n.*layer3.6.conv1.weight"):
        torchvision.load(model, state)


def test_a_predictor_that_is_no_1x1_convolution():
    state = foreign.state_dict(foreign.detectron2(SMALL, classes=3))
    name = "roi_heads.mask_head.predictor.weight"
    model = model_for(state)
    state[name] = np.tile(state[name], (1, 1, 3, 3))
    with pytest.raises(ValueError, match=rf"1 tensors of the wrong shape:\n  {name}"):
        detectron2.load(model, state)


def test_a_variable_without_a_place_is_not_written():
    model = model_for(foreign.state_dict(foreign.detectron2(SMALL, "rpn")))
    model.extra = tf.Variable(0.0, name="extra")
    with pytest.raises(ValueError, match="the format has no place for:\n1 tensors of ours:\n  ext"):
        assign.export(detectron2.entries(model), model.weights)


@pytest.mark.slow
def test_model_gardens_own_checkpoint(tmp_path):
    """Names as `official.vision` really writes them; it is no dependency of the importer."""
    garden_resnet = pytest.importorskip("official.vision.modeling.backbones.resnet")
    theirs = garden_resnet.ResNet(50)
    rng = np.random.default_rng(0)
    for variable in theirs.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    checkpoint = tf.train.Checkpoint(
        backbone=theirs, model=tf.train.Checkpoint(backbone=theirs), step=tf.Variable(5)
    )
    state = files.read(checkpoint.save(str(tmp_path / "ckpt")))
    assert str(recognize.recognize(state)) == "model_garden: ImageNet backbone, ResNet-50"
    resnet = model_for(state).backbone
    report = model_garden.load_backbone(resnet, state)
    assert report.dropped.keys() == {"save_counter", "step"}
    # Layer by layer, in the order of the network.
    ours = [w for w in resnet.weights if len(w.shape) == 4]
    shapes = sorted(tuple(w.shape) for w in theirs.weights if len(w.shape) == 4)
    assert sorted(tuple(w.shape) for w in ours) == shapes
    block = next(layer for layer in theirs.layers if layer.name.endswith("block_13"))
    np.testing.assert_array_equal(resnet.stage5.blocks[0].conv2.kernel, block._conv2.kernel)
    np.testing.assert_array_equal(
        resnet.stage5.blocks[0].shortcut_norm.moving_mean, block._norm0.moving_mean
    )
