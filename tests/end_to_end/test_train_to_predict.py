"""The main job as a user does it: train, evaluate, export, predict; stop and resume."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf import experiments, train
from mrcnn_tf.detector import Detector
from mrcnn_tf.serving import predictor


@pytest.fixture(scope="module")
def trained(override, tmp_path_factory):
    """A run of four steps, evaluated once: (its folder, its numbers)."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    experiment = experiments.load("maskrcnn_shapes", params_override=override)
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
    tags = set()
    for file in (run / "train").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags |= {value.tag for value in event.summary.value}
    assert {"training_loss", "mask_loss", "learning_rate", "images_per_second"} <= tags


def test_evaluating_the_checkpoint_again_gives_the_same_numbers(trained, tiny):
    run, numbers = trained
    again = train.run(tiny(), "eval", str(run), checkpoint_path=str(run / "ckpt-4"))
    for name in ("box_ap", "mask_ap", "validation_loss"):
        assert again[name] == pytest.approx(numbers[name], abs=1e-6)


def test_annotation_file_and_records_give_the_same_numbers(trained, tiny, shapes):
    run, numbers = trained
    experiment = tiny()
    experiment.task.annotation_file = f"{shapes}/coco/annotations/instances_val.json"
    again = train.run(experiment, "eval", str(run))
    for name in ("box_ap", "mask_ap"):
        assert again[name] == pytest.approx(numbers[name], abs=1e-4)


def test_exported_model_and_python_api_agree(trained, override, shapes, tmp_path):
    """And the SavedModel's answer to pictures of unequal sizes is that of each alone."""
    run, _ = trained
    detector = Detector.load("maskrcnn_shapes", str(run), override)
    pictures = sorted((shapes / "coco" / "val").iterdir())[:2]
    ours = detector(pictures)
    detector.export(str(tmp_path / "exported"), "image_bytes")
    served = predictor.Predictor(str(tmp_path / "exported"))(
        [picture.read_bytes() for picture in pictures], []
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
    """Two steps, stop, two more: the checkpoint of four steps in one go, but for the data order."""
    run = tmp_path / "stopped"
    first = tiny()
    first.trainer.train_steps = 2
    train.run(first, "train", str(run))
    before = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run)))
    train.run(tiny(), "train", str(run))
    after = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run)))
    step = "global_step/.ATTRIBUTES/VARIABLE_VALUE"
    assert before.get_tensor(step) == 2
    assert after.get_tensor(step) == 4
    rows = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    straight = [json.loads(line) for line in (trained[0] / "train.jsonl").read_text().splitlines()]
    assert [row["learning_rate"] for row in rows] == [row["learning_rate"] for row in straight]


def test_missing_records_are_answered_with_the_command_that_makes_them(tmp_path):
    experiment = experiments.load(
        "maskrcnn_shapes",
        params_override=f"task.train_data.input_path={tmp_path}/none-*,"
        f"task.validation_data.input_path={tmp_path}/none-*",
    )
    with pytest.raises(ValueError, match=r"data_prep/create_coco_tfrecord.py"):
        train.run(experiment, "train", str(tmp_path / "run"))


def test_eval_without_checkpoint_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint to evaluate"):
        train.run(tiny(), "eval", str(tmp_path / "empty"))
