"""Damaged records: where they are, which image, and training without them."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import damage, record_files, schema


def record_of(source_id, size):
    features = {
        schema.IMAGE_SOURCE_ID: [source_id.encode()],
        schema.IMAGE_ENCODED: [np.random.default_rng(size).bytes(size)],
    }
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
                for key, value in features.items()
            }
        )
    ).SerializeToString(deterministic=True)


@pytest.fixture
def shard(tmp_path):
    """A file of 20 records of some hundred bytes each, and where each begins."""
    path = str(tmp_path / "train-00000-of-00001.tfrecord")
    records = [record_of(f"image {k}", 300 + 20 * k) for k in range(20)]
    starts = np.cumsum([0, *(len(r) + 16 for r in records)]).tolist()
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    assert os.path.getsize(path) == starts[-1]
    return path, starts, records


def damaged(path, changes):
    """Write bytes at places, or cut there where there are none."""
    content = bytearray(pathlib.Path(path).read_bytes())
    for place, value in changes.items():
        if value is None:
            del content[place:]
        else:
            content[place : place + len(value)] = value
    pathlib.Path(path).write_bytes(content)


def ids(files):
    return [
        tf.train.Example.FromString(r).features.feature[schema.IMAGE_SOURCE_ID].bytes_list.value[0]
        for r in record_files.read(files)
    ]


def ids_without(*places):
    return [f"image {k}".encode() for k in range(20) if k not in places]


def test_headers_of_whole_files(shard):
    path, starts, records = shard
    assert list(damage.headers(path)) == [
        (start, len(record)) for start, record in zip(starts, records, strict=False)
    ]
    assert damage.verify([path]) == []
    assert record_files.count_records([path]) == 20
    assert damage.without([path], []) == [path]


def test_a_flipped_byte_of_an_image(shard):
    path, starts, _ = shard
    damaged(path, {starts[7] + 100: b"\x00\x00\x00"})
    (found,) = damage.verify([path])
    assert (found.record, found.start, found.end) == (7, starts[7], starts[8])
    assert str(found) == (
        f"{path}: record 8, of image 'image 7', at byte {starts[7]:,}: its content does not fit "
        "its checksum"
    )
    with pytest.raises(ValueError, match=r"damaged in 1 place: .*record 8, of image 'image 7'"):
        ids([path])
    assert ids(damage.usable([path], 1)) == ids_without(7)
    with pytest.raises(ValueError, match="record 8"):
        damage.usable([path], 0)


@pytest.mark.parametrize("garbage", [b"\xff" * 8, b"\x00" * 8, b"\x00" * 700, b"\x07"])
def test_a_damaged_length_is_searched_beyond(shard, garbage):
    path, starts, _ = shard
    damaged(path, {starts[4]: garbage})
    (found,) = damage.verify([path])
    gone = [4] if len(garbage) < 700 else [4, 5]
    assert (found.record, found.start, found.end) == (4, starts[4], starts[gone[-1] + 1])
    assert "its length is damaged" in found.what
    assert ids(damage.usable([path], 1)) == ids_without(*gone)
    with pytest.raises(ValueError, match=r"record 5, at byte .* is damaged or cut off"):
        record_files.count_records([path])


@pytest.mark.parametrize("left", [5, 12, 200, 350])
def test_a_file_that_is_cut_off(shard, left):
    path, starts, _ = shard
    damaged(path, {starts[18] + left: None})
    (found,) = damage.verify([path])
    assert (found.record, found.start, found.end) == (18, starts[18], starts[18] + left)
    assert ids(damage.usable([path], 1)) == ids_without(18, 19)


def test_many_damages_are_counted(shard, tmp_path):
    path, starts, _ = shard
    other = str(tmp_path / "other")
    pathlib.Path(other).write_bytes(pathlib.Path(path).read_bytes())
    places = [0, 3, 4, 11, 19]
    damaged(path, {starts[k] + 60 * (k != 3): b"\xaa\xbb" for k in places})
    found = damage.verify([other, path])
    assert [one.record for one in found] == places
    assert {one.file for one in found} == {path}
    with pytest.raises(ValueError, match="damaged in 5 places: .*record 1, .*record 4, at"):
        damage.usable([other, path], 4)
    files = damage.usable([other, path], 5)
    assert files[0] == other
    assert ids(files) == ids_without() + ids_without(*places)
    assert ids(damage.usable([other, path], 5)) == ids(files)


def test_a_mended_file_is_looked_at_again(shard):
    path, starts, _ = shard
    whole = pathlib.Path(path).read_bytes()
    damaged(path, {starts[2] + 50: b"\x01\x02\x03"})
    assert damage.verify([path])
    pathlib.Path(path).write_bytes(whole)
    os.utime(path, (1, 1))
    assert damage.verify([path]) == []


def test_what_tensorflow_met_is_found_among_files(shard, tmp_path):
    path, starts, _ = shard
    others = [str(tmp_path / name) for name in ("a", "b")]
    for other in others:
        pathlib.Path(other).write_bytes(pathlib.Path(path).read_bytes())
    damaged(others[1], {starts[9] + 77: b"\x00\x00"})
    files = [path, *others]
    with pytest.raises(tf.errors.DataLossError) as error:
        list(tf.data.TFRecordDataset(files))
    assert damage.explain(error.value.message, files).startswith(
        f"record files are damaged in 1 place: {others[1]}: record 10, of image 'image 9'"
    )
    assert damage.explain("something else", files) == ""
    assert "failed for a moment" in damage.explain("corrupted record at 0", [path])


def test_what_is_no_record_file(tmp_path):
    path = str(tmp_path / "x")
    pathlib.Path(path).write_bytes(np.random.default_rng(0).bytes(3_000_000))
    (found,) = damage.verify([path])
    assert (found.record, found.start, found.end) == (0, 0, 3_000_000)
    pathlib.Path(path).write_bytes(bytes(3_000_000))
    os.utime(path, (1, 1))
    (found,) = damage.verify([path])
    assert found.end == 3_000_000


def test_on_another_file_system(shard):
    path, starts, _ = shard
    damaged(path, {starts[5] + 99: b"\x01\x02\x03"})
    there = "ram://damage/train-0"
    tf.io.gfile.makedirs("ram://damage")
    tf.io.gfile.copy(path, there, overwrite=True)
    (found,) = damage.verify([there])
    assert (found.record, found.source_id) == (5, "image 5")
    assert ids(damage.usable([there], 1)) == ids_without(5)


def test_a_file_that_is_cut_off_before_it_is_copied(shard):
    """It would have been waited for without end."""
    path, starts, _ = shard
    damaged(path, {starts[10] + 20: b"\xff"})
    found = damage.verify([path])
    damaged(path, {starts[3]: None})
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.tfrecord: it was cut off while"):
        damage.without([path], found)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_a_full_disk_under_the_copy_is_named(shard, tmp_path, monkeypatch):
    path, starts, _ = shard
    damaged(path, {starts[10] + 20: b"\xfe"})
    full = tmp_path / "full"
    full.mkdir()
    (full / os.path.basename(path)).symlink_to("/dev/full")
    monkeypatch.setattr(damage.tempfile, "mkdtemp", lambda dir: str(full))
    with pytest.raises(OSError, match=r"No space left on device: '.*tfrecord' -> '.*/full/train-"):
        damage.usable([path], 1)
