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
