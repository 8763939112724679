r"""Kills runs at random moments, again and again, and compares what they end with to one in peace.

    python benchmarks/kills.py --kills=100 --seed=0
    TF_ENABLE_ONEDNN_OPTS=0 python benchmarks/kills.py --kills=30 --workers=2

A run of a tiny Mask R-CNN is started by `mrcnn_tf.train`, killed by SIGKILL, started again by the
same command, and so on until it is finished; then the next run, until there were so many kills.
When a life ends is drawn anew for each: while it starts, between two loops of steps, while a
checkpoint, or the best one, is written, or from the end of a loop through the evaluation behind it.

Each finished run is held against one that nobody killed:

* every variable of its last and of its best checkpoint, bit for bit;
* every line of metrics.jsonl, and of train.jsonl all but rates and times: the same rows, once;
* what TensorBoard shows of training and of evaluations;
* the names of all files: nothing half-written is left.

With several workers one of them is killed, or all at once; the others have to end by themselves,
and each is started again after a pause of up to five seconds, whatever the others are doing then.
They train an RPN: traced in a third of the time, it stops and goes on like everything else.

Each process computes with one thread, so that operations add up in one order; where gradients come
from another process, that takes `--deterministic`, and TensorFlow without oneDNN.
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
import traceback
from collections.abc import Callable, Sequence
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tiny_run  # noqa: E402
from absl import app  # noqa: E402
from worker_processes import free_ports  # noqa: E402

# Imported once: each life is a fork that has run no operation yet.
from mrcnn_tf import train  # noqa: E402
from mrcnn_tf.training import stopping  # noqa: E402

STEPS, LOOP, CHECKPOINT, EVALUATION = 60, 2, 4, 12  # of a run, and how often something happens
MOMENTS = ("starting", "training", "checkpoint", "evaluation", "best")
# A life that has a moment to come and does not get there is stuck.
LONGEST_LIFE = 3600
MOST_LIVES = 500  # of the processes of one run
LONGEST_PAUSE = 5.0  # of a supervisor
# What two processes differ in, whatever they compute.
OF_THE_PROCESS = ("images_per_second", "input_wait", "first_loop")


class Life:
    """One process of a run, from its start to its end.

    Args:
      flags: of `mrcnn_tf.train`.
      folder: its temporary one.
      hosts: of all processes of the run; of a single one none.
      index: which of them this is.
    """

    def __init__(self, flags: list[str], folder: pathlib.Path, hosts: list[str], index: int):
        self.started, self.ended = time.monotonic(), 0.0
        self.lines: list[tuple[float, str]] = []  # seconds since the start, what was printed
        self.code: int | None = None
        self._label = f"worker {index}: "
        self._rest = b""
        self.out, there = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(there, 1)
            os.dup2(there, 2)
            tempfile.tempdir = str(folder)
            if hosts:
                task = {"type": "worker", "index": index}
                os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": hosts}, "task": task})
            _train(flags)
        os.close(there)

    def read(self) -> None:
        """Wait for output and take it down, or that there will be no more."""
        received = os.read(self.out, 65536)
        *lines, self._rest = (self._rest + received).split(b"\n")
        now = time.monotonic()
        texts = (line.decode("utf-8", "replace").removeprefix(self._label) for line in lines)
        self.lines += [(now - self.started, text) for text in texts]
        if not received:
            _, status = os.waitpid(self.pid, 0)
            self.code, self.ended = os.waitstatus_to_exitcode(status), now
            os.close(self.out)

    def steps(self) -> list[tuple[float, int]]:
        """When which step was reported."""
        words = [(when, line.split()) for when, line in self.lines if line.startswith("step ")]
        return [(when, int(line[1].split("/")[0].replace(",", ""))) for when, line in words]


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
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    finally:
        sys.stdout.flush()
        os._exit(code)


class Run:
    """The processes of a run, and what starts them again and again.

    With several, each machine has a supervisor that knows of no other, as the loop over ssh of
    docs/many-machines.md: what has ended with anything but 0, 1 and 130 is started again after a
    pause. So who was killed while the others left with 0 comes back alone.

    Args:
      flags: of `mrcnn_tf.train`.
      workers: number of processes.
      folder: temporary one of all of them.
      rng: draws the pauses.

    Attributes:
      lives: the newest of each process.
      codes: how often a life has ended with which exit code.
      tracebacks: of lives that have printed any, the last lines.
    """

    def __init__(self, flags: list[str], workers: int, folder: pathlib.Path, rng: random.Random):
        self._flags, self._folder, self._rng = flags, folder, rng
        self._hosts = [f"127.0.0.1:{port}" for port in free_ports(workers)] if workers > 1 else []
        self.lives = [self._life(k) for k in range(workers)]
        self._pauses = [0.0] * workers
        self.codes: collections.Counter[int] = collections.Counter()
        self.tracebacks: list[str] = []

    @property
    def failed(self) -> bool:
        """Whether a process has ended with a code after which nobody starts it again."""
        return any(life.code in (1, 130) for life in self.lives)

    @property
    def finished(self) -> bool:
        """Whether all have ended well."""
        return all(life.code == 0 for life in self.lives)

    def read(self, seconds: float) -> None:
        """Wait so long for output and take it down; start whose time has come."""
        alive = {life.out: life for life in self.lives if life.code is None}
        for out in select.select(list(alive), [], [], seconds)[0]:
            life = alive[out]
            life.read()
            if life.code is not None:
                self._note_end(life)
        if self.finished or self.failed:
            return
        for k, life in enumerate(self.lives):
            due = life.code is not None and time.monotonic() - life.ended >= self._pauses[k]
            if due and life.code:
                self.lives[k] = self._life(k)

    def kill(self, victims: Sequence[int]) -> list[int]:
        """End some processes as a power cut would; return which of them still ran."""
        for k in victims:
            if self.lives[k].code is None:
                os.kill(self.lives[k].pid, signal.SIGKILL)
        for k in victims:
            while self.lives[k].code is None:
                self.lives[k].read()
                if self.lives[k].code is not None:
                    self._note_end(self.lives[k])
        return [k for k in victims if self.lives[k].code == -signal.SIGKILL]

    def last_lines(self) -> list[list[str]]:
        """The last that each has printed."""
        return [[line for _, line in life.lines[-5:]] for life in self.lives]

    def _life(self, index: int) -> Life:
        return Life(self._flags, self._folder, self._hosts, index)

    def _note_end(self, life: Life) -> None:
        assert life.code is not None
        self.codes[life.code] += 1
        # One alone comes back at once, so that no time is lost.
        pause = self._rng.uniform(0, LONGEST_PAUSE) if self._hosts else 0.0
        self._pauses[self.lives.index(life)] = pause
        texts = [line for _, line in life.lines]
        if any("Traceback" in text for text in texts):
            self.tracebacks.append("\n".join(texts[-40:]))


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
        self.victims: collections.Counter[str] = collections.Counter()
        self.half_written = 0
        self.others_ended_after = 0.0

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

    def let_live(self, run: Run, folder: pathlib.Path) -> None:
        """Let a run go on until it ends, or kill some of it at some moment and see the others end.

        Args:
          run: all its processes run.
          folder: of the run.
        """
        moment = self._rng.choice(MOMENTS)
        count = self._rng.randint(1, 3)
        everybody = range(len(run.lives))
        victims = self._rng.choice([[k] for k in everybody] + [list(everybody)])
        come, longest = {
            "starting": (lambda life: True, self._start),
            "training": (lambda life: len(life.steps()) >= count, self._loop),
            "checkpoint": (_times(folder, "ckpt-*_temp", count), 0.05),
            "evaluation": (_at_evaluation, self._evaluation),
            "best": (_times(folder / "best", "best_ckpt-*_temp", 1), 0.05),
        }[moment]
        delay = self._rng.uniform(0, longest)
        begun: float | None = None
        while not (run.finished or run.failed):
            run.read(0.001)
            now = time.monotonic()
            if begun is None and come(run.lives[0]):
                begun = now
            if begun is not None and now - begun >= delay:
                break
            if now - run.lives[0].started > LONGEST_LIFE or run.codes.total() > MOST_LIVES:
                raise RuntimeError(f"stuck after {run.last_lines()}")
        lives = list(run.lives)
        if dead := run.kill(victims):
            killed = time.monotonic()
            self.kills[moment] += 1
            self.victims[" and ".join(map(str, dead))] += 1
            self.half_written += any(folder.rglob("*_temp")) or any(folder.rglob("*.partial"))
            # Who was killed comes back meanwhile, or not yet; who has left with 0 does not.
            while any(life in run.lives and life.code != 0 and not run.failed for life in lives):
                run.read(0.01)
                if time.monotonic() - killed > LONGEST_LIFE:
                    raise RuntimeError(f"stuck after a kill: {run.last_lines()}")
            left = [life.ended - killed for k, life in enumerate(lives) if k not in dead]
            self.others_ended_after = max([self.others_ended_after, *left])
        self.learn(lives[0])


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
    fields = tiny_run.fields(folder, trainer)
    if args.workers > 1:
        fields["runtime"] = {"distribution_strategy": "multi_worker_mirrored"}
        fields["task"]["model"] = fields["task"]["model"] | {"system": "rpn"}
        fields["trainer"]["best_checkpoint_eval_metric"] = "ar_1000"
    flags = [f"--experiment={tiny_run.EXPERIMENT}", f"--params_override={json.dumps(fields)}"]
    flags += ["--threads=1", *(["--deterministic"] if args.workers > 1 else [])]
    rng = random.Random(args.seed)
    killer = Killer(rng)
    temporary = folder / "temporary"
    temporary.mkdir()

    def start(name: str) -> Run:
        return Run([*flags, f"--model_dir={folder / name}"], args.workers, temporary, rng)

    begun = time.monotonic()
    run = start("peaceful")
    while not (run.finished or run.failed):
        run.read(1.0)
    if run.failed or run.codes.total() != args.workers:
        raise RuntimeError(f"without any kill: {run.last_lines()}")
    killer.learn(run.lives[0])
    wrong: list[str] = []
    codes: collections.Counter[int] = collections.Counter()
    runs = 0
    while killer.kills.total() < args.kills:
        name = f"killed-{runs}"
        runs += 1
        run = start(name)
        while not (run.finished or run.failed):
            killer.let_live(run, folder / name)
        codes += run.codes
        expected = {0, -signal.SIGKILL, *([stopping.RESTART] if args.workers > 1 else [])}
        wrong += [f"{name}: exit code {code}" for code in sorted({*run.codes} - expected)]
        wrong += [f"{name}: {text}" for text in run.tracebacks]
        if run.failed:
            wrong.append(f"{name}: {run.last_lines()}")
            break
        wrong += _in_a_fork(lambda name=name: differences(folder / "peaceful", folder / name))
        print(f"{killer.kills.total()} kills, {runs} runs, {len(wrong)} differences", end=" ")
        print(dict(killer.kills), flush=True)
    run.kill(range(args.workers))
    line = {
        "measured": "kills",
        "args": {"kills": args.kills, "workers": args.workers, "seed": args.seed},
        "kills": killer.kills.total(),
        "killed_while": dict(killer.kills),  # what was meant
        "left_half_written": killer.half_written,  # what was hit
        "runs": runs,
        "exit_codes": {str(code): number for code, number in sorted(codes.items())},
        "seconds": round(time.monotonic() - begun),
        "differences": wrong,
    }
    if args.workers > 1:
        line["killed_workers"] = dict(killer.victims)
        line["others_ended_after_s"] = round(killer.others_ended_after, 1)
    return line


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="at least so many")
    parser.add_argument("--workers", type=int, default=1, help="processes of a run")
    parser.add_argument("--seed", type=int, default=0, help="of when who is killed")
    parser.add_argument("--folder", type=pathlib.Path, help="new one; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        line = measure(args, args.folder or pathlib.Path(temporary))
    print(json.dumps(line))
    raise SystemExit(1 if line["differences"] else 0)


if __name__ == "__main__":
    main()
