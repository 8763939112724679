"""Write the proposals of a trained RPN for a whole data set, for a detector trained apart.

Used as

    python -m mrcnn_tf.write_proposals --experiment=rpn_r50_fpn --checkpoint_path=runs/rpn_r50_fpn \
        --output_dir=proposals

which writes the folders proposals/train and proposals/validation, in the format of
`data/proposals.py`, of the experiment's training and validation records. Both sets are seen as in
evaluation: once, not flipped, first short edge. Of a training image the RPN keeps as many boxes
as in training, of a validation image as many as at inference. A folder that is there already, of
the same weights and settings, is kept.
"""

import copy
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

from mrcnn_tf import command_line

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

import tensorflow as tf
from absl import app, flags, logging
from official.modeling import performance

from mrcnn_tf.data import pipeline, record_files, schema
from mrcnn_tf.durations import duration
from mrcnn_tf.experiment import loading
from mrcnn_tf.experiment.experiment import Experiment, Task
from mrcnn_tf.modeling import build
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.staged.proposal_writer import ProposalWriter
from mrcnn_tf.staged.proposals import ProposalReader
from mrcnn_tf.training import progress
from mrcnn_tf.training import task as task_lib

FLAGS = flags.FLAGS
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
    if experiment.runtime.mixed_precision_dtype:
        performance.set_mixed_precision_policy(experiment.runtime.mixed_precision_dtype)
    for split in SPLITS:
        _write_split(experiment, split, checkpoint_path, os.path.join(output_dir, split), overwrite)


def _write_split(
    experiment: Experiment, split: str, checkpoint_path: str, folder: str, overwrite: bool
) -> None:
    """Write one set's proposals, unless they are there."""
    config = _config_of(experiment.task, split)
    files = pipeline.find_files(config.validation_data.input_path)
    task = task_lib.MaskRCNNTask(config)
    model = build.build_model(config.model, task.label_map.num_classes)
    found = task_lib.load_checkpoint(model, checkpoint_path)
    decisive = _decisive(config, model)
    if not overwrite and os.path.exists(os.path.join(folder, "meta.json")):
        _check_kept(folder, decisive, files)
        print(f"{folder}: already there", flush=True)
        return
    started = time.monotonic()
    shown = progress.ImageProgress(f"{split}: proposing", record_files.count_records(files))
    made_from = {"experiment": config.name, "checkpoint": found} | decisive
    propose = _proposer(model, experiment.runtime.enable_xla)
    with ProposalWriter(folder, made_from, files) as writer:
        for batch in task.build_inputs(config.validation_data):
            proposals = propose(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW])
            arrays = {key: batch[key] for key in _OF_BATCH} | proposals._asdict()
            writer.add(**{key: value.numpy() for key, value in arrays.items()})
            shown.show(writer.num_added)
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
        config.validation_data.input_path = task.train_data.input_path
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


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("experiment", None, "Experiment, or a YAML file.", required=True)
    flags.DEFINE_string(
        "checkpoint_path", None, "Checkpoint, or a run's folder; default runs/EXPERIMENT."
    )
    flags.DEFINE_string("output_dir", None, "Folder of both folders.", required=True)
    flags.DEFINE_multi_string("config_file", [], "As for mrcnn_tf.train.")
    flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train.")
    flags.DEFINE_bool("overwrite", False, "Replace proposals that are there already.")


def main(argv: list[str]) -> None:
    """Parse the flags and run."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    try:
        experiment = loading.load(FLAGS.experiment, FLAGS.config_file, FLAGS.params_override)
        checkpoint = FLAGS.checkpoint_path or os.path.join("runs", experiment.task.name)
        run(experiment, checkpoint, FLAGS.output_dir, FLAGS.overwrite)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(
        "\nNext, to train a detector on them, these fields of its experiment:\n"
        "  task.model.proposals=file\n"
        + "".join(f"  task.{s}_data.proposals={FLAGS.output_dir}/{s}\n" for s in SPLITS),
        end="",
    )


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
