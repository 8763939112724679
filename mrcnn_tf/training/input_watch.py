"""Ends a run whose tf.data service is gone: TensorFlow would wait for its images for ever.

A worker of the service that is lost is done without, and workers go on for a while when the
dispatcher is away. A step runs inside TensorFlow, where Python cannot end it, so it is the process
that ends, as it does where another worker of the run is gone: the same command goes on from the
newest checkpoint.

One that is there but silent, a process that was stopped for one, TensorFlow waits for as well.
Nobody here can know whether it comes back, and a new start would meet it again: it is named.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator

import tensorflow as tf

from mrcnn_tf.data import service_processes
from mrcnn_tf.experiment import fields
from mrcnn_tf.training.stopping import RESTART
from mrcnn_tf.training.workers import WorkerGone

_EVERY = 10.0  # seconds between two looks
_SILENT = (
    "worker {worker} of the tf.data service has not answered for {seconds:.0f} s, and is waited "
    "for. If its process was stopped, let it go on; once it is killed, it is done without"
)
_FORGOTTEN = re.compile(r"[Ii]teration (client )?id:? \d+ not found|[Ii]d not found: \d+")


def of(data: fields.Data) -> contextlib.AbstractContextManager[None]:
    """Watch the processes that make a data set's batches, if others do; see `watch`."""
    if not data.enable_tf_data_service:
        return contextlib.nullcontext()
    return watch(data.tf_data_service_address or "")


@contextlib.contextmanager
def watch(address: str, seconds: float = 120.0) -> Iterator[None]:
    """End the process, exit code `RESTART`, when a service was away for long; while this lasts.

    A worker that was silent for half as long is named, once.

    Args:
      address: of the dispatcher.
      seconds: for which it, or all of its workers, did not answer.
    """
    is_over = threading.Event()

    def look() -> None:
        began = seen = time.monotonic()
        heard: dict[str, float] = {}  # when each worker was, last
        named: set[str] = set()
        while not is_over.wait(min(_EVERY, seconds)):
            try:
                found = service_processes.find(address, patience=0.0)
                seen = time.monotonic()
                heard |= dict.fromkeys(found.there, seen)
                long = {one for one in found.silent if seen - heard.get(one, began) > seconds / 2}
                for one in sorted(long - named):
                    print(_SILENT.format(worker=one, seconds=seconds / 2), flush=True)
                named |= long
            except ValueError as error:
                if time.monotonic() - seen > seconds and not is_over.is_set():
                    text = f"the tf.data service is gone for {seconds:.0f} s: {error}. The same "
                    print(text + "command goes on from the newest checkpoint", flush=True)
                    os._exit(RESTART)

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def raise_if_forgotten(error: Exception) -> None:
    """Say it plainly if an error means that the dispatcher was started anew, without a memory.

    Args:
      error: of TensorFlow.

    Raises:
      WorkerGone: it does.
    """
    if isinstance(error, tf.errors.NotFoundError) and _FORGOTTEN.search(error.message):
        raise WorkerGone(
            "the dispatcher of the tf.data service was started anew and does not know of this run. "
            "The same command goes on from the newest checkpoint",
            RESTART,
        ) from error
