"""What the choice between two implementations costs, and what each of them costs (CPU).

python benchmarks/implementations.py

One image of 800 x 1344 with 256 channels on P2..P5: RoIAlign of 1000 boxes to 7 x 7, with 2 x 2
samples per bin and adaptive, and the NMS of five levels with 1000 boxes each. Each as a graph, in
turns: "for_cpus" and "for_accelerators" are one implementation alone, "either" is what a model
runs, both of them in the graph and the decision where it runs; "xla" is compiled.

Prints one JSON line: {case: {way: [median milliseconds, milliseconds to trace]}}.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import scene  # noqa: E402
import tensorflow as tf  # noqa: E402
import timing  # noqa: E402

from mrcnn_tf.ops import implementation, nms, roi_align  # noqa: E402

HEIGHT, WIDTH, CHANNELS, BOXES = 800, 1344, 256, 1000
WAYS = ("for_cpus", "either", "for_accelerators", "xla")


def align(sampling_ratio: int, backward: bool) -> Callable[[], object]:
    """Return a function without arguments to trace: RoIAlign, and its gradient if `backward`."""
    rng = np.random.default_rng(1)
    features = {
        level: tf.Variable(
            rng.standard_normal((1, HEIGHT >> level, WIDTH >> level, CHANNELS), np.float32)
        )
        for level in (2, 3, 4, 5)
    }
    boxes = tf.Variable(scene.boxes(HEIGHT, WIDTH, BOXES)[None])

    def run():
        with tf.GradientTape() as tape:
            levels = roi_align.assign_levels(boxes, 2, 5)
            maps = {level: tf.convert_to_tensor(value) for level, value in features.items()}
            pooled = roi_align.roi_align(maps, boxes, levels, 7, sampling_ratio, aligned=True)
            if not backward:
                return pooled
            loss = tf.reduce_sum(tf.square(pooled))
        return tape.gradient(loss, list(features.values()))

    return run


def suppress() -> Callable[[], object]:
    """Return a function without arguments to trace: the NMS of five levels of one image."""
    boxes = np.stack([scene.boxes(HEIGHT, WIDTH, BOXES, seed) for seed in range(5)])
    scores = np.random.default_rng(2).standard_normal(boxes.shape[:2]).astype(np.float32)
    boxes, scores = tf.Variable(boxes), tf.Variable(scores)

    def run():
        return nms.nms(boxes, scores, tf.ones(tf.shape(scores), tf.bool), 0.7, 1000)

    return run


CASES = {
    "roi_align, forward": functools.partial(align, 2, False),
    "roi_align, forward+backward": functools.partial(align, 2, True),
    "roi_align adaptive, forward": functools.partial(align, 0, False),
    "roi_align adaptive, forward+backward": functools.partial(align, 0, True),
    "nms of 5 levels": suppress,
}


def traced(run: Callable[[], object], way: str) -> tuple[Callable[[], object], float]:
    """Return the graph of a function, to call, and the milliseconds that tracing it took."""
    function = tf.function(run, jit_compile=way == "xla" or None, autograph=False)
    forced = contextlib.nullcontext()
    if way.startswith("for"):
        forced = implementation.force(accelerators=way == "for_accelerators")
    start = time.perf_counter()
    with forced:
        graph = function.get_concrete_function()
    milliseconds = (time.perf_counter() - start) * 1e3

    def wait_for_all():
        for tensor in tf.nest.flatten(graph()):
            tf.reshape(tensor, [-1])[0].numpy()

    return wait_for_all, milliseconds


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--case", choices=CASES, action="append")
    args = parser.parse_args()
    line = {}
    for name in args.case or CASES:
        run = CASES[name]()
        traced(run, "for_cpus")  # the first trace of all is slower
        graphs = {way: traced(run, way) for way in WAYS}
        taken = timing.in_turn({way: graph[0] for way, graph in graphs.items()}, args.rounds)
        line[name] = {
            way: [round(taken[way].median * 1e3, 1), round(graphs[way][1], 1)] for way in WAYS
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
