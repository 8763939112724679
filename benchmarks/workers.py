"""Training on several workers, all on this machine: the same? how fast? what does a kill cost?

    python benchmarks/workers.py --workers 1 2 4 --steps=120 --kills=3

Real processes with addresses on loopback train and score a tiny network on the shapes data set,
four images a step however many workers there are, one thread each. For each number of workers one
JSON line: the losses of the first steps beside those of one worker, the numbers of an evaluation
of one checkpoint beside those of one worker, seconds per step in loops of 20 steps. For each kill
another one: a worker chosen at random gets SIGKILL; how long until all others have ended, how long
from the kill until the run, started anew at once, stands again at the step that it had reached.

Workers that share a machine share its cores: seconds per step say what the exchange costs, not how
much faster several machines are.
"""

import argparse
import json
import pathlib
import random
import signal
import statistics
import tempfile
import time

import timing
import tiny_run
from worker_processes import Workers

IMAGES_PER_STEP = 4
COMPARED_STEPS = 4
STEPS_PER_LOOP = 20
_NEVER = 10**6
_SECONDS = 900.0
_FIELDS = {
    "task.train_data.global_batch_size": IMAGES_PER_STEP,
    # As many images in each worker's batch whatever their number, so that the network's own
    # rounding is the same.
    "task.validation_data.images_per_replica": 1,
    "task.validation_data.global_batch_size": 0,
    "task.allow_image_summary": False,
}
_TRAINER = {
    "reference_batch_size": IMAGES_PER_STEP,
    "steps_per_loop": 1,
    "summary_interval": 1,
    "checkpoint_interval": _NEVER,
    "validation_interval": _NEVER,
}


class Runs:
    """Starts runs on one data set.

    Args:
      folder: for data, runs and logs.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._logs = 0
        tiny_run.make(folder, num_train=16, num_val=10)

    def start(self, workers: int, name: str, mode: str, *flags: str, **fields: object) -> Workers:
        """Start a run on so many workers in the folder of that name."""
        strategy = "multi_worker_mirrored" if workers > 1 else "mirrored"
        tiny: dict[str, object] = tiny_run.fields(self._folder, _TRAINER)
        override = tiny | _FIELDS | {"runtime.distribution_strategy": strategy} | fields
        command = [
            *("-m", "mrcnn_tf.train", f"--experiment={tiny_run.EXPERIMENT}", f"--mode={mode}"),
            *(f"--model_dir={self._folder / name}", "--threads=1", *flags),
            f"--params_override={json.dumps(override)}",
        ]
        self._logs += 1
        return Workers([command] * workers, self._folder / f"logs{self._logs}", _SECONDS)

    def finish(self, workers: int, name: str, mode: str, *flags: str, **fields: object) -> None:
        """Run to the end."""
        with self.start(workers, name, mode, *flags, **fields) as started:
            codes = started.wait()
            if any(codes):
                raise RuntimeError(f"{codes}: {started.printed(0)[-3000:]}")

    def rows(self, name: str, file: str) -> list[dict]:
        """Return the lines of train.jsonl or metrics.jsonl."""
        path = self._folder / name / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=120, help="that are timed")
    parser.add_argument("--kills", type=int, default=3, help="for each number of workers above 1")
    parser.add_argument("--checkpoint_interval", type=int, default=10, help="in runs with kills")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        runs = Runs(pathlib.Path(name))
        runs.finish(1, "alone", "train", **{"trainer.train_steps": COMPARED_STEPS})
        runs.finish(1, "scored alone", "eval", f"--checkpoint_path={name}/alone")
        for workers in args.workers:
            compare(runs, workers, args.steps, f"{name}/alone")
            for number in range(args.kills if workers > 1 else 0):
                kill(runs, workers, number, args.checkpoint_interval)


def compare(runs: Runs, workers: int, steps: int, checkpoint: str) -> None:
    """Train and score on so many workers; print what differs from one."""
    trained, scored, timed = (f"{what}{workers}" for what in ("train", "eval", "time"))
    runs.finish(workers, trained, "train", **{"trainer.train_steps": COMPARED_STEPS})
    runs.finish(workers, scored, "eval", f"--checkpoint_path={checkpoint}")
    loops = {f"trainer.{field}": STEPS_PER_LOOP for field in ("steps_per_loop", "summary_interval")}
    runs.finish(workers, timed, "train", **loops, **{"trainer.train_steps": steps})
    losses = [
        abs(theirs["training_loss"] / ours["training_loss"] - 1)
        for ours, theirs in zip(
            runs.rows("alone", "train.jsonl"), runs.rows(trained, "train.jsonl"), strict=True
        )
    ]
    (one,), (several,) = (runs.rows(n, "metrics.jsonl") for n in ("scored alone", scored))
    rates = [row["images_per_second"] for row in runs.rows(timed, "train.jsonl")[1:]]
    seconds = [IMAGES_PER_STEP / rate for rate in rates]
    timing.print_line(
        benchmark="workers",
        workers=workers,
        images_per_step=IMAGES_PER_STEP,
        steps=steps,
        relative_loss_differences=[float(f"{loss:.2g}") for loss in losses],
        evaluation_numbers=len(one),
        different_scores=sorted(
            k for k in one if not k.endswith("loss") and one[k] != several.get(k)
        ),
        relative_validation_loss_difference=float(
            f"{abs(several['validation_loss'] / one['validation_loss'] - 1):.2g}"
        ),
        seconds_per_step={
            "median": round(statistics.median(seconds), 4),
            "min": round(min(seconds), 4),
            "max": round(max(seconds), 4),
            "loops": len(seconds),
        },
    )


def kill(runs: Runs, workers: int, number: int, checkpoint_interval: int) -> None:
    """Kill one worker of a run, start all again; print what it has cost."""
    draw = random.Random(f"{workers} {number}")
    name = f"killed{workers}.{number}"
    fields = {
        "trainer.train_steps": _NEVER,
        "trainer.checkpoint_interval": checkpoint_interval,
    }
    at, who = draw.randrange(checkpoint_interval, 4 * checkpoint_interval), draw.randrange(workers)
    with runs.start(workers, name, "train", **fields) as started:
        started.wait_for(_shown(at))
        killed = time.monotonic()
        reached = runs.rows(name, "train.jsonl")[-1]["step"]
        started.send(signal.SIGKILL, who)
        codes = started.wait()
        noticed = time.monotonic() - killed
        said = {
            line.partition(": ")[2]
            for k in range(workers)
            for line in started.printed(k).splitlines()
            if " is gone: " in line
        }
    with runs.start(workers, name, "train", **fields) as again:
        again.wait_for(_shown(reached))
        back = time.monotonic() - killed
        begun = next(x for x in again.printed(0).splitlines() if "going on at step" in x)
    step = int(begun.split("at step ")[1].split(",")[0])
    timing.print_line(
        benchmark="workers, kill",
        workers=workers,
        killed=who,
        exit_codes=codes,
        said=sorted(line.split(": its")[0] for line in said),
        steps_lost=reached - step,
        noticed_after_s=round(noticed, 2),
        back_after_s=round(back, 1),
    )


def _shown(step: int) -> str:
    """Return what the chief prints when it has taken a step."""
    return f" {step:,}/{_NEVER:,}"


if __name__ == "__main__":
    main()
