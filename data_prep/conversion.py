"""From a COCO folder to a record set: check, continue what is there, write, count."""

import collections
import hashlib
import os
from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.data import coco_json, findings, schema
from mrcnn_tf.data.coco_data import CocoData, ImageEntry
from mrcnn_tf.data.findings import Finding, Level, RefusedError
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.images import record_image
from mrcnn_tf.images.image_folder import ImageFolder

from . import categories, manifest, shards, unfinished

_FORMAT_VERSION = 2  # raise it when the same input gives other records than before


class Job(NamedTuple):
    """What is to be converted, and how.

    Attributes:
      image_dir: folder that the file names of the annotations are relative to.
      annotations_file: COCO JSON.
      prefix: records are written to PREFIX-?????-of-?????.tfrecord.
      num_shards: how many files; at most one per image is made.
      mask_format: "rle", "png", or None for no masks.
      num_processes: of the workers.
      skip_problems: leave out what cannot be used, however much it is.
      exif: one of `record_image.EXIF_CHOICES`, see `record_image.ExifRule`.
      part: shards from the first number up to the second are written; None for all.
      min_keypoints: images with fewer annotated keypoints are not written.
    """

    image_dir: str
    annotations_file: str
    prefix: str
    num_shards: int
    mask_format: str | None
    num_processes: int
    skip_problems: bool
    exif: str = "auto"
    part: tuple[int, int] | None = None
    min_keypoints: int = 0


class Summary(NamedTuple):
    """What is there after a conversion.

    Attributes:
      num_shards: files.
      num_categories: of the label map.
      counts: by what was counted.
      findings: what was repaired or left out.
      notes: how often what harmless thing was met.
      warnings: what the data set as a whole cannot be used for.
      missing: shards from a number up to another that other parts have not written yet.
    """

    num_shards: int
    num_categories: int
    counts: dict[str, int]
    findings: list[Finding]
    notes: dict[str, int]
    warnings: list[str]
    missing: list[tuple[int, int]]


class StoppedError(Exception):
    """Too many images turned out to be unusable; the shards that were complete are kept.

    Attributes:
      findings: all that was found until then.
      can_skip: whether leaving these images out would do.
    """

    def __init__(self, error: RefusedError) -> None:
        super().__init__("; ".join(error.reasons))
        self.findings, self.can_skip = error.findings, error.can_skip


def convert(job: Job, workers: shards.Workers | None = None) -> Summary:
    """Write those shards of a record set that are missing, and show how far it is.

    Args:
      job: what is to be converted.
      workers: who writes the shards; None for processes on this machine.

    Raises:
      RefusedError: the annotation file is refused, or images are missing; nothing was written.
      StoppedError: too many images cannot be used, as their files show.
      ValueError: no such input, no COCO file, no keypoints where some are asked for, or in no image
        so many; or records of other origin are in the way.
      RuntimeError: a worker process was killed.
    """
    with workers or shards.WorkerPool(job.num_processes) as pool:
        coco, file_sizes = _read(job)
        job = job._replace(num_shards=min(job.num_shards, len(coco.images)))
        label_map_path = os.path.join(os.path.dirname(job.prefix), schema.LABEL_MAP_FILE)
        label_map = categories.match(coco, label_map_path)
        if not coco.num_images:
            value = "the list 'images' is empty"
            coco.findings.append(Finding(Level.REFUSED, "no image to convert", "", value, ""))
        _check(job, coco, [])
        exif = _exif_rule(job, coco)
        made_from = _made_from(job, coco, label_map, exif)
        record_set = manifest.open_manifest(job.prefix, made_from, job.part)
        if not tf.io.gfile.exists(label_map_path):
            manifest.write_text(label_map_path, label_map.to_json())
        tasks = _list_tasks(job, coco, label_map, file_sizes, exif)
        of_part = _of_part(job, tasks)
        record_set.save()
        _write_missing_shards(job, coco, of_part, record_set, pool)
    record_set.save()
    # Other parts may have been written meanwhile.
    record_set = manifest.open_manifest(job.prefix, made_from, job.part)
    missing = _ranges([k for k, task in enumerate(tasks) if not record_set.has(task)])
    if not missing:
        try:
            _check(job, coco, _left_out(record_set))
        except RefusedError as error:
            raise StoppedError(error) from error
        record_set.complete()
        unfinished.sweep_all(job.prefix)
    counts: collections.Counter[str] = collections.Counter()
    for name in sorted(record_set.shards):
        counts.update(record_set.shards[name].counts)
    found = [*coco.findings, *_left_out(record_set)]
    num_categories = len(label_map.ids)
    return Summary(
        job.num_shards, num_categories, dict(counts), found, coco.notes, coco.warnings, missing
    )


def _read(job: Job) -> tuple[CocoData, dict[str, int]]:
    """Read the annotations, and find the images; the lengths of their files by name."""
    if not tf.io.gfile.isdir(job.image_dir):
        raise ValueError(f"--image_dir={job.image_dir}: not found")
    if not tf.io.gfile.exists(job.annotations_file):
        raise ValueError(f"--object_annotations_file={job.annotations_file}: not found")
    megabytes = tf.io.gfile.stat(job.annotations_file).length / 1e6
    print(f"reading {job.annotations_file} ({megabytes:.1f} MB)", flush=True)
    folder = ImageFolder(job.image_dir)
    coco = coco_json.read(job.annotations_file, job.mask_format is not None, folder.size_of)
    file_sizes = folder.find_all(coco)
    if job.min_keypoints:
        _leave_out_without_keypoints(coco, job.min_keypoints)
    return coco, file_sizes


