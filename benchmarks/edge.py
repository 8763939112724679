"""Size, time and AP of a network as LiteRT and ONNX file, beside its SavedModel.

    python benchmarks/edge.py --experiment=runs/photos/params.yaml --checkpoint=runs/photos \
        --input_size=320,320 --records='datasets/photos/val-*.tfrecord'

Files: litert (float32), litert_float16, litert_dynamic, litert_full (with --pictures) and onnx.
Each is written and compared as `mrcnn_tf.export` does, then runs in a process of its own, without
TensorFlow, with one thread and with two, on pictures that lie ready in the input's size; so the
SavedModel's network does. Without --checkpoint the weights are random: nothing is compared, and
there is no AP. Prints one JSON line per file, `refused` in it if the comparison failed.

What a line holds: `mb` of the file (of the SavedModel's whole folder), `ms` by number of threads,
`peak_mib` of the process with two, `ap` and `network_ap` if records are named.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import timing

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

SAVED_MODEL = "saved_model"
FILES = {
    "litert": ("litert", "none"),
    "litert_float16": ("litert", "float16"),
    "litert_dynamic": ("litert", "dynamic"),
    "litert_full": ("litert", "full"),
    "onnx": ("onnx", "none"),
}
THREADS = (1, 2)


def run_alone(path: str, height: int, width: int, threads: int, rounds: int) -> dict[str, Any]:
    """Time one file, in this process, which does nothing else."""
    from mrcnn_tf.edge import device

    random = np.random.default_rng(0)
    if path.endswith((".tflite", ".onnx")):
        network = device.load(path, threads)
        image = random.integers(0, 256, [1, height, width, 3], np.uint8)
        size_hw = np.array([height, width], np.int32)

        def run() -> Any:
            return network.run(image, size_hw)["count"]

    else:
        import tensorflow as tf

        model = tf.saved_model.load(path)
        images = tf.constant(random.normal(size=[1, height, width, 3]), tf.float32)
        sizes = tf.constant([[height, width]])

        def run() -> Any:
            return model.network(images, tf.cast(sizes, tf.float32), sizes)["num_detections"][0]

    found = int(run())
    taken = timing.in_turn({"run": run}, rounds)["run"].summary()
    ms = {k: v and round(v * 1000, 1) for k, v in taken.items() if k in ("median", "min", "calm")}
    return {"ms": ms, "found": found, "peak_mib": _peak_mib()}


def _peak_mib() -> float | None:
    """Largest resident size since this program began; `getrusage` would count its parent's too."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:  # not Linux
        return None
    return next(round(int(x.split()[1]) / 1024, 1) for x in lines if x.startswith("VmHWM:"))


