"""Export a checkpoint as a SavedModel for TensorFlow Serving.

Used as

    python -m mrcnn_tf.export --experiment=NAME --checkpoint_path=runs/NAME --export_dir=DIR

Every system is exported so. Of one whose RPN was trained separately, both networks become one
SavedModel; an RPN by itself answers its proposals, as detections of one category, "object".
If `mrcnn_tf.report` was made of this checkpoint, the score threshold that it suggests goes along,
for `mrcnn_tf.predict`. What goes in and out is described in `serving/signatures.py` and
`serving/postprocessing.py`.
"""

import os

from mrcnn_tf.console import command_line, threads

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

import tensorflow as tf
from absl import app, flags, logging

from mrcnn_tf import checkpoints, detector
from mrcnn_tf.experiment import precision
from mrcnn_tf.serving import signatures, suggested_threshold, verification


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("experiment", None, "Experiment, or a YAML file.", required=True)
    flags.DEFINE_string(
        "checkpoint_path", None, "Checkpoint, or a run's folder; default runs/EXPERIMENT."
    )
    flags.DEFINE_string("export_dir", None, "Folder of the SavedModel.", required=True)
    flags.DEFINE_enum(
        "input_type", "image_bytes", sorted(signatures.INPUT_SPECS), "What clients send."
    )
    flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train.")
    precision.define_flag()
    threads.define_flag()


def main(argv: list[str]) -> None:
    """Load, export, compare."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    values = flags.FLAGS
    threads.use(values.threads)
    checkpoint = values.checkpoint_path or os.path.join("runs", values.experiment)
    try:
        override = precision.laid_over(values.params_override, values.mixed_precision)
        loaded = detector.Detector.load(values.experiment, checkpoint, override)
        threshold = _suggested(checkpoint)
        compared = loaded.export(values.export_dir, values.input_type, threshold)
    except (ValueError, OSError, verification.VerificationError) as error:
        raise SystemExit(f"error: {error}") from error
    sentence = (
        f"{compared.matched_fraction:.0%} of {compared.num_detections} detections agree with the "
        f"Python model (scores to {compared.max_score_difference:.1g})"
        if compared.num_detections
        else "same weights as the Python model, which found nothing in the sample images"
    )
    print(f"{values.export_dir}: takes {values.input_type}; {sentence}")
    if threshold is not None:
        print(f"with the score threshold that the report suggests: {threshold:.3f}")


def _suggested(checkpoint: str) -> float | None:
    """Return the threshold of the report of what is exported, if there is one."""
    try:
        newest = checkpoints.newest(checkpoint)
    except ValueError:  # a run in stages: its networks lie further down
        return None
    return suggested_threshold.of_checkpoint(newest)


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
