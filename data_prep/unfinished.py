"""Files on their way: each process writes under a name of its own, so that none spoils another's.

A file gets its real name when it is complete. What a killed process left is swept by the next one
on its machine, and by whoever completes the set.
"""

import contextlib
import os
import re
import socket
from collections.abc import Iterable

import tensorflow as tf

_ENDING = ".partial"
_NAME = re.compile(r"(?P<name>.+)\.(?P<host>[^.]+)-(?P<pid>\d+)" + re.escape(_ENDING))


def name_of(path: str) -> str:
    """Return the name under which this process writes a file."""
    return f"{path}.{_host()}-{os.getpid()}{_ENDING}"


def sweep(paths: Iterable[str]) -> None:
    """Remove what processes of this machine that run no more have left of some files.

    Args:
      paths: the files' real names, all in one folder.
    """
    names = {os.path.basename(path): path for path in paths}
    folder = os.path.dirname(next(iter(names.values()), ""))
    for entry in _entries(folder) if names else ():
        match = _NAME.fullmatch(entry)
        if not match or match["name"] not in names or match["host"] != _host():
            continue
        if not _runs(int(match["pid"])):
            _remove(os.path.join(folder, entry))


def sweep_all(prefix: str) -> None:
    """Remove what is left of a set that is complete: shards, also of processes that still run.

    Whoever writes one of its shards once more finds it there. Of the small files, whose writers
    expect to rename them, only those of processes that run no more.

    Args:
      prefix: --output_file_prefix.
    """
    folder, name = os.path.split(prefix)
    shard = re.compile(re.escape(name) + r"-\d+-of-\d+\.tfrecord")
    small = re.compile(re.escape(name) + r"\.(part-\d+-\d+\.)?(manifest\.json|report\.txt)")
    for entry in _entries(folder):
        match = _NAME.fullmatch(entry)
        if not match:
            continue
        is_dead = match["host"] == _host() and not _runs(int(match["pid"]))
        if shard.fullmatch(match["name"]) or (is_dead and small.fullmatch(match["name"])):
            _remove(os.path.join(folder, entry))


def _entries(folder: str) -> list[str]:
    return tf.io.gfile.listdir(folder or ".") if tf.io.gfile.isdir(folder or ".") else []


def _remove(path: str) -> None:
    with contextlib.suppress(tf.errors.NotFoundError):  # another process has removed it
        tf.io.gfile.remove(path)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname()) or "host"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
