"""Time and memory of RoIAlign with adaptive sampling, beside 2 x 2 samples per bin.

python benchmarks/roi_align.py

One image of 800 x 1344 with 256 channels on P2..P5, 1000 proposals for the box head's 7 x 7, and
100 detections for the mask head's 14 x 14; boxes as an RPN proposes them, and the same with 5 % of
long and thin ones. Forward, and forward and backward, with XLA and without. Rounds are interleaved,
seconds are the fastest of them. The peak is the resident memory of a process that does nothing
else, beyond its peak with features and boxes in place.

Prints one JSON line: {case: {"fixed": [seconds, peak MB], "adaptive": [...], "ratio": seconds of
adaptive / seconds of fixed}}.
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from mrcnn_tf.ops import roi_align as ra  # noqa: E402

HEIGHT, WIDTH, CHANNELS = 800, 1344, 256
RATIOS = {"fixed": 2, "adaptive": 0}
# Name: RoIs, output size, fraction of thin boxes.
SCENES = {
    "1000x7x7": (1000, 7, 0.0),
    "1000x7x7 5% thin": (1000, 7, 0.05),
    "100x14x14": (100, 14, 0.0),
}


def boxes_of(count: int, thin: float) -> tf.Tensor:
    """Draw boxes [1, count, 4]: log-uniform sizes, the aspect ratios of objects; some thin ones."""
    rng = np.random.default_rng(0)
    side = np.exp(rng.uniform(np.log(16), np.log(600), count))
    aspect = np.exp(rng.normal(0, 0.5, count))
    height, width = side * np.sqrt(aspect), side / np.sqrt(aspect)
    chosen = rng.permutation(count)[: int(thin * count)]
    long, short = rng.uniform(500, 1300, len(chosen)), rng.uniform(4, 12, len(chosen))
    upright = rng.random(len(chosen)) < 0.4
    height[chosen] = np.where(upright, long, short)
    width[chosen] = np.where(upright, short, long)
    height, width = np.minimum(height, HEIGHT), np.minimum(width, WIDTH)
    y1, x1 = rng.random(count) * (HEIGHT - height), rng.random(count) * (WIDTH - width)
    return tf.constant(np.stack([y1, x1, y1 + height, x1 + width], -1)[None], tf.float32)


def features_of_image() -> dict[int, tf.Tensor]:
    """Return random features of P2..P5."""
    rng = np.random.default_rng(1)
    shapes = {level: (1, HEIGHT >> level, WIDTH >> level, CHANNELS) for level in (2, 3, 4, 5)}
    return {
        level: tf.constant(rng.standard_normal(shape, np.float32))
        for level, shape in shapes.items()
    }


def step_of(scene: str, how: str, xla: bool, backward: bool):
    """Return a function without arguments that pools the scene once and waits for the end."""
    count, size, thin = SCENES[scene]
    boxes, features = boxes_of(count, thin), features_of_image()
    levels = ra.assign_levels(boxes, 2, 5)
    align = functools.partial(
        ra.roi_align, output_size=size, sampling_ratio=RATIOS[how], aligned=True
    )

    @tf.function(jit_compile=xla)
    def step(features, boxes, levels):
        if not backward:
            return align(features, boxes, levels)
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.reduce_sum(tf.square(align(features, boxes, levels)))
        return tape.gradient(loss, features)

    def run():
        for tensor in tf.nest.flatten(step(features, boxes, levels)):
            tensor[0, 0].numpy()

    return run


def peak_mb() -> float:
    """Return the most memory that this process ever had, MB."""
    # Not getrusage: its number starts at the parent's.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def peak_of(scene: str, how: str, xla: bool, backward: bool) -> float:
    """Return what pooling adds to a process's peak, MB; in a process of its own."""
    case = json.dumps([scene, how, xla, backward])
    command = [sys.executable, __file__, "--peak", case]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def measure(scene: str, xla: bool, backward: bool, rounds: int) -> dict:
    """Time both samplings in turns, then weigh each."""
    steps = {how: step_of(scene, how, xla, backward) for how in RATIOS}
    seconds: dict[str, list[float]] = {how: [] for how in RATIOS}
    for step in steps.values():
        step()  # traces and compiles
    for _ in range(rounds):
        for how, step in steps.items():
            begin = time.perf_counter()
            step()
            seconds[how].append(time.perf_counter() - begin)
    best = {how: min(times) for how, times in seconds.items()}
    numbers = {
        how: [round(best[how], 4), round(peak_of(scene, how, xla, backward))] for how in RATIOS
    }
    return numbers | {"ratio": round(best["adaptive"] / best["fixed"], 2)}


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        step = step_of(*json.loads(args.peak))
        before = peak_mb()
        for _ in range(2):
            step()
        print(peak_mb() - before)
        return
    line = {
        f"{scene}, {'forward+backward' if backward else 'forward'}, {'XLA' if xla else 'no XLA'}": (
            measure(scene, xla, backward, args.rounds)
        )
        for scene in SCENES
        for backward in (False, True)
        for xla in (True, False)
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
