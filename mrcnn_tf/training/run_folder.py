"""A run's folder: what it holds, and whether what is to start belongs into it.

`docs/runs.md` describes the folder. Nothing of it is touched before everything has been compared.
"""

import functools
import json
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf
import yaml

from mrcnn_tf import checkpoints
from mrcnn_tf.console import whole_file
from mrcnn_tf.data import record_index, schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import loading, overrides
from mrcnn_tf.experiment.experiment import Experiment
from mrcnn_tf.training import checkpoint_folder

PARAMS = "params.yaml"
METRICS = "metrics.jsonl"  # a line per evaluation
LOSSES = "train.jsonl"  # a line per loop of training
RECORDS = "train_records.json"  # how many records the run trains on, and a digest of them

_GROUPS = ("task", "trainer", "runtime")  # of fields, in every PARAMS, in this order
# A run may go on with other values of these: they say how long, how fast, on what machine, from
# which copy of the records, and how it is scored; or what only a beginning needs. All other fields
# say what is trained.
_FREE = (
    "runtime",
    "stages",
    "trainer",
    "task.name",
    "task.seed",
    "task.init_checkpoint",
    "task.init_checkpoint_modules",
    "task.annotation_file",
    "task.allow_image_summary",
    "task.cocoeval",
    "task.boundary_ap",
    "task.tta",
    "task.validation_loss",
    "task.validation_data",
    "task.model.preset",
    "task.model.num_classes",  # the label maps are compared instead
    "task.model.max_instances",
    "task.model.detection",
    "task.model.rpn.pre_nms_top_k_test",
    "task.model.rpn.post_nms_top_k_test",
    "task.model.backbone.weights",
    "task.train_data.input_path",
    "task.train_data.tfds_name",
    "task.train_data.tfds_split",
    "task.train_data.tfds_data_dir",
    "task.train_data.global_batch_size",
    "task.train_data.images_per_replica",
    "task.train_data.images_per_update",
    "task.train_data.mask_arena_pixels",
    "task.train_data.enable_tf_data_service",
    "task.train_data.tf_data_service_address",
    "task.train_data.tf_data_service_job_name",
    "task.train_data.seed",
    "task.train_data.proposals",
)
_NOT_FREE = ("trainer.optimizer_config.optimizer",)


class Standing(NamedTuple):
    """Where a run stands that goes on.

    Attributes:
      checkpoint: its newest.
      step: steps taken, counted in batches of this start.
      images: seen so far.
    """

    checkpoint: str
    step: int
    images: int


