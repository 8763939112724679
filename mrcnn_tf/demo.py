"""The whole road on a small problem: images in, drawn masks out, in about ten minutes.

Used as

    python -m mrcnn_tf.demo

which `make demo` runs in a checkout. Every stage is a command that a user would type, and is
printed before it runs. Data go to datasets/ and results to runs/demo/ of the current folder. What
is there already is used again; delete both to start afresh.
"""

import contextlib
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

import numpy as np
from absl import app
from PIL import Image
from pycocotools.coco import COCO

from mrcnn_tf.console import command_line, layout, whole_file
from mrcnn_tf.console.durations import duration
from mrcnn_tf.edge import device
from mrcnn_tf.images import drawing

IMAGES = pathlib.Path("datasets/shapes_coco")
RECORDS = pathlib.Path("datasets/shapes")
RUN = pathlib.Path("runs/demo")
LITERT = RUN / "litert" / "model.tflite"
NUM_TRAIN, NUM_VAL = 2000, 100
SHOWN = 12  # images on the contact sheet
TIMED = 20  # images that the LiteRT file is timed on

Stage = tuple[str, pathlib.Path, list[str]]


def stages() -> list[Stage]:
    """Name of each stage, the file that shows it is done, and its command."""
    python = sys.executable

    def convert(split: str) -> Stage:
        command = [
            python,
            *layout.data_prep_command("create_coco_tfrecord"),
            f"--image_dir={IMAGES / split}",
            f"--object_annotations_file={IMAGES}/annotations/instances_{split}.json",
            f"--output_file_prefix={RECORDS / split}",
            "--num_shards=4",
        ]
        return f"convert {split}", RECORDS / f"{split}-00003-of-00004.tfrecord", command

    train = [python, "-m", "mrcnn_tf.train", "--experiment=maskrcnn_shapes", f"--model_dir={RUN}"]
    return [
        (
            "make images",
            IMAGES / "annotations" / "instances_val.json",
            [
                python,
                *layout.data_prep_command("create_shapes_coco"),
                f"--output_dir={IMAGES}",
                f"--num_train={NUM_TRAIN}",
                f"--num_val={NUM_VAL}",
            ],
        ),
        convert("train"),
        convert("val"),
        ("train", RUN / "trained", [*train, "--mode=train"]),
        ("evaluate", RUN / "metrics.jsonl", [*train, "--mode=eval"]),
        (
            "export",
            RUN / "saved_model" / "saved_model.pb",
            [
                python,
                "-m",
                "mrcnn_tf.export",
                "--experiment=maskrcnn_shapes",
                f"--checkpoint_path={RUN}",
                f"--export_dir={RUN}/saved_model",
            ],
        ),
        (
            "predict",
            RUN / "predictions" / "detections.json",
            [
                python,
                "-m",
                "mrcnn_tf.predict",
                f"--saved_model={RUN}/saved_model",
                f"--input={IMAGES}/val",
                f"--output_dir={RUN}/predictions",
            ],
        ),
        (
            "export to LiteRT",
            LITERT,
            [
                python,
                "-m",
                "mrcnn_tf.export",
                "--format=litert",
                "--input_size=128,128",
                "--experiment=maskrcnn_shapes",
                f"--checkpoint_path={RUN}",
                f"--export_dir={LITERT.parent}",
            ],
        ),
    ]


