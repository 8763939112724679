"""Detect objects in images: a SavedModel and images in, detections.json and drawings out.

    python -m mrcnn_tf.predict --saved_model=DIR --input=FILE|FOLDER|GLOB|LIST --output_dir=DIR
    python -m mrcnn_tf.predict --server=HOST:PORT [--protocol=grpc|rest] --model_name=NAME ...
    python -m mrcnn_tf.predict --model=FILE.tflite|FILE.onnx --input=... --output_dir=DIR

`detections.json` is a list of COCO results, with run-length masks where the network makes masks;
`image_id` is the file's name relative to the input folder, and the category's name stands beside
its id. All detections are in it; only those from `--score_threshold` on are drawn, into
`output_dir/drawn/`; by default that is what the network's report found best (`mrcnn_tf.report`,
made before the export), else 0.5. `--nodraw` draws none. `--input` may be given several times.

`--results=coco,labelme` (yolo, masks, crops) writes what is drawn in the forms of other tools too,
into `output_dir/results/`. `--tiles=1024` cuts large images into overlapping tiles and puts
together what is found in them. Both are described in docs/predict.md.

An image is turned upright first if its EXIF orientation says so, and boxes and masks refer to the
upright image. In a folder, everything that is an image by its content is taken, whatever it is
called; hidden files are not looked at. Files that are no images are named at the end, and so is,
as FAILED, what cannot be read; the others go on, and the exit code is then 1. `unread.json` names
all of them with the reason. Which files are read and how is said in docs/images.md.

    python -m mrcnn_tf.predict --saved_model=DIR --input=FILM|CAMERA --output_dir=DIR

A film, or a camera by its number (0 is the first; Ctrl-C ends it), gives `detections.jsonl`, a line
per frame with numbers that objects keep, and the film with them drawn, its sound as it was. See
docs/video.md.

`--tta` looks at each image in several sizes and mirrored, if the SavedModel was exported so; see
docs/predict.md.

`--model` takes what `mrcnn_tf.export --format=litert` or `onnx` wrote (docs/edge.md) and runs
without TensorFlow; `--server`, a SavedModel that a TensorFlow Serving holds (docs/serving.md).
Nothing here needs tf_keras or tf-models-official.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mrcnn_tf.console import command_line, start_tensorflow, threads

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
from absl import flags

from mrcnn_tf.remote import failures
from mrcnn_tf.remote import server as servers
from mrcnn_tf.results import forms

if TYPE_CHECKING:
    from mrcnn_tf.serving import any_predictor, film_source

# Ways to a network, of which one is taken.
_NETWORKS = ("saved_model", "model", "server")
_OF_SERVERS = ("protocol", "model_name", "deadline")


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("saved_model", None, "Folder written by mrcnn_tf.export.")
    flags.DEFINE_string("model", None, "Or a .tflite or .onnx file written by mrcnn_tf.export.")
    flags.DEFINE_string("server", None, "Or HOST:PORT of a TensorFlow Serving.")
    flags.DEFINE_enum(
        "protocol",
        servers.PROTOCOLS[0],
        servers.PROTOCOLS,
        "What the server's port speaks.",
    )
    flags.DEFINE_string("model_name", servers.DEFAULT_MODEL_NAME, "The model's name on the server.")
    flags.DEFINE_float(
        "deadline",
        servers.DEFAULT_DEADLINE_S,
        "Seconds that a request to the server may take, retries included.",
        lower_bound=0.001,
    )
    flags.DEFINE_multi_string(
        "input",
        None,
        "Image, folder of images, glob, or list (.txt); or a film, or a camera's number.",
        required=True,
    )
    flags.DEFINE_string("output_dir", None, "Where detections.json and drawn/ go.", required=True)
    flags.DEFINE_float(
        "score_threshold",
        None,
        "Draw detections from this score on; default what the export suggests, else 0.5.",
        0.0,
        1.0,
    )
    flags.DEFINE_boolean("draw", True, "Draw what is found; --nodraw saves the time.")
    flags.DEFINE_integer(
        "batch_size", 1, "Images per call of the network, of one canvas each.", lower_bound=1
    )
    flags.DEFINE_list(
        "results", [], f"Other forms of what is found, with commas: {', '.join(forms.NAMES)}."
    )
    flags.register_validator(
        "results",
        lambda names: all(name in forms.NAMES for name in names),
        f"known: {', '.join(forms.NAMES)}",
    )
    flags.DEFINE_integer(
        "tiles", None, "Cut images into tiles of this many pixels a side.", lower_bound=2
    )
    flags.DEFINE_float("overlap", 0.2, "Of neighbouring tiles, as a fraction of the side.", 0, 1)
    flags.DEFINE_integer(
        "every_nth", 1, "Films: the network looks at every n-th frame only.", lower_bound=1
    )
    flags.DEFINE_integer(
        "max_frames", None, "Films and cameras: end after so many frames.", lower_bound=1
    )
    flags.DEFINE_boolean(
        "tta", False, "Look at each image in several sizes, as task.tta of the export says."
    )
    threads.define_flag()


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does: what was found is kept."""


