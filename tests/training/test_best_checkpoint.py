"""Which checkpoint is kept as the best, and that it is there before anything says so."""

import json
import math
import os
import resource

import pytest
import tensorflow as tf
import tf_keras
from tensorboard.backend.event_processing import event_accumulator

from mrcnn_tf import checkpoints
from mrcnn_tf.experiment import loading
from mrcnn_tf.training import run_folder
from mrcnn_tf.training import trainer as trainer_lib
from mrcnn_tf.training.loop import Loop, first_lines
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


def with_best(folder, step, value):
    """`folder` with a best checkpoint, and the line of its evaluation."""
    images = tf.Variable(2, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(
        global_step=tf.Variable(step, dtype=tf.int64), images_per_step=images
    )
    exporter = BestCheckpoint(str(folder / "best"), METRIC, "higher")
    exporter.maybe_export_checkpoint(checkpoint, {METRIC: value}, step)
    run_folder.append_row(
        str(folder / "metrics.jsonl"), {"step": step, "images": 2 * step, METRIC: value}
    )
    return checkpoint


def exporter_of(folder):
    rows = run_folder.RunFolder(str(folder)).evaluations()
    return BestCheckpoint(str(folder / "best"), METRIC, "higher", rows)


@pytest.mark.parametrize("content", ['{"mask_ap": 0.', "", "[0.5]", b"\xff\xfe", None])
@pytest.mark.parametrize("is_known", [True, False])
def test_info_that_cannot_be_read_is_named_and_blocks_nothing(content, is_known, tmp_path, capsys):
    """The line of the evaluation has its numbers once more; without it, all begins anew."""
    checkpoint = with_best(tmp_path, 7, 0.5)
    info = tmp_path / "best" / "info.json"
    if content is None:
        info.unlink()
    else:
        info.write_bytes(content if isinstance(content, bytes) else content.encode())
    if not is_known:
        (tmp_path / "metrics.jsonl").unlink()
    exporter = exporter_of(tmp_path)
    what = "are taken from metrics.jsonl" if is_known else "the best checkpoint is chosen anew"
    said = capsys.readouterr().out
    assert f"{info} cannot be read (" in said
    assert what in said
    is_replaced = exporter.maybe_export_checkpoint(checkpoint, {METRIC: 0.25}, 9)
    assert is_replaced != is_known
    assert (tmp_path / "best" / "best_ckpt-7.index").exists() == is_known
    assert exporter.maybe_export_checkpoint(checkpoint, {METRIC: 0.75}, 11)
    assert json.loads(info.read_text()) == {METRIC: 0.75, "best_ckpt_global_step": 11.0}


def test_a_best_checkpoint_that_is_damaged_is_set_aside(tmp_path, capsys):
    """Its numbers count for nothing then: what comes is the best of what is there."""
    checkpoint = with_best(tmp_path, 7, 0.5)
    (tmp_path / "best" / "best_ckpt-7.data-00000-of-00001").write_bytes(b"")
    exporter = exporter_of(tmp_path)
    assert "best_ckpt-7 is damaged (" in capsys.readouterr().out
    assert exporter.maybe_export_checkpoint(checkpoint, {METRIC: 0.25}, 9)
    assert tf.train.latest_checkpoint(str(tmp_path / "best")).endswith("best_ckpt-9")


class _Task:
    """Scores 0.25; what of a task an evaluation asks for, without a network worth the name."""

    loss = "loss"
    training_images = None
    first_divergence = None

    def build_model(self):
        return tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(1,))])

    def build_metrics(self, training):
        return []

    def build_inputs(self, data, input_context=None, first_step=0, start=""):
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


def drawn(folder, name=METRIC):
    """[(step, value), ...] of the metric, as TensorBoard shows it."""
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(name)]


def files_of(folder):
    """{file: (which one, its bytes)}; a file that was written again is another one."""
    return {path: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}


