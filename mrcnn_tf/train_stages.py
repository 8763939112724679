"""Train RPN and detector in several runs: separate, or alternating until they share features.

Used as

    python -m mrcnn_tf.train_stages --experiment=maskrcnn_r50_fpn_separate_rpn

Every stage is a command that a user could type (`stages.py` says which), and is printed before it
runs. A finished stage is not run again; one that was stopped goes on where it was, because the same
command does.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TypedDict

from mrcnn_tf import command_line

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

from absl import app, flags, logging

from mrcnn_tf.durations import duration
from mrcnn_tf.staged import stages

FINISHED = "stages.json"  # which stages of a folder are done, by which command, in which time


class Finished(TypedDict):
    """A stage that is done: the entry of `FINISHED` under its name."""

    command: str
    seconds: float


def run(planned: Sequence[stages.Stage], model_dir: str) -> dict[str, float]:
    """Run the stages that are not done yet.

    Args:
      planned: what to do, in order.
      model_dir: where it is noted what is done.

    Returns:
      {name of a stage: the seconds that it took in its last run}.

    Raises:
      ValueError: the folder holds a stage of other settings.
      SystemExit: a stage failed.
    """
    path = pathlib.Path(model_dir) / FINISHED
    path.parent.mkdir(parents=True, exist_ok=True)
    finished: dict[str, Finished] = json.loads(path.read_text()) if path.exists() else {}
    _check_finished(planned, finished, path)
    for number, stage in enumerate(planned, start=1):
        title = f"[{number}/{len(planned)}] {stage.name}"
        if stage.name in finished:
            print(f"{title}: done, in {duration(finished[stage.name]['seconds'])}", flush=True)
            continue
        print(f"\n{title}\n  {stage.command()}", flush=True)
        start = time.monotonic()
        code = subprocess.run([sys.executable, "-m", *stage.arguments], check=False).returncode
        if code != 0:
            raise SystemExit(
                f"error: stage '{stage.name}' ended with exit code {code}; the same command goes "
                "on from there"
            )
        seconds = round(time.monotonic() - start, 1)
        finished[stage.name] = {"command": stage.command(), "seconds": seconds}
        path.write_text(json.dumps(finished, indent=2) + "\n")
    return {name: entry["seconds"] for name, entry in finished.items()}


def _check_finished(
    planned: Sequence[stages.Stage], finished: dict[str, Finished], path: pathlib.Path
) -> None:
    """Refuse to go on from a stage that these settings would not have made."""
    commands = {stage.name: stage.command() for stage in planned}
    for name, entry in finished.items():
        if entry["command"] != commands.get(name):
            now = commands.get(name, "not a stage of this schedule")
            raise ValueError(
                f"{path}: stage '{name}' was\n  {entry['command']}\nand would now be\n  {now}\n"
                "Take another --model_dir, or delete this one to begin again"
            )


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("experiment", None, "Experiment, or a YAML file.", required=True)
    flags.DEFINE_string("model_dir", None, "Folder of all stages; default runs/EXPERIMENT.")
    flags.DEFINE_multi_string("config_file", [], "YAML laid over the detector's and the RPN's.")
    flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train; goes to both.")


def main(argv: list[str]) -> None:
    """Parse the flags and run."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    values = flags.FLAGS
    name = pathlib.Path(values.experiment).stem
    model_dir = values.model_dir or os.path.join("runs", name)
    try:
        schedule = stages.Schedule(
            values.experiment, model_dir, values.config_file, values.params_override
        )
        seconds = run(schedule.stages, model_dir)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"\nall stages took {duration(sum(seconds.values()))}; what came out: {schedule.result}")
    result = stages.Stage(
        "export",
        (
            "mrcnn_tf.export",
            f"--experiment={schedule.result}/params.yaml",
            f"--checkpoint_path={schedule.result}",
            f"--export_dir={model_dir}/saved_model",
        ),
    )
    print(f"To serve it:\n  {result.command()}")


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
