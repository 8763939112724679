"""What a run that goes on does about the checkpoints that lie in its folder.

Kills leave half a checkpoint behind, disks leave damaged ones; `checkpoints.py` says which.
"""

import json
import os
import re

import tensorflow as tf

from mrcnn_tf import checkpoints
from mrcnn_tf.console import whole_file

DAMAGED = ".damaged"  # behind the names of the files of a damaged checkpoint
# What runs call their checkpoints. Whatever else lies in a folder is a person's, and stays.
_OURS = r"((?:best_)?ckpt-(\d+))"


def tidy(folder: str, newest: checkpoints.Newest) -> None:
    """Leave in a folder what its run goes on with, and a list of it that TensorFlow can read.

    The files of damaged checkpoints get other names, so that a person may still look at them and
    nothing takes them for checkpoints. What was being written or deleted when the process was
    killed is removed, if it has a name that runs give.

    Args:
      folder: of checkpoints; need not exist. No other process writes checkpoints into it.
      newest: what `checkpoints.find_newest` has found in it.
    """
    if not tf.io.gfile.isdir(folder):
        return
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
    damaged = {os.path.basename(path) for path in newest.damaged}
    listed = checkpoints.listed_in(folder)
    for name in names:
        path = os.path.join(folder, name)
        file = re.fullmatch(r"(.*-\d+)\.(index|data-\d+-of-\d+)", name)
        if file and file[1] in damaged:
            tf.io.gfile.rename(path, path + DAMAGED, overwrite=True)
        elif file and file[1] not in listed and _is_left_over(folder, file[1], names):
            tf.io.gfile.remove(path)
    remove_half_written(folder)
    if newest.checkpoint:
        _write_list(folder, os.path.basename(newest.checkpoint), listed)


def remove_half_written(folder: str) -> None:
    """Remove the folders in which checkpoints are written before they get their names."""
    for name in tf.io.gfile.listdir(folder):
        if re.fullmatch(_OURS + "_temp/?", name):
            tf.io.gfile.rmtree(os.path.join(folder, name))


def _is_left_over(folder: str, name: str, names: list[str]) -> bool:
    """Whether a run's checkpoint that no list names is half written or half deleted."""
    if not re.fullmatch(_OURS, name):
        return False
    if f"{name}.index" not in names:
        return True
    return f"{name}_temp" in names and bool(checkpoints.damage(os.path.join(folder, name)))


def _write_list(folder: str, newest: str, listed: list[str]) -> None:
    """List all of the run's that is there: its manager deletes the oldest of a list in time."""
    names = (re.fullmatch(_OURS + r"\.index", name) for name in tf.io.gfile.listdir(folder))
    numbers = {name[1]: int(name[2]) for name in names if name}
    others = sorted(numbers.keys() - {*listed}, key=numbers.__getitem__)
    wanted = [newest, *(name for name in listed if name in numbers and name != newest)]
    wanted += [name for name in reversed(others) if name != newest]
    if wanted == listed:
        return
    lines = [f"model_checkpoint_path: {json.dumps(newest)}"]
    for name in reversed(wanted):
        # Without its time, TensorFlow would keep a checkpoint for ever.
        written = tf.io.gfile.stat(os.path.join(folder, name + ".index")).mtime_nsec / 1e9
        lines.append(f"all_model_checkpoint_paths: {json.dumps(name)}")
        lines.append(f"all_model_checkpoint_timestamps: {max(written, 1.0)!r}")
    whole_file.write(os.path.join(folder, checkpoints.LIST), "\n".join(lines) + "\n")
