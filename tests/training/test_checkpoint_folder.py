"""What kills and disks leave among checkpoints, and what a run that goes on makes of it."""

import os

import pytest
import tensorflow as tf

from mrcnn_tf import checkpoints
from mrcnn_tf.training import checkpoint_folder


def manager_of(folder, max_to_keep=3):
    variable = tf.Variable([1.0, 2.0])
    return tf.train.CheckpointManager(
        tf.train.Checkpoint(v=variable), str(folder), max_to_keep, checkpoint_name="ckpt"
    )


def tidy(folder):
    newest = checkpoints.find_newest(str(folder))
    checkpoint_folder.tidy(str(folder), newest)
    return newest.checkpoint and os.path.basename(newest.checkpoint)


def files(folder):
    return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(str(folder)))


def of(*numbers):
    """Names of the files of checkpoints with these numbers, and their list."""
    names = [f"ckpt-{n}.{end}" for n in numbers for end in ("data-00000-of-00001", "index")]
    return sorted(["checkpoint", *names])


def saved(folder, *numbers):
    manager = manager_of(folder)
    for number in numbers:
        manager.save(checkpoint_number=number)


def test_a_folder_in_order_is_left_as_it_is(tmp_path):
    assert tidy(tmp_path / "none") is None
    saved(tmp_path, 30, 7)  # went on in a larger batch
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    assert tidy(tmp_path) == "ckpt-7"
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()}


@pytest.mark.parametrize("folder", ["{}", "ram://tidy"])
def test_what_was_being_written_or_deleted_is_removed(folder, tmp_path):
    folder = folder.format(tmp_path)
    saved(folder, 10, 20)
    for name in ("ckpt-30_temp/part-00000-of-00001.data", "ckpt-5.data-00000-of-00001"):
        tf.io.gfile.makedirs(os.path.dirname(f"{folder}/{name}"))
        with tf.io.gfile.GFile(f"{folder}/{name}", "w") as file:
            file.write("half")
    for name in ("ckpt-30.data-00000-of-00001", "ckpt-30.index"):  # before the list named it
        with tf.io.gfile.GFile(f"{folder}/{name}", "w") as file:
            file.write("half")
    assert tidy(folder) == "ckpt-20"
    assert files(folder) == of(10, 20)


def test_the_first_checkpoint_half_written_is_none(tmp_path):
    (tmp_path / "ckpt-2_temp").mkdir()
    (tmp_path / "ckpt-2.data-00000-of-00001").write_bytes(b"half")
    (tmp_path / "ckpt-2.index").write_bytes(b"half")
    assert checkpoints.find_newest(str(tmp_path)) == (None, {}, False)
    assert tidy(tmp_path) is None
    assert files(tmp_path) == []


def test_damaged_ones_are_set_aside_and_their_numbers_are_free(tmp_path):
    saved(tmp_path, 10, 20, 30)
    (tmp_path / "ckpt-30.index").write_bytes(b"nonsense")
    (tmp_path / "ckpt-20.data-00000-of-00001").unlink()
    assert tidy(tmp_path) == "ckpt-10"
    aside = ["ckpt-20.index", "ckpt-30.data-00000-of-00001", "ckpt-30.index"]
    assert files(tmp_path) == sorted(of(10) + [name + ".damaged" for name in aside])
    assert checkpoints.listed_in(str(tmp_path)) == ["ckpt-10"]
    saved(tmp_path, 20, 30)
    assert files(tmp_path) == sorted(of(10, 20, 30) + [name + ".damaged" for name in aside])
    assert tidy(tmp_path) == "ckpt-30"


def test_without_a_list_all_are_known_again_and_the_oldest_go_in_time(tmp_path):
    saved(tmp_path, 8, 9, 10)
    (tmp_path / "checkpoint").unlink()
    assert tidy(tmp_path) == "ckpt-10"
    assert checkpoints.listed_in(str(tmp_path)) == ["ckpt-10", "ckpt-9", "ckpt-8"]
    saved(tmp_path, 11)
    assert files(tmp_path) == of(9, 10, 11)


def test_what_the_list_does_not_name_is_the_oldest(tmp_path):
    """Killed after its files were written and before the list was; or while it was deleted."""
    saved(tmp_path, 10, 20)
    manager_of(tmp_path / "other").save(checkpoint_number=30)
    for path in (tmp_path / "other").glob("ckpt-30*"):
        path.rename(tmp_path / path.name)
    for path in (tmp_path / "other").iterdir():
        path.unlink()
    (tmp_path / "other").rmdir()
    assert tidy(tmp_path) == "ckpt-20"
    assert checkpoints.listed_in(str(tmp_path)) == ["ckpt-20", "ckpt-10", "ckpt-30"]
    saved(tmp_path, 30)
    assert files(tmp_path) == of(10, 20, 30)
    assert checkpoints.listed_in(str(tmp_path)) == ["ckpt-30", "ckpt-20", "ckpt-10"]


def test_what_has_other_names_is_a_persons_and_stays(tmp_path):
    """A folder, a checkpoint without its index, and a whole one, which no manager may delete."""
    saved(tmp_path, 8, 9, 10)
    manager_of(tmp_path / "other").save(checkpoint_number=7)
    for path in (tmp_path / "other").glob("ckpt-7*"):
        path.rename(tmp_path / path.name.replace("ckpt", "model"))
    for name in ("session-3_temp", "old-ckpt-3_temp", "ckpt-11_temp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("kept")
    (tmp_path / "weights-5.data-00000-of-00001").write_bytes(b"kept")
    (tmp_path / "checkpoint").unlink()
    kept = ["model-7.data-00000-of-00001", "model-7.index", "old-ckpt-3_temp", "other"]
    kept += ["session-3_temp", "weights-5.data-00000-of-00001"]
    assert tidy(tmp_path) == "ckpt-10"
    assert files(tmp_path) == sorted(of(8, 9, 10) + kept)
    assert (tmp_path / "session-3_temp" / "notes.txt").read_text() == "kept"
    assert checkpoints.listed_in(str(tmp_path)) == ["ckpt-10", "ckpt-9", "ckpt-8"]
    saved(tmp_path, 11)
    assert files(tmp_path) == sorted(of(9, 10, 11) + kept)