def _terminate(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends at once
    raise _Terminated


def main(argv: Sequence[str]) -> int:
    """Run with the flags; a mistake of the user's is one line, not a traceback."""
    if len(argv) > 1:
        print(f"unexpected argument {argv[1]!r}: quote a glob, so that the shell keeps it")
        return 2
    values = flags.FLAGS
    if sum(bool(values[name].value) for name in _NETWORKS) != 1:
        print("give one of --saved_model=FOLDER, --model=FILE and --server=HOST:PORT")
        return 2
    threads.use(values.threads)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be printable
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _refuse_idle_flags()
        return _run_file() if values.model else _run_saved_model()
    except _Terminated:
        print("stopped by SIGTERM")
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("interrupted")
        return 130
    except (OSError, ValueError, ImportError, failures.ServerError) as error:
        print(error)
        return 2


def _refuse_idle_flags() -> None:
    """Refuse flags that would do nothing.

    Raises:
      ValueError: names one.
    """
    values = flags.FLAGS
    for needed, names in (("server", _OF_SERVERS), ("tiles", ("overlap",))):
        idle = [name for name in names if values[name].present]
        if idle and not values[needed].value:
            raise ValueError(f"--{idle[0]} needs --{needed}")
    if values.tta and not values.saved_model:
        raise ValueError("--tta needs --saved_model: servers and files look at an image once")


def _run_file() -> int:
    """Run with a .tflite or .onnx file; nothing here imports TensorFlow."""
    from mrcnn_tf.edge import image_run
    from mrcnn_tf.serving import film_source

    values = flags.FLAGS
    if values.tiles or values.every_nth != 1 or values.max_frames is not None:
        raise ValueError("--tiles, --every_nth and --max_frames are not for --model")
    if values.batch_size != 1:
        raise ValueError("--batch_size: a file for --model takes one image at a time")
    if film_source.find(values.input) is not None:
        raise ValueError("a film or a camera needs --saved_model or --server; --model takes images")
    if os.path.isdir(values.model):
        raise ValueError(
            f"--model={values.model} is a folder: name the .tflite or .onnx file in it; a "
            "SavedModel is given as --saved_model"
        )
    return image_run.run(
        values.model,
        values.input,
        values.output_dir,
        values.score_threshold,
        values.draw,
        [*dict.fromkeys(values.results)],
        values.threads,
    )


def _run_saved_model() -> int:
    """Run with a SavedModel, here or behind a server."""
    with start_tensorflow.quickly():
        import tensorflow as tf
    from mrcnn_tf.serving import any_predictor, film_source, image_run, tiles

    values = flags.FLAGS
    model: any_predictor.AnyModel = values.saved_model or servers.Server(
        values.server, values.protocol, values.model_name, values.deadline
    )
    if values.tta:
        model = any_predictor.WithViews(values.saved_model)
    try:
        source = film_source.find(values.input)
        if source is not None:
            return _run_film(model, source)
        if values.every_nth != 1 or values.max_frames is not None:
            raise ValueError("--every_nth and --max_frames are for a film or a camera as --input")
        return image_run.run(
            model,
            values.input,
            values.output_dir,
            values.score_threshold,
            values.batch_size,
            values.draw,
            [*dict.fromkeys(values.results)],
            tiles.Tiling(values.tiles, values.overlap) if values.tiles else None,
        )
    except tf.errors.OpError as error:
        raise ValueError(str(error)) from error


def _run_film(model: "any_predictor.AnyModel", source: "film_source.Source") -> int:
    values = flags.FLAGS
    if values.results or values.tiles:
        raise ValueError("--results and --tiles are for images, not for a film or a camera")
    command_line.require("video")
    from mrcnn_tf.serving import film_run

    return film_run.run(
        model,
        source,
        values.output_dir,
        values.score_threshold,
        values.batch_size,
        values.draw,
        values.every_nth,
        values.max_frames,
    )


def run_main() -> None:
    """Run the command that was typed."""
    signal.signal(signal.SIGTERM, _terminate)
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
