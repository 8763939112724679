"""The main job as a user does it: train, evaluate, export, predict; stop and resume."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf import train
from mrcnn_tf.detector import Detector
from mrcnn_tf.experiment import loading
from mrcnn_tf.images import reading
from mrcnn_tf.modeling import metrics
from mrcnn_tf.serving import predictor
from mrcnn_tf.training.task import MaskRCNNTask
from tests.end_to_end.conftest import ROOT, SEVERAL_CANVASES

LOSSES = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss")


traces = []


@pytest.fixture(scope="module")
def override(override):
    return json.dumps(json.loads(override) | SEVERAL_CANVASES)


@pytest.fixture(scope="module")
def trained(override, tmp_path_factory):
    """A run of four steps, evaluated once: (its folder, its numbers); see `traces`."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    experiment = loading.load("maskrcnn_shapes", params_override=override)
    train_step = MaskRCNNTask.train_step

    def note(self, *inputs, **more):
        traces.append(1)
        return train_step(self, *inputs, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskRCNNTask, "train_step", note)
        return run, train.run(experiment, "train_and_eval", str(run))


def test_training_leaves_checkpoint_curves_and_scores(trained):
    run, numbers = trained
    assert tf.train.latest_checkpoint(str(run)).endswith("ckpt-4")
    assert 0 <= numbers["box_ap"] <= 1
    assert 0 <= numbers["mask_ap50"] <= 1
    assert np.isfinite(numbers["validation_loss"])
    rows = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    total = sum(
        rows[0][k]
        for k in ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss")
    )
    assert rows[0]["training_loss"] == pytest.approx(total, rel=1e-5)
    assert json.loads((run / "metrics.jsonl").read_text())["step"] == 4
    assert (run / "params.yaml").exists()
    assert (run / "label_map.json").exists()


def test_the_training_step_is_traced_once(trained):
    """A second time, for variables that the first one creates, doubles what a start takes."""
    assert len(traces) == 1


def curves_of(folder):
    """{tag: {step: value}}; images are (width, height)."""
    curves = {}
    for file in folder.glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                tensor = tf.make_ndarray(value.tensor)
                number = tuple(map(int, tensor[:2])) if tensor.ndim else float(tensor)
                curves.setdefault(value.tag, {})[event.step] = number
    return curves


def test_everything_worth_watching_is_a_curve(trained):
    run, numbers = trained
    train_curves = curves_of(run / "train")
    for tag in (
        "training_loss",
        *LOSSES,
        *metrics.OF_RPN,
        *metrics.OF_BOXES,  # accuracy and recall of RPN and RoIs, number of positives
        "learning_rate",
        "images_per_second",
        "input_wait",
        "dropped_objects",
        "dropped_masks",
    ):
        assert set(train_curves[tag]) == {2, 4}, tag
        assert np.isfinite(list(train_curves[tag].values())).all(), tag
    validation = curves_of(run / "validation")
    for tag in ("validation_loss", *LOSSES, "box_ap", "mask_ap", "mask_ap50"):
        assert set(validation[tag]) == {4}, tag
        assert validation[tag][4] == pytest.approx(numbers[tag]), tag
    images = {tag: value for tag, value in validation.items() if tag.startswith("validation/")}
    assert len(images) == 4  # all there are
    for value in images.values():
        width, height = value[4]  # the images of 64 pixels are enlarged and stand side by side
        assert width > 2 * 480
        assert height > 480


@pytest.mark.slow
def test_a_diverged_run_names_step_term_and_images(tiny, tmp_path, capsys):
    """A learning rate beyond reason: step 1 is fine, what it did to the weights shows at step 2."""
    experiment = tiny()
    experiment.trainer.optimizer_config.learning_rate.cosine.initial_learning_rate = 1e30
    experiment.trainer.optimizer_config.warmup.type = None
    experiment.task.model.max_instances = 1
    known = set()
    for batch in pipeline_ids(experiment):
        known |= batch
    with pytest.raises(FloatingPointError, match=r"not finite at step 2: .*class_loss") as error:
        train.run(experiment, "train", str(tmp_path / "run"))
    named = re.search(r"; images ([^.]*)\.", str(error.value))[1].split(", ")
    assert len(named) == 2
    assert set(named) <= known
    assert tf.train.latest_checkpoint(str(tmp_path / "run")) is None
    # The images have up to 8 objects each, of which one was let in.
    (row,) = (tmp_path / "run" / "train.jsonl").read_text().splitlines()
    dropped = json.loads(row)["dropped_objects"]
    assert dropped > 0
    assert f"{dropped:.0f} objects dropped (max_instances)" in capsys.readouterr().out


