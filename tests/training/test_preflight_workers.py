"""What workers hold against each other before a run, told by one in the others' place."""

import pytest
import tensorflow as tf

from mrcnn_tf.experiment import loading
from mrcnn_tf.training import preflight
from mrcnn_tf.training.workers import Workers


class Two(Workers):
    """The chief of two; the other says the same but for what `changed` changes."""

    def __init__(self, changed):
        super().__init__()
        self.hosts, self._changed = ["a:1", "b:2"], changed

    def gather(self, value):
        return [value, value | self._changed]


@pytest.fixture
def experiment(tmp_path):
    """One file of eight records, the fifth damaged."""
    path = str(tmp_path / "train.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for k in range(8):
            writer.write(b"%d" % k * 100)
    with open(path, "r+b") as file:
        file.seek(4 * (12 + 100 + 4) + 50)
        file.write(b"?")
    return loading.load("maskrcnn_shapes", [], f"task.train_data.input_path={path}")


def test_what_one_alone_would_leave_out_is_told(experiment):
    experiment.task.train_data.skip_corrupt_records = 1
    field = "records of task.train_data"
    whole = "1 files, 928 bytes"
    with pytest.raises(ValueError, match=r"started by the same command") as error:
        preflight.check_workers(Two({field: whole}), experiment, "train")
    assert f"worker 1 (b:2): {field}: {whole}; the chief has 1 files, 928 bytes" in str(error.value)
    assert str(error.value).endswith("), damaged: train.tfrecord at bytes 464 to 580")
    preflight.check_workers(Two({}), experiment, "train")


@pytest.mark.parametrize(
    ("field", "is_told"),
    [
        ("task.model.proposals", True),
        ("task.train_data.seed", True),
        ("runtime.mixed_precision_dtype", True),
        ("task.train_data.proposals", False),
        ("task.validation_data.input_path", False),
        ("stages.rpn_checkpoint", False),
        ("runtime.num_gpus", False),
    ],
)
def test_paths_may_differ_and_nothing_else(experiment, field, is_told):
    told = []
    two = Two({})
    two.gather = lambda value: told.append(value) or [value, value]
    preflight.check_workers(two, experiment, "train")
    assert (field in told[0]) == is_told


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("label_map.json", "label map 1 of task.train_data"),
        ("val.json", "content of task.annotation_file"),
        ("proposals/meta.json", "meta.json of task.train_data.proposals"),
    ],
)
def test_files_of_another_content_are_told(experiment, tmp_path, file, field):
    """A class more in one copy; all that is compared of records, names and sizes, is the same."""
    experiment.task.annotation_file = str(tmp_path / "val.json")
    experiment.task.train_data.proposals = str(tmp_path / "proposals")
    told = []
    two = Two({})
    two.gather = lambda value: told.append(value) or [value, value]
    (tmp_path / "proposals").mkdir()
    for content in ("", "{}", "{ }"):
        for name in ("label_map.json", "val.json", "proposals/meta.json"):
            (tmp_path / name).write_text("")
        (tmp_path / file).write_text(content)
        preflight.check_workers(two, experiment, "train")
    # The SHA-256 of nothing begins with e3b0c442, that of "{}" with 44136fa3.
    assert [said[field] for said in told[:2]] == [
        "0 bytes (digest: e3b0c442)",
        "2 bytes (digest: 44136fa3)",
    ]
    changed = {name for name in told[1] if told[1][name] != told[2][name]}
    assert changed == {field}
    with pytest.raises(ValueError, match=rf"worker 1 \(b:2\): {field}: 0 bytes .*; the chief has"):
        preflight.check_workers(Two({field: told[0][field]}), experiment, "train")


def test_a_file_that_one_alone_has_is_told_without_its_path(experiment, tmp_path):
    experiment.task.annotation_file = str(tmp_path / "nowhere.json")
    field = "content of task.annotation_file"
    with pytest.raises(ValueError, match=r"the chief has cannot be read \(NotFoundError\)"):
        preflight.check_workers(Two({field: "2 bytes"}), experiment, "train")
