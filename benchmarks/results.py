"""The runs behind docs/results.md: what each choice does on the shapes, beside none of it.

    python benchmarks/results.py                  # from the repository's root, without a GPU
    python benchmarks/results.py --minutes=60     # stops after an hour, to go on another time
    python benchmarks/results.py --only cascade roi_pool
    python benchmarks/results.py --tables         # of what is finished
    python benchmarks/results.py --tiny           # does every row still run? no numbers to look at
    python benchmarks/results.py --record         # keeps what is finished in results.jsonl, here
    python benchmarks/results.py --recorded       # runs only what is not there
    python benchmarks/results.py --recorded --tables    # the tables of docs/results.md

`result_rows.py` says what is run. Each row is a run of `mrcnn_tf.train` with one thread, which
gives the same bits whatever else the machine does; as many run side by side as there are cores.
First all rows with seed 0, then the evaluations that are timed, alone, then the other seeds.

Stopped or killed, the same command goes on: finished rows are lines of `rows.jsonl` in --runs, and
a run that was begun goes on from its last checkpoint. A row whose fields have changed since is run
anew, in another folder.
"""

import argparse
import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import json
import math
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import result_data
import result_rows
import result_tables

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIMING = "evaluation_time"  # the row of benchmarks/evaluation_time.py
LINES = "rows.jsonl"
RECORDED = pathlib.Path(__file__).with_name("results.jsonl")  # what docs/results.md is made of
PROCESSES = "processes.jsonl"  # in a run's folder: what each process that worked on it took


@dataclasses.dataclass(frozen=True)
class Job:
    """One line of `rows.jsonl` to be made.

    Attributes:
      row: its name.
      seed: of it.
      settings: experiment and fields; a line that was made with others is not this job's.
      command: behind `python`.
      folder: of the run.
      data: its data set; "" if those that it needs have one.
      needs: folders of jobs that have to be done before.
      alone: nothing else may run meanwhile.
    """

    row: str
    seed: int
    settings: dict[str, Any]
    command: tuple[str, ...]
    folder: pathlib.Path
    data: str = ""
    needs: tuple[pathlib.Path, ...] = ()
    alone: bool = False

    @property
    def name(self) -> str:
        """For a reader."""
        return f"{self.row}, seed {self.seed}"

    def is_done(self, lines: Sequence[dict[str, Any]]) -> bool:
        """Whether there is a line of it."""
        return self.line(lines) is not None

    def line(self, lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """The line of it, the newest if there are several."""
        for line in reversed(lines):
            key = (line["row"], line["seed"], line["settings"])
            if key == (self.row, self.seed, self.settings):
                return line
        return None


def plan(runs: pathlib.Path, data: pathlib.Path, tiny: bool) -> list[Job]:
    """All jobs, in the order in which they are to be started.

    Args:
      runs: their folders are made in it.
      data: folder of the data sets.
      tiny: as small as they may be.
    """
    jobs: dict[tuple[str, int], Job] = {}
    for seed in range(1 if tiny else max(row.seeds for row in result_rows.ROWS.values())):
        for row in result_rows.ROWS.values():
            if seed < row.seeds:
                of = jobs.get((row.scores_of, seed))
                jobs[row.name, seed] = _job(row, seed, runs, data, tiny, of)
    timing = _timing([jobs[name, 0] for name in result_rows.TIMED], runs)
    first = [job for job in jobs.values() if not job.seed]
    return [*first, timing, *(job for job in jobs.values() if job.seed)]


def _job(
    row: result_rows.Row,
    seed: int,
    runs: pathlib.Path,
    data: pathlib.Path,
    tiny: bool,
    scored: Job | None,
) -> Job:
    records = data / row.data / "records"
    fields = result_data.paths(records) | result_rows.fields_of(row, seed, tiny)
    settings: dict[str, Any] = {"experiment": row.experiment, "fields": fields}
    if scored:
        settings["checkpoint"] = scored.folder.name
    folder = runs / _folder_name(row.name, seed, settings)
    if scored:
        mode = ("--mode=eval", f"--checkpoint_path={scored.folder}")
    else:
        mode = ("--mode=train_and_eval",)
    command = (
        *("-m", "mrcnn_tf.train", f"--experiment={row.experiment}", *mode, "--threads=1"),
        *(f"--model_dir={folder}", f"--params_override={json.dumps(fields)}"),
    )
    needs = (scored.folder,) if scored else ()
    return Job(row.name, seed, settings, command, folder, row.data, needs)


def _timing(timed: Sequence[Job], runs: pathlib.Path) -> Job:
    """The job that times evaluations in turn."""
    contestants = []
    for job in timed:
        checkpoint = job.needs[0] if job.needs else job.folder
        contestants.append(
            {"name": job.row, "checkpoint": str(checkpoint), "settings": job.settings}
        )
    settings = {"runs": [job.folder.name for job in timed]}
    folder = runs / _folder_name(TIMING, 0, settings)
    command = (
        str(ROOT / "benchmarks/evaluation_time.py"),
        f"--contestants={json.dumps(contestants)}",
    )
    needs = tuple(job.folder for job in timed)
    return Job(TIMING, 0, settings, command, folder, needs=needs, alone=True)


def _folder_name(row: str, seed: int, settings: dict[str, Any]) -> str:
    """A name that other settings do not have."""
    text = json.dumps(settings, sort_keys=True)
    return f"{row}-{seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class BusyError(Exception):
    """Another process works in the folder."""


@dataclasses.dataclass
class Running:
    """A job at work."""

    job: Job
    process: subprocess.Popen
    started: float

    @classmethod
    def start(cls, job: Job) -> "Running":
        """Start it.

        It holds a lock on its folder as long as it lives, even if this process is killed.

        Raises:
          BusyError: another one holds it.
        """
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / "lock").open("w") as lock, (job.folder / "log.txt").open("ab") as log:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError from None
            process = subprocess.Popen(
                [sys.executable, *job.command],
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock.fileno()],
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
            )
        _append(job.folder / PROCESSES, {"started": _now()})
        return cls(job, process, time.monotonic())