def pipeline_ids(experiment):
    """The image ids of the training records, a set per file."""
    for file in tf.io.gfile.glob(experiment.task.train_data.input_path):
        ids = set()
        for record in tf.data.TFRecordDataset(file):
            example = tf.train.Example.FromString(record.numpy())
            ids.add(example.features.feature["image/source_id"].bytes_list.value[0].decode())
        yield ids


@pytest.mark.slow
def test_evaluating_the_checkpoint_again_gives_the_same_numbers(trained, tiny):
    run, numbers = trained
    again = train.run(tiny(), "eval", str(run), checkpoint_path=str(run / "ckpt-4"))
    for name in ("box_ap", "mask_ap", "validation_loss"):
        assert again[name] == pytest.approx(numbers[name], abs=1e-6)


def test_annotation_file_and_records_give_the_same_numbers(trained, tiny, shapes):
    run, numbers = trained
    experiment = tiny()
    experiment.task.annotation_file = f"{shapes}/coco/annotations/instances_val.json"
    # Nor does it matter who computes them, and whether losses are computed beside them.
    experiment.task.cocoeval, experiment.task.validation_loss = "pycocotools", False
    again = train.run(experiment, "eval", str(run))
    for name in ("box_ap", "mask_ap"):
        assert again[name] == pytest.approx(numbers[name], abs=1e-4)
    assert "validation_loss" in numbers
    assert not [name for name in again if "loss" in name]


def test_exported_model_and_python_api_agree(trained, override, shapes, tmp_path):
    """And the SavedModel's answer to images of unequal sizes is that of each alone."""
    run, _ = trained
    detector = Detector.load("maskrcnn_shapes", str(run), override)
    images = sorted((shapes / "coco" / "val").iterdir())[:2]
    ours = detector(images)
    detector.export(str(tmp_path / "exported"), "image_bytes")
    served = predictor.Predictor(str(tmp_path / "exported"))(
        [reading.read(image) for image in images]
    )
    assert sum(map(len, ours)) > 0
    for mine, theirs in zip(ours, served, strict=True):
        assert [d.category for d in mine] == [d.category for d in theirs]
        for a, b in zip(mine, theirs, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-4)
            np.testing.assert_allclose(a.box, b.box, atol=0.01)


def test_python_api_takes_arrays_and_files(trained, override, shapes):
    run, _ = trained
    detector = Detector.load("maskrcnn_shapes", str(run / "ckpt-4"), override)
    path = min((shapes / "coco" / "val").glob("*"))
    pixels = np.asarray(Image.open(path).convert("RGB"))
    from_file, from_array = detector([path, pixels])
    for a, b in zip(from_file, from_array, strict=True):
        assert a.category == b.category
        np.testing.assert_allclose(a.box, b.box, atol=0.1)


@pytest.mark.slow
def test_stopped_run_resumes_weights_optimizer_step_and_schedule(trained, tiny, tmp_path):
    """Two steps, stop, two more: the checkpoint of four steps in one go."""
    run = tmp_path / "stopped"
    first = tiny()
    first.trainer.train_steps = 2
    train.run(first, "train", str(run))
    assert tf.train.latest_checkpoint(str(run)).endswith("ckpt-2")
    train.run(tiny(), "train", str(run))
    # Threads add up in whatever order they come, and Adam enlarges what that leaves in a gradient
    # near zero; images in another order would be a difference of the order of 1.
    assert_same_checkpoint(run / "ckpt-4", trained[0] / "ckpt-4", tolerance=1e-3)
    rows = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    straight = [json.loads(line) for line in (trained[0] / "train.jsonl").read_text().splitlines()]
    for name in ("step", "learning_rate", "training_loss"):
        assert [row[name] for row in rows] == pytest.approx([row[name] for row in straight])


