"""Looks, before the first step, at everything that the first evaluation will need.

What is wrong with records and annotations is as wrong before training as after a night of it.
"""

import difflib
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.data import damage, record_files, record_index, schema, service_processes
from mrcnn_tf.evaluation import images
from mrcnn_tf.experiment import fields, label_maps, sources
from mrcnn_tf.experiment.experiment import Experiment, Task, Trainer
from mrcnn_tf.modeling import box_classes
from mrcnn_tf.staged import proposals
from mrcnn_tf.training import evaluators, run_folder
from mrcnn_tf.training.task import VALIDATION_LOSS, MaskRCNNTask
from mrcnn_tf.training.workers import Workers

_NO_MASKS = (
    "none of the objects in {where} has a mask, and a Mask R-CNN needs masks. Use a Faster R-CNN "
    "experiment (fasterrcnn_r50_fpn for one, or task.model.system: faster_rcnn with "
    "trainer.best_checkpoint_eval_metric: box_ap), or records with masks: converted without "
    "--noinclude_masks, from annotations with a segmentation"
)
_NO_KEYPOINTS = (
    "none of the objects in {where} has an annotated keypoint, and a Keypoint R-CNN needs some: "
    "convert annotations with keypoints, or set task.model.keypoint_head.num_keypoints: 0"
)
_NO_OBJECTS = (
    "{what} in {where}: {found}. {why}. Some exporters mark every object as a crowd "
    "(iscrowd: 1) because its mask is stored as run lengths: then set it to 0 and convert again"
)
_THROUGH_SERVICE = (
    "images come from {count} workers of the tf.data service at {address}, in an order that "
    "depends on who is faster: another one in every run, and after going on"
)
# What the workers of one run may have differently: paths, of which each may see another copy, and
# most of what says on what machine it runs.
_PATHS = (
    *(
        f"task.{data}.{path}"
        for data in ("train_data", "validation_data")
        for path in ("input_path", "tfds_data_dir", "proposals")
    ),
    *("task.annotation_file", "task.init_checkpoint"),
    *("stages.rpn_experiment", "stages.rpn_checkpoint"),
)
_MOST_NAMED = 5  # damaged places
_SAME_ON_ALL_MACHINES = (
    *("runtime.mixed_precision_dtype", "runtime.loss_scale"),
    "runtime.deterministic",
)


def check_workers(workers: Workers, experiment: Experiment, mode: str) -> None:
    """Refuse workers that were started with other fields than the chief, or see other files.

    They would train on as if nothing were wrong, each with images of an order of its own.

    Args:
      workers: all of them come here.
      experiment: this worker's.
      mode: of `mrcnn_tf.train`.

    Raises:
      ValueError: on every worker, with the differences.
    """
    if workers.count == 1:
        return
    mine: dict[str, Any] = {"--mode": mode}
    for field, value in run_folder.flat_fields(experiment).items():
        if field in _SAME_ON_ALL_MACHINES or not field.startswith("runtime."):
            mine[field] = value
    mine = {field: value for field, value in mine.items() if field not in _PATHS}
    task = experiment.task
    used = {"train_data": mode != "eval", "validation_data": "eval" in mode}
    for name in (name for name, is_used in used.items() if is_used):
        data = getattr(task, name)
        mine[f"records of task.{name}"] = _files_of(data)
        if data.proposals:
            meta = os.path.join(data.proposals, proposals.META)
            mine[f"{proposals.META} of task.{name}.proposals"] = _digest_of(meta)
    # Both, whatever is used: where the records of one have none, the classes are the other's.
    mine |= {f"label map {path}": digest for path, digest in _label_maps_of(task)}
    if task.annotation_file:
        mine["content of task.annotation_file"] = _digest_of(task.annotation_file)
    said = workers.gather(mine)
    wrong = [
        f"{workers.name(k)}: {field}: {theirs.get(field)}; the chief has {said[0].get(field)}"
        for k, theirs in enumerate(said)
        for field in sorted({*theirs, *said[0]})
        if theirs.get(field) != said[0].get(field)
    ]
    if wrong:
        raise ValueError(
            "all workers of a run are started by the same command on the same records:\n  "
            + "\n  ".join(wrong)
        )


