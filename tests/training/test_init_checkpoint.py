"""Starting from parts of another network's checkpoint."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import fields
from mrcnn_tf.experiment.experiment import Task
from mrcnn_tf.modeling import build
from mrcnn_tf.training import task as task_lib
from mrcnn_tf.weights import keras_applications
from tests import tiny_network


def config(system="mask_rcnn", features="fpn", proposals="rpn") -> fields.Model:
    model = tiny_network.config()
    model.override({"system": system, "features": features, "proposals": proposals})
    if features == "c4":
        model.override({"box_head": {"pool_size": 6}, "mask_head": {"mask_size": 6}})
    return model


def write(model, folder) -> str:
    return tf.train.Checkpoint(model=model, global_step=tf.Variable(3)).save(str(folder / "ckpt"))


def task_of(model, **fields) -> task_lib.MaskRCNNTask:
    return task_lib.MaskRCNNTask(Task(model=model, **fields))


def values(layer) -> dict[str, np.ndarray]:
    return {v.name: v.numpy() for v in layer.weights} if layer else {}  # C4 has no pyramid


@pytest.mark.parametrize("features", ["fpn", "c4"])
def test_an_rpn_takes_a_detectors_features_and_begins_its_own_layers_anew(tmp_path, features):
    """The third of four steps: the detector has no RPN, the RPN no heads."""
    detector = tiny_network.build_network(config("mask_rcnn", features, "file"))
    path = write(detector, tmp_path)
    task = task_of(
        config("rpn", features), init_checkpoint=path, init_checkpoint_modules="backbone, pyramid"
    )
    model = task.build_model()
    before = values(model.rpn)
    task.initialize(model)
    saved = values(detector.backbone) | values(detector.pyramid)
    loaded = values(model.backbone) | values(model.pyramid)
    assert len(loaded) > 20
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, saved[name], name)
    if features == "c4":  # stage 5 belongs to the heads, which an RPN has not
        assert {name for name in saved if "stage5" in name} == set(saved) - set(loaded)
    for name, value in values(model.rpn).items():
        np.testing.assert_array_equal(value, before[name], name)


@pytest.mark.parametrize("modules", ["", "all"])
def test_a_checkpoint_of_the_same_network_is_loaded_whole(tmp_path, modules):
    saved = tiny_network.build_network(config())
    path = write(saved, tmp_path)
    task = task_of(config(), init_checkpoint=path, init_checkpoint_modules=modules)
    assert task.task_config.loaded_parts() == fields.MODULES
    model = task.build_model()
    task.initialize(model)
    wanted = values(saved)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, wanted[name], name)


def test_without_modules_what_fits_is_taken_and_classes_of_the_same_name(tmp_path, capsys):
    """Fine-tuning: the checkpoint knows ring and star, the records ring and disc, in no order."""
    theirs, ours = config(), config()
    theirs.num_classes, ours.num_classes = 3, 4
    saved = build.build_model(theirs, 3)
    tiny_network.randomize(saved)
    path = write(saved, tmp_path)
    (tmp_path / "label_map.json").write_text(LabelMap((1, 2), ("ring", "star")).to_json())
    task = task_of(ours, init_checkpoint=path)
    task.label_map = LabelMap((5, 6, 7), ("disc", "ring", "cross"))
    model = task.build_model()
    fresh = model.roi_heads.box_head.class_logits.kernel.numpy()
    task.initialize(model)
    got = model.roi_heads.box_head.class_logits.kernel.numpy()  # background, disc, ring, cross
    want = saved.roi_heads.box_head.class_logits.kernel.numpy()  # background, ring, star
    np.testing.assert_array_equal(got[:, [0, 2]], want[:, [0, 1]])
    np.testing.assert_array_equal(got[:, [1, 3]], fresh[:, [1, 3]])
    for name, value in values(saved.backbone).items():
        np.testing.assert_array_equal(values(model.backbone)[name], value, name)
    printed = capsys.readouterr().out
    assert "1 classes carried over (ring) with background, 2 initialised afresh" in printed


@pytest.mark.parametrize(
    ("features", "modules", "missing"),
    [
        ("fpn", "backbone, pyramid, rpn", "rpn/head/objectness/bias: not in the checkpoint"),
        ("fpn", "rpn", "rpn/head/convs/0/kernel: not in the checkpoint"),
    ],
)
def test_a_variable_that_is_not_there_is_named(tmp_path, features, modules, missing):
    path = write(tiny_network.build_network(config("mask_rcnn", features, "file")), tmp_path)
    task = task_of(config("rpn", features), init_checkpoint=path, init_checkpoint_modules=modules)
    with pytest.raises(ValueError, match=f"does not fit {modules} of this model") as error:
        task.initialize(task.build_model())
    assert missing in str(error.value)


def test_a_pyramid_of_another_width_is_refused_with_the_shapes(tmp_path):
    wider = config()
    wider.override({"fpn": {"channels": 24}})
    path = write(tiny_network.build_network(wider), tmp_path)
    task = task_of(config(), init_checkpoint=path, init_checkpoint_modules="pyramid")
    with pytest.raises(
        ValueError,
        match=r"(?s)does not fit pyramid of this model:.*\(24,\) in the checkpoint, \(16,\) here",
    ):
        task.initialize(task.build_model())


def test_imagenet_weights_are_not_fetched_where_the_backbone_is_loaded(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(keras_applications, "load_imagenet", lambda *unused: fetched.append(1))
    path = write(tiny_network.build_network(config()), tmp_path)
    for modules, times in (("", 0), ("backbone", 0), ("all", 0), ("pyramid, rpn", 1)):
        model = config()
        model.backbone.weights = "imagenet"
        task = task_of(model, init_checkpoint=path, init_checkpoint_modules=modules)
        task.initialize(task.build_model())
        assert len(fetched) == times, modules
