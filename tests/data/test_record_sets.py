"""Sets of record files that are not whole, through the door that every reader takes."""

import json
import os

import pytest
import tensorflow as tf

from mrcnn_tf.data import record_files, record_sets


def write_set(folder, prefix="train", count=4, with_manifest=True):
    """Write shards of 1, 2, ... records; return the pattern."""
    os.makedirs(folder, exist_ok=True)
    shards = {}
    for k in range(count):
        name = f"{prefix}-{k:05d}-of-{count:05d}.tfrecord"
        with tf.io.TFRecordWriter(f"{folder}/{name}") as writer:
            for _ in range(k + 1):
                writer.write(b"a record")
        shards[name] = {"num_bytes": os.path.getsize(f"{folder}/{name}")}
    if with_manifest:
        with open(f"{folder}/{prefix}.manifest.json", "w") as file:
            json.dump({"made_from": {}, "shards": shards}, file)
    return f"{folder}/{prefix}-*"


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("gone", [[2], [0, 3]])
def test_missing_shards_are_named(tmp_path, with_manifest, gone):
    pattern = write_set(tmp_path, with_manifest=with_manifest)
    assert len(record_files.find(pattern)) == 4
    names = [f"train-{k:05d}-of-00004.tfrecord" for k in gone]
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{len(gone)} of the 4 record files") as error:
        record_files.find(pattern)
    assert ", ".join(names) in str(error.value)


def test_a_part_may_be_read_on_purpose(tmp_path):
    write_set(tmp_path, count=12)
    (tmp_path / "train-00011-of-00012.tfrecord").unlink()
    assert len(record_files.find(f"{tmp_path}/train-0000*")) == 10
    assert len(record_files.find(f"{tmp_path}/train-00003-of-00012.tfrecord")) == 1
    with pytest.raises(ValueError, match=r"missing: train-00011-of-00012.tfrecord, in"):
        record_files.find(f"{tmp_path}/train-0001[01]-*")
    several = [f"{tmp_path}/train-0000{k}-of-*" for k in (1, 4)]
    names = [os.path.basename(path) for path in record_files.find(several)]
    assert names == ["train-00001-of-00012.tfrecord", "train-00004-of-00012.tfrecord"]


@pytest.mark.parametrize("with_manifest", [True, False])
def test_empty_and_cut_shards_are_named(tmp_path, with_manifest):
    pattern = write_set(tmp_path, with_manifest=with_manifest)
    path = tmp_path / "train-00001-of-00004.tfrecord"
    whole = path.read_bytes()
    path.write_bytes(b"")
    said = "has 0 bytes instead of 48" if with_manifest else "is empty"
    with pytest.raises(ValueError, match=f"train-00001-of-00004.tfrecord {said}"):
        record_files.find(pattern)
    path.write_bytes(whole[:-3])
    if with_manifest:
        with pytest.raises(ValueError, match="has 45 bytes instead of 48"):
            record_files.find(pattern)


def test_a_shard_without_images_may_be_empty_if_the_manifest_says_so(tmp_path):
    pattern = write_set(tmp_path)
    path = tmp_path / "train-00001-of-00004.tfrecord"
    path.write_bytes(b"")
    manifest = json.loads((tmp_path / "train.manifest.json").read_text())
    manifest["shards"][path.name]["num_bytes"] = 0
    (tmp_path / "train.manifest.json").write_text(json.dumps(manifest))
    assert len(record_files.find(pattern)) == 4


def test_a_set_of_tfds_is_built_again(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    pattern = write_set(tmp_path, with_manifest=False)
    (tmp_path / "train-00001-of-00004.tfrecord").unlink()
    with pytest.raises(ValueError, match=r"00001-of-00004.*TFDS again, with --overwrite$"):
        record_files.find(pattern)


def test_a_shard_that_was_not_completed_is_named(tmp_path):
    pattern = write_set(tmp_path)
    manifest = json.loads((tmp_path / "train.manifest.json").read_text())
    del manifest["shards"]["train-00003-of-00004.tfrecord"]
    (tmp_path / "train.manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"1 of 4 .*train-00003-of-00004.tfrecord is not in it"):
        record_files.find(pattern)


def test_two_sets_of_one_name_are_refused(tmp_path):
    write_set(tmp_path, count=4, with_manifest=False)
    write_set(tmp_path, count=2, with_manifest=False)
    with pytest.raises(ValueError, match="two sets of record files, train-00000-of-00004"):
        record_files.find(f"{tmp_path}/train-*")
    assert len(record_files.find(f"{tmp_path}/train-*-of-00002.tfrecord")) == 2
    write_set(tmp_path, "val", 3)
    assert len(record_files.find([f"{tmp_path}/val-*", f"{tmp_path}/train-*-of-00004*"])) == 7


def test_folders_of_patterns_have_their_own_sets(tmp_path):
    write_set(tmp_path / "a", count=2)
    write_set(tmp_path / "b [1]", count=3)
    assert len(record_files.find(f"{tmp_path}/*/train-*")) == 5
    (tmp_path / "b [1]/train-00000-of-00003.tfrecord").unlink()
    with pytest.raises(ValueError, match=r"1 of the 3 .* in '.*b \[1\]'"):
        record_files.find(f"{tmp_path}/*/train-*")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"made_from": {}, "shards": {"a": {"num_byt', "Unterminated string"),
        (b"[]", "it has no object 'made_from'"),
        (b'{"made_from": {}, "shards": []}', "it has no object 'shards'"),
        (b'{"made_from": {}, "shards": {"a": 3}}', "shard 'a' has the num_bytes None"),
        (b'{"made_from": {}, "shards": {"a": {"num_bytes": -1}}}', "the num_bytes -1"),
        (b'{"made_from": {}, "shards": {"a": {"num_bytes": true}}}', "the num_bytes True"),
        (b"[" * 100_000, "maximum recursion|nested"),
        (b"\xff\xfe\xff", "utf"),
        (b"", "Expecting value"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path, content, said):
    pattern = write_set(tmp_path)
    (tmp_path / "train.manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"train.manifest.json: not a manifest .*({said})"):
        record_files.find(pattern)


def test_on_another_file_system():
    folder = "ram://sets"
    for k in (0, 2):
        with tf.io.TFRecordWriter(f"{folder}/x-{k:05d}-of-00003.tfrecord") as writer:
            writer.write(b"a record")
    with pytest.raises(ValueError, match="missing: x-00001-of-00003.tfrecord, in 'ram://sets'"):
        record_files.find(f"{folder}/x-*")


def test_names_that_are_no_set():
    for name in ("train-0", "train.tfrecord", "a-1-of-", "a-00001-of-00000", "a-1-of-99999999999"):
        assert record_sets.set_of(f"/x/{name}") is None
    one, index = record_sets.set_of("/x/shapes-train.tfrecord-00007-of-00016")
    assert (index, one.prefix, one.name(3)) == (
        7,
        "shapes-train.tfrecord",
        "shapes-train.tfrecord-00003-of-00016",
    )
