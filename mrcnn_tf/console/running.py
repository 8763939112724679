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

from mrcnn_tf.console import command_line, whole_file
from mrcnn_tf.console.durations import duration

FINISHED = "stages.json"  # which stages of a folder are done, by which command, in which time
# Flags that do not change what a stage leaves.
_WITHOUT_EFFECT = ("--threads=", "--num_processes=")


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


def run(planned: Sequence[Stage], model_dir: str, part: slice = slice(None)) -> dict[str, float]:
    """Run the stages that are not done yet.

    Args:
      planned: what to do, in order.
      model_dir: where it is noted what is done.
      part: which of them.

    Returns:
      {name of a stage: the seconds that it took in its last run}.

    Raises:
      ValueError: the folder holds a stage of other settings.
      SystemExit: a stage failed.
    """
    try:
        tf.io.gfile.makedirs(model_dir)
    except tf.errors.OpError as error:
        raise ValueError(f"{model_dir}: {error.message}") from error
    finished = _finished(model_dir)
    if difference := changed(planned, model_dir):
        raise ValueError(
            f"{model_dir}: {difference}\nTake another folder, or delete it to begin again"
        )
    for number, stage in list(enumerate(planned, start=1))[part]:
        title = f"[{number}/{len(planned)}] {stage.name}"
        if stage.name in finished:
            print(f"{title}: done, in {duration(finished[stage.name]['seconds'])}", flush=True)
            continue
        print(f"\n{title}\n  {stage.command()}", flush=True)
        start = time.monotonic()
        code, stopped_by = _run_stage(stage)
        if code in stage.passes:
            seconds = round(time.monotonic() - start, 1)
            finished[stage.name] = {"command": stage.command(), "seconds": seconds}
            _note(finished, model_dir)
        if stopped_by is not None:
            print("stopped; the same command goes on from there", file=sys.stderr)
            raise SystemExit(128 + stopped_by)  # as shells do
        if code not in stage.passes:
            print(
                f"error: stage '{stage.name}' ended with exit code {code}; what is done before it "
                "stays, and the same command tries it again",
                file=sys.stderr,
            )
            raise SystemExit(code if code > 0 else 128 - code)
    return {name: entry["seconds"] for name, entry in finished.items()}


def changed(planned: Sequence[Stage], model_dir: str) -> str:
    """Say which finished stage these settings would not have made; "" if there is none."""
    commands = {stage.name: stage.command() for stage in planned}
    for name, entry in _finished(model_dir).items():
        now = commands.get(name, "")
        if _with_effect(entry["command"]) != _with_effect(now):
            now = now or "not a stage of this schedule"
            return f"stage '{name}' was\n  {entry['command']}\nand would now be\n  {now}"
    return ""


def _with_effect(command: str) -> list[str]:
    return [word for word in shlex.split(command) if not word.startswith(_WITHOUT_EFFECT)]


def _finished(model_dir: str) -> dict[str, Finished]:
    """Read what is noted.

    Raises:
      ValueError: the note is damaged.
    """
    path = os.path.join(model_dir, FINISHED)
    if not tf.io.gfile.exists(path):
        return {}
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete it to begin again") from error


def _note(finished: dict[str, Finished], model_dir: str) -> None:
    whole_file.write(os.path.join(model_dir, FINISHED), json.dumps(finished, indent=2) + "\n")


def _run_stage(stage: Stage) -> tuple[int, int | None]:
    """Run a stage, which gets the signals that this process gets.

    It saves what it has and ends by itself. The terminal sends Ctrl-C to both.

    Returns:
      Its exit code, and the signal that came meanwhile, also if the stage was done before: the
      next one must not begin.
    """
    environment = os.environ | {command_line.STAGE: "1"}
    process = subprocess.Popen([sys.executable, *stage.arguments], env=environment)
    came: list[int] = []

    def terminate(number: int, _: object) -> None:
        came.append(number)
        process.terminate()

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, _: came.append(number)),
    }
    try:
        return process.wait(), came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
