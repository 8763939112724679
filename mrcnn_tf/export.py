"""Export a checkpoint as a SavedModel for TensorFlow Serving, or as a LiteRT or ONNX file.

Used as

    python -m mrcnn_tf.export --experiment=NAME --checkpoint_path=runs/NAME --export_dir=DIR
    python -m mrcnn_tf.export --format=litert --input_size=H,W --experiment=NAME --export_dir=DIR

or, for a folder that TensorFlow Serving is started with (docs/serving.md),

    python -m mrcnn_tf.export --experiment=NAME --checkpoint_path=runs/NAME --serving_kit=KIT

which writes KIT/models/NAME/1, the next time 2, and so on, and what a server needs beside it.
Every system is exported so. Of one whose RPN was trained separately, both networks become one
SavedModel; an RPN by itself answers its proposals, as detections of one category, "object".
If `mrcnn_tf.report` was made of this checkpoint, the score threshold that it suggests goes along,
for `mrcnn_tf.predict`. What goes in and out is described in docs/exported-model.md; of LiteRT and
ONNX files, in docs/edge.md.
"""

import os

from mrcnn_tf.console import command_line, threads

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

import tensorflow as tf
from absl import app, flags, logging

from mrcnn_tf import checkpoints, detector
from mrcnn_tf.edge import command as edge
from mrcnn_tf.experiment import precision
from mrcnn_tf.remote.failures import first_line
from mrcnn_tf.serving import (
    full_masks,
    kit,
    preprocessing,
    signatures,
    suggested_threshold,
    verification,
)


def define_flags() -> None:
    """Define the flags; in a function, so that importing this module claims no names."""
    flags.DEFINE_string("experiment", None, "Experiment, or a YAML file.", required=True)
    flags.DEFINE_string(
        "checkpoint_path", None, "Checkpoint, or a run's folder; default runs/EXPERIMENT."
    )
    flags.DEFINE_string("export_dir", None, "Folder of the SavedModel.")
    flags.DEFINE_string(
        "serving_kit", None, "Or a folder for TensorFlow Serving: next version in it."
    )
    flags.DEFINE_string("model_name", None, "Name in the kit; default the experiment's.")
    flags.DEFINE_enum(
        "input_type", "image_bytes", sorted(signatures.INPUT_SPECS), "What clients send."
    )
    flags.DEFINE_integer(
        "max_image_pixels",
        preprocessing.MAX_IMAGE_PIXELS,
        "A file that claims more pixels is not decoded but answered with a status.",
        lower_bound=128 * 128,  # of the largest picture that the check after the export sends
    )
    flags.DEFINE_enum(
        "add_masks",
        None,
        sorted(full_masks.KINDS),
        "Answer masks of the image's size, or their run lengths, beside those in their boxes.",
    )
    flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train.")
    edge.define_flags()
    precision.define_flag()
    threads.define_flag()


def main(argv: list[str]) -> None:
    """Load, export, compare."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    values = flags.FLAGS
    if bool(values.export_dir) == bool(values.serving_kit):
        raise app.UsageError("give either --export_dir=FOLDER or --serving_kit=FOLDER")
    threads.use(values.threads)
    checkpoint = values.checkpoint_path or os.path.join("runs", values.experiment)
    try:
        model_name = _model_name(values) if values.serving_kit else ""
        override = precision.laid_over(values.params_override, values.mixed_precision)
        override = edge.laid_over(override)
        _refuse_idle_flags(values)
        loaded = detector.Detector.load(values.experiment, checkpoint, override)
        threshold = _suggested(checkpoint)
        if values.format != edge.SAVED_MODEL:
            if loaded.views is not None:
                raise ValueError(
                    f"--format={values.format}: such a file looks at an image once; add "
                    "--params_override=task.tta.short_edges=[]"
                )
            edge.run(
                loaded.detect,
                label_map=loaded.label_map,
                preprocess=loaded.preprocess,
                mask_convention=loaded.mask_paste,
                score_threshold=threshold,
            )
            return
        export_dir = values.export_dir or kit.next_version(values.serving_kit, model_name)
        if values.serving_kit:  # first: a version that is there could not be told to have failed
            written = kit.write(values.serving_kit, model_name, values.input_type, values.add_masks)
            _print_kit(values.serving_kit, written)
        compared = loaded.export(
            export_dir,
            values.input_type,
            threshold,
            values.max_image_pixels,
            values.add_masks,
        )
    except (ValueError, OSError, verification.VerificationError) as error:
        raise SystemExit(f"error: {error}") from error
    except (tf.errors.OpError, ImportError) as error:  # a disk that is full; an extra's package
        raise SystemExit(f"error: {first_line(str(error))}") from error
    sentence = (
        f"{compared.matched_fraction:.0%} of {compared.num_detections} detections agree with the "
        f"Python model (scores to {compared.max_score_difference:.1g})"
        if compared.num_detections
        else "same weights as the Python model, which found nothing in the sample images"
    )
    print(f"{export_dir}: takes {values.input_type}; {sentence}")
    if threshold is not None:
        print(f"with the score threshold that the report suggests: {threshold:.3f}")


def _refuse_idle_flags(values: flags.FlagValues) -> None:
    """Raise ValueError for a flag that would change nothing beside the others."""
    if values["model_name"].present and not values.serving_kit:
        raise ValueError(
            "--model_name names a model in a --serving_kit; --export_dir is the model's own folder"
        )
    if values["max_image_pixels"].present and values.input_type == "image_tensor":
        raise ValueError(
            "--max_image_pixels bounds files; with --input_type=image_tensor clients send pixels"
        )


def _model_name(values: flags.FlagValues) -> str:
    """Return the name in the kit; an experiment may be a file, a run's params.yaml for one."""
    name = values.model_name
    if name is None:
        name = os.path.splitext(os.path.basename(values.experiment))[0]
        if name == "params":
            name = os.path.basename(os.path.dirname(os.path.abspath(values.experiment)))
    kit.check_name(name)
    return name


def _print_kit(folder: str, written: kit.Written) -> None:
    if written.new:
        print(f"{folder}: wrote {', '.join(written.new)}")
    for name in written.kept:
        print(f"{folder}/{name} was there and is kept; without it, this export would write another")


def _suggested(checkpoint: str) -> float | None:
    """Return the threshold of the report of what is exported, if there is one."""
    try:
        newest = checkpoints.newest(checkpoint)
    except ValueError:  # a run in stages: its networks lie further down
        return None
    return suggested_threshold.of_checkpoint(newest)


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, define_flags, main)


if __name__ == "__main__":
    run_main()