def test_tensorboard_shows_once_what_was_drawn_twice(trainer, tmp_path):
    """Evaluated at steps 7, 8 and 9; then a run goes on at 8, and one at 9 without its line.

    The second one was killed: its file is cut in the middle of a record.
    """

    def evaluate(*steps, begins=None, is_evaluated=True, is_evaluating=True):
        loop = Loop(trainer, str(tmp_path), None, lambda _: None)
        if begins is not None:
            trainer.global_step.assign(begins)
            loop.begin(is_evaluating, is_evaluated)
        for step in steps:
            trainer.global_step.assign(step)
            loop.evaluate()
        return max((tmp_path / "validation").iterdir(), key=lambda path: path.stat().st_mtime_ns)

    first = evaluate(7, 8, 9)
    assert [step for step, _ in drawn(tmp_path / "validation")] == [7, 8, 9]
    second = evaluate(9, begins=8)
    assert second != first
    assert drawn(tmp_path / "validation") == [(7, 0.25), (8, 0.25), (9, 0.25)]
    second.write_bytes(second.read_bytes()[:-5])
    os.utime(second, ns=(0, first.stat().st_mtime_ns))  # as of a coarse clock
    before = first.read_bytes()
    evaluate(9, 10, begins=9, is_evaluated=False)
    assert drawn(tmp_path / "validation") == [(7, 0.25), (8, 0.25), (9, 0.25), (10, 0.25)]
    assert first.read_bytes() == before
    before = files_of(tmp_path / "validation")
    evaluate(begins=7, is_evaluating=False)  # --mode=train, beside a process that draws there
    assert files_of(tmp_path / "validation") == before
    evaluate(begins=7)  # the checkpoints behind it were damaged
    assert drawn(tmp_path / "validation") == [(7, 0.25)]


class _Log:
    """What of a training log a loop asks for: counts how often a rate begins anew."""

    pauses = 0

    def __call__(self, output):
        pass

    def pause(self):
        self.pauses += 1


def test_going_back_drops_what_was_drawn_since_the_checkpoint(trainer, tmp_path, monkeypatch):
    """Loops of two steps, a checkpoint after 4; lost in 8 and, again, in 6: then to the end.

    What another process has drawn before, in steps of another batch, stays.
    """
    config = trainer.config.trainer
    config.steps_per_loop, config.checkpoint_interval, config.summary_interval = 2, 4, 1
    config.recovery_max_trials = 2
    name = "training_loss"
    with tf.summary.create_file_writer(str(tmp_path / "train")).as_default() as writer:
        tf.summary.scalar(name, 0.5, step=50)
        writer.close()
    losses = iter([1.0, 2.0, 3.0, math.nan, math.nan, 4.0, 5.0])

    def train(count):
        trainer.global_step.assign_add(int(count))
        return {name: tf.constant(next(losses))}

    monkeypatch.setattr(trainer, "train", train)
    trainer_lib._create_slots(trainer.optimizer, trainer.model)
    trainer.global_step.assign(0)
    log = _Log()
    Loop(trainer, str(tmp_path), log, None).train_until(8)
    assert sorted(drawn(tmp_path / "train", name)) == [
        *((2, 1.0), (4, 2.0), (6, 4.0), (8, 5.0)),
        (50, 0.5),
    ]
    assert log.pauses == 2


def test_no_room_for_a_checkpoint(trainer, tmp_path):
    """Said in a line, those before are whole, nothing half is left, and it goes on with room."""
    loop = Loop(trainer, str(tmp_path), None, lambda _: None)
    loop.save()
    before = {path: path.read_bytes() for path in tmp_path.glob("*") if path.is_file()}
    trainer.global_step.assign(9)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="checkpoint of step 9 could not be written") as raised:
            loop.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large. " in str(raised.value)
    assert "{{" not in str(raised.value)
    assert f"The last one is {tmp_path}/ckpt-7" in str(raised.value)
    assert {path: path.read_bytes() for path in tmp_path.glob("*") if path.is_file()} == before
    assert not list(tmp_path.glob("*_temp"))
    assert loop.save() == f"{tmp_path}/ckpt-9"
    assert checkpoints.damage(f"{tmp_path}/ckpt-9") == ""


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (
            "{{function_node __wrapped__SaveV2_device_/job:localhost/device:CPU:0}} "
            "runs/a/ckpt-6; No space left on device [Op:SaveV2]",
            "runs/a/ckpt-6; No space left on device",
        ),
        (
            "{{function_node f}} {{node x}} Odd file.\n\t [[{{node y}}]] [Op:IteratorGetNext]",
            "Odd file.",
        ),
        ("Odd file.\nIt is cut off.\n\t [[{{node y}}]]", "Odd file. It is cut off."),
        ("", "TensorFlow names no reason"),
    ],
)
def test_an_error_of_tensorflow_is_told_without_the_names_of_operations(message, want):
    assert first_lines(message) == want
