"""Turn the world's weights into a checkpoint of this project, and back.

Used as

    python -m mrcnn_tf.convert_weights --source=detectron2 --input=model_final_f10217.pkl \
        --output=weights/mask_rcnn_r50_fpn
    python -m mrcnn_tf.convert_weights --target=torchvision --input=runs/NAME --output=mine.pth

The first line reads a file of Detectron2, torchvision, Keras or Model Garden, works out what it is
and writes into the folder `--output` a checkpoint, the experiment that goes with it, its label map
and a report on every tensor. `--experiment` checks the weights against an experiment instead of
making one. Where a file has several networks, or an average of the weights beside them, `--weights`
says which to take. The second line writes a checkpoint as a state dict of another project.
"""

import os

from mrcnn_tf.console import command_line

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train", "convert")  # before their packages are

import tensorflow as tf
from absl import app, flags, logging

from mrcnn_tf.weights import conversion, recognize


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_enum("source", None, recognize.PROJECTS, "Whose file --input is.")
    flags.DEFINE_enum(
        "target", None, sorted(conversion.DETECTORS), "Whose state dict --output becomes."
    )
    flags.DEFINE_string(
        "input", None, "Weights; with --target a checkpoint or a run's folder.", required=True
    )
    flags.DEFINE_string(
        "output",
        None,
        "Folder to write into; with --target a .pth, .safetensors, .npz or .pkl.",
        required=True,
    )
    flags.DEFINE_string(
        "experiment", None, "Check against it; with --target the model's, default its params.yaml."
    )
    flags.DEFINE_string(
        "weights", "", "Which, where --input has several networks or an average; the report says."
    )
    flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train.")
    flags.mark_flags_as_mutual_exclusive(["source", "target"], required=True)


def main(argv: list[str]) -> None:
    """Convert one way or the other."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    values = flags.FLAGS
    if values.target and values.weights:
        raise app.UsageError("--weights is for --source: a checkpoint of ours has one network")
    given = (values.input, values.output, values.experiment, values.params_override)
    try:
        if values.source:
            print(conversion.import_weights(values.source, *given, values.weights))
        else:
            print(conversion.export_weights(values.target, *given))
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise SystemExit(f"error: {error}") from error


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
