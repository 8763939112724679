"""Keeps a second pipeline out of a folder into which one still writes.

Hours may pass in which a pipeline that works writes nothing there, so the age of its files tells
nothing. A note in the folder does: it is locked while the command runs, and the lock goes with the
process, however that ends. Jobs on other machines outlive their command; their note stays until
their end was seen.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

from mrcnn_tf.beam import running
from mrcnn_tf.images import storage

NOTE = "running.json"


@contextlib.contextmanager
def hold(folder: str, runner: str) -> Iterator[None]:
    """Keep others out of a folder while a pipeline may write into it.

    Args:
      folder: made if absent. Where it does not lie on this machine's file systems, there is no
        lock, and only jobs on other machines keep others out.
      runner: of the pipeline.

    Raises:
      ValueError: another has the folder.
      OSError: the folder cannot be written.
    """
    path = os.path.join(folder, NOTE)
    storage.make_folder(folder)
    with _locked(path):
        _refuse_former(path)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        goes_on = False
        try:
            storage.write(path, json.dumps({"runner": runner, "since": since}).encode())
            yield
        except (running.Interrupt, running.PipelineError) as error:
            goes_on = error.may_go_on and not running.is_local(runner)
            raise
        finally:
            if goes_on:
                print(f"the job on {runner} may go on, and keeps this folder: {path}", flush=True)
            else:
                storage.remove(path)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    if storage.is_remote(path):
        yield
        return
    while True:
        with open(path, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"{path}: another command writes into this folder") from error
            except OSError:  # a file system without locks
                pass
            if _has_its_name(file, path):
                yield
                return


def _has_its_name(file: BinaryIO, path: str) -> bool:
    """Whether it is still there: who had the lock before us removes the file that goes with it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _refuse_former(path: str) -> None:
    content = storage.read(path) if storage.is_file(path) else b""
    if not content:
        return
    try:
        former = json.loads(content)
        runner, since = str(former["runner"]), str(former["since"])
    except (ValueError, TypeError, KeyError, RecursionError):  # cut off, as the command was
        return
    if not running.is_local(runner):
        raise ValueError(
            f"{path}: a job on {runner}, begun at {since}, may still write into this folder; its "
            "end was not seen. Once it has ended without counts.json, remove this file and type "
            "the command again; or give another --output_dir"
        )
