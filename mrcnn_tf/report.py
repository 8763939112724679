"""What did the network learn, and what would help: a report of a run as one HTML page.

Used as

    python -m mrcnn_tf.report --experiment=NAME --model_dir=runs/NAME

for a run's newest checkpoint on its validation records, or, for results of any program,

    python -m mrcnn_tf.report --detections=results.json --annotations=instances.json --images=DIR

Written into `--output_dir` (of a run `MODEL_DIR/report`): `report.html`, which needs no network;
`results.csv`, COCO's numbers with intervals; `report.json`, everything that was calculated;
`detections.json`, what was found, in COCO's form. `mrcnn_tf.export` takes the score threshold from
there. docs/report.md explains the numbers.
"""

import csv
import datetime
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Callable

from mrcnn_tf.console import command_line, threads, xla_cache

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

import tensorflow as tf
from absl import app, flags, logging

from mrcnn_tf import checkpoints
from mrcnn_tf.console import whole_file
from mrcnn_tf.console.durations import duration
from mrcnn_tf.data import coco_json
from mrcnn_tf.evaluation import ground_truth
from mrcnn_tf.evaluation.coco import CocoEvaluator
from mrcnn_tf.experiment import loading, precision, sources
from mrcnn_tf.experiment.experiment import Experiment
from mrcnn_tf.reporting import facts, history, pixels, report_page, run_scored, scored
from mrcnn_tf.serving import suggested_threshold
from mrcnn_tf.staged import stages

PAGE, TABLE, DETECTIONS = "report.html", "results.csv", "detections.json"


def of_run(
    experiment: Experiment, model_dir: str, checkpoint_path: str | None, output_dir: str | None
) -> str:
    """Score a run's checkpoint and write its report.

    Args:
      experiment: of the run.
      model_dir: the run's folder.
      checkpoint_path: what to score; default the newest of `model_dir`.
      output_dir: where the files go; default `MODEL_DIR/report`.

    Returns:
      The path of the page.

    Raises:
      ValueError: checkpoint, records and experiment do not fit.
      FileNotFoundError: something is missing.
    """
    checkpoint = checkpoints.newest(checkpoint_path or model_dir)
    print(f"{experiment.task.name}: report of {checkpoint}", flush=True)
    start = time.monotonic()
    evaluator = run_scored.evaluate(experiment, checkpoint)
    seconds = time.monotonic() - start
    where = checkpoints.position(checkpoint)
    data = sources.patterns(experiment.task.validation_data)
    trained_on = experiment.task.train_data
    best_dir = os.path.join(model_dir, experiment.trainer.best_checkpoint_export_subdir)
    curves = history.read(model_dir, checkpoint, best_dir)
    made_from = [
        ("experiment", experiment.task.name),
        ("checkpoint", checkpoint),
        ("step", f"{where.step:,}"),
        ("validation records", sources.name(experiment.task.validation_data)),
        ("validation annotations, SHA-256", facts.annotations_sha256(data)),
        ("training records", sources.name(trained_on)),
        ("training annotations, SHA-256", facts.annotations_sha256(trained_on.input_path)),
        ("training took", duration(curves.seconds) if curves.training else ""),
        ("finding objects took", duration(seconds)),
    ]
    return _write(
        evaluator,
        output_dir or os.path.join(model_dir, "report"),
        title=f"Report: {experiment.task.name}",
        made_from=made_from,
        params=loading.to_yaml(experiment),
        curves=curves,
        checkpoint=checkpoint,
        photos=lambda ids: pixels.from_records(data, ids),
    )


def of_files(detections: str, annotations: str, images: str | None, output_dir: str) -> str:
    """Write the report of results in COCO's form.

    Args:
      detections: JSON file, a list of COCO results.
      annotations: JSON file, COCO instances.
      images: folder of the images; None for a report without.
      output_dir: where the files go.

    Returns:
      The path of the page.

    Raises:
      ValueError: a file cannot be used; the message names it and what in it.
    """
    results = _read_results(detections)
    include_masks = bool(results) and all(row.get("segmentation") for row in results)
    truth = ground_truth.from_annotation_file(annotations, include_masks)
    evaluator = CocoEvaluator(truth, None, include_masks)
    try:
        evaluator.add_coco_results(results)
    except (ValueError, KeyError, TypeError) as error:
        missing = f"a result has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{detections}: {missing}") from error
    known = {category["id"] for category in truth["categories"]}
    unknown = [row["category_id"] for row in results if row["category_id"] not in known]
    if unknown:
        listed = ", ".join(map(str, sorted(set(unknown), key=str)[:10]))
        print(
            f"{len(unknown):,} results are left out: their categories are not in {annotations}: "
            f"{listed}{', ...' if len(set(unknown)) > 10 else ''}"
        )
    return _write(
        evaluator,
        output_dir,
        title=f"Report: {os.path.basename(detections)}",
        made_from=[("detections", detections), ("annotations", annotations)],
        params="",
        curves=None,
        checkpoint="",
        photos=lambda ids: pixels.from_folder(images, annotations, ids) if images else {},
    )