def _leave_out_without_keypoints(coco: CocoData, least: int) -> None:
    """Leave out images with fewer annotated keypoints, as keypoint detectors are trained."""
    if coco.label_map.keypoints is None:
        raise ValueError(f"--min_keypoints={least}: no category of {coco.name} has keypoints")

    def count(image: ImageEntry) -> int:
        objects = coco.objects.get(image.source_id, [])
        return sum(int((e.keypoints[:, 2] > 0).sum()) for e in objects if e.keypoints is not None)

    kept = [image for image in coco.images if count(image) >= least]
    if coco.images and not kept:
        raise ValueError(f"--min_keypoints={least}: no image of {coco.name} has so many annotated")
    if len(kept) < len(coco.images):
        note = f"images with less than {least} annotated keypoints, left out (--min_keypoints)"
        coco.notes[note] = len(coco.images) - len(kept)
    coco.images = kept


def _check(job: Job, coco: CocoData, on_the_way: list[Finding]) -> None:
    """Apply the rule of `findings.py` to what was found so far."""
    findings.check(
        [*coco.findings, *on_the_way],
        num_objects=coco.num_objects,
        num_images=coco.num_images,
        skip=job.skip_problems,
        name=job.annotations_file,
    )


def _exif_rule(job: Job, coco: CocoData) -> record_image.ExifRule:
    """Look, if need be, what the images show whose size tells which way up they were annotated."""
    if job.exif != "auto":
        return record_image.ExifRule(job.exif)
    print("reading the EXIF orientations", flush=True)
    return record_image.survey(
        (os.path.join(job.image_dir, image.file_name), image.height, image.width)
        for image in coco.images
    )


def _made_from(
    job: Job, coco: CocoData, label_map: LabelMap, exif: record_image.ExifRule
) -> dict[str, object]:
    """Name what the bytes of all records depend on, apart from the images.

    `skip_problems` is not among them: what it lets pass is the same with and without it.
    """
    # Not in what older versions made, whose records lack these lists.
    is_federated = any(image.neg_category_ids is not None for image in coco.images)
    return ({"federated": True} if is_federated else {}) | {
        "format_version": _FORMAT_VERSION,
        "annotations_sha256": coco.sha256,
        "label_map_sha256": hashlib.sha256(label_map.to_json().encode()).hexdigest(),
        "num_shards": job.num_shards,
        "mask_format": job.mask_format,
        "exif": exif.name,
        **({"min_keypoints": job.min_keypoints} if job.min_keypoints else {}),
    }


def _list_tasks(
    job: Job,
    coco: CocoData,
    label_map: LabelMap,
    file_sizes: dict[str, int],
    exif: record_image.ExifRule,
) -> list[shards.ShardTask]:
    """Distribute the images over the shards."""
    names = dict(zip(label_map.ids, label_map.names, strict=True))
    tasks = []
    for k in range(job.num_shards):
        # Every num_shards-th image: the file's order, often by source or date, gets spread.
        chosen = coco.images[k :: job.num_shards]
        files = [(image.file_name, file_sizes[image.file_name]) for image in chosen]
        tasks.append(
            shards.ShardTask(
                path=f"{job.prefix}-{k:05d}-of-{job.num_shards:05d}.tfrecord",
                image_dir=job.image_dir,
                images=[(image, coco.objects.get(image.source_id, [])) for image in chosen],
                files_sha256=hashlib.sha256(repr(files).encode()).hexdigest(),
                category_names=names,
                mask_format=job.mask_format,
                exif=exif,
                keypoints=label_map.keypoints,
            )
        )
    return tasks


def _of_part(job: Job, tasks: list[shards.ShardTask]) -> list[shards.ShardTask]:
    """Return the tasks of the job's part.

    Raises:
      ValueError: there are none.
    """
    if job.part is None:
        return tasks
    chosen = tasks[slice(*job.part)]
    if not chosen:
        raise ValueError(
            f"--shards={job.part[0]}:{job.part[1]}: there are {len(tasks):,} shards, 0 to "
            f"{len(tasks) - 1:,}"
        )
    return chosen


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges, each from the first number up to the second."""
    ranges: list[tuple[int, int]] = []
    for k in numbers:
        if ranges and ranges[-1][1] == k:
            ranges[-1] = ranges[-1][0], k + 1
        else:
            ranges.append((k, k + 1))
    return ranges


def _write_missing_shards(
    job: Job,
    coco: CocoData,
    tasks: list[shards.ShardTask],
    record_set: manifest.Manifest,
    pool: shards.Workers,
) -> None:
    """Write shards until all are there, or too many images turn out to be unusable."""
    try:
        _check(job, coco, _left_out(record_set))
    except RefusedError:
        # The files may have been mended since, without another length: look again.
        for name in [name for name, shard in record_set.shards.items() if shard.findings]:
            del record_set.shards[name]
    missing = [task for task in tasks if not record_set.has(task)]
    for task in missing:
        record_set.shards.pop(os.path.basename(task.path), None)
    unfinished.sweep(task.path for task in missing)
    total = sum(len(task.images) for task in tasks)
    done = total - sum(len(task.images) for task in missing)
    progress = ProgressBar("writing", total, "images", done)
    try:
        for task, summary in pool.write_shards(missing, progress.add):
            record_set.add(task, summary)
            _check(job, coco, _left_out(record_set))
    except RefusedError as error:
        raise StoppedError(error) from error
    finally:
        progress.close()


def _left_out(record_set: manifest.Manifest) -> list[Finding]:
    """Return the images that could not be used, of the shards that are there."""
    return [
        finding
        for name in sorted(record_set.shards)
        for finding in record_set.shards[name].findings
    ]
