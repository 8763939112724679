"""Writes the shards of a record set on the workers of an Apache Beam pipeline.

An element is a shard. Its task lies in a file, which its worker reads; so neither annotations nor
images travel through Beam, and a job description stays as small as the number of shards. A worker
writes the shard under a name of its own, gives it its final name, then writes the shard's summary
beside the task. An element may therefore be processed again, or by two workers at a time, as Beam's
runners do: the result is the same file.
"""

import json
import os
import pickle
import re
import uuid
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
import tensorflow as tf
from apache_beam.metrics import Metrics

from mrcnn_tf.beam import running
from mrcnn_tf.images import storage

from . import manifest, shards, worker_files

_images = Metrics.counter("mrcnn_tf", "images converted")


class BeamWorkers:
    """Writes shards where Beam's options say; see `shards.Workers`.

    Args:
      prefix: of the records. Tasks and summaries lie in the folder PREFIX.beam until all shards are
        there. Workers read them with pickle, as they read what Beam itself sends them: who may
        write beside the records may run code on the workers.
      arguments: Beam's options.

    Raises:
      ValueError: an argument is no option.
    """

    def __init__(self, prefix: str, arguments: Sequence[str]) -> None:
        self._prefix = prefix
        self._folder = prefix + ".beam"
        self._options = running.options(arguments)

    def __enter__(self) -> "BeamWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: what a run that failed leaves is what the next one goes on with."""

    def write_shards(
        self, tasks: list[shards.ShardTask], show: Callable[[int], None]
    ) -> Iterator[tuple[shards.ShardTask, shards.ShardSummary]]:
        """Write shards.

        Args:
          tasks: the shards.
          show: called with the number of images of each shard that is yielded.

        Yields:
          Each task with its summary: first those that an earlier pipeline had finished, then, once
          the pipeline has ended, the others.

        Raises:
          RuntimeError: the pipeline failed; what it had finished was yielded before.
        """
        files = {self._file_of(task): task for task in tasks}
        left = []
        for file, task in files.items():
            summary = _finished(file, task)
            # Images that were left out may have been mended since: look again.
            if summary is None or summary.findings:
                left.append(file)
                continue
            show(len(task.images))
            yield task, summary
        failure = self._run_pipeline({file: files[file] for file in left}) if left else None
        missing = []
        for file in left:
            task = files[file]
            summary = _finished(file, task)
            if summary is None:
                missing.append(os.path.basename(task.path))
                continue
            show(len(task.images))
            yield task, summary
        if failure is not None or missing:
            why = str(failure) if failure else f"it ended without {missing[0]}"
            raise RuntimeError(
                f"the Beam pipeline failed with {len(missing)} of {len(tasks)} shards missing: "
                f"{why}. The same command goes on where this one stopped"
            )
        self._sweep()

    def _file_of(self, task: shards.ShardTask) -> str:
        return os.path.join(self._folder, os.path.basename(task.path) + ".task")

    def _run_pipeline(self, tasks: dict[str, shards.ShardTask]) -> running.PipelineError | None:
        """Write the tasks down and have them done; return what went wrong."""
        tf.io.gfile.makedirs(self._folder)
        for file, task in tasks.items():
            if tf.io.gfile.exists(_summary_of(file)):
                tf.io.gfile.remove(_summary_of(file))
            worker_files.write(file, pickle.dumps(task))

        def build(root: beam.Pipeline) -> None:
            files = root | "tasks" >> beam.Create([*tasks])  # spread over the workers
            files | "write shard" >> beam.Map(write_shard)

        try:
            running.run(build, self._options)
        except running.PipelineError as error:
            return error
        return None

    def _sweep(self) -> None:
        """Remove tasks, summaries, and what attempts that were cut off have left."""
        if tf.io.gfile.isdir(self._folder):
            tf.io.gfile.rmtree(self._folder)
        folder, name = os.path.split(self._prefix)
        partial = re.compile(re.escape(name) + r"-\d+-of-\d+\.tfrecord\.[0-9a-f]{32}\.partial")
        for other in tf.io.gfile.listdir(folder or "."):
            if partial.fullmatch(other):
                tf.io.gfile.remove(os.path.join(folder, other))


def write_shard(file: str) -> None:
    """Write the shard whose task lies in a file, and its summary; on a worker."""
    task: shards.ShardTask = pickle.loads(storage.read(file))
    attempt = f".{uuid.uuid4().hex}.partial"
    summary = shards.write_shard(task, _images.inc, attempt)
    worker_files.write(_summary_of(file), json.dumps(summary._asdict()).encode())


def _finished(file: str, task: shards.ShardTask) -> shards.ShardSummary | None:
    """Return a shard's summary if it was written from this task's files and is there."""
    if not tf.io.gfile.exists(_summary_of(file)) or not tf.io.gfile.exists(task.path):
        return None
    try:
        summary = manifest.summary_of(**json.loads(storage.read(_summary_of(file))))
    except (ValueError, TypeError, RecursionError):  # damaged: as if the worker had not come so far
        return None
    is_whole = tf.io.gfile.stat(task.path).length == summary.num_bytes
    return summary if is_whole and summary.files_sha256 == task.files_sha256 else None


def _summary_of(file: str) -> str:
    return file.removesuffix(".task") + ".summary"