class RunFolder:
    """The folder of one run.

    Args:
      path: on any file system that `tf.io.gfile` knows; need not exist.
    """

    def __init__(self, path: str):
        self.path = path

    @functools.cached_property
    def newest(self) -> checkpoints.Newest:
        """The newest checkpoint that is whole, and those that are not, as they were found."""
        return checkpoints.find_newest(self.path)

    def standing(self, images_per_step: int) -> Standing | None:
        """Return where the run stands; None if there is nothing to go on from.

        The position in the schedule is the number of images seen. A run that goes on with another
        batch, on other GPUs for one, stands at another step of a schedule that is shorter or longer
        in the same measure.

        Args:
          images_per_step: of what is to start.

        Raises:
          ValueError: the checkpoint is not of a run, or none of several is whole.
        """
        checkpoint = self.newest.checkpoint
        if checkpoint is None and self.newest.damaged:
            lines = "\n".join(self.newest.lines())
            raise ValueError(
                f"{lines}\nNothing was changed. To begin anew, take another --model_dir"
            )
        if checkpoint is None:
            return None
        default = self._saved().get("trainer", {}).get("reference_batch_size")
        return standing_at(checkpoint, images_per_step, default)

    def check(self, experiment: Experiment, label_map: LabelMap) -> list[str]:
        """Refuse to go on with what this folder's run is not.

        Args:
          experiment: what is to go on here.
          label_map: its classes.

        Returns:
          The harmless differences, "field: before -> now".

        Raises:
          ValueError: the run trained another network or other classes; everything is listed.
        """
        saved, now = _flat(self._saved()), _flat(as_plain(experiment))
        # What only one side has is a field that another release knows: the weights will tell.
        pairs = {key: (saved[key], now[key]) for key in now if key in saved}
        changed = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
        wrong = [_line(key, pair) for key, pair in changed.items() if not _is_free(key)]
        theirs = checkpoints.label_map_of(os.path.join(self.path, PARAMS))
        if theirs and theirs.names != label_map.names and (theirs.has_names or label_map.has_names):
            wrong.append(_line("classes", (list(theirs.names), list(label_map.names))))
        ours = label_map.keypoints
        if experiment.task.model.keypoint_head.num_keypoints and theirs and ours:
            before = theirs.keypoints.names if theirs.keypoints else ours.names
            if before != ours.names:  # each map of the network is one of them
                wrong.append(_line("keypoints", (list(before), list(ours.names))))
        if wrong:
            name = saved.get("task.name")
            raise ValueError(
                f"{self.path} holds a run of {name!r} that is not this one; there it was, and is "
                "now:\n  " + "\n  ".join(wrong) + "\nNothing was changed. Take another "
                "--model_dir; to start from that run's weights, set task.init_checkpoint to it"
            )
        lines = [_line(key, pair) for key, pair in changed.items()]
        if not saved:
            lines.append(f"{PARAMS} is gone: only the weights tell whether it is the same network")
        if not theirs:
            lines.append(f"{schema.LABEL_MAP_FILE} is gone: nothing tells whether classes moved")
        return lines

    def check_records(self, records: record_index.RecordIndex) -> list[str]:
        """Return a line if the run has trained on other records than those it goes on with.

        It may: weights and schedule are those of as many images seen. Only the order is, from here
        on, the one that the new set has after so many images.

        Args:
          records: of `task.train_data`.
        """
        path = os.path.join(self.path, RECORDS)
        if not tf.io.gfile.exists(path):  # of an earlier release
            return []
        now = _said_of(records)
        try:
            with tf.io.gfile.GFile(path) as file:
                before = json.loads(file.read())
            count, digest = int(before["records"]), before["digest"]
        except (ValueError, KeyError, TypeError):
            return [f"{RECORDS} cannot be read: nothing tells whether the training records changed"]
        if (count, digest) == (now["records"], now["digest"]):
            return []
        what = f"{count:,} -> {now['records']:,}"
        if count == now["records"]:
            what = f"as many ({count:,}), but others, or in another order"
        return [
            f"records of task.train_data: {what}. What comes next is what this set has after as "
            "many images: in this epoch some may come again, and some not before the next"
        ]

    def write_records(self, records: record_index.RecordIndex) -> None:
        """Write what `check_records` will compare."""
        _write(os.path.join(self.path, RECORDS), json.dumps(_said_of(records)) + "\n")

    def write(self, experiment: Experiment, label_map: LabelMap) -> None:
        """Write what belongs to every run: the whole experiment, and its classes."""
        tf.io.gfile.makedirs(self.path)
        _write(os.path.join(self.path, PARAMS), loading.to_yaml(experiment))
        _write(os.path.join(self.path, schema.LABEL_MAP_FILE), label_map.to_json())

    def begin(self, images: int, is_evaluating: bool) -> None:
        """Put aside what no run knows that goes on from here: see `tidy` and `drop_rows_beyond`.

        Args:
          images: seen so far, 0 for a run that begins.
          is_evaluating: whether the run evaluates; else METRICS are another process's, which may
            write them now (--mode=continuous_eval).
        """
        checkpoint_folder.tidy(self.path, self.newest)
        for name in (LOSSES, METRICS) if is_evaluating else (LOSSES,):
            drop_rows_beyond(os.path.join(self.path, name), images)

    def evaluations(self, images: float = math.inf) -> list[dict[str, float]]:
        """Return the numbers of the run's evaluations up to so many images, in their order.

        Of several after the same images it is the first: `--mode=eval` adds a line too, which may
        be of other validation records or another type of numbers than those it is compared with.
        """
        by_images: dict[int, dict[str, float]] = {}
        for row in rows(os.path.join(self.path, METRICS)):
            if "checkpoint" not in row and row.get("images", math.nan) <= images:
                numbers = {k: v for k, v in row.items() if not isinstance(v, str)}
                by_images.setdefault(row["images"], numbers)
        return [by_images[key] for key in sorted(by_images)]

    def evaluation_at(self, images: int) -> dict[str, float] | None:
        """Return the numbers of the evaluation after so many images, None if there was none."""
        found = self.evaluations(images)
        return found[-1] if found and found[-1]["images"] == images else None

    def _saved(self) -> dict[str, Any]:
        """Read PARAMS; {} if it is gone.

        Raises:
          ValueError: it is empty, cut off, or something else.
        """
        path = os.path.join(self.path, PARAMS)
        if not tf.io.gfile.exists(path):
            return {}
        saved = overrides.read(path)
        for group in _GROUPS:
            if not isinstance(saved.get(group), dict):
                raise ValueError(
                    f"{path}: there are no fields of {group!r} in it, so it was emptied or cut "
                    "off. Nothing was changed. Remove it to go on without it: then only the "
                    "weights tell whether it is the same network"
                )
        return saved


