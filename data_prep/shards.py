"""Writes the shards of a record set: one shard here, or many in several processes."""

import collections
import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.findings import Finding, Level
from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.images import reading, record_image

from . import record, unfinished

_PERIOD = 0.2  # seconds between two looks at how far the workers are


class ShardTask(NamedTuple):
    """All that a worker needs to write one shard, and no more.

    Attributes:
      path: the shard's final name.
      image_dir: folder that the file names are relative to.
      images: those of this shard, with their objects.
      files_sha256: fingerprint of the names and sizes of their files.
      category_names: by the data set's own category id.
      mask_format: "rle", "png", or None for no masks.
      exif: whether the annotations refer to upright images or to stored pixels.
      keypoints: of the data set; None if it has none.
    """

    path: str
    image_dir: str
    images: list[tuple[ImageEntry, list[ObjectEntry]]]
    files_sha256: str
    category_names: dict[int, str]
    mask_format: str | None
    exif: record_image.ExifRule
    keypoints: KeypointSet | None = None


class ShardSummary(NamedTuple):
    """What came of a shard.

    Attributes:
      num_bytes: length of its file.
      files_sha256: that of the task.
      counts: by what was counted.
      findings: the images that were left out.
    """

    num_bytes: int
    files_sha256: str
    counts: dict[str, int]
    findings: list[Finding]


class Workers(Protocol):
    """Who writes shards; a context manager, entered before the annotation file is read."""

    def __enter__(self) -> "Workers": ...

    def __exit__(self, *_: object) -> None: ...

    def write_shards(
        self, tasks: list[ShardTask], show: Callable[[int], None]
    ) -> Iterator[tuple[ShardTask, ShardSummary]]:
        """Write shards, see `WorkerPool.write_shards`."""
        ...


def write_shard(
    task: ShardTask, image_is_done: Callable[[], None], suffix: str = ""
) -> ShardSummary:
    """Write one shard, without the images that cannot be used; it gets its name when complete.

    Args:
      task: what to write.
      image_is_done: called after each image.
      suffix: behind the file's name until it is complete; by default this process's own. Who may
        write one shard twice at a time in one process gives each attempt its own.
    """
    partial = task.path + suffix if suffix else unfinished.name_of(task.path)
    try:
        left_out, counts = _write_records(task, partial, image_is_done)
    except BaseException:
        if tf.io.gfile.exists(partial):
            tf.io.gfile.remove(partial)
        raise
    try:
        tf.io.gfile.rename(partial, task.path, overwrite=True)
    except tf.errors.NotFoundError:
        if not tf.io.gfile.exists(task.path):  # else another process has completed the set
            raise
    num_bytes = int(tf.io.gfile.stat(task.path).length)
    return ShardSummary(num_bytes, task.files_sha256, dict(counts), left_out)


def _write_records(
    task: ShardTask, path_of_shard: str, image_is_done: Callable[[], None]
) -> tuple[list[Finding], collections.Counter[str]]:
    counts: collections.Counter[str] = collections.Counter()
    left_out: list[Finding] = []
    with tf.io.TFRecordWriter(path_of_shard) as writer:
        for image, objects in task.images:
            path = os.path.join(task.image_dir, image.file_name)
            try:
                encoded = record_image.load(path, image.height, image.width, task.exif)
            except reading.UnusableImageError as error:
                finding = Finding(
                    Level.LEFT_OUT, error.kind, image.where, str(error), "image left out", images=1
                )
                left_out.append(image.sign(finding._replace(annotations=len(objects))))
            else:
                example = record.build_example(
                    image,
                    encoded,
                    objects,
                    task.category_names,
                    task.mask_format,
                    counts,
                    task.keypoints,
                )
                writer.write(example)
            image_is_done()
    return left_out, counts


class WorkerPool:
    """Processes that write shards; a context manager.

    They are forked here, after TensorFlow's import, which takes seconds, and before the
    annotation file is read: so no worker ever holds more than its own shard's annotations.

    Args:
      num_processes: how many.
    """

    def __init__(self, num_processes: int) -> None:
        context = multiprocessing.get_context("fork")
        self._num_done = context.Value("q", 0)
        self._stop = context.Event()
        self._executor = concurrent.futures.ProcessPoolExecutor(
            num_processes, context, _start_worker, (self._num_done, self._stop, context.Lock())
        )
        self._executor.submit(os.getpid).result()  # starts all processes now

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the workers; shards that are not complete get no name."""
        self._stop.set()
        self._executor.shutdown(cancel_futures=True)

    def write_shards(
        self, tasks: list[ShardTask], show: Callable[[int], None]
    ) -> Iterator[tuple[ShardTask, ShardSummary]]:
        """Write shards.

        Args:
          tasks: the shards.
          show: called now and then with the number of images finished since.

        Yields:
          Each task with its summary, in the order in which they are finished.

        Raises:
          RuntimeError: a worker process was killed.
        """
        shown = 0
        waiting = {self._executor.submit(_run_in_worker, task): task for task in tasks}
        while waiting:
            done, _ = concurrent.futures.wait(waiting, _PERIOD, concurrent.futures.FIRST_COMPLETED)
            now = self._num_done.value
            show(now - shown)
            shown = now
            for future in done:
                try:
                    yield waiting.pop(future), future.result()
                except concurrent.futures.process.BrokenProcessPool as error:
                    raise RuntimeError(
                        "a worker process was killed (out of memory?); the same command with a "
                        "smaller --num_processes goes on where this one stopped"
                    ) from error


class _StoppedError(Exception):
    """The parent wants no more shards."""


# Of a worker process: called after each image.
_image_is_done: Callable[[], None]


def _start_worker(num_done: Any, stop: Any, turns: Any) -> None:
    """Prepare a worker: Ctrl-C is the parent's business, and its death is the worker's."""
    global _image_is_done
    reading.share_turns(turns)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def count_image() -> None:
        with num_done.get_lock():
            num_done.value += 1
        if stop.is_set():
            raise _StoppedError

    def leave_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)  # else it would write on, beside the next run

    _image_is_done = count_image
    threading.Thread(target=leave_with_parent, daemon=True).start()


def _run_in_worker(task: ShardTask) -> ShardSummary:
    return write_shard(task, _image_is_done)
