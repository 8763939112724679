"""record_index.py: where records lie, and how large their images are; kept, and made anew."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import record_files, record_index

SIZES = [(30, 40), (40, 30), (7, 55), (35, 35), (20, 70)]


@pytest.fixture
def files(make_scene, write_records):
    """Five records in two files: 0, 2, 4 and 1, 3."""
    scenes = [make_scene(k, *size, num_objects=k) for k, size in enumerate(SIZES)]
    return record_files.find(write_records(scenes, num_shards=2))


def test_offsets_lengths_and_sizes_are_those_of_the_records(files):
    index = record_index.of_files(files)
    assert index.files == files
    np.testing.assert_array_equal(index.file, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(index.size_hw, [SIZES[k] for k in (0, 2, 4, 1, 3)])
    records = [r for f in files for r in tf.data.TFRecordDataset(f).as_numpy_iterator()]
    for k, record in enumerate(records):
        with open(files[index.file[k]], "rb") as file:
            content = file.read()[index.offset[k] :]
        assert index.length[k] == len(record)
        assert int.from_bytes(content[:8], "little") == len(record)
        assert content[12 : 12 + len(record)] == record


def test_what_is_kept_is_not_read_again(files, monkeypatch):
    first = record_index.of_files(files)
    monkeypatch.setattr(record_index, "_read", lambda *_: pytest.fail("read again"))
    for got, want in zip(record_index.of_files(files), first, strict=True):
        np.testing.assert_array_equal(got, want)
    # Also for a part of the files.
    np.testing.assert_array_equal(record_index.of_files(files[1:]).size_hw, first.size_hw[3:])


def test_what_changed_is_read_again_and_the_rest_is_kept(files, monkeypatch):
    record_index.of_files(files)
    records = list(tf.data.TFRecordDataset(files[0]).as_numpy_iterator())
    with tf.io.TFRecordWriter(files[0]) as writer:
        for record in records[1:]:
            writer.write(record)
    read, seen = record_index._read, []
    monkeypatch.setattr(
        record_index, "_read", lambda paths, _: seen.append(paths) or read(paths, _)
    )
    index = record_index.of_files(files)
    assert seen == [files[:1]]
    np.testing.assert_array_equal(index.size_hw, [SIZES[k] for k in (2, 4, 1, 3)])
    record_index.of_files(files)
    assert len(seen) == 1


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", b"x" * 100, None])
def test_an_index_that_is_damaged_is_made_anew(files, content):
    want = record_index.of_files(files)
    path = pathlib.Path(files[0]).with_name(record_index.INDEX_FILE)
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    for got, expected in zip(record_index.of_files(files), want, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_folder_that_cannot_be_written_is_no_obstacle(files, monkeypatch, capsys):
    def refuse(*_, **__):
        raise tf.errors.PermissionDeniedError(None, None, "read-only")

    monkeypatch.setattr(tf.io.gfile, "rename", refuse)
    assert len(record_index.of_files(files).file) == 5
    assert "not kept, each start reads the records again (read-only)" in capsys.readouterr().out
    # This start reads them once.
    monkeypatch.setattr(record_index, "_read", lambda *_: pytest.fail("read again"))
    assert len(record_index.of_files(files).file) == 5


def test_the_digest_is_that_of_the_records_in_their_order(files, tmp_path):
    """Other files, other folders: the same. One less, or another order: another."""
    digest = record_index.of_files(files).digest()
    records = [r for f in files for r in tf.data.TFRecordDataset(f).as_numpy_iterator()]
    for name, these in (("same", records), ("less", records[:-1]), ("order", records[::-1])):
        (tmp_path / name).mkdir()
        path = str(tmp_path / name / "all.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for record in these:
                writer.write(record)
        assert (record_index.of_files([path]).digest() == digest) == (name == "same")


def test_a_damaged_record_is_named(files):
    with open(files[1], "r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(ValueError, match=rf"{files[1]}: record 2, .*not fit its checksum"):
        record_index.of_files(files)


def test_a_file_without_images_is_named(files):
    with tf.io.TFRecordWriter(files[0]) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(ValueError, match=rf"{files[0]}: record 1 cannot be read: "):
        record_index.of_files(files)


def test_a_file_of_the_same_length_that_was_written_again_is_read_again(files):
    """The same records in another order lie elsewhere, in a file that is as long."""
    before = record_index.of_files(files)
    records = [record.numpy() for record in tf.data.TFRecordDataset(files[0])]
    with tf.io.TFRecordWriter(files[0]) as writer:
        for record in reversed(records):
            writer.write(record)
    os.utime(files[0], (1e9, 1e9))  # TensorFlow tells seconds only
    after = record_index.of_files(files)
    count = len(records)
    assert count > 1
    np.testing.assert_array_equal(after.length[:count], before.length[:count][::-1])
    np.testing.assert_array_equal(after.size_hw[:count], before.size_hw[:count][::-1])
