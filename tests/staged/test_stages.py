"""Which commands train a network in several runs, and that they are run once."""

import json
import shlex

import pytest

from mrcnn_tf import train
from mrcnn_tf.console import running
from mrcnn_tf.experiment import loading
from mrcnn_tf.staged import stages


def flags_of(stage) -> dict:
    """A stage's flags by name, as the command line has them."""
    found = dict(argument.removeprefix("--").split("=", 1) for argument in stage.arguments[2:])
    found["params_override"] = json.loads(found.get("params_override", "{}"))
    return found


def by_name(schedule) -> dict:
    return {stage.name: stage for stage in schedule.stages}


def test_separate_rpn_proposals_detector_evaluation():
    schedule = stages.Schedule("maskrcnn_r50_fpn_separate_rpn", "runs/x")
    assert [(s.name, s.arguments[1]) for s in schedule.stages] == [
        ("train the RPN", "mrcnn_tf.train"),
        ("write its proposals", "mrcnn_tf.write_proposals"),
        ("train the detector", "mrcnn_tf.train"),
        ("evaluate", "mrcnn_tf.train"),
    ]
    rpn, proposals, detector, evaluation = map(flags_of, schedule.stages)
    assert rpn == {
        "experiment": "rpn_r50_fpn",
        "mode": "train_and_eval",
        "model_dir": "runs/x/rpn",
        "params_override": {"stages.schedule": "joint"},
    }
    assert proposals == {
        "experiment": "runs/x/rpn/params.yaml",
        "checkpoint_path": "runs/x/rpn",
        "output_dir": "runs/x/proposals",
        "params_override": {},
    }
    assert detector == {
        "experiment": "maskrcnn_r50_fpn_separate_rpn",
        "mode": "train_and_eval",
        "model_dir": "runs/x/detector",
        "params_override": {
            "stages.schedule": "joint",
            "task.model.proposals": "file",
            "task.train_data.proposals": "runs/x/proposals/train",
            "task.validation_data.proposals": "runs/x/proposals/validation",
            "stages.rpn_experiment": "runs/x/rpn/params.yaml",
            "stages.rpn_checkpoint": "runs/x/rpn",
        },
    }
    assert evaluation["experiment"] == "runs/x/detector/params.yaml"
    assert evaluation["mode"] == "eval"
    assert evaluation["model_dir"] == schedule.result == "runs/x/detector"


@pytest.mark.parametrize(
    ("experiment", "frozen"),
    [
        (
            "maskrcnn_r50_fpn_alternating",
            {"task.model.backbone.freeze_at": 5, "task.model.fpn.frozen": True},
        ),
        ("maskrcnn_r50_c4_alternating", {"task.model.backbone.freeze_at": 4}),
    ],
)
def test_the_four_steps(experiment, frozen):
    schedule = stages.Schedule(experiment, "r")
    assert [s.arguments[1].removeprefix("mrcnn_tf.") for s in schedule.stages] == [
        *("train", "write_proposals", "train"),
        *("train", "write_proposals", "train"),
        *("staged.join_networks", "train"),
    ]
    runs = [flags_of(s) for s in schedule.stages if s.arguments[1] == "mrcnn_tf.train"]
    folders = ["r/step1_rpn", "r/step2_detector", "r/step3_rpn", "r/step4_detector", "r"]
    assert [run["model_dir"] for run in runs] == folders
    first, second, third, fourth, _ = (run["params_override"] for run in runs)
    assert "task.init_checkpoint" not in first | second
    assert "task.model.backbone.freeze_at" not in first | second
    assert second["task.train_data.proposals"] == "r/step1_proposals/train"
    assert third == frozen | {
        "stages.schedule": "joint",
        "task.init_checkpoint": "r/step2_detector",
        "task.init_checkpoint_modules": "backbone, pyramid",
    }
    assert fourth.items() >= frozen.items()
    assert fourth["task.init_checkpoint"] == "r/step2_detector"
    assert fourth["task.init_checkpoint_modules"] == "all"
    assert fourth["task.train_data.proposals"] == "r/step3_proposals/train"
    assert fourth["task.validation_data.proposals"] == "r/step3_proposals/validation"
    join = flags_of(by_name(schedule)["join RPN and detector"])
    assert join["rpn_checkpoint"] == "r/step3_rpn"
    assert join["detector_checkpoint"] == "r/step4_detector"
    assert join["model_dir"] == schedule.result == "r"


@pytest.mark.parametrize(
    "override",
    [
        "trainer.train_steps=7,task.train_data.input_path='a,b-*'",
        '{"trainer": {"train_steps": 7}, "task.train_data.input_path": "a,b-*"}',
    ],
)
def test_what_the_user_overrides_goes_to_both_in_a_form_that_the_shell_keeps(tmp_path, override):
    file = tmp_path / "more.yaml"
    file.write_text("task.model.backbone.depth: 101")
    schedule = stages.Schedule("maskrcnn_r50_fpn_separate_rpn", "x", [str(file)], override)
    for stage in by_name(schedule)["train the RPN"], by_name(schedule)["train the detector"]:
        typed = shlex.split(stage.command())[3:]
        flags = dict(part.removeprefix("--").split("=", 1) for part in typed)
        loaded = loading.load(flags["experiment"], [flags["config_file"]], flags["params_override"])
        assert loaded.trainer.train_steps == 7
        assert loaded.task.train_data.input_path == "a,b-*"
        assert loaded.task.model.backbone.depth == 101
        assert loaded.stages.schedule == "joint"
    assert loaded.task.model.proposals == "file"