def _files_of(data: fields.Data) -> str:
    """Return what tells these record files from others; or what is wrong with them.

    What one copy alone has damaged would be left out on one machine and trained on on the others.
    """
    damages: list[damage.Damage] = []
    try:
        files = record_files.find(sources.patterns(data))
        sizes = [tf.io.gfile.stat(file).length for file in files]
        if data.skip_corrupt_records:
            damages = damage.verify(files)
    except (OSError, ValueError, tf.errors.OpError) as error:
        return str(error).splitlines()[0]
    of_each = [f"{os.path.basename(f)} {size}" for f, size in zip(files, sizes, strict=True)]
    digest = hashlib.sha256("\n".join(of_each).encode()).hexdigest()[:8]
    said = f"{len(files)} files, {sum(sizes):,} bytes (digest of names and sizes: {digest})"
    for one in damages[:_MOST_NAMED]:
        place = f"{os.path.basename(one.file)} at bytes {one.start:,} to {one.end:,}"
        said += f", damaged: {place}"
    if damages[_MOST_NAMED:]:
        places = "\n".join(f"{os.path.basename(d.file)} {d.start} {d.end}" for d in damages)
        digest = hashlib.sha256(places.encode()).hexdigest()[:8]
        said += f" and more, {len(damages):,} places in all (digest: {digest})"
    return said


def _label_maps_of(task: Task) -> Iterator[tuple[str, str]]:
    """What tells the label maps in the folders of the records from others: (which, digest)."""
    for name in ("train_data", "validation_data"):
        data = getattr(task, name)
        try:
            paths = label_maps.paths(data)
        except (OSError, ValueError, tf.errors.OpError):  # said of the records
            continue
        for k, path in enumerate(paths):
            yield f"{k + 1} of task.{name}", _digest_of(path)


