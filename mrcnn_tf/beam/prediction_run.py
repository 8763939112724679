"""One run of prediction by Beam: what is checked before, the pipeline, what is said behind it."""

import glob
import json
import os
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from mrcnn_tf.beam import occupied, pictures, prediction, running
from mrcnn_tf.data import record_files
from mrcnn_tf.images import finding, storage
from mrcnn_tf.serving import predictor, unread

MANIFEST, PASSED_OVER = "images.jsonl", "passed_over.jsonl"


def run(
    saved_model: str,
    output_dir: str,
    arguments: Sequence[str],
    *,
    inputs: Sequence[str] = (),
    manifest: str | None = None,
    records: Sequence[str] = (),
    batch_size: int = 1,
) -> int:
    """Predict on all images that one of the three kinds of input names, and print what happens.

    Args:
      saved_model: folder that `python -m mrcnn_tf.export` wrote.
      output_dir: made if absent.
      arguments: Beam's options.
      inputs: files, folders, globs and lists, see `finding.find_images`; or
      manifest: see `pictures.from_line`; or
      records: globs of TFRecord files.
      batch_size: images per call of the network, at most; those of one call share a canvas.

    Returns:
      The exit code: 0, or 1 if an image could not be read.

    Raises:
      PipelineError: the pipeline failed.
      FileNotFoundError: no image, no SavedModel, or no such file.
      OSError: `output_dir` cannot be written.
      ValueError: the SavedModel is not ours, two images have the same name, an argument is no
        option, or `output_dir` holds results, has letters of a pattern in its name, or another
        pipeline may still write into it.
    """
    given = running.options(arguments)
    output_dir, saved_model = storage.absolute(output_dir), storage.absolute(saved_model)
    if glob.escape(output_dir) != output_dir:
        raise ValueError(f"{output_dir}: Beam takes a folder's [, * and ? for a pattern")
    _refuse_results(output_dir)  # of a job that was left alone: its note is still there
    with occupied.hold(output_dir, running.runner_of(given)):
        _refuse_results(output_dir)  # of a command that ended meanwhile
        _make_room(output_dir)
        if not records and manifest is None:
            manifest = _list(inputs, output_dir)
        _run(saved_model, output_dir, given, manifest, records, batch_size)
        return _tell(output_dir)


def _run(
    saved_model: str,
    output_dir: str,
    given: PipelineOptions,
    manifest: str | None,
    records: Sequence[str],
    batch_size: int,
) -> None:
    """Run the pipeline; see `run`."""
    files = [storage.absolute(path) for path in record_files.find(records)]
    if files:
        print(f"{len(files)} files of records", flush=True)
    elif manifest is not None and not storage.is_file(manifest):
        raise FileNotFoundError(f"{manifest}: there is no such file")
    print(f"loading {saved_model}", flush=True)
    predictor.Predictor(saved_model)  # what is wrong with it is known before workers start
    network = prediction.Network(saved_model, batch_size)

    def build(root: beam.Pipeline) -> None:
        if manifest is None:
            found = prediction.from_record_files(root, files)
        else:
            found = prediction.from_manifest(root, storage.absolute(manifest))
        prediction.predict(found, network, output_dir)

    running.run(build, given)


def _refuse_results(output_dir: str) -> None:
    counts = os.path.join(output_dir, prediction.COUNTS)
    if storage.is_file(counts):
        raise ValueError(f"{counts}: results are there already. Give another --output_dir")


def _make_room(output_dir: str) -> None:
    """Remove what a pipeline that failed has left in a folder."""
    for name in (prediction.DETECTIONS, prediction.UNREAD):
        for path in storage.matching(os.path.join(output_dir, f"{name}-*-of-*.jsonl")):
            storage.remove(path)
    for name in (prediction.DETECTIONS, prediction.UNREAD, prediction.COUNTS):
        for path in storage.folders_matching(os.path.join(output_dir, f"beam-temp-{name}-*")):
            storage.remove_folder(path)  # of Beam's file sinks
    storage.remove(os.path.join(output_dir, PASSED_OVER))


def _list(inputs: Sequence[str], output_dir: str) -> str:
    """Look for images, and write down where they are; return the manifest's path."""
    images, others = finding.find_images(inputs, [output_dir])
    passed_over = unread.list_all(others, {})
    print(f"{len(images)} image{'s' * (len(images) != 1)}", flush=True)
    if passed_over:
        path = os.path.join(output_dir, PASSED_OVER)
        print(f"PASSED OVER, for they are no images, {len(passed_over)}: {path}")
        _write_lines(path, [pictures.encode(one._asdict()) for one in passed_over])
    manifest = os.path.join(output_dir, MANIFEST)
    _write_lines(
        manifest, [pictures.to_line(name, storage.absolute(path)) for name, path in images]
    )
    return manifest


def _write_lines(path: str, lines: Sequence[bytes]) -> None:
    storage.write(path, b"".join(line + b"\n" for line in lines))


def _tell(output_dir: str) -> int:
    """Say what came of all images; return the exit code."""
    path = os.path.join(output_dir, prediction.COUNTS)
    counts = json.loads(storage.read(path))
    images, predicted, failed, detections = (counts[key] for key in prediction.COUNTED)
    if not images or images != predicted + failed:
        storage.remove(path)  # it would say that all is well
        raise running.PipelineError(
            f"of {images} images, {predicted + failed} came back" if images else "it met no image"
        )
    where = os.path.join(output_dir, prediction.DETECTIONS)
    print(f"{detections} detections in {predicted} images: {where}-*.jsonl")
    if failed:
        print(f"FAILED {failed}: {os.path.join(output_dir, prediction.UNREAD)}-*.jsonl")
    return 1 if failed else 0
