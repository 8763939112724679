"""How long the commands take to their first picture, result and step, in fresh processes.

    python benchmarks/start_up.py

prints a JSON line per command, medians over `--runs` of each, in turn:

* convert: `data_prep/create_coco_tfrecord.py`, from its start until the first picture is in a
  shard that is complete.
* predict: `mrcnn_tf.predict` on one photo on a canvas of 800 x 1344 with an R50-FPN, from its start
  until detections.json is there; and beside it the import of TensorFlow alone, as that command
  does it and as Python does it.
* train: `mrcnn_tf.train` of `maskrcnn_r50_fpn`, one photo a step: the first step, and the median of
  those behind it.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import predict

ROOT = pathlib.Path(__file__).resolve().parent.parent
IMPORTS = {
    "import_s": "import tensorflow",
    "quick_import_s": "from mrcnn_tf.console import start_tensorflow\n"
    "with start_tensorflow.quickly():\n    import tensorflow",
}
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
TRAINING_STEPS = 4


def seconds_until(command: list[str], path: pathlib.Path | None = None) -> float:
    """Run a command to its end; seconds from its start until `path` was there, or until the end."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    there = None
    while process.poll() is None:
        if path is not None and there is None and path.exists():
            there = time.perf_counter() - start
        time.sleep(0.005)
    end = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{command}: {process.stderr.read().decode()[-2000:]}")
    return end if there is None else there


def write_data_set(folder: pathlib.Path) -> list[str]:
    """Write photos with an object each; return the converter's flags for them."""
    predict.write_photos(folder / "photos", 2)
    rows, objects = [], []
    for k, path in enumerate(sorted((folder / "photos").iterdir())):
        size = {"height": predict.HEIGHT, "width": predict.WIDTH}
        rows.append({"id": k, "file_name": path.name, **size})
        square = {"bbox": [100, 100, 400, 400], "area": 160000, "iscrowd": 0}
        corners = [[100, 100, 500, 100, 500, 500, 100, 500]]
        objects.append(
            {"id": k + 1, "image_id": k, "category_id": 1, "segmentation": corners, **square}
        )
    content = {"images": rows, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations.json").write_text(json.dumps(content))
    annotations = folder / "annotations.json"
    return [f"--image_dir={folder / 'photos'}", f"--object_annotations_file={annotations}"]


def convert(folder: pathlib.Path, run: int) -> dict[str, float]:
    """Time the converter; its records stay for `train`."""
    prefix = folder / f"records{run}" / "train"
    command = [sys.executable, "data_prep/create_coco_tfrecord.py", *write_data_set(folder)]
    command += [f"--output_file_prefix={prefix}", "--num_shards=1"]
    first = seconds_until(command, pathlib.Path(f"{prefix}-00000-of-00001.tfrecord"))
    return {"first_picture_s": first}


def detect(folder: pathlib.Path, run: int) -> dict[str, float]:
    """Time `predict`."""
    out = folder / f"found{run}"
    photo = folder / "photos" / "000.jpg"
    command = [sys.executable, "-m", "mrcnn_tf.predict", f"--saved_model={folder / 'exported'}"]
    command += [f"--input={photo}", f"--output_dir={out}"]
    found = {"first_result_s": seconds_until(command, out / "detections.json")}
    found |= {name: seconds_until([sys.executable, "-c", c]) for name, c in IMPORTS.items()}
    found["beyond_import_s"] = found["first_result_s"] - found["quick_import_s"]
    return found


def train(folder: pathlib.Path, run: int) -> dict[str, float]:
    """Time a training's steps, one a loop, in a process of their own."""
    command = [sys.executable, __file__, f"--measure_steps={folder}", f"--run={run}"]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True
    )
    first, *others = json.loads(done.stdout.strip().splitlines()[-1])
    steady = statistics.median(others)
    return {"first_step_s": first, "steady_step_s": steady, "beyond_steady_s": first - steady}


def measure_steps(folder: pathlib.Path, run: int) -> list[float]:
    """Train as the command does, and note how long each step takes."""
    from mrcnn_tf import train as command
    from mrcnn_tf.experiment import loading
    from mrcnn_tf.training.trainer import Trainer

    seconds = []
    steps = Trainer.train

    def timed(self, num_steps):
        start = time.perf_counter()
        found = steps(self, num_steps)
        seconds.append(time.perf_counter() - start)
        return found

    Trainer.train = timed
    data = {"input_path": f"{folder}/records0/train-*.tfrecord", "global_batch_size": 1}
    backbone = {"weights": "", "norm": "batch_norm", "freeze_at": 0}  # from random weights
    once = {"steps_per_loop": 1, "train_steps": TRAINING_STEPS, "summary_interval": 1}
    overrides = {
        "task": {"train_data": data, "model": {"backbone": backbone}},
        "trainer": {**once, "checkpoint_interval": 1000, "reference_batch_size": 1},
    }
    experiment = loading.load("maskrcnn_r50_fpn", params_override=json.dumps(overrides))
    command.run(experiment, "train", str(folder / f"run{run}"))
    return seconds


def main() -> None:
    """Run the commands in turn and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure_steps", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure_steps:
        print(json.dumps(measure_steps(pathlib.Path(args.measure_steps), args.run)))
        return
    commands = {"convert": convert, "predict": detect, "train": train}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        export = f"import pathlib, random_detector as r; r.export(pathlib.Path({str(folder)!r}) / "
        export += "'exported')"
        path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
        environment = {**ENVIRONMENT, "PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", export], env=environment, check=True)
        for run in range(args.runs):
            for name, command in commands.items():
                found[name].append(command(folder, run))
                print(name, found[name][-1], file=sys.stderr, flush=True)
    for name, rows in found.items():
        medians = {key: statistics.median([row[key] for row in rows]) for key in rows[0]}
        print(json.dumps({"measured": f"start-up: {name}", "runs": args.runs, **medians}))


if __name__ == "__main__":
    main()