def _read_results(path: str) -> list[dict]:
    """Read a list of COCO results.

    Raises:
      ValueError: it is none.
    """
    try:
        with tf.io.gfile.GFile(path) as file:
            results = coco_json.parse(file.read(), path)
    except tf.errors.OpError as error:
        raise ValueError(f"{path}: cannot be read ({error.message})") from error
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise ValueError(f"{path}: not a list of COCO results [{{'image_id': ...}}, ...]")
    return results


def _write(
    evaluator: CocoEvaluator,
    output_dir: str,
    *,
    title: str,
    made_from: list[tuple[str, str]],
    params: str,
    curves: history.History | None,
    checkpoint: str,
    photos: Callable[[set[str]], dict[str, pixels.Photo]],
) -> str:
    """Calculate, and write all files; the JSON last, which says that the others are there."""
    start = time.monotonic()
    numbers = scored.score(evaluator)
    chosen = report_page.chosen_images(numbers)
    ids = {str(numbers.image_ids[o.image]) for of in chosen.values() for o in of}
    about = report_page.About(
        title=title,
        made_from=[
            *((what, value) for what, value in made_from if value),
            ("scored against, SHA-256", numbers.truth_sha256),
        ],
        versions=facts.versions(),
        machine=facts.machine(),
        command=shlex.join(["python", "-m", "mrcnn_tf.report", *sys.argv[1:]]),
        params=params,
        made_at=datetime.datetime.now(),
        is_found_by_export=suggested_threshold.is_found(checkpoint, output_dir),
    )
    page = report_page.build(numbers, about, curves, photos(ids))
    tf.io.gfile.makedirs(output_dir)
    table = io.StringIO()
    rows = scored.table(numbers)
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = os.path.join(output_dir, PAGE)
    content = scored.as_json(numbers) | {
        "checkpoint": checkpoint,
        "made_from": dict(about.made_from),
        "versions": about.versions,
        "machine": about.machine,
    }
    texts = {
        DETECTIONS: json.dumps(evaluator.results()),
        TABLE: table.getvalue(),
        PAGE: page.html(),
        suggested_threshold.FILE: json.dumps(content, indent=1),
    }
    for name, text in texts.items():
        encoded = text.encode("utf-8", "backslashreplace")
        whole_file.write(os.path.join(output_dir, name), encoded)
    print(f"calculated in {duration(time.monotonic() - start)}")
    _print_short(numbers)
    return path


def _print_short(numbers: scored.Scored) -> None:
    number = numbers.numbers[numbers.kind].get("ap50")
    if number.value is not None and number.low is not None:
        print(
            f"{numbers.kind} AP50 {number.value:.3f} ({number.low:.3f} to {number.high:.3f}, "
            f"{len(numbers.rows.images):,} images)"
        )
    if numbers.threshold:
        best = numbers.threshold
        print(
            f"score threshold {best.score:.3f}: {best.recall:.0%} of the objects found, "
            f"{best.precision:.0%} of what is shown is right"
        )


def define_flags() -> None:
    """Define the flags; importing this module must not claim their names."""
    flags.DEFINE_string(
        "experiment", None, "Experiment, or a YAML file; default MODEL_DIR/params.yaml."
    )
    flags.DEFINE_string("model_dir", None, "Folder of the run; default runs/EXPERIMENT.")
    flags.DEFINE_string("checkpoint_path", None, "Checkpoint to score; default the run's newest.")
    flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train.")
    flags.DEFINE_string("output_dir", None, "Where the files go; default MODEL_DIR/report.")
    flags.DEFINE_string("detections", None, "Instead of a run: a file of COCO results.")
    flags.DEFINE_string("annotations", None, "With --detections: the COCO instances file.")
    flags.DEFINE_string("images", None, "With --detections: folder of the images, to be shown.")
    precision.define_flag()
    threads.define_flag()


def main(argv: list[str]) -> None:
    """Parse the flags and write the report."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    threads.use(values.threads)
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    try:
        of_flags = _of_flags_for_files if values.detections else _of_flags_for_run
        path = of_flags(values)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt as interrupt:
        print("stopped by SIGINT", flush=True)
        raise SystemExit(130) from interrupt
    print(path)


def _of_flags_for_files(values: flags.FlagValues) -> str:
    for name in ("experiment", "model_dir", "checkpoint_path", "params_override"):
        if values[name].value:
            raise app.UsageError(f"--{name} is of a run, --detections of files: give one of them")
    if not values.annotations or not values.output_dir:
        raise app.UsageError("--detections needs --annotations and --output_dir")
    return of_files(values.detections, values.annotations, values.images, values.output_dir)


def _of_flags_for_run(values: flags.FlagValues) -> str:
    name = values.experiment
    if not name:
        if not values.model_dir:
            raise app.UsageError("--experiment=NAME or --model_dir=FOLDER is needed")
        name = os.path.join(values.model_dir, "params.yaml")
    override = precision.laid_over(values.params_override, values.mixed_precision)
    experiment = loading.load(name, params_override=override)
    model_dir = values.model_dir or os.path.join("runs", experiment.task.name)
    experiment, model_dir = stages.of_run(experiment, model_dir, params_override=override)
    return of_run(experiment, model_dir, values.checkpoint_path, values.output_dir)


def run_main() -> None:
    """Run the command that was typed."""
    xla_cache.use()
    command_line.run(__doc__, define_flags, main)


if __name__ == "__main__":
    run_main()
