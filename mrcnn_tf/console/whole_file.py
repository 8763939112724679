"""Small files that are there as a whole or not at all, whenever a process is killed."""

import contextlib
import os


def write(path: str | os.PathLike[str], content: str | bytes, unfinished: str = "") -> None:
    """Write a file under another name, then give it its own, in place of what had it.

    Args:
      path: of this machine or any file system of `tf.io.gfile`; its folder is there.
      content: text is written as UTF-8.
      unfinished: the other name, where several processes may write this file at once.

    Raises:
      OSError: there is no room, or the folder cannot be written; names the file, whose former
        content stays.
      tf.errors.OpError: the same, of another file system.
    """
    path = os.fspath(path)
    content = content.encode() if isinstance(content, str) else content
    unfinished = unfinished or path + ".partial"
    if "://" in path:
        import tensorflow as tf  # here: who stays on this machine need not wait for it

        with tf.io.gfile.GFile(unfinished, "wb") as file:
            file.write(content)
        tf.io.gfile.rename(unfinished, path, overwrite=True)
        return
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or the new name might be on the disk before its content is
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise OSError(error.errno, error.strerror, path) from error
