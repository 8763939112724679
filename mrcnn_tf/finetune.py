"""From your own annotated photos to a trained, scored and exported network, in one command.

Used as

    python -m mrcnn_tf.finetune --images=photos --annotations=export.json --output_dir=runs/photos

Makes the data COCO's, looks them over, splits off photos for validation, converts both parts,
chooses image size, anchors and schedule, trains, scores, writes a report, exports, and draws what
the network finds in the validation photos. Each stage is a command that can be typed alone, and is
printed before it runs. The same command goes on where it was stopped; what is done is not done
again.

`--annotations` is what an annotation tool exports: a COCO file, a YOLO folder with polygons, a
folder of labelme files, or masks as Pascal VOC has them (docs/formats.md).
docs/your-own-photos.md goes through all of it.
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys

from absl import app, flags

from mrcnn_tf.console import command_line, layout, start_tensorflow, threads

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")
with start_tensorflow.quickly():
    from mrcnn_tf.console import running
from mrcnn_tf.console import whole_file
from mrcnn_tf.console.durations import duration
from mrcnn_tf.console.running import Stage

_NOTE = "photos.json"  # which photos and annotations a folder was made of
_PARTS = ("train", "val")
_PASS_WARNINGS, _PASS_ERRORS = (0, 2), (0, 2, 3)  # exit codes of mrcnn_tf.inspect_data
_PASS_SOME_FAILED = (0, 1)  # of mrcnn_tf.predict
_MADE_OF_PHOTOS = ("data", "split", "records")  # folders that hold nothing else


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("images", None, "Folder of the photos.", required=True)
    flags.DEFINE_string(
        "annotations",
        None,
        "What the annotation tool wrote: a file, or a folder; labelme's may be that of the photos.",
        required=True,
    )
    flags.DEFINE_string("output_dir", None, "Everything is written into it.", required=True)
    flags.DEFINE_string("val_images", None, "Photos to validate on; default: some are split off.")
    flags.DEFINE_string("val_annotations", None, "Annotations of the validation photos.")
    flags.DEFINE_string("format", None, "Of the annotations; default: recognised.")
    flags.DEFINE_string("weights", "auto", "As for mrcnn_tf.choose_experiment.")
    flags.DEFINE_float("minutes", 30.0, "How long to train.", lower_bound=0.1)
    flags.DEFINE_integer("seed", 0, "Another number splits off other photos.", lower_bound=0)
    flags.DEFINE_enum(
        "on_error",
        "fail",
        ["fail", "skip"],
        "What to do if some of the data cannot be used: end and say what, or go on without it.",
    )
    threads.define_flag()


class Plan:
    """The stages, and where each leaves what the next one reads.

    Attributes:
      stages: in order.
      num_reading: how many of them, from the first on, read what the tool wrote.
      folder: of everything.
    """

    def __init__(
        self,
        images: str,
        annotations: str,
        output_dir: str,
        *,
        val_images: str | None = None,
        val_annotations: str | None = None,
        annotation_format: str | None = None,
        weights: str = "auto",
        minutes: float = 30.0,
        num_threads: int | None = None,
        seed: int = 0,
        on_error: str = "fail",
    ):
        """Plan.

        Args:
          images: folder of the photos.
          annotations: file or folder.
          output_dir: where everything goes.
          val_images: folder of the validation photos; None splits some off.
          val_annotations: theirs.
          annotation_format: as `data_prep/to_coco.py` takes it; None recognises it.
          weights: as `mrcnn_tf.choose_experiment` takes it.
          minutes: of training.
          num_threads: to compute with; None for one per core.
          seed: of the split.
          on_error: "fail" or "skip", as `data_prep/create_coco_tfrecord.py` takes it.

        Raises:
          ValueError: one of the two validation flags without the other, or photos or annotations
            in the folder that is written.
        """
        if bool(val_images) != bool(val_annotations):
            raise ValueError("--val_images and --val_annotations go together")
        # "photos/" and "photos" are one folder, and one setting.
        images, annotations, output_dir = map(os.path.normpath, (images, annotations, output_dir))
        if val_images and val_annotations:
            val_images, val_annotations = map(os.path.normpath, (val_images, val_annotations))
        self.folder = pathlib.Path(output_dir)
        for path in (images, annotations, val_images, val_annotations):
            # What lies in there may be deleted when a run begins again.
            if path and pathlib.Path(path).resolve().is_relative_to(self.folder.resolve()):
                raise ValueError(f"{path} lies in --output_dir={output_dir}: take another one")
        self.stages: list[Stage] = []
        self._processes = [f"--num_processes={num_threads}"] if num_threads else []
        self._on_error = f"--on_error={on_error}"
        given = [f"--format={annotation_format}"] if annotation_format else []
        limit = [f"--threads={num_threads}"] if num_threads else []

        self._to_coco("annotations", images, annotations, given)
        page = f"--output_dir={self.folder}/data"
        everything = f"--annotations={self.folder}/annotations.json"
        looked_at = [f"--images={images}", everything, page]
        if val_images and val_annotations:
            self._to_coco("validation annotations", val_images, val_annotations, given)
            train, val = "annotations", "val_annotations"
            looked_at += [
                f"--val_images={val_images}",
                f"--val_annotations={self.folder}/val_annotations.json",
            ]
        else:
            train, val = "split/train", "split/val"
        self.num_reading = len(self.stages)
        self.stages.append(
            Stage(
                "check the data",
                ("-m", "mrcnn_tf.inspect_data", *looked_at, *limit),
                _PASS_WARNINGS if on_error == "fail" else _PASS_ERRORS,
            )
        )
        if not val_images:
            self._data_prep(
                "split off photos for validation",
                "split_coco",
                *(f"--images={images}", everything, f"--output_dir={self.folder}/split"),
                f"--seed={seed}",
            )
        self._convert("train", images, train)
        self._convert("val", val_images or images, val)

        self.experiment = self.folder / f"{self.folder.resolve().name}.yaml"
        self._module(
            "choose an experiment",
            "choose_experiment",
            *(f"--images={images}", f"--annotations={self.folder}/{train}.json"),
            *(f"--{part}_records={self.folder}/records/{part}-*.tfrecord" for part in _PARTS),
            *(f"--output_file={self.experiment}", f"--weights={weights}", f"--minutes={minutes:g}"),
            *limit,
        )
        # Once more: now it is known at which size, and with which anchors, the network will look.
        looked_at = [f"--images={images}", f"--annotations={self.folder}/{train}.json", page]
        looked_at += [f"--val_images={val_images or images}"]
        looked_at += [f"--val_annotations={self.folder}/{val}.json"]
        looked_at += [f"--experiment={self.experiment}", *limit]
        self.stages.append(
            Stage(
                "check the data for this network",
                ("-m", "mrcnn_tf.inspect_data", *looked_at),
                _PASS_ERRORS,
            )
        )
        run = f"{self.folder}/training"
        of_run = [f"--experiment={self.experiment}", f"--model_dir={run}"]
        best = f"--checkpoint_path={run}/best"
        self._module("train", "train", *of_run, *limit)
        # In float32, because the network may be used on a machine that has no half precision: what
        # is scored and reported is what is exported.
        trained = (best, "--mixed_precision=none", *limit)
        self._module("evaluate the best", "train", *of_run, "--mode=eval", *trained)
        self._module("report", "report", *of_run, *trained)
        exported = f"{self.folder}/saved_model"
        self._module("export", "export", of_run[0], f"--export_dir={exported}", *trained)
        found = [f"--saved_model={exported}"]
        found += [f"--input={val_images or f'{self.folder}/split/val.txt'}"]
        found += [f"--output_dir={self.folder}/predictions", *limit]
        self.stages.append(Stage("predict", ("-m", "mrcnn_tf.predict", *found), _PASS_SOME_FAILED))

    def _module(self, name: str, module: str, *arguments: str) -> None:
        self.stages.append(Stage(name, ("-m", f"mrcnn_tf.{module}", *arguments)))

    def _data_prep(self, name: str, script: str, *arguments: str) -> None:
        self.stages.append(Stage(name, (*layout.data_prep_command(script), *arguments)))

    def _to_coco(self, name: str, images: str, annotations: str, given: list[str]) -> None:
        output = self.folder / ("val_annotations.json" if "val" in name else "annotations.json")
        self._data_prep(
            f"make the {name} COCO's",
            "to_coco",
            *(f"--images={images}", f"--annotations={annotations}", f"--output_file={output}"),
            *given,
            self._on_error,
        )

    def _convert(self, part: str, images: str, annotations: str) -> None:
        self._data_prep(
            f"convert {part}",
            "create_coco_tfrecord",
            f"--image_dir={images}",
            f"--object_annotations_file={self.folder}/{annotations}.json",
            f"--output_file_prefix={self.folder}/records/{part}",
            "--num_shards=4",
            # Whether too much is unusable was asked of the whole set, when it was checked.
            "--on_error=skip",
            *self._processes,
        )


def fingerprint(*paths: str, without: pathlib.Path) -> str:
    """What changes when photos or annotations do: names and sizes of files, and JSONs' content.

    Args:
      paths: files and folders.
      without: a folder that does not count, nor do hidden files.
    """
    digest = hashlib.sha256()
    for root in map(pathlib.Path, paths):
        files = sorted(root.rglob("*")) if root.is_dir() else [root]
        for path in files:
            name = path.relative_to(root)
            is_hidden = any(part.startswith(".") for part in name.parts)
            if is_hidden or name.name == "Thumbs.db" or not path.is_file():
                continue
            if path.resolve().is_relative_to(without.resolve()):
                continue
            digest.update(f"{name}:{path.stat().st_size}\n".encode())
            if path.suffix.lower() in (".json", ".txt", ".xml", ".yaml", ".yml"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def run(plan: Plan, photos: list[str]) -> dict[str, float]:
    """Run what is not done yet; begin again if photos or settings have changed before training.

    Args:
      plan: the stages.
      photos: files and folders that they begin with.

    Returns:
      {stage: seconds}.

    Raises:
      ValueError: photos or settings have changed since training began.
      SystemExit: a stage failed.
    """
    folder, note = plan.folder, plan.folder / _NOTE
    difference = running.changed(plan.stages, str(folder))
    if not difference and note.exists():
        try:
            noted = json.loads(note.read_bytes())["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{note}: cannot be read ({error}); delete it to go on") from error
        if noted != fingerprint(*photos, without=folder):
            difference = "photos or annotations have changed"
    if difference and (folder / "training").exists():
        raise ValueError(
            f"{folder} holds a training on other data or settings: {difference}\n"
            "Take another --output_dir, or delete this one to begin again"
        )
    if difference:
        print(f"beginning again: {difference}", flush=True)
        for path in (folder / running.FINISHED, note):
            path.unlink(missing_ok=True)
        for name in _MADE_OF_PHOTOS:
            shutil.rmtree(folder / name, ignore_errors=True)
    running.run(plan.stages, str(folder), slice(plan.num_reading))
    # Only now: reading labelme's files may have written the photos that they hold.
    content = json.dumps({"sha256": fingerprint(*photos, without=folder)}) + "\n"
    whole_file.write(note, content)
    return running.run(plan.stages, str(folder), slice(plan.num_reading, None))


def main(argv: list[str]) -> None:
    """Run what is not done yet, and say what came out."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    values = flags.FLAGS
    given = [values.images, values.annotations, values.val_images, values.val_annotations]
    given = [path for path in given if path]
    threads.use(values.threads)  # of all stages, which inherit it
    if not values.output_dir:
        sys.exit("error: --output_dir is empty")
    if values.weights not in ("auto", "none") and not pathlib.Path(values.weights).is_dir():
        sys.exit(f"error: --weights={values.weights}: neither auto nor none, nor a folder")
    for path in given:
        if not pathlib.Path(path).exists():
            sys.exit(f"error: {path}: there is no such file or folder")
    try:
        plan = Plan(
            values.images,
            values.annotations,
            values.output_dir,
            val_images=values.val_images,
            val_annotations=values.val_annotations,
            annotation_format=values.format,
            weights=values.weights,
            minutes=values.minutes,
            num_threads=values.threads,
            seed=values.seed,
            on_error=values.on_error,
        )
        seconds = run(plan, given)
    except ValueError as error:
        sys.exit(f"error: {error}")
    _print_result(plan, sum(seconds.values()))


def _print_result(plan: Plan, seconds: float) -> None:
    folder = plan.folder
    metrics = json.loads((folder / "training" / "metrics.jsonl").read_text().splitlines()[-1])
    scores = ", ".join(
        f"{label} {metrics[name]:.3f}"
        for name, label in (
            ("mask_ap", "mask AP"),
            ("mask_ap50", "mask AP50"),
            ("box_ap", "box AP"),
        )
        if name in metrics
    )
    print(f"\nOn the validation photos: {scores}. All stages took {duration(seconds)}.\nLook at")
    for path, what in (
        (folder / "training" / "report" / "report.html", "what it learnt, and what would help"),
        (folder / "predictions" / "drawn", "what it finds in the validation photos"),
        (folder / "data" / "inspection.html", "what is odd about the data"),
        (plan.experiment, "every choice and its reason; change it and train again"),
        (folder / "saved_model", "for TensorFlow Serving, or mrcnn_tf.predict"),
    ):
        print(f"  {path}   {what}")


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
