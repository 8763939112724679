"""Look at annotated photos before anything is made of them: what is wrong, and what to do about it.

    python -m mrcnn_tf.inspect_data --images=DIR --annotations=FILE.json \
      [--val_images=DIR --val_annotations=FILE.json] [--experiment=NAME] [--image_size=SHORT[,LONG]]

writes OUTPUT_DIR/inspection.html, one page that opens anywhere, and inspection.json with the same
for programs. Every image is opened. Findings are

    error     the converter would refuse the data, or nothing can be learnt from it
    warning   something is lost, or results will be worse or say less than they seem to
    note      harmless, or repaired

and the exit code tells the worst: 0 nothing above a note, 2 a warning, 3 an error; 1 means that
the command itself could not run. docs/inspect-data.md says what is looked for. What a network
could not see or hold is judged by the experiment's image size, anchors and max_instances, or by the
paper's (short edge 800) where no experiment is given. Nothing is changed.
"""

import os
import pathlib
import sys

from mrcnn_tf.console import command_line, start_tensorflow

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
with start_tensorflow.quickly():
    import tensorflow as tf
from absl import app, flags

from mrcnn_tf.inspection import as_json, checks, data_set, network, write_page
from mrcnn_tf.inspection.problems import EXIT_CODES, Problem, Severity, by_kind, worst

FLAGS = flags.FLAGS


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("images", None, "Folder of the photos.", required=True)
    flags.DEFINE_string("annotations", None, "Their COCO instances JSON.", required=True)
    flags.DEFINE_string("val_images", None, "Folder of the validation photos; default --images.")
    flags.DEFINE_string("val_annotations", None, "COCO instances JSON of the validation photos.")
    flags.DEFINE_string("experiment", None, "Experiment, or a YAML file, to judge the data for.")
    flags.DEFINE_list(
        "image_size", None, "Short edge and, after a comma, long edge of the network's input."
    )
    flags.DEFINE_string("output_dir", "inspection", "Where page and JSON go.")
    flags.DEFINE_integer(
        "threads", None, "Images opened at a time; by default one per core.", lower_bound=1
    )


def main(argv: list[str]) -> int:
    """Inspect; returns the exit code."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nothing here is a GPU's work
    threads = FLAGS.threads or os.cpu_count() or 1
    problems = inspect(_folders(), _network(), pathlib.Path(FLAGS.output_dir), threads)
    return EXIT_CODES[worst(problems)]


def inspect(
    folders: dict[str, tuple[str, str]],
    judge: network.Network,
    output_dir: pathlib.Path,
    threads: int,
) -> list[Problem]:
    """Look at data, write page and JSON, and say in short what is wrong.

    Args:
      folders: image folder and annotation file of "train" and perhaps "val".
      judge: the network that the data are for.
      output_dir: where page and JSON go.
      threads: how many images are open at a time.

    Returns:
      Everything that is wrong.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    sets = [data_set.read(key, *paths, threads) for key, paths in folders.items()]
    problems = checks.check(sets, judge)
    as_json.write(output_dir / "inspection.json", as_json.content(sets, problems, judge))
    write_page.write(output_dir / "inspection.html", sets, problems, judge)
    _print(sets, problems)
    print(f"\n{output_dir / 'inspection.html'}  (and inspection.json)")
    return problems


def _folders() -> dict[str, tuple[str, str]]:
    """Return (image folder, annotation file) of each set.

    Raises:
      SystemExit: one is not there.
    """
    folders = {"train": (FLAGS.images, FLAGS.annotations)}
    if FLAGS.val_annotations:
        folders["val"] = (FLAGS.val_images or FLAGS.images, FLAGS.val_annotations)
    elif FLAGS.val_images:
        raise SystemExit("error: --val_images needs --val_annotations")
    for key, (folder, file) in folders.items():
        prefix = "val_" if key == "val" else ""
        if not tf.io.gfile.isdir(folder):
            raise SystemExit(f"error: --{prefix}images={folder}: no such folder")
        if not tf.io.gfile.exists(file):
            raise SystemExit(f"error: --{prefix}annotations={file}: no such file")
    return folders


def _network() -> network.Network:
    """Return the network that the data are judged for.

    Raises:
      SystemExit: no such experiment, or no such size.
    """
    judge = network.default()
    if FLAGS.experiment:
        command_line.require("train")
        from mrcnn_tf.experiment import loading

        try:
            judge = network.of_experiment(loading.load(FLAGS.experiment))
        except (ValueError, OSError) as error:
            raise SystemExit(f"error: {error}") from error
    if FLAGS.image_size:
        edges = [int(edge) if edge.strip().isdecimal() else 0 for edge in FLAGS.image_size]
        if len(edges) > 2 or min(edges) < 1 or edges[0] > edges[-1]:
            given = ",".join(FLAGS.image_size)
            raise SystemExit(
                f"error: --image_size={given}: expected the short edge, or short and long edge, "
                "in pixels: 512 or 512,800"
            )
        judge = network.with_image_size(judge, edges[0], edges[1] if edges[1:] else None)
    return judge


def _print(sets: list[data_set.DataSet], problems: list[Problem]) -> None:
    """Print what is there and what is wrong, a line for each kind."""
    for of_set in sets:
        count = sum(len(of_set.objects_of(photo.image)) for photo in of_set.photos)
        print(f"{of_set.name}: {len(of_set.photos):,} photos, {count:,} objects")
    for kind in by_kind(problems):
        first, number = kind.first, len(kind.problems)
        which = f" ({data_set.NAMES[first.data_set]})" if len(sets) > 1 and first.data_set else ""
        example = f"{first.where}: {first.value}"
        print(f"{first.severity:<8}{number:>6,} x {first.kind}{which}")
        if first.severity != Severity.NOTE:
            print(f"{'':17}{_one_line(example)}\n{'':17}-> {first.advice}")
    if not problems:
        print("nothing is wrong")
    sys.stdout.flush()


def _one_line(text: str) -> str:
    """Return text that a terminal shows in one line, whatever it holds."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown.encode("utf-8", "backslashreplace").decode()[:300]


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
