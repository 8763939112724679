"""Sends damaged and hostile input through the real doors, in processes with bounds; prints JSON.

    nice -n 19 python -m tests.fuzz.run --count=10000

Input number k of a seed is always the same: `--kind=weights --seed=0 --only=17` gives one again,
and what fails is kept in `--keep`. A worker that dies, hangs or takes more memory than the bound is
a failure of the input that it had, and another goes on behind it.
"""

import argparse
import json
import os
import pathlib
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import Any

KINDS = ("annotations", "pictures", "records", "weights", "requests")
KINDS += ("keypoints", "keypoint_records")  # annotations and records with keypoints
# A worker's bounds. TensorFlow alone maps about 3 GB of addresses and holds 0.5 GB.
ADDRESSES = 12 * 2**30
# Bytes of memory beyond what a worker has before its first input. The largest picture that is taken
# has 179 million pixels, of which there may be four bytes each, and three beside them.
MOST_GROWTH = {"pictures": 2_500_000_000}
MOST_GROWTH_ELSE = 500_000_000
MOST_SECONDS = 60.0  # for one input
# Then comes a new one: TensorFlow keeps some 60 kB of each pipeline that was ever traced.
INPUTS_OF_A_WORKER = 2500

ROOT = pathlib.Path(__file__).resolve().parents[2]


def work(kind: str, seed: int, numbers: range) -> None:
    """Be a worker: one line of JSON for each input, and one before the first."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print does not get among the lines
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from tests.fuzz import doors, inputs

    with tempfile.TemporaryDirectory() as folder:
        door = doors.open_door(kind, pathlib.Path(folder))
        door(inputs.MAKERS[kind](inputs.generator(kind, -1, 0)))
        print(json.dumps({"bytes": peak()}), file=out)
        for number in numbers:
            given = inputs.MAKERS[kind](inputs.generator(kind, seed, number))
            try:
                result: dict[str, Any] = {"result": door(given)}
            except BaseException as error:
                place = traceback.format_exception(error)[-3:]
                result = {"result": "failed", "why": "".join(place)[-1500:]}
            print(json.dumps({"number": number, "bytes": peak(), **result}), file=out)


def peak() -> int:
    """The largest part of memory that this program ever had, bytes.

    Not `ru_maxrss`, which begins at what the process that started this one had.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def run(kind: str, seed: int, count: int, first: int = 0) -> dict[str, Any]:
    """Send inputs through a door; return how many were taken and refused, and what failed."""
    start = time.monotonic()
    results = {"taken": 0, "refused": 0}
    failures: list[dict[str, Any]] = []
    number, growth = first, 0
    while number < first + count:
        stop = min(number + INPUTS_OF_A_WORKER, first + count)
        number, base, grown = _one_worker(kind, seed, number, stop, results, failures)
        growth = max(growth, grown - base)
        if len(failures) > 100:
            break
    return {
        "kind": kind,
        "seed": seed,
        "count": number - first,
        **results,
        "failed": failures,
        "growth_mb": round(growth / 1e6),
        "seconds": round(time.monotonic() - start, 1),
    }


def _one_worker(
    kind: str,
    seed: int,
    first: int,
    stop: int,
    results: dict[str, int],
    failures: list[dict[str, Any]],
) -> tuple[int, int, int]:
    """Run a worker until it ends; return the next number, and its memory before and at its peak."""
    command = [sys.executable, "-m", "tests.fuzz.run", f"--worker={kind},{seed},{first},{stop}"]
    with tempfile.TemporaryFile("w+") as errors:
        worker = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_pass_on, args=(worker.stdout, lines), daemon=True).start()
        number, base, most, why = first, 0, 0, ""
        while number < stop:
            try:
                text = lines.get(timeout=MOST_SECONDS if base else 300)
            except queue.Empty:
                why = f"nothing for {MOST_SECONDS:.0f} s"
                break
            if not text:
                errors.seek(0)
                why = f"the worker ended with {worker.wait()}: {errors.read()[-1500:]}"
                break
            line = json.loads(text)
            if not base:
                base = most = line["bytes"]
                continue
            result = line.pop("result")
            if line["bytes"] - base > MOST_GROWTH.get(kind, MOST_GROWTH_ELSE):
                result, line["why"] = "failed", f"{line['bytes'] - base:,} bytes more"
                base = line["bytes"]
            most = max(most, line["bytes"])
            if result == "failed":
                failures.append({"number": number, "why": line["why"]})
            else:
                results[result] += 1
            number += 1
        if why:
            if not base:
                raise RuntimeError(f"no worker for {kind}: {why}")
            failures.append({"number": number, "why": why})
            number += 1
        worker.kill()
        worker.wait()
    return number, base, most


def _pass_on(stream: Any, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number to begin with")
    parser.add_argument("--only", type=int, help="one input, in this process, with its traceback")
    parser.add_argument("--keep", help="folder for what fails")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        kind, *numbers = flags.worker.split(",")
        seed, first, stop = map(int, numbers)
        work(kind, seed, range(first, stop))
        return
    if flags.only is not None:
        _once(flags.kind[0], flags.seed, flags.only)
        return
    num_failed = 0
    for kind in flags.kind:
        report = run(kind, flags.seed, flags.count, flags.first)
        num_failed += len(report["failed"])
        print(json.dumps(report), flush=True)
        if flags.keep:
            _keep(report, pathlib.Path(flags.keep))
    sys.exit(bool(num_failed))


def _once(kind: str, seed: int, number: int) -> None:
    from tests.fuzz import doors, inputs

    with tempfile.TemporaryDirectory() as folder:
        door = doors.open_door(kind, pathlib.Path(folder))
        print(door(inputs.MAKERS[kind](inputs.generator(kind, seed, number))))


def _keep(report: dict[str, Any], folder: pathlib.Path) -> None:
    from tests.fuzz import inputs

    folder.mkdir(parents=True, exist_ok=True)
    for failure in report["failed"]:
        kind, seed, number = report["kind"], report["seed"], failure["number"]
        given = inputs.MAKERS[kind](inputs.generator(kind, seed, number))
        ending, content = given if isinstance(given, tuple) else ("", given)
        (folder / f"{kind}-{seed}-{number}{ending}").write_bytes(content)


if __name__ == "__main__":
    main()
