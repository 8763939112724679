"""Export a checkpoint as a SavedModel for TensorFlow Serving.

Used as

    python -m mrcnn_tf.export --experiment=NAME --checkpoint_path=runs/NAME --export_dir=DIR

Every system is exported so. Of one whose RPN was trained separately, both networks become one
SavedModel; an RPN by itself answers its proposals, as detections of one category, "object".
What goes in and out is described in `serving/signatures.py` and `serving/postprocessing.py`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import tensorflow as tf
from absl import app, flags, logging

from mrcnn_tf import detector
from mrcnn_tf.serving import signatures, verification

_EXPERIMENT = flags.DEFINE_string("experiment", None, "Experiment, or a YAML file.", required=True)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint_path", None, "Checkpoint, or a run's folder; default runs/EXPERIMENT."
)
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Folder of the SavedModel.", required=True)
_INPUT_TYPE = flags.DEFINE_enum(
    "input_type", "image_bytes", sorted(signatures.INPUT_SPECS), "What clients send."
)
_OVERRIDE = flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train.")


def main(argv: list[str]) -> None:
    """Load, export, compare."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    checkpoint = _CHECKPOINT.value or os.path.join("runs", _EXPERIMENT.value)
    try:
        loaded = detector.Detector.load(_EXPERIMENT.value, checkpoint, _OVERRIDE.value)
        found = loaded.export(_EXPORT_DIR.value, _INPUT_TYPE.value)
    except (ValueError, OSError, verification.VerificationError) as error:
        raise SystemExit(f"error: {error}") from error
    compared = (
        f"{found.matched_fraction:.0%} of {found.num_detections} detections agree with the Python "
        f"model (scores to {found.max_score_difference:.1g})"
        if found.num_detections
        else "same weights as the Python model, which found nothing in the sample images"
    )
    print(f"{_EXPORT_DIR.value}: takes {_INPUT_TYPE.value}; {compared}")


if __name__ == "__main__":
    app.run(main)