class Schedule:
    """Starts jobs as places become free, and takes down what comes of them.

    Args:
      jobs: in order.
      lines: file of finished rows.
      places: so many run side by side.
      until: `time.monotonic()` at which all that runs is told to save itself and end.
    """

    def __init__(self, jobs: Sequence[Job], lines: pathlib.Path, places: int, until: float):
        self._waiting, self._running = list(jobs), dict[int, Running]()
        self._lines, self._places, self._until = lines, places, until
        self._count, self._done, self._signal = len(jobs), 0, 0
        self._began, self._seen = time.monotonic(), 0  # how many ended well since
        self._failed, self._told = dict[pathlib.Path, str](), set[int]()

    def run(self) -> int:
        """Run until nothing can be started; return the exit code."""
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        before = {number: signal.signal(number, self._stop) for number in signals}
        if math.isfinite(self._until):
            signal.setitimer(signal.ITIMER_REAL, max(self._until - time.monotonic(), 0.001))
        try:
            while self._start_what_can_be() or self._running:
                if self._running:
                    self._wait()
                else:  # others work on what is left
                    time.sleep(5)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            for number, handler in before.items():
                signal.signal(number, handler)
        print(f"{self._done} of {self._count} are done", flush=True)
        for text in self._failed.values():
            print(f"failed: {text}", file=sys.stderr)
        if self._done < self._count:
            print("the same command goes on from here", file=sys.stderr)
        if self._signal not in (0, signal.SIGALRM):
            return 128 + self._signal
        return 1 if self._failed else 0

    def _stop(self, number: int, _: object) -> None:
        """Start nothing any more, and have what runs save itself; a terminal tells it Ctrl-C."""
        self._signal = number
        self._tell()

    def _tell(self) -> None:
        """Hand SIGTERM on to those that do not know of it yet; a second would end them at once."""
        if self._signal in (signal.SIGTERM, signal.SIGALRM):
            for pid in {*self._running} - self._told:
                self._told.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def _start_what_can_be(self) -> bool:
        """Fill the free places; whether there may be something to start later on."""
        busy = False
        if self._signal or time.monotonic() >= self._until:
            return False
        lines = read(self._lines)
        done = {job.folder for job in self._waiting if job.is_done(lines)}
        self._waiting = [job for job in self._waiting if job.folder not in done]
        self._done += len(done)
        unfinished = {job.folder for job in self._waiting} | {*self._failed}
        unfinished |= {running.job.folder for running in self._running.values()}
        for job in list(self._waiting):
            if not self._has_place_for(job):
                break
            if unfinished & {*job.needs}:
                continue
            try:
                running = Running.start(job)
            except BusyError:
                busy = True
                continue
            print(f"{_clock()} {job.name}: started, into {job.folder}", flush=True)
            self._waiting.remove(job)
            self._running[running.process.pid] = running
        return busy

    def _has_place_for(self, job: Job) -> bool:
        at_work = [running.job for running in self._running.values()]
        if job.alone or any(other.alone for other in at_work):
            return not at_work
        return len(at_work) < self._places

    def _wait(self) -> None:
        """Wait for one of them to end, and take it down."""
        self._tell()  # one may have been started just when the signal came
        pid, status, usage = os.wait4(-1, 0)
        running = self._running.pop(pid)
        job, code = running.job, os.waitstatus_to_exitcode(status)
        running.process.returncode = code  # so that nobody waits for it again
        taken = {
            "seconds": round(time.monotonic() - running.started, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "exit_code": code,
        }
        _append(job.folder / PROCESSES, taken)
        if code:
            print(f"{_clock()} {job.name}: ended with exit code {code}", flush=True)
            if not self._signal:
                log = (job.folder / "log.txt").read_text("utf-8", "replace")
                self._failed[job.folder] = f"{job.name} ({job.folder / 'log.txt'}): " + " ".join(
                    log.strip().splitlines()[-1:]
                )
            return
        try:
            line = finished_line(job)
        except (OSError, LookupError, ValueError) as error:  # the others shall go on
            self._failed[job.folder] = f"{job.name} ({job.folder}): {error!r}"
            return
        _append(self._lines, line)
        self._done += 1
        self._seen += 1
        each = (time.monotonic() - self._began) / self._seen
        left = self._count - self._done
        print(
            f"{_clock()} {job.name}: {result_tables.in_a_line(line)} ({left} left, about "
            f"{each * left / 60:.0f} min)",
            flush=True,
        )


def finished_line(job: Job) -> dict[str, Any]:
    """Return what is kept of a job that ended well."""
    processes = read(job.folder / PROCESSES)
    ended = [process for process in processes if "exit_code" in process]
    line: dict[str, Any] = {
        "row": job.row,
        "seed": job.seed,
        "finished": _now(),
        "commit": _commit(),
        "cores": len(os.sched_getaffinity(0)),
        "starts": len(processes) - len(ended),
    }
    for name in ("seconds", "cpu_seconds"):  # not known if this process was killed meanwhile
        is_known = len(ended) == line["starts"]
        line[name] = round(sum(process[name] for process in ended), 1) if is_known else None
    if job.row == TIMING:
        texts = (job.folder / "log.txt").read_text("utf-8").splitlines()
        line["times"] = json.loads([text for text in texts if text.startswith("{")][-1])
    else:
        line["scores"] = read(job.folder / "metrics.jsonl")[-1]
        line["steps"] = line["scores"]["step"]
        trained = job.folder / "train.jsonl"
        later = [row for row in read(trained) if not row["first_loop"]]
        if later:
            rates = [row["images_per_second"] for row in later]
            line["images_per_second"] = round(statistics.median(rates), 2)
    return line | {"settings": job.settings}


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read JSON lines; none if there is no file.

    Raises:
      ValueError: names file and line of what is none.
    """
    if not path.exists():
        return []
    rows = []
    for number, text in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}; remove that line") from error
    return rows


def _append(path: pathlib.Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()


def _clock() -> str:
    return datetime.datetime.now().strftime("%H:%M:%S")


def record(jobs: Sequence[Job], lines: Sequence[dict[str, Any]]) -> None:
    """Write `RECORDED`: of each finished job its line, with the scores that the tables show."""
    kept = []
    for job in jobs:
        line = job.line(lines)
        if line and "scores" in line:
            shown = result_tables.metrics(job.row)
            scores = {name: line["scores"][name] for name in shown if name in line["scores"]}
            line = line | {"scores": scores}
        if line:
            kept.append(json.dumps(line) + "\n")
    RECORDED.write_text("".join(kept), "utf-8")


def not_recorded(jobs: Sequence[Job], lines: Sequence[dict[str, Any]]) -> list[Job]:
    """The jobs that have no line, and those whose checkpoints they need."""
    left = [job for job in jobs if not job.is_done(lines)]
    needed = {folder for job in left for folder in job.needs}
    return [job for job in jobs if job in left or job.folder in needed]


def chosen(jobs: Sequence[Job], names: Sequence[str]) -> Iterator[Job]:
    """The jobs of some rows, and those whose checkpoints they need."""
    needed = {folder for job in jobs if job.row in names for folder in job.needs}
    return (job for job in jobs if job.row in names or job.folder in needed)


def main() -> int:
    """Run what is not done yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*result_rows.ROWS, TIMING]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ROW")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--tables", action="store_true", help="run nothing, print the tables")
    parser.add_argument("--tiny", action="store_true", help="see whether everything runs")
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.name}")
    parser.add_argument("--recorded", action="store_true", help="what is there is done")
    parser.add_argument("--runs", type=pathlib.Path, help="default runs/results")
    parser.add_argument("--data", type=pathlib.Path, help="default datasets/results")
    arguments = parser.parse_args()
    ending = "-tiny" if arguments.tiny else ""
    runs = arguments.runs or pathlib.Path(f"runs/results{ending}")
    data = arguments.data or pathlib.Path(f"datasets/results{ending}")
    jobs = plan(runs, data, arguments.tiny)
    recorded = read(RECORDED) if arguments.recorded else []
    code = 0
    if not (arguments.tables or arguments.record):
        jobs_to_run = [*chosen(jobs, arguments.only)]
        if arguments.recorded:
            jobs_to_run = not_recorded(jobs_to_run, recorded)
        runs.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + 60 * arguments.minutes
        for name in sorted({job.data for job in jobs_to_run if job.data}):
            result_data.make(name, data / name, arguments.tiny)
        code = Schedule(jobs_to_run, runs / LINES, len(os.sched_getaffinity(0)), until).run()
    lines = [*recorded, *read(runs / LINES)]
    if arguments.record:
        record(jobs, lines)
    result_tables.show([line for job in jobs if (line := job.line(lines))])
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
