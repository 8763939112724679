"""The paper's systems side by side on the shapes data set: what each finds after the same time.

    make demo                                  # makes the data set, once
    python -m benchmarks.systems_on_shapes     # from the repository's root

Each system's number of steps is meant to fit into six minutes of training on two idle cores.
Those that train in several runs share the six minutes among them; starting, evaluating and writing
proposals come on top. Stopped, it goes on where it was. It ends with a table and a line of JSON.
"""

import argparse
import json
import os
import pathlib
import statistics

from mrcnn_tf.console import running
from mrcnn_tf.staged import stages

RECORDS = pathlib.Path("datasets/shapes/val-00003-of-00004.tfrecord")
IMAGES_PER_STEP = 4  # of all these experiments
# Experiment: steps of each of its runs. Seconds a step, estimated from processor time: joint 0.154,
# Faster R-CNN 0.126, C4 0.40, RPN alone 0.123, detector on given proposals 0.152, the last two on
# frozen features 0.038 and 0.067.
SYSTEMS = {
    "maskrcnn_shapes": 2300,
    "fasterrcnn_shapes": 2300,
    "maskrcnn_shapes_c4": 850,
    "maskrcnn_shapes_separate_rpn": 1300,
    "maskrcnn_shapes_alternating": 940,
}
TITLES = {
    "maskrcnn_shapes": "Mask R-CNN, FPN, joint",
    "fasterrcnn_shapes": "Faster R-CNN, FPN",
    "maskrcnn_shapes_c4": "Mask R-CNN, C4, joint",
    "maskrcnn_shapes_separate_rpn": "Mask R-CNN, FPN, separate RPN",
    "maskrcnn_shapes_alternating": "Mask R-CNN, FPN, alternating",
}
METRICS = {
    "box_ap": "box AP",
    "box_ap50": "box AP50",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
}


def override(steps: int) -> str:
    """A schedule of so many steps, evaluated at its end."""
    fields = {
        "trainer.train_steps": steps,
        "trainer.validation_interval": steps,
        "trainer.steps_per_loop": min(20, steps),
        "trainer.summary_interval": min(20, steps),
        "trainer.optimizer_config.learning_rate.cosine.decay_steps": steps,
    }
    return json.dumps(fields)


def planned(name: str, steps: int, folder: str) -> tuple[list[running.Stage], str]:
    """The commands of a system, and the folder in which its scores will be."""
    if name in ("maskrcnn_shapes_separate_rpn", "maskrcnn_shapes_alternating"):
        schedule = stages.Schedule(name, folder, (), override(steps))
        return schedule.stages, schedule.result
    flags = (
        f"--experiment={name}",
        f"--model_dir={folder}",
        f"--params_override={override(steps)}",
    )
    commands = [
        running.Stage("train", ("-m", "mrcnn_tf.train", "--mode=train", *flags)),
        running.Stage("evaluate", ("-m", "mrcnn_tf.train", "--mode=eval", *flags)),
    ]
    return commands, folder


def training_seconds(folder: str) -> float:
    """Seconds in training steps, all runs of a system together.

    A run's first loop contains the tracing of the graph and counts with the rate of the others.
    """
    seconds = 0.0
    for path in sorted(pathlib.Path(folder).rglob("train.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        later = [row["images_per_second"] for row in rows if not row["first_loop"]]
        usual = statistics.median(later or [row["images_per_second"] for row in rows])
        before = 0
        for row in rows:
            rate = usual if row["first_loop"] else row["images_per_second"]
            # A run that was stopped repeats the steps behind its last checkpoint.
            seconds += max(row["step"] - before, 0) * IMAGES_PER_STEP / rate
            before = row["step"]
    return seconds


def measure(name: str, steps: int, runs: pathlib.Path) -> dict[str, float]:
    """Train and score a system; return its scores and its minutes."""
    folder = str(runs / name)
    commands, result = planned(name, steps, folder)
    print(f"\n=== {TITLES[name]}: {steps} steps a run", flush=True)
    seconds = running.run(commands, folder)
    scores = json.loads((pathlib.Path(result) / "metrics.jsonl").read_text().splitlines()[-1])
    measured = {metric: round(scores[metric], 4) for metric in METRICS if metric in scores}
    return measured | {
        "steps": steps,
        "training_minutes": round(training_seconds(folder) / 60, 2),
        "minutes": round(sum(seconds.values()) / 60, 2),
    }


def show(found: dict[str, dict[str, float]]) -> None:
    """Print the table, in Markdown, and the line of JSON."""
    print("\n| system | steps | " + " | ".join(METRICS.values()) + " | training | all stages |")
    print("|---|---" + "|---" * len(METRICS) + "|---|---|")
    for name, row in found.items():
        scores = [f"{row[metric]:.3f}" if metric in row else "" for metric in METRICS]
        minutes = [f"{row[key]:.1f} min" for key in ("training_minutes", "minutes")]
        print("| " + " | ".join([TITLES[name], f"{row['steps']:.0f}", *scores, *minutes]) + " |")
    line = {"benchmark": "systems_on_shapes", "cores": os.cpu_count(), "systems": found}
    print("\n" + json.dumps(line))


def main() -> None:
    """Run every system that is not done, then show all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=pathlib.Path, default="runs/systems_on_shapes")
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="of the steps, to try the script out"
    )
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    arguments = parser.parse_args()
    if not RECORDS.exists():
        raise SystemExit(f"error: no {RECORDS}; `make demo` makes the data set")
    found = {}
    for name in arguments.systems:
        steps = max(2, round(SYSTEMS[name] * arguments.fraction))
        try:
            found[name] = measure(name, steps, arguments.runs)
        except ValueError as error:  # the folder holds a run of other settings
            raise SystemExit(f"error: {error}") from error
    show(found)


if __name__ == "__main__":
    main()
