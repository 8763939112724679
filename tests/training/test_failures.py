"""What `mrcnn_tf.train` makes of an error: what it says, to whom, and the exit code."""

import json
import types

import pytest
import tensorflow as tf

from mrcnn_tf import train, train_stages
from mrcnn_tf.experiment import loading
from mrcnn_tf.training import workers as workers_lib
from mrcnn_tf.training.workers import WorkerGone, Workers

STRATEGY = tf.distribute.get_strategy()


@pytest.fixture
def told(monkeypatch):
    """What the first of two workers tells the other when it fails."""
    told = []

    class First(Workers):
        def __init__(self, strategy=None):
            super().__init__(strategy)
            self.hosts = ["a:1", "b:2"]

        def report(self, error):
            told.append(workers_lib.said(error))

        def _write(self, key, text):
            pass

    monkeypatch.setattr(train, "Workers", First)
    return told


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError(), "AssertionError"),
        (TypeError("no number\nat all"), "TypeError: no number"),
        (RuntimeError("out of luck"), "out of luck"),
        (ValueError("does not fit"), "does not fit"),
        (FloatingPointError("not finite"), "not finite"),
        (FileNotFoundError(2, "gone", "a.json"), "[Errno 2] gone: 'a.json'"),
        (tf.errors.DataLossError(None, None, "cut"), "cut"),
    ],
)
def test_the_others_hear_of_an_error_of_any_kind(monkeypatch, told, error, text):
    def fail(*_):
        raise error

    monkeypatch.setattr(train.preflight, "check_workers", fail)
    experiment = loading.load("maskrcnn_shapes")
    with pytest.raises(type(error)):
        train.run(experiment, "train", "runs/x", strategy=STRATEGY)
    assert told == [text]


def test_who_was_told_that_another_has_failed_tells_nobody(monkeypatch, told):
    def fail(*_):
        raise WorkerGone("worker 1 (b:2) failed: cut", 1)

    monkeypatch.setattr(train.preflight, "check_workers", fail)
    with pytest.raises(WorkerGone):
        train.run(loading.load("maskrcnn_shapes"), "train", "runs/x", strategy=STRATEGY)
    assert told == []


@pytest.mark.parametrize("mode", ["find_lr", "continuous_eval"])
def test_what_runs_on_one_machine_is_refused_on_two(told, tmp_path, mode):
    text = f"--mode={mode} runs on one machine: start it there, without the others"
    with pytest.raises(ValueError, match=text):
        train.run(loading.load("maskrcnn_shapes"), mode, str(tmp_path / "run"), strategy=STRATEGY)
    assert told == [text]  # another, started in another mode, does not wait for this one
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ("a:1,b:2", "error: train_stages runs on one machine, but there are a:1, b:2: start it"),
        ("a:1", "error: it runs"),
    ],
)
def test_several_runs_in_a_row_are_refused_on_two_machines(monkeypatch, tmp_path, hosts, message):
    machines = {
        "runtime.distribution_strategy": "multi_worker_mirrored",
        "runtime.worker_hosts": hosts,
        "runtime.task_index": 0,
    }
    given = dict(experiment="maskrcnn_shapes_separate_rpn", model_dir=str(tmp_path / "run"))
    given |= dict(config_file=[], mixed_precision=None, params_override=json.dumps(machines))
    monkeypatch.setattr(train_stages.flags, "FLAGS", Values(**given))
    monkeypatch.setattr(train_stages.logging, "set_verbosity", lambda _: None)
    monkeypatch.delenv("TF_CONFIG", raising=False)

    def run(*_):
        raise ValueError("it runs")

    monkeypatch.setattr(train_stages.running, "run", run)
    with pytest.raises(SystemExit, match=message):
        train_stages.main(["train_stages"])
    assert not (tmp_path / "run").exists()


class Values(types.SimpleNamespace):
    def __getitem__(self, name):
        return types.SimpleNamespace(value=None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("x"), "error: KeyError: 'x'"),
        (RuntimeError("out of luck"), "error: RuntimeError: out of luck"),
        (ValueError("does not fit"), "error: does not fit"),
        (WorkerGone("gone", 42), 42),
    ],
)
def test_any_error_ends_the_command_with_a_line(monkeypatch, capsys, error, code):
    """A text as the exit code is printed, and is 1; of what nobody thought of, the place too."""
    given = dict(experiment="maskrcnn_shapes", mode="train", model_dir="", checkpoint_path=None)
    given |= dict(config_file=[], params_override="", verify_records=False, deterministic=False)
    values = Values(**given, mixed_precision=None, threads=None)
    monkeypatch.setattr(train.flags, "FLAGS", values)
    quiet = types.SimpleNamespace(setLevel=lambda _: None)  # for this test's time only
    monkeypatch.setattr(train.logging, "set_verbosity", lambda _: None)
    monkeypatch.setattr(train.tf, "get_logger", lambda: quiet)

    def fail(*_):
        raise error

    monkeypatch.setattr(train, "run", fail)
    with pytest.raises(SystemExit) as end:
        train.main(["train"])
    assert end.value.code == code
    is_known = not isinstance(error, KeyError | RuntimeError)
    assert ("Traceback" in capsys.readouterr().err) == (not is_known)
