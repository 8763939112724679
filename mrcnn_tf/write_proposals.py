"""Write the proposals of a trained RPN for a whole data set, for a detector trained apart.

Used as

    python -m mrcnn_tf.write_proposals --experiment=rpn_r50_fpn --checkpoint_path=runs/rpn_r50_fpn \
        --output_dir=proposals

which writes the folders proposals/train and proposals/validation, in the format of
`staged/proposals.py`, of the experiment's training and validation records. Both sets are seen as in
evaluation: once, not flipped, first short edge. Of a training image the RPN keeps as many boxes
as in training, of a validation image as many as at inference. A folder that is there already, of
the same weights and settings, is kept.
"""

import os

from mrcnn_tf.console import command_line

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

import tensorflow as tf
from absl import app, flags, logging

from mrcnn_tf.experiment import loading, precision
from mrcnn_tf.staged import writing

FLAGS = flags.FLAGS


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("experiment", None, "Experiment, or a YAML file.", required=True)
    flags.DEFINE_string(
        "checkpoint_path", None, "Checkpoint, or a run's folder; default runs/EXPERIMENT."
    )
    flags.DEFINE_string("output_dir", None, "Folder of both folders.", required=True)
    flags.DEFINE_multi_string("config_file", [], "As for mrcnn_tf.train.")
    flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train.")
    precision.define_flag()
    flags.DEFINE_bool("overwrite", False, "Replace proposals that are there already.")


def main(argv: list[str]) -> None:
    """Parse the flags and run."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    try:
        override = precision.laid_over(FLAGS.params_override, FLAGS.mixed_precision)
        experiment = loading.load(FLAGS.experiment, FLAGS.config_file, override)
        checkpoint = FLAGS.checkpoint_path or os.path.join("runs", experiment.task.name)
        writing.run(experiment, checkpoint, FLAGS.output_dir, FLAGS.overwrite)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    command_line.print_next(
        "to train a detector on them, these fields of its experiment:\n"
        "  task.model.proposals=file"
        + "".join(f"\n  task.{s}_data.proposals={FLAGS.output_dir}/{s}" for s in writing.SPLITS)
    )


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
