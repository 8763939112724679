"""TensorBoard's files of a run that was killed: what was drawn behind where it goes on."""

import os
from collections.abc import Collection

import tensorflow as tf


def files(folder: str) -> list[str]:
    """Return the paths of a folder's files; none if there is no folder."""
    if not tf.io.gfile.isdir(folder):
        return []
    names = tf.io.gfile.listdir(folder)
    return [os.path.join(folder, name) for name in names if name.startswith("events.out.tfevents")]


def drop_beyond(folder: str, step: int, kept: Collection[str] = ()) -> None:
    """Drop from a folder's files what a run that goes on at a step will draw once more.

    TensorBoard knows a mark for that (SessionLog.START), which it heeds for no curve that
    TensorFlow 2 writes. A file whose last record was cut off ends in front of it. What processes
    before the last one left was looked at when the next began, so files are read from the newest to
    the first in which all that was drawn may stay.

    Args:
      folder: need not exist. No process draws into it now.
      step: what is of later steps goes.
      kept: paths of files that stay as they are.
    """
    paths = [path for path in files(folder) if path not in kept]
    # By their times: what follows in the names, process and host, has no order. A clock may be so
    # coarse that two have the same.
    times = {path: tf.io.gfile.stat(path).mtime_nsec for path in paths}
    enough = 0
    for path in sorted(paths, key=lambda path: times[path], reverse=True):
        if times[path] < enough:
            return
        if _drop_from(path, step):
            enough = times[path]


def _drop_from(path: str, step: int) -> bool:
    """Drop from one file; whether something was drawn in it, and all of that may stay."""
    kept, is_changed = [], False
    try:
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            if tf.compat.v1.Event.FromString(record).step > step:
                is_changed = True
            else:
                kept.append(record)
    except tf.errors.DataLossError:  # cut off where the process was killed
        is_changed = True
    if is_changed:
        unfinished = os.path.join(os.path.dirname(path), "partial")  # no name of TensorBoard's
        with tf.io.TFRecordWriter(unfinished) as writer:
            for record in kept:
                writer.write(record)
        tf.io.gfile.rename(unfinished, path, overwrite=True)
        return False
    return any(tf.compat.v1.Event.FromString(record).step for record in kept)
