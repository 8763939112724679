"""Work that is several commands: each is printed as a user would type it, run, and noted as done.

`mrcnn_tf.train_stages` and `mrcnn_tf.finetune` are such lists. A stage that is done is not run
again; one that was stopped goes on where it was, because its command does.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import tensorflow as tf

from mrcnn_tf.console import command_line
from mrcnn_tf.console.durations import duration

FINISHED = "stages.json"  # which stages of a folder are done, by which command, in which time


class Stage(NamedTuple):
    """One command.

    Attributes:
      name: what it does.
      arguments: behind `python`.
      passes: exit codes with which the next stage may begin.
    """

    name: str
    arguments: tuple[str, ...]
    passes: tuple[int, ...] = (0,)

    def command(self) -> str:
        """The line that a user would type."""
        return shlex.join(["python", *self.arguments])


class Finished(TypedDict):
    """A stage that is done: the entry of `FINISHED` under its name."""

    command: str
    seconds: float


def run(planned: Sequence[Stage], model_dir: str) -> dict[str, float]:
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
    path = os.path.join(model_dir, FINISHED)
    tf.io.gfile.makedirs(model_dir)
    finished: dict[str, Finished] = {}
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            finished = json.loads(file.read())
    _check_finished(planned, finished, path)
    for number, stage in enumerate(planned, start=1):
        title = f"[{number}/{len(planned)}] {stage.name}"
        if stage.name in finished:
            print(f"{title}: done, in {duration(finished[stage.name]['seconds'])}", flush=True)
            continue
        print(f"\n{title}\n  {stage.command()}", flush=True)
        start = time.monotonic()
        code = _run_stage(stage)
        if code not in stage.passes:
            print(
                f"error: stage '{stage.name}' ended with exit code {code}; the same command goes "
                "on from there",
                file=sys.stderr,
            )
            raise SystemExit(code if code > 0 else 128 - code)  # a signal's number, as shells do
        seconds = round(time.monotonic() - start, 1)
        finished[stage.name] = {"command": stage.command(), "seconds": seconds}
        with tf.io.gfile.GFile(path, "w") as file:
            file.write(json.dumps(finished, indent=2) + "\n")
    return {name: entry["seconds"] for name, entry in finished.items()}


def _check_finished(planned: Sequence[Stage], finished: dict[str, Finished], path: str) -> None:
    """Refuse to go on from a stage that these settings would not have made."""
    commands = {stage.name: stage.command() for stage in planned}
    for name, entry in finished.items():
        if entry["command"] != commands.get(name):
            now = commands.get(name, "not a stage of this schedule")
            raise ValueError(
                f"{path}: stage '{name}' was\n  {entry['command']}\nand would now be\n  {now}\n"
                "Take another --model_dir, or delete this one to begin again"
            )


def _run_stage(stage: Stage) -> int:
    """Run a stage, which gets the signals that this process gets; return its exit code.

    It saves what it has and ends by itself. The terminal sends Ctrl-C to both.
    """
    environment = os.environ | {command_line.STAGE: "1"}
    process = subprocess.Popen([sys.executable, *stage.arguments], env=environment)
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
    }
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
