"""Writes an RPN's proposals for both record sets; the command is `mrcnn_tf.write_proposals`."""

import copy
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from mrcnn_tf import checkpoints
from mrcnn_tf.console.durations import duration
from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.data import record_files, schema
from mrcnn_tf.experiment import inputs, label_maps, precision, sources
from mrcnn_tf.experiment.experiment import Experiment, Task
from mrcnn_tf.modeling import build
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.staged.proposal_writer import ProposalWriter
from mrcnn_tf.staged.proposals import ProposalReader

SPLITS = ("train", "validation")
_OF_BATCH = (schema.SOURCE_ID, schema.IMAGE_SIZE_HW, schema.ORIGINAL_SIZE_HW)


def run(
    experiment: Experiment, checkpoint_path: str, output_dir: str, overwrite: bool = False
) -> None:
    """Write the proposals of both sets.

    Args:
      experiment: of a network with an RPN: "rpn" alone, or a detector that makes its own proposals.
      checkpoint_path: of its weights; a folder's newest is taken.
      output_dir: of the folders `train` and `validation`.
      overwrite: replace folders that are there.

    Raises:
      ValueError: the network has no RPN; the checkpoint does not exist or fit; a folder is there
        and was made by another network or from other records.
      FileNotFoundError: there are no records.
    """
    if experiment.task.model.proposals != "rpn":
        raise ValueError(
            f"task.model.proposals: {experiment.task.model.proposals!r}: this network has no RPN. "
            "Name the experiment that trained one, rpn_r50_fpn for one"
        )
    with precision.of(experiment.runtime):
        for split in SPLITS:
            folder = os.path.join(output_dir, split)
            _write_split(experiment, split, checkpoint_path, folder, overwrite)


def _write_split(
    experiment: Experiment, split: str, checkpoint_path: str, folder: str, overwrite: bool
) -> None:
    """Write one set's proposals, unless they are there."""
    config = _config_of(experiment.task, split)
    files = record_files.find(sources.patterns(config.validation_data))
    label_map = label_maps.of_experiment(config)
    model = build.build_model(config.model, label_map.num_classes)
    found = checkpoints.load(model, checkpoint_path)
    decisive = _decisive(config, model)
    if not overwrite and tf.io.gfile.exists(os.path.join(folder, "meta.json")):
        _check_kept(folder, decisive, files)
        print(f"{folder}: already there", flush=True)
        return
    started = time.monotonic()
    total = record_files.count_records(files)
    progress = ProgressBar(f"{split}: proposing", total, "images")
    made_from = {"experiment": config.name, "checkpoint": found} | decisive
    data = config.validation_data
    batches = inputs.build(config, data, label_maps.of_records(config, data, label_map))
    propose = _proposer(model, experiment.runtime.enable_xla)
    with ProposalWriter(folder, made_from, files) as writer:
        for batch in batches:
            before = writer.num_added
            proposals = propose(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW])
            arrays = {key: batch[key] for key in _OF_BATCH} | proposals._asdict()
            writer.add(**{key: value.numpy() for key, value in arrays.items()})
            progress.add(writer.num_added - before)
    progress.close()
    print(
        f"{folder}: {writer.num_added:,} images with {writer.num_boxes / writer.num_added:,.1f} "
        f"proposals each, from {found}, in {duration(time.monotonic() - started)}",
        flush=True,
    )


def _config_of(task: Task, split: str) -> Task:
    """Return a task whose validation is a pass over the split, with the split's proposals."""
    config = copy.deepcopy(task)
    if split == "train":
        rpn = config.model.rpn
        config.model.rpn = dataclasses.replace(
            rpn,
            pre_nms_top_k_test=rpn.pre_nms_top_k_train,
            post_nms_top_k_test=rpn.post_nms_top_k_train,
        )
        for field in ("input_path", *sources.TFDS_FIELDS):
            setattr(config.validation_data, field, getattr(task.train_data, field))
    config.validation_data.mask_arena_pixels = 0  # reads no masks
    config.allow_image_summary = False
    return config


def _proposer(model: build.Model, enable_xla: bool) -> Callable[[tf.Tensor, tf.Tensor], Proposals]:
    """Return the network up to its proposals, traced once for all canvases."""

    def propose(images: tf.Tensor, image_size_hw: tf.Tensor) -> Proposals:
        assert model.rpn is not None
        return model.rpn(model.features(images, training=False), image_size_hw)

    return tf.function(
        propose,
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.float32),
            tf.TensorSpec([None, 2], tf.float32),
        ],
        jit_compile=enable_xla or None,
        autograph=False,
    )


def _decisive(config: Task, model: build.Model) -> dict[str, Any]:
    """What decides on the proposals of a set: JSON values."""
    data = config.validation_data
    weights = hashlib.sha256()
    for variable in model.weights:
        weights.update(variable.numpy().tobytes())
    decisive = {
        "model": config.model.as_dict(),
        "short_edge": data.short_edges[0],
        "long_edge": data.long_edge,
        "canvas": data.canvas,
        "weights_sha256": weights.hexdigest(),
    }
    return json.loads(json.dumps(decisive))


def _check_kept(folder: str, decisive: dict[str, Any], files: list[str]) -> None:
    """Refuse to keep a folder that another network has written, or one of other records."""
    reader = ProposalReader(folder)
    before = reader.meta["made_from"]
    changed = [key for key, value in decisive.items() if before.get(key) != value]
    if changed:
        raise ValueError(
            f"{folder} is there, and was written with other values of {', '.join(changed)} (by "
            f"{before['experiment']} from {before['checkpoint']}). Give --overwrite to replace it, "
            "or another --output_dir"
        )
    reader.check_records(files)
