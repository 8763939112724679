"""Training and evaluation on record sets that are not whole."""

import json
import pathlib
import shutil

import pytest

from mrcnn_tf import train
from mrcnn_tf.data import schema
from mrcnn_tf.evaluation.detections import decode_source_id
from mrcnn_tf.experiment import loading
from mrcnn_tf.training import preflight
from mrcnn_tf.training.task import MaskRCNNTask
from tests.end_to_end.conftest import script


@pytest.fixture
def records(shapes, tmp_path):
    """A copy of the records that may be damaged."""
    return shutil.copytree(shapes / "records", tmp_path / "records")


@pytest.fixture
def load(override, shapes, records):
    """Load the tiny experiment on them."""

    def load(**changes):
        text = override.replace(str(shapes / "records"), str(records))
        fields = json.loads(text) | {f"task.{key}": value for key, value in changes.items()}
        return loading.load("maskrcnn_shapes", params_override=json.dumps(fields))

    return load


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def task_of(experiment):
    return MaskRCNNTask(experiment.task)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("fault", ["missing", "empty"])
def test_a_missing_or_empty_shard_is_refused_before_the_first_step(
    load, records, tmp_path, split, fault
):
    name = f"{split}-00001-of-00002.tfrecord"
    if fault == "missing":
        (records / name).unlink()
    else:
        (records / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"1 of the 2 .*{name}|1 of 2 .*{name} has 0 bytes"):
        train.run(load(), "train_and_eval", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_is_damaged_is_refused_before_the_first_step_if_asked_for(load, records, tmp_path):
    flip(records / "train-00001-of-00002.tfrecord", 100)
    experiment = load(**{"train_data.verify_records": True})
    with pytest.raises(ValueError, match=r"input_path .*train-00001-of-00002.tfrecord: record 1, "):
        train.run(experiment, "train", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    flip(records / "val-00000-of-00002.tfrecord", 100)
    experiment = load(**{"validation_data.verify_records": True})
    with pytest.raises(ValueError, match=r"val-00000-of-00002.tfrecord: record 1, of image '"):
        preflight.check_validation(task_of(experiment), experiment.trainer)
    experiment = load()  # the ground truth is read in any case
    with pytest.raises(ValueError, match=r"val-00000-of-00002.tfrecord: record 1, of image '"):
        preflight.check_validation(task_of(experiment), experiment.trainer)


def test_a_bounded_number_is_left_out_of_training_and_said(load, records, capsys):
    for shard in (0, 1):
        flip(records / f"train-0000{shard}-of-00002.tfrecord", 100)
    with pytest.raises(ValueError, match="damaged in 2 places: .*00000-of.*; .*00001-of-00002"):
        preflight.check_training(task_of(load(**{"train_data.skip_corrupt_records": 1})))
    experiment = load(**{"train_data.skip_corrupt_records": 2})
    task = task_of(experiment)
    preflight.check_training(task)
    printed = capsys.readouterr().out
    assert "2 record files verified, 2 damaged places" in printed
    assert printed.count("left out: ") == 2
    seen = set()
    for batch in task.build_inputs(experiment.task.train_data).take(12):
        seen |= {decode_source_id(row) for row in batch[schema.SOURCE_ID].numpy()}
    assert len(seen) == 4  # of 6, each shard without its first


def test_validation_leaves_nothing_out(load):
    with pytest.raises(ValueError, match="skip_corrupt_records: got 1, .* another score"):
        load(**{"validation_data.skip_corrupt_records": 1})


@pytest.mark.slow
def test_damage_is_named_before_the_first_step(load, records, tmp_path, override, shapes):
    """By what makes the index; TensorFlow says "corrupted record at 0" and no file."""
    flip(records / "train-00001-of-00002.tfrecord", 100)
    text = override.replace(str(shapes / "records"), str(records))
    flags = [f"--model_dir={tmp_path}/run", f"--params_override={text}", "--mode=train"]
    with pytest.raises(AssertionError) as error:
        script("-m mrcnn_tf.train", "--experiment=maskrcnn_shapes", *flags)
    (line,) = [line for line in str(error.value).splitlines() if "error: " in line]
    assert "record files are damaged in 1 place: " in line
    assert "train-00001-of-00002.tfrecord: record 1, of image '" in line
    assert "Traceback" not in str(error.value)
    text = json.loads(text) | {"task.train_data.skip_corrupt_records": 1}
    flags[1] = f"--params_override={json.dumps(text)}"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    printed = script("-m mrcnn_tf.train", "--experiment=maskrcnn_shapes", *flags)
    assert "left out: " in printed
    assert pathlib.Path(tmp_path / "run/ckpt-4.index").exists()
