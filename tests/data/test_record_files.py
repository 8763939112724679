import pytest
import tensorflow as tf

from mrcnn_tf.data import record_files


def touch(*paths):
    for path in paths:
        tf.io.gfile.makedirs(path.rpartition("/")[0])
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(b"a record")


@pytest.mark.parametrize("where", ["disk", "ram://files"])
def test_folders_with_blanks_and_brackets(tmp_path, where):
    root = str(tmp_path) if where == "disk" else where
    folder = f"{root}/my [new] data, part 1"
    touch(f"{folder}/train-0", f"{folder}/train-1", f"{folder}/val[0]-0", f"{root}/n/train-0")
    assert record_files.find(f"{folder}/train-*") == [f"{folder}/train-0", f"{folder}/train-1"]
    assert record_files.find(f"{folder}/train-1") == [f"{folder}/train-1"]
    assert record_files.find(f"{folder}/val[0]-*") == [f"{folder}/val[0]-0"]
    assert record_files.find(f"{folder}/train-[1-9]") == [f"{folder}/train-1"]
    assert record_files.count_records(record_files.find(f"{folder}/train-*")) == 2


def test_folders_as_patterns_and_lists_of_patterns(tmp_path):
    touch(f"{tmp_path}/a/train-0", f"{tmp_path}/b/train-0", f"{tmp_path}/b/val-0")
    assert len(record_files.find(f"{tmp_path}/*/train-*")) == 2
    patterns = (f"{tmp_path}/b/val-*", f"{tmp_path}/?/train-0")
    assert [path.removeprefix(f"{tmp_path}/") for path in record_files.find(patterns)] == [
        "a/train-0",
        "b/train-0",
        "b/val-0",
    ]
    with pytest.raises(FileNotFoundError, match="no record file matches .*b/test"):
        record_files.find([*patterns, f"{tmp_path}/b/test-*"])
