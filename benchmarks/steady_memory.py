"""Whether memory stays flat: long training, an evaluation and a prediction of many images (CPU).

    python benchmarks/steady_memory.py --steps=20000 --evaluated=2000 --predicted=5000

trains a tiny network by `mrcnn_tf.train`, scores it on so many drawn images by its --mode=eval,
with detections, which are kept until they are scored, and with none, exports it and runs
`mrcnn_tf.predict` over as many. The resident memory of each of these processes is looked at five
times a second, and laid beside how far it says it is. Prints a JSON line for each: memory in each
tenth of the way (medians), and the growth between the second and the last one. Exits with 1 if one
that keeps nothing grew by more than 2 %.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import tiny_run

MAX_GROWTH = 0.02
FOUND = 20  # in each image, as long as no threshold says otherwise
_SECONDS_BETWEEN_LOOKS = 0.2
_PROGRESS = re.compile(r"(?:step|evaluating|predicting)\s+([\d,]+)/([\d,]+)")


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def watch(what: str, *flags: str) -> dict[str, object]:
    """Run a command; its memory on the way."""
    start = time.monotonic()
    progress: list[tuple[float, float]] = []  # seconds, part of the way
    memory: list[tuple[float, float]] = []  # seconds, MiB
    said = []
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", *flags],
        cwd=tiny_run.ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def look() -> None:
        while process.poll() is None:
            with contextlib.suppress(OSError):  # it has just ended
                memory.append((time.monotonic() - start, resident_mib(process.pid)))
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    threading.Thread(target=look, daemon=True).start()
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if found := _PROGRESS.search(line):
            done, of = (int(number.replace(",", "")) for number in found.groups())
            progress.append((time.monotonic() - start, done / of))
    if process.wait():
        raise RuntimeError("".join(said[-20:]))
    seconds, parts = zip(*progress, strict=True)
    on_the_way = [
        (float(np.interp(when, seconds, parts)), mib)
        for when, mib in memory
        if seconds[0] <= when <= seconds[-1]
    ]
    early = statistics.median(mib for part, mib in on_the_way if 0.1 <= part < 0.2)
    late = statistics.median(mib for part, mib in on_the_way if part >= 0.9)
    line = {
        "measured": f"memory: {what}",
        "seconds": round(time.monotonic() - start),
        "looks": len(on_the_way),
        "second_tenth_mib": round(early, 1),
        "last_tenth_mib": round(late, 1),
        "most_mib": round(max(mib for _, mib in on_the_way), 1),
        "growth": round(late / early - 1, 4),
        "tenths_mib": [
            round(statistics.median(found), 1) if found else None
            for k in range(10)
            for found in [[mib for part, mib in on_the_way if k <= part * 10 < k + 1]]
        ],
    }
    print(json.dumps(line), flush=True)
    return line


def measure(folder: pathlib.Path, steps: int, evaluated: int, predicted: int) -> bool:
    """Measure all three; whether all are flat."""
    tiny_run.make(folder, num_train=20, num_val=evaluated)
    trainer = {
        "train_steps": steps,
        "steps_per_loop": 20,
        "summary_interval": 20,
        "checkpoint_interval": 1000,
        "validation_interval": steps,
    }
    run = folder / "run"
    fields = tiny_run.fields(folder, trainer)

    def train(mode: str) -> tuple[str, ...]:
        what = (f"--experiment={tiny_run.EXPERIMENT}", f"--params_override={json.dumps(fields)}")
        return ("mrcnn_tf.train", *what, f"--model_dir={run}", f"--mode={mode}")

    lines = [watch(f"{steps} steps", *train("train"))]
    # What is found is kept until all is scored. So once with so much of it, to see how large it is:
    watch(f"{evaluated} evaluated images, {FOUND} detections each", *train("eval"))
    # and once with nothing, to see the rest.
    fields["task"]["model"]["detection"] = {"score_threshold": 0.999}
    lines.append(watch(f"{evaluated} evaluated images, no detections", *train("eval")))
    export = [sys.executable, "-m", "mrcnn_tf.export", f"--experiment={run}/params.yaml"]
    export += [f"--checkpoint_path={run}", f"--export_dir={folder}/exported"]
    subprocess.run(export, cwd=tiny_run.ROOT, check=True, capture_output=True)
    # The same images under several names: the predictor does not know.
    images = sorted((folder / "coco" / "val").iterdir())
    listed = [images[k % len(images)] for k in range(predicted)]
    (folder / "photos").mkdir()
    for k, path in enumerate(listed):
        (folder / "photos" / f"{k:06}{path.suffix}").symlink_to(path)
    lines.append(
        watch(
            f"{predicted} predicted images",
            *("mrcnn_tf.predict", f"--saved_model={folder}/exported", f"--input={folder}/photos"),
            *(f"--output_dir={folder}/found", "--score_threshold=0", "--nodraw"),
        )
    )
    return all(line["growth"] <= MAX_GROWTH for line in lines)  # type: ignore[operator]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--evaluated", type=int, default=2_000)
    parser.add_argument("--predicted", type=int, default=5_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        is_flat = measure(pathlib.Path(folder), args.steps, args.evaluated, args.predicted)
    raise SystemExit(0 if is_flat else 1)


if __name__ == "__main__":
    main()
