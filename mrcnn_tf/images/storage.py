"""Files of this machine and of any file system that TensorFlow knows (gs://, ram://), alike.

On this machine names need not be UTF-8, which `tf.io.gfile` asks for; elsewhere they are.
"""

import errno
import glob as local_glob
import os
import shutil
from collections.abc import Iterator
from typing import Any


def is_remote(path: str) -> bool:
    """Whether a path belongs to a file system of TensorFlow's."""
    return "://" in path


def absolute(path: str) -> str:
    """Return the name that processes in other folders know a file by."""
    return path if is_remote(path) else os.path.abspath(path)


def read(path: str, num_bytes: int = -1) -> bytes:
    """Return a file's content, or its first bytes.

    Raises:
      OSError: of this machine.
      tf.errors.OpError: of another file system.
    """
    if is_remote(path):
        with gfile().GFile(path, "rb") as file:
            return file.read(num_bytes)
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would never end
        raise OSError(errno.EINVAL, "not a file")
    with open(path, "rb") as file:
        return file.read(num_bytes)


def write(path: str, content: bytes) -> None:
    """Write a file and the folders above it; raises as `read` does, and names the file."""
    if is_remote(path):
        gfile().makedirs(os.path.dirname(path))
        with gfile().GFile(path, "wb") as file:
            file.write(content)
        return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error  # a full disk names none


def remove(path: str) -> None:
    """Remove a file if there is one; raises as `read` does."""
    if not is_file(path):
        return
    if is_remote(path):
        gfile().remove(path)
    else:
        os.remove(path)


def remove_folder(path: str) -> None:
    """Remove a folder and what is in it; raises as `read` does."""
    if is_remote(path):
        gfile().rmtree(path)
    else:
        shutil.rmtree(path)


def make_folder(path: str) -> None:
    """Make a folder and those above it, as far as they are absent; raises as `read` does."""
    if is_remote(path):
        gfile().makedirs(path)
    else:
        os.makedirs(path, exist_ok=True)


def is_file(path: str) -> bool:
    """Whether there is a file."""
    if is_remote(path):
        return gfile().exists(path) and not gfile().isdir(path)
    return os.path.isfile(path)


def is_folder(path: str) -> bool:
    """Whether there is a folder."""
    return gfile().isdir(path) if is_remote(path) else os.path.isdir(path)


def files_below(folder: str) -> Iterator[str]:
    """Yield the paths of all files in a folder and below; hidden files and folders are left out.

    Links to folders are followed, each folder is gone through once.

    Raises:
      OSError: a folder may not be read.
    """
    remote = is_remote(folder)
    walk = gfile().walk(folder) if remote else os.walk(folder, True, _raise, followlinks=True)
    seen: set[str] = set()
    for parent, folders, names in walk:
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not remote:
            if os.path.realpath(parent) in seen:
                folders.clear()
                continue
            seen.add(os.path.realpath(parent))
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(parent, name)


def matching(pattern: str) -> list[str]:
    """Return the files that a pattern matches; `**` crosses folders on this machine only."""
    if is_remote(pattern):
        return [path for path in gfile().glob(pattern) if is_file(path)]
    return [path for path in local_glob.glob(pattern, recursive=True) if not os.path.isdir(path)]


def folders_matching(pattern: str) -> list[str]:
    """Return the folders that a pattern matches."""
    glob = gfile().glob if is_remote(pattern) else local_glob.glob
    return [path for path in glob(pattern) if is_folder(path)]


def gfile() -> Any:
    """Return `tf.io.gfile`, through which other file systems are reached."""
    import tensorflow as tf  # here: who stays on this machine need not have it, nor wait for it

    return tf.io.gfile


def _raise(error: OSError) -> None:
    raise error
