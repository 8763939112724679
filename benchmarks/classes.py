"""What the number of classes costs: seconds of a training step and of an inference, memory.

    python benchmarks/classes.py --classes 80 1203 [--height=512 --width=512]

Our R50-FPN on the scene (`network.py`), with a softmax over the classes and with the federated
loss, 50 classes an image. Each contestant is a process of its own, which says its peak memory, and
they take turns step by step (A B A B ...). The first number of classes has 100 objects and
detections, from a score of 0.05 on, the others LVIS's 300, from 0.0001 on. Prints one JSON line;
ratios are to the first contestant.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import timing

KINDS = ("softmax", "federated")


def contestant(args: argparse.Namespace) -> None:
    """Build, then take a step or an inference whenever a line comes in, and say what it took."""
    # TensorFlow is imported in the children only.
    import network
    import tensorflow as tf

    number, kind = int(args.child[0]), args.child[1]
    lvis = {"max_instances": 300, "detection": {"score_threshold": 1e-4}}
    coco = {"detection": {"score_threshold": 0.05}}
    overrides: dict[str, Any] = coco if number == args.classes[0] else lvis
    if kind == "federated":
        overrides = overrides | {"federated": {"classes_per_image": 50}}
    # Background counts.
    config = network.experiment(classes=number + 1, overrides=overrides)
    if args.what == "train":
        run = network.training_step(config, args.height, args.width, 1).run
    else:
        model = network.build_model(config)
        images, sizes = network.images(args.height, args.width, 1)
        infer = tf.function(lambda: model(images, sizes), autograph=False)

        def run() -> float:
            return float(tf.reduce_sum(infer().scores))

    run()
    print(timing.READY, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        value = run()
        seconds = time.perf_counter() - start
        peak = timing.peak_memory_mib()
        said = {"seconds": seconds, "value": value, "peak_mib": peak}
        print(json.dumps(said), flush=True)


def measure(args: argparse.Namespace) -> None:
    """Let all contestants take turns; print what came of it."""
    children = {}
    for number in args.classes:
        for kind in args.kinds:
            command = [sys.executable, *sys.argv, "--child", str(number), kind]
            children[number, kind] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
            )
            if _answer(children[number, kind]) != timing.READY:
                raise RuntimeError(f"{number} {kind}: no network")
    said: dict[tuple[int, str], list[dict[str, float]]] = {key: [] for key in children}
    for _ in range(args.rounds):
        for key, child in children.items():
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
            said[key].append(json.loads(_answer(child)))
    rows = []
    for (number, kind), child in children.items():
        assert child.stdin is not None
        child.stdin.close()
        child.wait()
        seconds = [row["seconds"] for row in said[number, kind]]
        rows.append(
            {
                "classes": number,
                "loss": kind,
                "median_s": round(statistics.median(seconds), 4),
                "min_s": round(min(seconds), 4),
                "peak_mib": said[number, kind][-1]["peak_mib"],
                "value": round(said[number, kind][-1]["value"], 4),
            }
        )
    for row in rows:
        row["seconds_ratio"] = round(row["median_s"] / rows[0]["median_s"], 3)
        row["peak_ratio"] = round(row["peak_mib"] / rows[0]["peak_mib"], 3)
    timing.print_line(
        benchmark="classes",
        what=args.what,
        size_hw=[args.height, args.width],
        rounds=args.rounds,
        contestants=rows,
    )


def _answer(child: subprocess.Popen[str]) -> str:
    """Return a contestant's next line.

    Raises:
      RuntimeError: it ended.
    """
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"a contestant ended with {child.wait()}")
    return line.strip()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[80, 1203], help="no background")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--what", choices=("train", "infer"), default="train")
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    (contestant if args.child else measure)(args)


if __name__ == "__main__":
    main()