def assert_same_checkpoint(first, second, tolerance):
    """Weights, optimizer, step: every number, relative to the largest of its tensor."""
    first, second = tf.train.load_checkpoint(str(first)), tf.train.load_checkpoint(str(second))
    names = {
        name
        for name in first.get_variable_to_shape_map()
        # Not a part of the state: how many checkpoints were written.
        if name.endswith("VARIABLE_VALUE") and not name.startswith("save_counter")
    }
    assert "global_step/.ATTRIBUTES/VARIABLE_VALUE" in names
    differences = {}
    for name in names:
        a, b = (np.asarray(saved.get_tensor(name), np.float64) for saved in (first, second))
        differences[name] = np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)
    worst = max(differences, key=differences.get)
    assert differences[worst] <= tolerance, (worst, sum(d > 0 for d in differences.values()))


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(override, tmp_path):
    """SIGKILL between two checkpoints; restarted with the same command.

    SGD, because Adam enlarges rounding: threads add up in whatever order they come.
    """
    common = {"cwd": ROOT, "text": True}
    differs = {"trainer.train_steps": 10, "trainer.optimizer_config.optimizer.type": "sgd"}

    def command(run):
        fields = json.dumps(json.loads(override) | differs)
        module = [sys.executable, "-m", "mrcnn_tf.train", "--experiment=maskrcnn_shapes"]
        return [*module, "--mode=train", f"--model_dir={run}", f"--params_override={fields}"]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, stdout=subprocess.DEVNULL, **common)
    with subprocess.Popen(command(killed), stdout=subprocess.PIPE, **common) as process:
        for line in process.stdout:
            if re.match(r"step +4/", line):
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    left = tf.train.latest_checkpoint(str(killed))
    assert left is not None
    assert not left.endswith("ckpt-10")
    again = subprocess.run(command(killed), check=True, capture_output=True, **common)
    assert re.search(r"going on at step \d+, .* from .*killed/ckpt-\d+\n", again.stdout)
    assert_same_checkpoint(killed / "ckpt-10", whole / "ckpt-10", tolerance=1e-4)


@pytest.mark.slow
def test_adamw_in_bfloat16_with_warm_up_and_cosine_goes_on_where_it_was_killed(override, tmp_path):
    """On one thread, which adds up in one order: every number of weights and moments."""
    common = {"cwd": ROOT, "text": True}
    fields = {
        "trainer.train_steps": 10,
        "trainer.weight_decay": 0.05,
        "trainer.optimizer_config.optimizer.type": "adamw",
        "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate": 0.002,
        "trainer.optimizer_config.learning_rate.cosine.decay_steps": 10,
        "trainer.optimizer_config.warmup.linear.warmup_steps": 4,
        "trainer.optimizer_config.warmup.linear.warmup_learning_rate": 0.0001,
    }

    def command(run):
        text = json.dumps(json.loads(override) | fields)
        module = [sys.executable, "-m", "mrcnn_tf.train", "--experiment=maskrcnn_shapes"]
        flags = ["--mode=train", "--mixed_precision=bfloat16", "--threads=1"]
        return [*module, *flags, f"--model_dir={run}", f"--params_override={text}"]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, stdout=subprocess.DEVNULL, **common)
    with subprocess.Popen(command(killed), stdout=subprocess.PIPE, **common) as process:
        for line in process.stdout:
            if re.match(r"step +4/", line):
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    again = subprocess.run(command(killed), check=True, capture_output=True, **common)
    assert re.search(r"going on at step \d+, ", again.stdout)
    assert_same_checkpoint(killed / "ckpt-10", whole / "ckpt-10", tolerance=1e-5)
    rows = [json.loads(line) for line in (whole / "train.jsonl").read_text().splitlines()]
    cosine = {step: 0.001 * (1 + np.cos(np.pi * step / 10)) for step in (4, 6, 8, 10)}
    want = {2: 0.0001 + 2 / 4 * (cosine[4] - 0.0001)} | cosine
    assert {row["step"]: row["learning_rate"] for row in rows} == pytest.approx(want, abs=1e-9)


def test_missing_records_are_answered_with_the_command_that_makes_them(tmp_path):
    experiment = loading.load(
        "maskrcnn_shapes",
        params_override=f"task.train_data.input_path={tmp_path}/none-*,"
        f"task.validation_data.input_path={tmp_path}/none-*",
    )
    with pytest.raises(ValueError, match=r"data_prep/create_coco_tfrecord.py"):
        train.run(experiment, "train", str(tmp_path / "run"))


def test_eval_without_checkpoint_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint: '.*empty'"):
        train.run(tiny(), "eval", str(tmp_path / "empty"))