@pytest.mark.parametrize(
    ("experiment", "override", "message"),
    [
        (
            "maskrcnn_r50_fpn",
            "",
            r"joint, one run .*\n  python -m mrcnn_tf.train --experiment=mask",
        ),
        (
            "maskrcnn_r50_fpn_separate_rpn",
            "stages.rpn_experiment=maskrcnn_r50_fpn",
            "maskrcnn_r50_fpn is no RPN: its task.model.system is mask_rcnn",
        ),
        (
            "maskrcnn_r50_fpn_separate_rpn",
            "stages.rpn_experiment=rpn_r50_c4",
            "task.model.features: c4 in rpn_r50_c4",
        ),
        (
            "maskrcnn_r50_fpn_separate_rpn",
            "stages.rpn_experiment=nothing",
            "unknown experiment 'nothing'",
        ),
        ("maskrcnn_r50_fpn_separate_rpn", "trainer.train_steps=0", "train_steps: got 0, needs 1"),
    ],
)
def test_what_cannot_be_trained_in_stages_is_refused_before_it_starts(
    experiment, override, message
):
    with pytest.raises(ValueError, match=message):
        stages.Schedule(experiment, "x", (), override)


def test_an_rpn_on_another_backbone_is_refused(tmp_path):
    deeper = tmp_path / "deeper.yaml"
    deeper.write_text("base: rpn_r50_fpn\ntask.model.backbone.depth: 101")
    with pytest.raises(ValueError, match=r"task.model.backbone: .*101.*both must have the same"):
        stages.Schedule(
            "maskrcnn_r50_fpn_separate_rpn", "x", (), f"stages.rpn_experiment='{deeper}'"
        )


def test_train_alone_does_not_run_a_schedule_of_several_runs(tmp_path):
    experiment = loading.load("maskrcnn_r50_c4_alternating")
    for mode in ("train", "train_and_eval"):
        with pytest.raises(ValueError, match="train_stages --experiment=maskrcnn_r50_c4_alt"):
            train.run(experiment, mode, str(tmp_path))
    assert not any(tmp_path.iterdir())


@pytest.fixture
def ran(monkeypatch):
    """The commands that were run; those whose module is in `ran.failing` end with 3."""

    class Ran(list):
        failing = ""

    calls = Ran()

    class Pretended:
        def __init__(self, command, env):
            assert env["MRCNN_TF_STAGE"]
            calls.append(command[2])
            self.wait = lambda: 3 if command[2] == calls.failing else 0

    monkeypatch.setattr(running.subprocess, "Popen", Pretended)
    return calls


def test_stages_are_printed_run_once_and_gone_on_with(tmp_path, ran, capsys):
    schedule = stages.Schedule("maskrcnn_r50_fpn_separate_rpn", str(tmp_path))
    ran.failing = "mrcnn_tf.write_proposals"
    with pytest.raises(SystemExit) as stopped:
        running.run(schedule.stages, str(tmp_path))
    assert stopped.value.code == 3
    assert ran == ["mrcnn_tf.train", "mrcnn_tf.write_proposals"]
    out, complaint = capsys.readouterr()
    assert "stage 'write its proposals' ended with exit code 3" in complaint
    assert f"[2/4] write its proposals\n  {schedule.stages[1].command()}\n" in out

    ran.clear()
    ran.failing = ""
    seconds = running.run(schedule.stages, str(tmp_path))
    assert ran == ["mrcnn_tf.write_proposals", "mrcnn_tf.train", "mrcnn_tf.train"]
    assert list(seconds) == [stage.name for stage in schedule.stages]
    assert "[1/4] train the RPN: done" in capsys.readouterr().out

    ran.clear()
    running.run(schedule.stages, str(tmp_path))
    assert ran == []


def test_stages_of_other_settings_are_not_taken_over(tmp_path, ran):
    name = "maskrcnn_r50_fpn_separate_rpn"
    running.run(stages.Schedule(name, str(tmp_path)).stages, str(tmp_path))
    other = stages.Schedule(name, str(tmp_path), (), "trainer.train_steps=9")
    with pytest.raises(ValueError, match=r"stage 'train the RPN' was(.|\n)*would now be"):
        running.run(other.stages, str(tmp_path))


def test_what_is_scored_and_exported_of_a_run_trained_apart(tmp_path):
    experiment = loading.load("maskrcnn_r50_fpn_separate_rpn")
    with pytest.raises(ValueError, match="mrcnn_tf.train_stages --experiment=maskrcnn_r50_fpn_sep"):
        stages.of_run(experiment, str(tmp_path))
    (tmp_path / "detector").mkdir()
    trained = loading.load(
        "maskrcnn_r50_fpn_separate_rpn",
        params_override=json.dumps(
            flags_of(stages.Schedule(experiment.task.name, "r").stages[2])["params_override"]
        ),
    )
    loading.save(trained, str(tmp_path / "detector" / "params.yaml"))
    folder = str(tmp_path / "detector")
    checkpoint = str(tmp_path / "detector" / "ckpt-3")
    for given, wanted in ((str(tmp_path), folder), (folder, folder), (checkpoint, checkpoint)):
        found, where = stages.of_run(experiment, given, params_override="trainer.train_steps=9")
        assert where == wanted
        assert found.task.model.proposals == "file"
        assert found.stages.rpn_checkpoint == "r/rpn"
        assert found.trainer.train_steps == 9
    joint = loading.load("maskrcnn_r50_fpn_alternating")
    assert stages.of_run(joint, "anywhere") == (joint, "anywhere")