def standing_at(checkpoint: str, images_per_step: int, default_batch: int | None) -> Standing:
    """Return where a run stands that goes on from a checkpoint, see `RunFolder.standing`.

    Args:
      checkpoint: of a run.
      images_per_step: of what goes on.
      default_batch: images per step of a checkpoint that does not say it.

    Raises:
      ValueError: the checkpoint is not of a run.
    """
    step, batch = checkpoints.position(checkpoint)
    batch = batch or default_batch
    if not step or not batch:
        raise ValueError(
            f"{checkpoint} is no checkpoint of a run but weights alone, converted or joined. "
            "To start from them, take another --model_dir and set task.init_checkpoint to this"
        )
    return Standing(checkpoint, max(1, round(step * batch / images_per_step)), step * batch)


def rows(path: str) -> Iterator[dict[str, Any]]:
    """Read what `append_row` wrote, without what was cut off; nothing if there is no file."""
    for line in _lines(path):
        if row := _row(line):
            yield row


def append_row(path: str, row: dict[str, Any]) -> None:
    """Append one line of JSON to a file of any file system; one that was cut off stays alone."""
    start = "" if _ends_a_line(path) else "\n"
    with tf.io.gfile.GFile(path, "a") as file:
        file.write(start + json.dumps(row) + "\n")


def drop_rows_beyond(path: str, images: int) -> None:
    """Drop from METRICS or LOSSES what a run will write once more, and what was cut off.

    Args:
      path: of the file, into which no other process writes; need not exist.
      images: seen where the run goes on. Scores of other checkpoints are of no such place.
    """
    lines = _lines(path)
    kept = []
    for line in lines:
        row = _row(line)
        if row and ("checkpoint" in row or row.get("images", 0) <= images):
            kept.append(line.removesuffix("\n") + "\n")
    if kept != lines:
        whole_file.write(path, "".join(kept))


def as_plain(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment's fields as params.yaml gives them back."""
    return yaml.safe_load(loading.to_yaml(experiment))


def flat_fields(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment's fields by their full names, {"trainer.train_steps": 100}."""
    return _flat(as_plain(experiment))


def _said_of(records: record_index.RecordIndex) -> dict[str, Any]:
    return {"records": len(records.file), "digest": records.digest()}


def _is_free(key: str) -> bool:
    def is_in(fields_: tuple[str, ...]) -> bool:
        return any(key == field or key.startswith(field + ".") for field in fields_)

    return is_in(_FREE) and not is_in(_NOT_FREE)


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        is_nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if is_nested else {prefix + key: value}
    return flat


def _line(key: str, pair: tuple[Any, Any]) -> str:
    return f"{key}: {pair[0]} -> {pair[1]}"


def _ends_a_line(path: str) -> bool:
    if not tf.io.gfile.exists(path):
        return True
    with tf.io.gfile.GFile(path, "rb") as file:
        size = file.size()
        file.seek(max(0, size - 1))
        return file.read(1) in (b"", b"\n")


def _lines(path: str) -> list[str]:
    """Return the lines of a file, each with its end; [] if there is no file."""
    if not tf.io.gfile.exists(path):
        return []
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read().decode("utf-8", "replace").splitlines(keepends=True)


def _row(line: str) -> dict[str, Any] | None:
    """Parse a line; None if it was cut off where a run was killed or a disk was full."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _write(path: str, text: str) -> None:
    """Replace a file as a whole, unless it says the same already."""
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            if file.read() == text:
                return
    whole_file.write(path, text)
