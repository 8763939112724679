r"""Kills runs at random moments, again and again, and compares what they end with to one in peace.

    python benchmarks/kills.py --kills=100 --seed=0

A run of a tiny network is started by `mrcnn_tf.train`, killed by SIGKILL, started again by the same
command, and so on until it is finished; then the next run, until there were so many kills. When a
life ends is drawn anew for each: while it starts, between two loops of steps, while a checkpoint,
or the best one, is written, or from the end of a loop through the evaluation behind it.

Each finished run is held against one that nobody killed:

* every variable of its last and of its best checkpoint, bit for bit;
* every line of metrics.jsonl, and of train.jsonl all but rates and times: the same rows, once;
* what TensorBoard shows of training and of evaluations;
* the names of all files: nothing half-written is left.

Runs compute with one thread, so that operations add up in one order.
Prints a JSON line, and exits with 1 if anything differs.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tiny_run  # noqa: E402
from absl import app  # noqa: E402

# Imported once: each life is a fork that has run no operation yet.
from mrcnn_tf import train  # noqa: E402

STEPS, LOOP, CHECKPOINT, EVALUATION = 60, 2, 4, 12  # of a run, and how often something happens
MOMENTS = ("starting", "training", "checkpoint", "evaluation", "best")
# A life that has a moment to come and does not get there is stuck.
LONGEST_LIFE = 3600
# What two processes differ in, whatever they compute.
OF_THE_PROCESS = ("images_per_second", "input_wait", "first_loop")


class Life:
    """One process of a run.

    Args:
      flags: of `mrcnn_tf.train`.
    """

    def __init__(self, flags: list[str]):
        self.started = time.monotonic()
        self.lines: list[tuple[float, str]] = []  # seconds since the start, what was printed
        self._rest = b""
        self._out, there = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(there, 1)
            os.dup2(there, 2)
            _train(flags)
        os.close(there)
        self.code: int | None = None

    def read(self, seconds: float) -> bool:
        """Wait so long for output and take it down; whether the process still runs."""
        if not select.select([self._out], [], [], seconds)[0]:
            return True
        received = os.read(self._out, 65536)
        *lines, self._rest = (self._rest + received).split(b"\n")
        now = time.monotonic() - self.started
        self.lines += [(now, line.decode("utf-8", "replace")) for line in lines]
        if not received:
            self._end()
        return bool(received)

    def kill(self) -> None:
        """End the process as a power cut would; what it has printed is read."""
        os.kill(self.pid, signal.SIGKILL)
        while self.read(LONGEST_LIFE):
            pass

    def steps(self) -> list[tuple[float, int]]:
        """When which step was reported."""
        words = [(when, line.split()) for when, line in self.lines if line.startswith("step ")]
        return [(when, int(line[1].split("/")[0].replace(",", ""))) for when, line in words]

    def _end(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        os.close(self._out)


def _train(flags: list[str]) -> None:
    """Run the command in this process, and leave it."""
    code: Any = 1
    try:
        train.define_flags()
        app.run(train.main, argv=["train", *flags])
    except SystemExit as stop:
        code = stop.code or 0
        if isinstance(code, str):
            print(code)
            code = 1
    finally:
        sys.stdout.flush()
        os._exit(code)


class Killer:
    """Draws when lives end.

    Args:
      rng: the only source of randomness.
    """

    def __init__(self, rng: random.Random):
        self._rng = rng
        # Seconds that these take; what is seen of them corrects the guess.
        self._start, self._loop, self._evaluation = 10.0, 0.5, 2.0
        self.kills: collections.Counter[str] = collections.Counter()

    def learn(self, life: Life) -> None:
        """Take from a life how long its parts were."""
        steps = life.steps()
        if steps:
            self._start = steps[0][0]
        for (before, _), (when, step) in zip(steps, steps[1:], strict=False):
            if (step - LOOP) % EVALUATION == 0:
                self._evaluation = when - before
            else:
                self._loop = when - before

    def let_live(self, flags: list[str], folder: pathlib.Path) -> Life:
        """Start a life, and kill it at some moment unless it ends before."""
        moment = self._rng.choice(MOMENTS)
        count = self._rng.randint(1, 3)
        come, longest = {
            "starting": (lambda life: True, self._start),
            "training": (lambda life: len(life.steps()) >= count, self._loop),
            "checkpoint": (_times(folder, "ckpt-*_temp", count), 0.05),
            "evaluation": (_at_evaluation, self._evaluation),
            "best": (_times(folder / "best", "best_ckpt-*_temp", 1), 0.05),
        }[moment]
        delay = self._rng.uniform(0, longest)
        life = Life(flags)
        begun: float | None = None
        while life.read(0.001):
            now = time.monotonic()
            if begun is None and come(life):
                begun = now
            if begun is not None and now - begun >= delay:
                life.kill()
                self.kills[moment] += life.code == -signal.SIGKILL
                break
            if now - life.started > LONGEST_LIFE:
                life.kill()
                raise RuntimeError(f"stuck after {life.lines[-5:]}")
        self.learn(life)
        return life


def _times(folder: pathlib.Path, pattern: str, count: int) -> Callable[[Life], bool]:
    """Whether files of a pattern have come up so many times, each under its own name."""
    before = {path.name for path in folder.glob(pattern)}
    seen: set[str] = set()

    def come(_: Life) -> bool:
        seen.update(path.name for path in folder.glob(pattern))
        return len(seen - before) >= count

    return come


def _at_evaluation(life: Life) -> bool:
    return any(step % EVALUATION == 0 for _, step in life.steps())


def differences(peaceful: pathlib.Path, killed: pathlib.Path) -> list[str]:
    """What two folders of runs differ in that should be the same."""
    wrong = []
    for checkpoint in (f"ckpt-{STEPS}", _best(peaceful)):
        wrong += _other_variables(peaceful / checkpoint, killed / checkpoint)
    for name in ("metrics.jsonl", "train.jsonl"):
        rows = [_rows(folder / name) for folder in (peaceful, killed)]
        if rows[0] != rows[1]:
            wrong.append(f"{name}: {rows[0]} and {rows[1]}")
    for name in ("train", "validation"):
        curves = [_curves(folder / name) for folder in (peaceful, killed)]
        if curves[0] != curves[1]:
            steps = [{tag: [s for s, _ in c] for tag, c in one.items()} for one in curves]
            wrong.append(f"TensorBoard of {name}: {steps[0]} and {steps[1]}")
    for name in ("params.yaml", "label_map.json", "best/info.json"):
        if (peaceful / name).read_bytes() != (killed / name).read_bytes():
            wrong.append(f"{name} is another")
    files = [_files(folder) for folder in (peaceful, killed)]
    wrong += [f"{name} is in one of the two only" for name in sorted(files[0] ^ files[1])]
    return wrong


def _best(folder: pathlib.Path) -> str:
    info = json.loads((folder / "best" / "info.json").read_text())
    return f"best/best_ckpt-{info['best_ckpt_global_step']:.0f}"


def _other_variables(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    import tensorflow as tf

    if not pathlib.Path(f"{other}.index").exists():
        return [f"{other} is not there"]
    a, b = (tf.compat.v1.train.NewCheckpointReader(str(path)) for path in (one, other))
    names = [name for name in a.get_variable_to_shape_map() if "/.ATTRIBUTES/VARIABLE" in name]
    return [
        f"{name} of {other}"
        for name in names
        if not name.startswith("save_counter")  # how often this process has saved
        and a.get_tensor(name).tobytes() != b.get_tensor(name).tobytes()
    ]


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in OF_THE_PROCESS} for row in rows]


def _curves(folder: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
    import tensorflow as tf
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(
        str(folder), size_guidance={event_accumulator.TENSORS: 0}
    )
    events.Reload()
    tags = events.summary_metadata
    return {
        tag: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
        for tag in tags
        if tags[tag].plugin_data.plugin_name == "scalars" and tag not in OF_THE_PROCESS
    }


def _files(folder: pathlib.Path) -> set[str]:
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {name for name in names if "events.out" not in name}


def _in_a_fork(work: Callable[[], list[str]]) -> list[str]:
    """Have a process of its own do what needs TensorFlow, of which this one runs nothing."""
    out, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with os.fdopen(there, "w") as file:
                json.dump(work(), file)
            code = 0
        finally:
            os._exit(code)
    os.close(there)
    with os.fdopen(out) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else ["could not be compared"]


def measure(args: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """Kill, and compare; what is printed."""
    tiny_run.make(folder, num_train=6, num_val=4)
    trainer = {
        "train_steps": STEPS,
        "steps_per_loop": LOOP,
        "summary_interval": LOOP,
        "checkpoint_interval": CHECKPOINT,
        "validation_interval": EVALUATION,
    }
    override = json.dumps(tiny_run.fields(folder, trainer))
    flags = [f"--experiment={tiny_run.EXPERIMENT}", f"--params_override={override}"]
    flags += ["--threads=1"]
    killer = Killer(random.Random(args.seed))
    start = time.monotonic()
    peaceful = Life([*flags, f"--model_dir={folder}/peaceful"])
    while peaceful.read(1.0):
        pass
    if peaceful.code != 0:
        raise RuntimeError("\n".join(line for _, line in peaceful.lines))
    killer.learn(peaceful)
    wrong: list[str] = []
    lives: list[int] = []
    while killer.kills.total() < args.kills:
        run = folder / f"killed-{len(lives)}"
        lives.append(0)
        code: int | None = -signal.SIGKILL
        while code == -signal.SIGKILL:
            life = killer.let_live([*flags, f"--model_dir={run}"], run)
            lives[-1] += 1
            code = life.code
        if code != 0:
            wrong.append(f"{run}: exit code {code}: {[line for _, line in life.lines[-5:]]}")
            break
        wrong += _in_a_fork(lambda run=run: differences(folder / "peaceful", run))
        print(f"{killer.kills.total()} kills, {len(lives)} runs, {len(wrong)} differences", end=" ")
        print(dict(killer.kills), flush=True)
    return {
        "measured": "kills",
        "args": {"kills": args.kills, "seed": args.seed},
        "kills": killer.kills.total(),
        "killed_while": dict(killer.kills),
        "lives_of_runs": lives,
        "seconds": round(time.monotonic() - start),
        "differences": wrong,
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="at least so many")
    parser.add_argument("--seed", type=int, default=0, help="of when who is killed")
    parser.add_argument("--folder", type=pathlib.Path, help="new one; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        line = measure(args, args.folder or pathlib.Path(temporary))
    print(json.dumps(line))
    raise SystemExit(1 if line["differences"] else 0)


if __name__ == "__main__":
    main()
