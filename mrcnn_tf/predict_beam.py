"""Detect objects in very many images on many machines, by Apache Beam.

    python -m mrcnn_tf.predict_beam --saved_model=DIR --input=FILE|FOLDER|GLOB|LIST --output_dir=DIR
    python -m mrcnn_tf.predict_beam --saved_model=DIR --manifest=FILE --output_dir=DIR
    python -m mrcnn_tf.predict_beam --saved_model=DIR --records=GLOB --output_dir=DIR
    ... -- --runner=DataflowRunner --project=... (Beam's own options stand behind --)

finds what `mrcnn_tf.predict` finds, with the same numbers, and writes into `--output_dir`

    detections-*-of-*.jsonl   a COCO result a line, with run-length masks where the network has them
    unread-*-of-*.jsonl       a line per image that could not be read: {"image_id", "path", "why"}
    counts.json               images, predicted, unread and detections: predicted + unread = images

in no order. `--input` is what it is for `mrcnn_tf.predict`: this process looks for the images, and
writes them down in `images.jsonl`. `--manifest` names such a file: a path a line, or in a `.jsonl`
`{"path": ..., "image_id": ...}`; only the workers read it, so it may be of any length. `--records`
are TFRecord files of our converter; `image_id` is then the data set's own.

Files get their names when all of their kind is written, `counts.json` last, and each image is in
them once, however often a runner has tried. A pipeline that fails leaves no `counts.json`; the same
command then begins anew. Nothing is drawn. docs/beam.md says what a worker needs.
"""

import os
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
from absl import flags

from mrcnn_tf.console import command_line, start_tensorflow

_INPUTS = ("input", "manifest", "records")


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string(
        "saved_model", None, "Folder written by mrcnn_tf.export, as workers see it.", required=True
    )
    flags.DEFINE_multi_string("input", None, "Image, folder of images, glob, or list (.txt).")
    flags.DEFINE_string("manifest", None, "Or a file of paths (.txt) or of JSON lines (.jsonl).")
    flags.DEFINE_multi_string("records", None, "Or TFRecord files: a glob.")
    flags.DEFINE_string(
        "output_dir", None, "An empty or new folder, as workers see it.", required=True
    )
    flags.DEFINE_integer(
        "batch_size", 1, "Images per call of the network, of one canvas each.", lower_bound=1
    )


def main(argv: Sequence[str]) -> int:
    """Run with the flags; a mistake of the user's is one line, not a traceback."""
    command_line.require("beam")
    values = flags.FLAGS
    if sum(bool(values[name].value) for name in _INPUTS) != 1:
        print("give one of --input=IMAGES, --manifest=FILE and --records=GLOB")
        return 2
    with start_tensorflow.quickly():
        import tensorflow as tf
    from mrcnn_tf.beam import prediction_run, running

    try:
        return prediction_run.run(
            values.saved_model,
            values.output_dir,
            argv[1:],
            inputs=values.input or (),
            manifest=values.manifest,
            records=values.records or (),
            batch_size=values.batch_size,
        )
    except running.PipelineError as error:
        print(f"the Beam pipeline failed: {error}")
        return 1
    except (OSError, ValueError) as error:
        print(error)
        return 2
    except tf.errors.OpError as error:
        print(error.message)
        return 2
    except KeyboardInterrupt:
        print("interrupted")
        return 130


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
