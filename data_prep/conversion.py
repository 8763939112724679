"""From a COCO folder to a record set: check, continue what is there, write, count."""

import collections
import hashlib
import os
import pathlib
from typing import NamedTuple

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap

from . import coco_input, manifest, shards
from .coco_input import CocoInput
from .problems import Problem
from .progress import Progress

_FORMAT_VERSION = 1  # raise it when the same input gives other records than before


class Job(NamedTuple):
    """What is to be converted, and how.

    Attributes:
      image_dir: folder that the file names of the annotations are relative to.
      annotations_file: COCO JSON.
      prefix: records are written to PREFIX-?????-of-?????.tfrecord.
      num_shards: how many files; at most one per image is made.
      mask_format: "rle", "png", or None for no masks.
      num_processes: of the workers.
      skip_problems: leave out what cannot be used, instead of refusing all.
    """

    image_dir: pathlib.Path
    annotations_file: pathlib.Path
    prefix: pathlib.Path
    num_shards: int
    mask_format: str | None
    num_processes: int
    skip_problems: bool


class Summary(NamedTuple):
    """What is there after a conversion.

    Attributes:
      num_shards: files.
      num_categories: of the label map.
      counts: by what was counted.
      problems: what was left out or mended.
    """

    num_shards: int
    num_categories: int
    counts: dict[str, int]
    problems: list[Problem]


class RefusedError(Exception):
    """The input has problems and nothing was written."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems, the first: {problems[0]}")
        self.problems = problems


def convert(job: Job) -> Summary:
    """Write those shards of a record set that are missing, and show how far it is.

    Raises:
      RefusedError: the annotation file has problems, or images are missing.
      shards.BadImageError: an image cannot be used.
      ValueError: no COCO file; or records of other origin are in the way.
      RuntimeError: a worker process was killed.
    """
    with shards.WorkerPool(job.num_processes) as pool:
        megabytes = job.annotations_file.stat().st_size / 1e6
        print(f"reading {job.annotations_file} ({megabytes:.1f} MB)", flush=True)
        coco = coco_input.read(job.annotations_file, include_masks=job.mask_format is not None)
        coco, file_sizes = coco_input.find_files(coco, job.image_dir)
        if coco.problems and not job.skip_problems:
            raise RefusedError(coco.problems)
        if not coco.images:
            raise ValueError(f"{job.annotations_file}: there is no image to convert")
        job = job._replace(num_shards=min(job.num_shards, len(coco.images)))
        record_set = manifest.open_manifest(job.prefix, _made_from(job, coco))
        _write_label_map(coco.label_map, job)
        record_set.save()
        _write_missing_shards(_list_tasks(job, coco, file_sizes), record_set, pool)
    return _summarise(job, coco, record_set)


def _made_from(job: Job, coco: CocoInput) -> dict[str, object]:
    """Name what the bytes of all records depend on, apart from the images.

    `skip_problems` is not among them: it makes a difference only where there are problems, and
    with those nothing gets written without it.
    """
    return {
        "format_version": _FORMAT_VERSION,
        "annotations_sha256": coco.sha256,
        "num_shards": job.num_shards,
        "mask_format": job.mask_format,
    }


def _list_tasks(job: Job, coco: CocoInput, file_sizes: dict[str, int]) -> list[shards.ShardTask]:
    """Distribute the images over the shards."""
    names = dict(zip(coco.label_map.ids, coco.label_map.names, strict=True))
    tasks = []
    for k in range(job.num_shards):
        name = f"{job.prefix.name}-{k:05d}-of-{job.num_shards:05d}.tfrecord"
        # Every num_shards-th image: the file's order, often by source or date, gets spread.
        chosen = coco.images[k :: job.num_shards]
        files = [(image.file_name, file_sizes[image.file_name]) for image in chosen]
        tasks.append(
            shards.ShardTask(
                path=job.prefix.with_name(name),
                image_dir=job.image_dir,
                images=[(image, coco.objects.get(image.source_id, [])) for image in chosen],
                files_sha256=hashlib.sha256(repr(files).encode()).hexdigest(),
                category_names=names,
                mask_format=job.mask_format,
                skip_bad_images=job.skip_problems,
            )
        )
    return tasks


def _write_missing_shards(
    tasks: list[shards.ShardTask], record_set: manifest.Manifest, pool: shards.WorkerPool
) -> None:
    missing = [task for task in tasks if not record_set.has(task)]
    total = sum(len(task.images) for task in tasks)
    done = total - sum(len(task.images) for task in missing)
    progress = Progress("writing", total, "images", done)
    for task, summary in pool.write_shards(missing, progress.add):
        record_set.add(task, summary)
    progress.close()


def _summarise(job: Job, coco: CocoInput, record_set: manifest.Manifest) -> Summary:
    counts: collections.Counter[str] = collections.Counter()
    problems = list(coco.problems)
    for name in sorted(record_set.shards):
        counts.update(record_set.shards[name].counts)
        problems += record_set.shards[name].problems
    return Summary(job.num_shards, len(coco.label_map.ids), dict(counts), problems)


def _write_label_map(label_map: LabelMap, job: Job) -> None:
    """Write the label map, or make sure that the one that is there is the same.

    Raises:
      ValueError: it is another one.
    """
    path = job.prefix.parent / schema.LABEL_MAP_FILE
    text = label_map.to_json()
    if path.exists():
        if path.read_text("utf-8") != text:
            raise ValueError(
                f"{path}: the categories there are not those of {job.annotations_file}. Records "
                "of one folder share one label map: choose another folder for the output"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)