def main(argv: list[str]) -> None:
    """Run what is not there yet, then show what came out."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    RUN.mkdir(parents=True, exist_ok=True)
    seconds = run_stages()
    sheet = draw_contact_sheet()
    metrics = json.loads((RUN / "metrics.jsonl").read_text().splitlines()[-1])
    summary = {name: round(metrics[name], 4) for name in ("box_ap", "mask_ap", "mask_ap50")}
    summary["train_images_per_s"] = round(_images_per_second(), 2)
    summary["litert_mb"] = round(LITERT.stat().st_size / 1e6, 2)
    summary["litert_ms"] = round(_litert_milliseconds(), 1)
    summary["seconds"] = seconds
    whole_file.write(RUN / "summary.json", json.dumps(summary, indent=2) + "\n")
    _print_table(summary, sheet)


def run_stages() -> dict[str, float]:
    """Run each stage whose file is missing; return the seconds that each took when it ran."""
    kept = RUN / "seconds.json"
    seconds: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    all_stages = stages()
    for number, (name, done, command) in enumerate(all_stages, start=1):
        title = f"[{number}/{len(all_stages)}] {name}"
        if done.exists():
            print(f"{title}: already there ({done})", flush=True)
            continue
        shown = shlex.join(["python", *command[1:]])
        print(f"\n{title}\n  {shown}", flush=True)
        start = time.monotonic()
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit(f"error: stage '{name}' failed; the same command goes on there")
        seconds[name] = round(time.monotonic() - start, 1)
        if name == "train":
            done.touch()
        whole_file.write(kept, json.dumps(seconds))
    return seconds


def draw_contact_sheet() -> pathlib.Path:
    """Draw ground truth beside prediction for the first unseen images that have objects."""
    truth = COCO()
    truth.dataset = json.loads((IMAGES / "annotations" / "instances_val.json").read_text())
    with contextlib.redirect_stdout(None):  # pycocotools reports on every step
        truth.createIndex()
    detections: dict[str, list[dict]] = {}
    for row in json.loads((RUN / "predictions" / "detections.json").read_text()):
        if row["score"] >= 0.5:
            detections.setdefault(row["image_id"], []).append(row)
    names = {c["id"]: c["name"] for c in truth.loadCats(truth.getCatIds())}
    pairs = []
    for image_id in sorted(truth.getImgIds()):
        annotations = truth.loadAnns(truth.getAnnIds(image_id))
        if not annotations:
            continue
        info = truth.loadImgs(image_id)[0]
        pixels = np.asarray(Image.open(IMAGES / "val" / info["file_name"]).convert("RGB"))
        for annotation in annotations:
            annotation["segmentation"] = truth.annToRLE(annotation)
        detected = detections.get(info["file_name"], [])
        pairs.append(
            drawing.draw_side_by_side(
                _draw(pixels, annotations, names), _draw(pixels, detected, names)
            )
        )
        if len(pairs) == SHOWN:
            break
    path = RUN / "predictions.png"
    Image.fromarray(drawing.contact_sheet(pairs, columns=3)).save(path)
    return path


def _draw(pixels: np.ndarray, rows: list[dict], names: dict[int, str]) -> np.ndarray:
    """Draw COCO annotations or results, whose masks are run lengths."""
    x, y, w, h = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4).T
    return drawing.draw_detections(
        pixels,
        np.stack([y, x, y + h, x + w], axis=-1),
        [row["segmentation"] for row in rows],
        [names[row["category_id"]] for row in rows],
        [row["score"] for row in rows] if rows and "score" in rows[0] else None,
        color_ids=[row["category_id"] for row in rows],
        is_crowd=[bool(row.get("iscrowd")) for row in rows],
    )


def _images_per_second() -> float:
    """Median training speed of all loops but each run's first, which traces the graph."""
    rows = [json.loads(line) for line in (RUN / "train.jsonl").read_text().splitlines()]
    return statistics.median(row["images_per_second"] for row in rows if not row["first_loop"])


def _litert_milliseconds() -> float:
    """Median time of an unseen image in the LiteRT file, resizing and pasting included."""
    network = device.load(str(LITERT), threads=1)
    taken = []
    for path in sorted((IMAGES / "val").iterdir())[:TIMED]:
        pixels = device.read(str(path))
        start = time.perf_counter()
        device.find(network, pixels)
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


def _print_table(summary: dict, sheet: pathlib.Path) -> None:
    print("\nOn 100 unseen images of the shapes data set")
    for name in ("box_ap", "mask_ap", "mask_ap50", "train_images_per_s", "litert_mb", "litert_ms"):
        print(f"  {name:<20}{summary[name]:>8.3f}")
    for name, seconds in summary["seconds"].items():
        print(f"  {name:<20}{duration(seconds):>8}")
    print(f"  {'all stages':<20}{duration(sum(summary['seconds'].values())):>8}")
    print("\nLook at")
    print(f"  {sheet}              ground truth beside prediction")
    print(f"  {RUN}/predictions/drawn/         every unseen image with its masks")
    print(f"  {RUN}/saved_model/               for TensorFlow Serving, or mrcnn_tf.predict")
    print(f"  {LITERT}        the same for phones and small computers, docs/edge.md")
    print(f"  {RUN}/summary.json               these numbers")
    tensorboard = os.path.relpath(pathlib.Path(sys.executable).with_name("tensorboard"))
    print(f"  {tensorboard} --logdir {RUN}   the curves")


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, lambda: None, main)


if __name__ == "__main__":
    run_main()
