"""service.py: what the workers share out. Real ones: `tests/end_to_end/test_input_service.py`."""

import pytest
import tensorflow as tf

from mrcnn_tf.data import service


@pytest.mark.parametrize("num_records", [7, 100, 250])
def test_blocks_are_epochs_cut_apart(num_records):
    def rows_of(epoch):
        return (epoch * num_records + tf.range(num_records, dtype=tf.int64),)

    blocks = service.blocks(num_records, 0, rows_of).take(2 * num_records)
    seen = [int(position) for (position,) in blocks]
    assert seen == list(range(2 * num_records))
    # What begins later begins with a block that has images not seen.
    ((first,),) = service.blocks(num_records, num_records + 5, rows_of).take(1)
    assert num_records <= int(first) <= num_records + 5


def test_names_of_files_are_good_in_other_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert service.absolute(["a/b", "/c", "gs://d/e"]) == [f"{tmp_path}/a/b", "/c", "gs://d/e"]
