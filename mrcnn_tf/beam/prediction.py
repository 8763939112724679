"""The pipeline that finds objects: images in; detections, what could not be read, and counts out.

    manifest or records -> Picture -> RunInference -> Outcome -> one per image id -> files

Every image is in one of two lists, and the counts say so. Files get their names when all of a list
is written (Beam's file sinks), however often a runner tries a bundle, and the counts are written
when both lists have theirs.
"""

import glob
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.ml.inference import base

from mrcnn_tf.beam.pictures import Picture, encode, from_line, from_records
from mrcnn_tf.images import reading
from mrcnn_tf.serving import image_run, predictor

DETECTIONS, UNREAD, COUNTS = "detections", "unread", "counts.json"
COUNTED = ("images", "predicted", "unread", "detections")  # what the counts are of

_ELEMENTS = 32  # of a call of the handler, in which reading and the network overlap

# Before what may pass is tried again. Behind the last, an image is listed with what went wrong: one
# that lies on a bad sector, or is too large for the memory, must not end a pipeline of millions.
_PAUSES = (1.0, 5.0, 25.0)  # seconds


class Outcome(NamedTuple):
    """What came of an image.

    Attributes:
      image_id: of the image.
      path: see `Picture`.
      rows: its detections, as COCO's results have them.
      failure: why there are none; "" if it was read.
    """

    image_id: int | str
    path: str
    rows: list[dict]
    failure: str


class _Rows(list[dict]):
    """Keeps detections."""

    def add(self, row: dict) -> None:
        self.append(row)


class Network(base.ModelHandler[Picture, Outcome, predictor.Predictor]):
    """An exported SavedModel for RunInference, which loads it once a process.

    Args:
      saved_model: folder that `mrcnn_tf.export` wrote, as the workers see it.
      batch_size: images per call of the network, at most; those of one call share a canvas.
    """

    def __init__(self, saved_model: str, batch_size: int):
        count = max(_ELEMENTS, batch_size)
        super().__init__(min_batch_size=count, max_batch_size=count)
        self._saved_model = saved_model
        self._batch_size = batch_size

    def load_model(self) -> predictor.Predictor:
        """Load it."""
        return predictor.Predictor(self._saved_model)

    def run_inference(
        self,
        batch: Sequence[Picture],
        model: predictor.Predictor,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[Outcome]:
        """Find objects, as `mrcnn_tf.predict` does; an image that fails answers for itself.

        What may pass, see `passing.py`, is tried again, one by one and behind the others.
        """

        def read(place: str, defer_large: bool) -> reading.UprightImage:
            picture = batch[int(place)]
            if picture.content is None:
                return reading.read(picture.path, defer_large=defer_large)
            return reading.upright(picture.content, defer_large=defer_large)

        # By their places: nobody has said yet that ids are unique.
        left = [(str(k), str(k)) for k, picture in enumerate(batch) if not picture.problem]
        found, failures = _Rows(), dict[str, str]()
        for pause in (0.0, *_PAUSES):
            time.sleep(pause)
            run = image_run.ImageRun(model, None, 0.0, read=read, quiet=True)
            run.process(left, 1 if pause else self._batch_size, found, lambda _: None)
            failures |= {name: run.failures.get(name, "") for name, _ in left}
            left = [(name, path) for name, path in left if name in run.may_pass]
            if not left:
                break
        rows: dict[str, list[dict]] = {}
        for row in found:
            rows.setdefault(row["image_id"], []).append(row)
        for k, picture in enumerate(batch):
            image_id = picture.image_id
            own = [row | {"image_id": image_id} for row in rows.get(str(k), [])]
            failure = picture.problem or failures[str(k)]
            yield Outcome(image_id, picture.path, own, failure)

    def get_num_bytes(self, batch: Sequence[Picture]) -> int:
        """Return the size of a batch, which RunInference counts."""
        return sum(len(picture.content or picture.path) for picture in batch)


def from_manifest(root: beam.Pipeline, manifest: str) -> beam.PCollection:
    """Return the images that a manifest names; its lines are shared out over the workers."""
    return (
        root
        | "read manifest" >> beam.io.ReadFromText(glob.escape(manifest), coder=BytesCoder())
        | "lines" >> beam.FlatMap(from_line, manifest)
        | "spread" >> beam.Reshuffle()
    )


def from_record_files(root: beam.Pipeline, files: Sequence[str]) -> beam.PCollection:
    """Return the images of files of records; a worker reads a file."""
    return (
        root
        | "record files" >> beam.Create([*files])  # spread over the workers
        | "read records" >> beam.FlatMap(from_records)
    )


def predict(pictures: beam.PCollection, network: Network, output_dir: str) -> None:
    """Find objects in images and write what was found.

    Args:
      pictures: of `Picture`.
      network: finds the objects.
      output_dir: gets `detections-*.jsonl`, `unread-*.jsonl` and `counts.json`.
    """
    outcomes = (
        pictures
        | "find objects" >> base.RunInference(network)
        | "by id" >> beam.Map(_by_id)
        | "group" >> beam.GroupByKey()
        | "one per id" >> beam.FlatMap(_one_per_id)
    )
    written = (
        _write(outcomes | "rows" >> beam.FlatMap(_rows), output_dir, DETECTIONS),
        _write(outcomes | "failures" >> beam.FlatMap(_failures), output_dir, UNREAD),
    )
    counts = (
        (
            pictures | "count images" >> beam.Map(lambda _: ("images", 1)),
            outcomes | "count outcomes" >> beam.FlatMap(_counts),
        )
        | "all counts" >> beam.Flatten()
        | "add" >> beam.CombinePerKey(sum)
        | "together" >> beam.combiners.ToDict()
        | "counts as JSON" >> beam.Map(_as_json, *map(beam.pvalue.AsIter, written))
    )
    path = os.path.join(output_dir, COUNTS)
    counts | COUNTS >> beam.io.WriteToText(path, num_shards=1, shard_name_template="")


def _by_id(outcome: Outcome) -> tuple[bytes, Outcome]:
    return encode({"id": outcome.image_id}), outcome


def _one_per_id(keyed: tuple[bytes, Iterable[Outcome]]) -> Iterator[Outcome]:
    """Keep the first of those that share an id, in the order of their paths; fail the others."""
    first, *others = sorted(keyed[1], key=lambda one: (bool(one.failure), one.path, str(one.rows)))
    yield first
    for other in others:
        failure = other.failure or f"its id is that of another image, {first.path}"
        yield other._replace(rows=[], failure=failure)


def _rows(outcome: Outcome) -> Iterator[bytes]:
    yield from map(encode, outcome.rows)


def _failures(outcome: Outcome) -> Iterator[bytes]:
    if outcome.failure:
        yield encode({"image_id": outcome.image_id, "path": outcome.path, "why": outcome.failure})


def _counts(outcome: Outcome) -> Iterator[tuple[str, int]]:
    yield ("unread" if outcome.failure else "predicted"), 1
    yield "detections", len(outcome.rows)


def _as_json(counts: dict[str, int], *_: Iterable[str]) -> str:
    """Return all counts; the names of the files are there to be waited for."""
    return json.dumps(dict.fromkeys(COUNTED, 0) | counts)


def _write(lines: beam.PCollection, output_dir: str, name: str) -> beam.PCollection:
    """Write lines into files; return the names of these, once they are final."""
    prefix = os.path.join(output_dir, name)
    return lines | name >> beam.io.WriteToText(prefix, ".jsonl", coder=BytesCoder())