def in_a_process(path: str, args: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Call this script for one file; return what it measured."""
    command = [sys.executable, __file__, f"--alone={path}", f"--threads={threads}"]
    command += [f"--input_size={args.input_size}", f"--rounds={args.rounds}"]
    environment = os.environ | dict.fromkeys(
        ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(threads)
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.strip().splitlines()[-3:]))
    return json.loads(done.stdout.splitlines()[-1])


def load(args: argparse.Namespace) -> Any:
    """Load the detector, or build one with random weights."""
    import tensorflow as tf

    from mrcnn_tf.data.label_map import LabelMap
    from mrcnn_tf.detector import Detector, preprocessor
    from mrcnn_tf.experiment import loading
    from mrcnn_tf.modeling import build

    fields = [f"task.model.max_instances={args.max_instances}"] if args.max_instances else []
    if args.score_threshold is not None:
        fields.append(f"task.model.detection.score_threshold={args.score_threshold}")
    override = ",".join(fields)
    if args.checkpoint:
        return Detector.load(args.experiment, args.checkpoint, override)
    tf.random.set_seed(0)
    config = loading.load(args.experiment, params_override=override)
    ids = tuple(range(1, args.classes))
    model = build.build_model(config.task.model, args.classes)
    labels = LabelMap(ids, tuple(map(str, ids)))
    return Detector(model, labels, preprocessor(config), config.task.model.detection.mask_paste)


def write(detector: Any, name: str, folder: str, args: argparse.Namespace) -> dict[str, Any]:
    """Write a file, or the SavedModel, into a folder; return its path, and AP if it was asked for.

    Raises:
      RuntimeError: it answers something else than the network.
    """
    from mrcnn_tf.edge import device, exporting, formats, graph
    from mrcnn_tf.images import finding, reading
    from mrcnn_tf.serving import verification as serving

    if name == SAVED_MODEL:
        with contextlib.redirect_stdout(sys.stderr):
            detector.export(folder, "image_tensor")
        return {"path": folder}
    file_format, quantize = FILES[name]
    pictures = []
    if args.pictures:
        found = finding.find_images(args.pictures).images[: args.max_pictures]
        pictures = [reading.read(path).pixels for _, path in found]
    if not args.checkpoint:
        network = graph.Graph(detector.detect, detector.preprocess, _size(args))
        described = exporting.describe(
            _size(args), quantize, "detectron2", detector.mask_paste, detector.label_map, None
        )
        fitted = [device.fit(pixels, _size(args), "detectron2") for pixels in pictures]
        content = exporting.convert(network, file_format, quantize, described, fitted)
        path = os.path.join(folder, formats.NAMES[file_format])
        pathlib.Path(path).write_bytes(content)
        return {"path": path}
    try:
        path, compared = exporting.export(
            detector.detect,
            folder,
            file_format=file_format,
            input_hw=_size(args),
            quantize=quantize,
            label_map=detector.label_map,
            preprocess=detector.preprocess,
            mask_convention=detector.mask_paste,
            pictures=pictures,
            records=args.records,
        )
    except serving.VerificationError as error:
        raise RuntimeError(str(error)) from error
    scores: dict[str, Any] = {"path": path, "agreement": round(compared.agreement, 4)}
    if compared.ap:
        scores["ap"] = {kind: round(pair[0], 4) for kind, pair in compared.ap.items()}
        scores["network_ap"] = {kind: round(pair[1], 4) for kind, pair in compared.ap.items()}
    return scores


def _size(args: argparse.Namespace) -> tuple[int, int]:
    height, width = map(int, args.input_size.split(","))
    return height, width


def _megabytes(path: str) -> float:
    if os.path.isfile(path):
        return round(os.path.getsize(path) / 1e6, 2)
    files = [file for file in pathlib.Path(path).rglob("*") if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)


def main() -> None:
    """Measure one file, or all of them in processes of their own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", default="maskrcnn_r50_fpn")
    parser.add_argument("--checkpoint", help="checkpoint or run's folder; else random weights")
    parser.add_argument("--classes", type=int, default=81, help="with background, if random")
    parser.add_argument("--input_size", default="320,320")
    parser.add_argument("--records", default="", help="for AP; takes as long as it takes")
    parser.add_argument("--pictures", action="append", help="to compare on and to calibrate with")
    parser.add_argument("--max_pictures", type=int, default=50)
    parser.add_argument("--max_instances", type=int)
    parser.add_argument("--score_threshold", type=float)
    parser.add_argument("--files", default="", help="names with commas; default all that can be")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(run_alone(args.alone, *_size(args), args.threads, args.rounds)))
        return
    names = args.files.split(",") if args.files else [SAVED_MODEL, *FILES]
    if not args.files and not args.pictures:
        names.remove("litert_full")  # it has to be calibrated
    detector = load(args)
    for name in names:
        line: dict[str, Any] = {
            "benchmark": "edge",
            "experiment": args.experiment,
            "input_size": list(_size(args)),
            "file": name,
        }
        with tempfile.TemporaryDirectory() as folder:
            try:
                written = write(detector, name, folder, args)
            except (RuntimeError, ValueError) as error:
                timing.print_line(**line, refused=str(error))
                continue
            path = written.pop("path")
            runs = {threads: in_a_process(path, args, threads) for threads in THREADS}
            timing.print_line(
                **line,
                mb=_megabytes(path),
                ms={str(threads): runs[threads]["ms"] for threads in THREADS},
                peak_mib=runs[THREADS[-1]]["peak_mib"],
                found=runs[THREADS[-1]]["found"],
                **written,
            )


if __name__ == "__main__":
    main()
