"""The experiment that is written for a person: YAML with its reasons, which loads."""

import subprocess

import numpy as np
import pytest
import yaml

from mrcnn_tf import choose_experiment
from mrcnn_tf.experiment import choices, loading
from mrcnn_tf.experiment.choices import Choice


def test_fields_below_their_reasons(tmp_path):
    text = choose_experiment.to_text(
        "For 3 photos.",
        choose_experiment.BASE,
        [
            Choice("trainer.train_steps", 7, "first thought"),
            Choice("task.model.rpn.anchor_sizes", [8.0, 16.0, 32.0, 64.0, 128.0], "why " * 40),
            Choice("task.train_data.input_path", "a 'b': {c}, # ü 😀.tfrecord", "odd but possible"),
            Choice("trainer.train_steps", 9, "second thought"),
        ],
    )
    assert yaml.safe_load(text) == {
        "base": "maskrcnn_lite0_fpn_finetune",
        "trainer": {"train_steps": 9},
        "task": {
            "model": {"rpn": {"anchor_sizes": [8.0, 16.0, 32.0, 64.0, 128.0]}},
            "train_data": {"input_path": "a 'b': {c}, # ü 😀.tfrecord"},
        },
    }
    lines = text.splitlines()
    assert lines[0] == "# For 3 photos."
    assert lines[lines.index("  train_steps: 9") - 1] == "  # second thought"
    assert "first thought" not in text
    assert max(map(len, lines)) <= 100
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    experiment = loading.load(str(path))
    assert experiment.task.name == "mine"
    assert experiment.trainer.train_steps == 9
    assert experiment.task.model.rpn.anchor_sizes == (8.0, 16.0, 32.0, 64.0, 128.0)
    assert experiment.task.model.backbone.type == "efficientnet_lite0"


def test_on_weights_of_ones_own(tmp_path):
    trained = loading.load("maskrcnn_r50_fpn")
    trained.task.model.num_classes = 81
    trained.task.annotation_file = "instances_val2017.json"
    loading.save(trained, str(tmp_path / "params.yaml"))
    base, chosen = choose_experiment._starting_point(str(tmp_path))
    path = tmp_path / "mine.yaml"
    path.write_text(choose_experiment.to_text("For photos.", base, chosen))
    experiment = loading.load(str(path))
    assert experiment.task.model.backbone.type == "resnet"
    assert experiment.task.init_checkpoint == str(tmp_path)
    assert experiment.task.model.num_classes == 0  # of the photos' label map
    assert experiment.task.annotation_file == ""
    assert experiment.task.model.rpn.anchor_sizes == (32.0, 64.0, 128.0, 256.0, 512.0)
    optimizer = experiment.trainer.optimizer_config
    assert optimizer.optimizer.type == "adamw"
    assert optimizer.learning_rate.type == "cosine"


def test_what_is_measured_is_what_is_trained(tmp_path, monkeypatch):
    trained = loading.load("maskrcnn_r50_fpn")
    loading.save(trained, str(tmp_path / "params.yaml"))
    objects = choices.Objects(
        np.array([[480.0, 640.0]] * 10), np.arange(10), np.array([[100.0, 100, 300, 300]] * 10),
        np.full(10, 40_000.0), 2,
    )  # fmt: skip
    trials = []
    monkeypatch.setattr(
        choose_experiment,
        "_images_per_second",
        lambda text, may_fail: trials.append(text) or 4.0,
    )
    for weights in ("auto", str(tmp_path)):
        base, given = choose_experiment._starting_point(weights)
        chosen = choose_experiment._choose(objects, base, given, "train-*", "val-*", 10.0)
        path = tmp_path / "mine.yaml"
        path.write_text(choose_experiment.to_text("For photos.", base, [*given, *chosen]))
        experiment = loading.load(str(path))
        assert (
            loading.scale_to_batch(experiment, experiment.task.train_data.global_batch_size) == ""
        )
        assert experiment.task.train_data.global_batch_size == 2
        assert experiment.task.validation_data.global_batch_size == 2
        assert experiment.trainer.train_steps == 1200  # 600 s of 0.5 s
        schedule = experiment.trainer.optimizer_config.learning_rate
        assert (schedule.get().decay_steps, schedule.get().initial_learning_rate) == (1200, 5e-4)
        assert "Each photo is seen 240 times" in path.read_text()
        path.write_text(trials[-1])
        tried = loading.load(str(path))
        for group in ("train_data", "model"):
            assert getattr(tried.task, group) == getattr(experiment.task, group)


@pytest.mark.parametrize(
    ("code", "said", "may_fail", "speed"),
    [(-9, "", True, 0.0), (1, "ResourceExhaustedError: OOM", True, 0.0), (-9, "", False, None)],
)
def test_a_trial_without_enough_memory(monkeypatch, code, said, may_fail, speed):
    done = subprocess.CompletedProcess([], code, said, "")
    monkeypatch.setattr(choose_experiment.subprocess, "run", lambda *_, **__: done)
    if speed is None:
        with pytest.raises(ValueError, match="no training step was possible"):
            choose_experiment._images_per_second("", may_fail)
    else:
        assert choose_experiment._images_per_second("", may_fail) == speed


def test_weights_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"--weights=.*: neither auto nor none, nor a folder with"):
        choose_experiment._starting_point(str(tmp_path))
    base, chosen = choose_experiment._starting_point("none")
    (tmp_path / "mine.yaml").write_text(choose_experiment.to_text("For photos.", base, chosen))
    backbone = loading.load(str(tmp_path / "mine.yaml")).task.model.backbone
    assert (backbone.weights, backbone.norm, backbone.freeze_at) == ("", "group_norm", 0)