def _digest_of(path: str) -> str:
    """Return what tells a file's content from another; or that it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            while block := file.read(2**24):
                digest.update(block)
                size += len(block)
    except (OSError, tf.errors.OpError) as error:
        return f"cannot be read ({type(error).__name__})"  # nothing of the path, which may differ
    return f"{size:,} bytes (digest: {digest.hexdigest()[:8]})"


_DAMAGED = (
    "The command that converted these files writes them again once they are removed; "
    "task.train_data.skip_corrupt_records=N leaves up to N such places out of training"
)


def check_training(task: MaskRCNNTask) -> list[str]:
    """Look for something to learn from: read records until there is some.

    Returns:
      What is worth saying.

    Raises:
      ValueError: there are no objects, or no masks or keypoints where these are to be learnt; or no
        counts where a federated loss needs them; or the tf.data service that is to read them
        cannot.
      FileNotFoundError: there are no records, or what the detector will be exported with is gone.
    """
    config = task.task_config
    where = sources.name(config.train_data)
    needs_masks = config.model.system == "mask_rcnn"
    if needs_masks and not config.train_data.mask_arena_pixels:
        raise ValueError(
            "task.train_data.mask_arena_pixels: 0 reads no masks, and a Mask R-CNN needs them"
        )
    if config.model.federated.classes_per_image and not task.label_map.image_counts:
        raise ValueError(box_classes.NO_COUNTS)
    _check_records(config.train_data, where)
    objects, crowds, masks = _count_objects(config.train_data, needs_masks)
    if not objects:
        found = f"{crowds:,} crowd regions only" if crowds else "no object at all"
        why = "Crowd regions are not learnt from"
        raise ValueError(
            _NO_OBJECTS.format(what="nothing to learn from", where=where, found=found, why=why)
        )
    if needs_masks and not masks:
        raise ValueError(_NO_MASKS.format(where=where))
    if config.model.keypoint_head.num_keypoints and not _have_keypoints(config.train_data):
        raise ValueError(_NO_KEYPOINTS.format(where=where))
    if not config.train_data.enable_tf_data_service:
        return []
    address = config.train_data.tf_data_service_address or ""
    file, *_ = record_files.find(sources.patterns(config.train_data))
    workers = service_processes.check(address, file)
    return [_THROUGH_SERVICE.format(count=len(workers), address=address)]


def check_validation(task: MaskRCNNTask, trainer: Trainer) -> list[str]:
    """Read the ground truth, which the evaluations then use, and hold it against the records.

    Args:
      task: its evaluator is made.
      trainer: says how many batches are scored.

    Returns:
      What is harmless and worth saying.

    Raises:
      ValueError: evaluation would fail or score something wrong.
      FileNotFoundError: there are no records or annotations.
    """
    config = task.task_config
    if not trainer.validation_steps > 0 and trainer.validation_steps != -1:
        raise ValueError(
            f"trainer.validation_steps: got {trainer.validation_steps}, must be positive, or -1 "
            "for all images"
        )
    needs_masks = config.model.system == "mask_rcnn"
    where = sources.name(config.validation_data)
    _check_records(config.validation_data, where)
    if config.annotation_file:
        where = f"task.annotation_file ({config.annotation_file!r})"
        if not tf.io.gfile.exists(config.annotation_file):
            raise FileNotFoundError(f"{where} is not there")
    elif needs_masks:
        objects, _, masks = _count_objects(config.validation_data, needs_masks)
        if objects and not masks:
            raise ValueError(_NO_MASKS.format(where=where))
    truth = task.make_evaluator()
    _check_objects(truth, where, needs_masks)
    if config.model.keypoint_head.num_keypoints and not any(
        annotation.get("num_keypoints") for annotation in truth["annotations"]
    ):
        raise ValueError(_NO_KEYPOINTS.format(where=where))
    notes = []
    if config.annotation_file:
        missing = _compare_with_records(truth, config)
        if missing:
            notes.append(
                f"{missing:,} of {len(truth['images']):,} images of {config.annotation_file} are "
                "not among the validation records: they count as images in which nothing was found"
            )
    unscored = sorted(set(task.label_map.names) - {c["name"] for c in truth["categories"]})
    if unscored and config.model.system != "rpn" and task.label_map.has_names:
        notes.append(f"not in the validation set, so not scored: {', '.join(unscored[:10])}")
    return notes


def check_best(task: MaskRCNNTask, trainer: Trainer) -> None:
    """Refuse to choose the best checkpoint by a number that evaluation does not give.

    Args:
      task: after `check_validation`.
      trainer: says by what.

    Raises:
      ValueError: by which it could be.
    """
    metric = trainer.best_checkpoint_eval_metric
    losses = (VALIDATION_LOSS, *task.loss_names)
    assert task.evaluator is not None
    known = (*task.evaluator.metric_names, *losses)
    if metric and metric not in known:
        mean, _, name = metric.partition("/")  # "mask_ap/cat" is one of those that "mask_ap" is of
        if mean in known and mean.endswith("_ap") and name in task.label_map.names:
            what = "keypoint of an object" if mean == "keypoint_ap" else "object"
            raise ValueError(
                f"trainer.best_checkpoint_eval_metric: got {metric!r}, but the validation set has "
                f"no {what} of {name!r} to score"
            )
        nearest = difflib.get_close_matches(metric, known, n=3, cutoff=0.0)
        raise ValueError(
            f"trainer.best_checkpoint_eval_metric: {metric!r} is nothing that this network is "
            f"scored by. Nearest are {', '.join(nearest)}"
        )
    if metric in losses and not task.task_config.validation_loss:
        raise ValueError(
            f"trainer.best_checkpoint_eval_metric: got {metric!r}, but task.validation_loss: false "
            "computes no losses in evaluations. Set that to true, or choose by another number"
        )
    comparison = trainer.best_checkpoint_metric_comp
    if comparison not in ("higher", "lower"):
        raise ValueError(
            f"trainer.best_checkpoint_metric_comp: got {comparison!r}, allowed are 'higher' and "
            "'lower'"
        )
    if metric and (metric in losses) != (comparison == "lower"):
        raise ValueError(
            f"trainer.best_checkpoint_metric_comp: {comparison!r} would keep the worst checkpoint "
            f"by {metric!r}"
        )


def _check_records(data: fields.Data, where: str) -> None:
    """Read all records, if that is wanted, and say what is damaged and left out.

    Raises:
      ValueError: more is damaged than may be, or files of a set are missing, see `record_sets.py`.
      FileNotFoundError: there are no files.
    """
    files = record_files.find(sources.patterns(data))
    if not data.verify_records and not data.skip_corrupt_records:
        return
    progress = ProgressBar("verifying records", len(files), "files")
    try:
        damages = damage.verify(files, progress.add)
    finally:
        progress.close()
    if len(damages) > data.skip_corrupt_records:
        raise ValueError(f"{where}: {damage.describe(damages)}. {_DAMAGED}")
    print(f"{len(files):,} record files verified, {len(damages):,} damaged places")
    for one in damages:
        print(f"  left out: {one}")


def _check_objects(truth: evaluators.Truth, where: str, needs_masks: bool) -> None:
    objects = [a for a in truth["annotations"] if not a["iscrowd"]]
    if not objects:
        crowds = len(truth["annotations"])
        found = f"{crowds:,} crowd regions only" if crowds else "no object at all"
        found += f" on {len(truth['images']):,} images"
        why = "Every score would be -1; to train without evaluation, give --mode=train"
        raise ValueError(
            _NO_OBJECTS.format(what="nothing to score", where=where, found=found, why=why)
        )
    if needs_masks and not any(coco_mask.area(a["segmentation"]) for a in objects):
        raise ValueError(_NO_MASKS.format(where=where))


def _compare_with_records(truth: evaluators.Truth, config: Task) -> int:
    """Look every validation record up in the annotations; return how many images have none.

    Raises:
      ValueError: an image is not in the annotations, has another size there, or occurs twice.
    """
    known = images.Images(truth)
    for example in _records(config.validation_data):
        sides = [
            list(example.features[key].int64_list.value)
            for key in (schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH)
        ]
        if [len(side) for side in sides] != [1, 1]:
            raise ValueError(f"{example.where}: height and width {sides}, expected one of each")
        try:
            known.add_row(np.frombuffer(example.source_id, np.uint8), np.array(sides)[:, 0])
        except ValueError as error:
            raise ValueError(
                f"{sources.name(config.validation_data)} does not fit task.annotation_file "
                f"({config.annotation_file!r}): {error}"
            ) from error
    return known.num_missing


def _count_objects(data: fields.Data, needs_masks: bool) -> tuple[int, int, int]:
    """Count (objects, crowd regions, masks) until there are enough to work with: one of each."""
    objects = crowds = masks = 0
    for example in _records(data):
        features = example.features
        labels = features[schema.CLASS_LABEL].int64_list.value
        is_crowd = list(features[schema.IS_CROWD].int64_list.value) or [0] * len(labels)
        runs = features[schema.MASK_NUM_RUNS].int64_list.value
        objects += sum(not crowd for crowd in is_crowd)
        crowds += sum(map(bool, is_crowd))
        masks += sum(map(bool, runs)) + len(features[schema.MASK_PNG].bytes_list.value)
        if objects and (masks or not needs_masks):
            break
    return objects, crowds, masks


def _have_keypoints(data: fields.Data) -> bool:
    """Whether any object of the records has an annotated keypoint."""
    return any(
        any(example.features[schema.KEYPOINT_VISIBILITY].int64_list.value)
        for example in _records(data)
    )


def index_of_records(data: fields.Data) -> record_index.RecordIndex:
    """Return the index of the records that are read.

    Raises:
      ValueError: see `record_index.of_files`.
      FileNotFoundError: there are no files.
    """
    return record_index.of_files(_usable_files(data))


def _records(data: fields.Data) -> Iterator[record_files.Example]:
    """Each record, in the order of the files."""
    yield from record_files.examples(_usable_files(data))


def _usable_files(data: fields.Data) -> list[str]:
    files = record_files.find(sources.patterns(data))
    if data.skip_corrupt_records:
        files = damage.usable(files, data.skip_corrupt_records)
    return files


def check_stages(experiment: Experiment) -> None:
    """Look whether the RPN is there that a detector without one will be exported with.

    Raises:
      FileNotFoundError: it is not.
    """
    stages = experiment.stages
    path = stages.rpn_checkpoint
    if path and not tf.io.gfile.exists(path) and not tf.io.gfile.exists(path + ".index"):
        raise FileNotFoundError(f"stages.rpn_checkpoint: {path!r} is not there")
    path = stages.rpn_experiment
    if stages.rpn_checkpoint and path.endswith(".yaml") and not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"stages.rpn_experiment: {path!r} is not there")
