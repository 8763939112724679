"""Which checkpoint is kept as the best, and that it is there before anything says so."""

import json
import math

import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment import loading
from mrcnn_tf.training.loop import Loop
from mrcnn_tf.training.trainer import BestCheckpoint, Trainer

METRIC = "mask_ap"


def kept(folder, values, comparison="higher"):
    """The number of the evaluation that is kept after each, counted from 1; each a process."""
    steps = []
    for number, value in enumerate(values, start=1):
        checkpoint = tf.train.Checkpoint(v=tf.Variable(float(number)))
        exporter = BestCheckpoint(str(folder), METRIC, comparison)
        exporter.maybe_export_checkpoint(checkpoint, value, number)
        info = json.loads((folder / "info.json").read_text())
        path = tf.train.latest_checkpoint(str(folder))
        assert path.endswith(f"ckpt-{info['best_ckpt_global_step']:.0f}")
        steps.append(int(tf.train.load_variable(path, "v/.ATTRIBUTES/VARIABLE_VALUE")))
        assert steps[-1] == info["best_ckpt_global_step"]
    return steps


def test_the_highest_is_kept_and_of_those_where_nothing_is_right_the_last(tmp_path):
    values = [-1.0, 0.0, 0.0, math.nan, 0.0, 0.2, 0.2, 0.1, 0.3, math.nan, 0.0]
    want = [1, 2, 3, 3, 5, 6, 6, 6, 9, 9, 9]
    assert kept(tmp_path, [{METRIC: value} for value in values]) == want


def test_the_lowest(tmp_path):
    values = [math.nan, 0.5, math.nan, 0.5, 0.0, 0.0, -0.1, -0.1]
    want = [1, 2, 2, 2, 5, 5, 7, 7]
    assert kept(tmp_path, [{METRIC: value} for value in values], "lower") == want


def test_what_was_best_by_another_number_counts_for_nothing(tmp_path):
    assert kept(tmp_path, [{"box_ap": 0.9}, {METRIC: 0.1}, {METRIC: 0.05}]) == [1, 2, 2]


class _Task:
    """Scores 0.25; what of a task an evaluation asks for, without a network worth the name."""

    loss = "loss"
    training_images = None
    first_divergence = None

    def build_model(self):
        return tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(1,))])

    def build_metrics(self, training):
        return []

    def build_inputs(self, data, input_context=None):
        return tf.data.Dataset.from_tensors(tf.ones([1, 1]))

    def validation_step(self, inputs, model, metrics):
        return {"found": model(inputs)}

    def aggregate_logs(self, state, step_outputs):
        return [step_outputs]

    def reduce_aggregated_logs(self, aggregated_logs, global_step=None):
        return {METRIC: 0.25}


@pytest.fixture
def trainer(tmp_path):
    experiment = loading.load("maskrcnn_shapes")
    trainer = Trainer(experiment, _Task(), images_per_step=2, training=False, evaluating=True)
    trainer.keep_best(str(tmp_path))
    trainer.global_step.assign(7)
    return trainer


def test_killed_before_the_line_of_the_evaluation_the_best_is_there(trainer, tmp_path):
    """Made up for, the evaluation saves nothing anew and writes its one line."""

    def killed(value):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Loop(trainer, str(tmp_path), None, killed).evaluate()
    best = tmp_path / "best"
    assert json.loads((best / "info.json").read_text())["best_ckpt_global_step"] == 7
    assert tf.train.latest_checkpoint(str(best)) == str(best / "best_ckpt-7")
    before = {path: path.stat().st_mtime_ns for path in best.iterdir()}
    trainer.keep_best(str(tmp_path))  # as a new process reads it
    lines = []
    numbers = Loop(trainer, str(tmp_path), None, lines.append).evaluate()
    assert numbers == {METRIC: 0.25, f"best_{METRIC}": 0.25}
    assert lines == [numbers]
    assert {path: path.stat().st_mtime_ns for path in best.iterdir()} == before
