"""Evaluations of several checkpoints, timed in turn (CPU), from the records to the scores.

benchmarks/results.py starts it; --contestants is a JSON list of {"name": ..., "checkpoint": folder,
"settings": {"experiment": ..., "fields": {...}}}. The first is what the others are compared with.
Prints one JSON line: the seconds of each, and the medians over rounds of their ratios to the first.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tensorflow as tf  # noqa: E402
import timing  # noqa: E402

from mrcnn_tf import checkpoints  # noqa: E402
from mrcnn_tf.experiment import loading  # noqa: E402
from mrcnn_tf.training import devices  # noqa: E402
from mrcnn_tf.training.task import MaskRCNNTask  # noqa: E402
from mrcnn_tf.training.trainer import Trainer  # noqa: E402


def evaluation(settings: dict[str, Any], checkpoint: str, folder: str) -> Callable[[], None]:
    """Return what evaluates a checkpoint, as `mrcnn_tf.train --mode=eval` does.

    Args:
      settings: its experiment and fields.
      checkpoint: folder of its run.
      folder: for what an evaluation writes.
    """
    # Boundaries are scored in Python, for every network alike; that would hide what differs.
    fields = settings["fields"] | {"task.boundary_ap": False}
    experiment = loading.load(settings["experiment"], params_override=json.dumps(fields))
    path = checkpoints.newest(checkpoint)
    task = MaskRCNNTask(
        experiment.task,
        weight_decay=0.0,
        enable_xla=False,
        logging_dir=folder,
        label_map=checkpoints.label_map_of(path),
    )
    strategy = devices.strategy(experiment.runtime)
    with strategy.scope():
        trainer = Trainer(experiment, task, images_per_step=0, training=False, evaluating=True)
        checkpoints.load(trainer.evaluated_model, path)

    def evaluate() -> None:
        with strategy.scope():
            trainer.evaluate(tf.constant(experiment.trainer.validation_steps))

    return evaluate


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contestants", type=json.loads, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            contestant["name"]: evaluation(contestant["settings"], contestant["checkpoint"], folder)
            for contestant in arguments.contestants
        }
        taken = timing.in_turn(runs, arguments.rounds)
    first = next(iter(taken.values())).seconds
    timing.print_line(
        benchmark="evaluation_time",
        rounds=arguments.rounds,
        seconds={name: of_run.summary() for name, of_run in taken.items()},
        ratios={
            name: round(statistics.median(map(float.__truediv__, of_run.seconds, first)), 3)
            for name, of_run in taken.items()
        },
    )


if __name__ == "__main__":
    main()
