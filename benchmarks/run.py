"""The measurements that have peers or belong to every release (docs/performance.md, docs/edge.md).

Each is a fresh process, contestants in turn (A B A B ...).

    make bench                                          # ours alone
    TORCHVISION_PYTHON=/path/to/python make bench       # and torchvision's, in its own environment
    python benchmarks/run.py --only='training 800' --rounds=3 --log=runs/bench.jsonl

A measurement is a command that prints JSON, one line per measurement; the lines are printed as they
come, and appended to --log. The tables at the end hold, over all processes of a contestant, the
median of their medians, the median of their calm medians (of runs during which others used less
than 5 % of the machine) in brackets where it differs, and the ratios between contestants beside the
project's targets. A command that fails is named at the end, and does not keep others from running.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parent
PEERS = {"torchvision": "TORCHVISION_PYTHON"}  # the environment variable that names its Python


@dataclasses.dataclass
class Ratio:
    """A quotient of two contestants' figures, and what it is to be at most."""

    figure: str
    ours: str
    other: str
    at_most: float


@dataclasses.dataclass
class Group:
    """What is measured in turn.

    Attributes:
      name: what --only looks at.
      commands: by contestant: script and flags; of a peer's if the contestant's name begins so.
      figures: JSON fields that are tabled: paths, dots between.
      ratios: between contestants.
      at_most: by figure, what it is to be at most.
    """

    name: str
    commands: dict[str, list[str]]
    figures: list[str]
    ratios: list[Ratio] = dataclasses.field(default_factory=list)
    at_most: dict[str, float] = dataclasses.field(default_factory=dict)

    def available(self) -> dict[str, list[str]]:
        """Return the commands of those contestants whose Python is there."""
        return {
            contestant: command
            for contestant, command in self.commands.items()
            if _python(contestant)
        }


def _python(contestant: str) -> str | None:
    """The interpreter that a contestant runs in; None if it is a peer's and not given."""
    for peer, variable in PEERS.items():
        if contestant.startswith(peer):
            return os.environ.get(variable)
    return sys.executable


def groups() -> Iterator[Group]:
    """All measurements."""
    for height, width in ((800, 1344), (512, 512)):
        size = [f"--height={height}", f"--width={width}"]
        for batch, rounds in ((1, 5), (2, 3)):
            for freeze_at, frozen in ((0, "nothing frozen"), (2, "stage 2 frozen")):
                yield _compared(
                    f"training {height}x{width}, batch {batch}, {frozen}",
                    "train_step.py",
                    [*size, f"--batch={batch}", f"--freeze_at={freeze_at}", f"--rounds={rounds}"],
                    {"seconds.step": (0.55, 0.32, 0.85)},
                )
        yield _compared(
            f"inference {height}x{width}",
            "inference.py",
            size,
            {
                "seconds.without_masks": (0.62, None, 0.40),
                "seconds.with_masks": (0.62, None, 0.40),
            },
            ["seconds.exported"],
        )
    for script, figure in (("train_step.py", "seconds.step"), ("inference.py", "seconds")):
        flags = [script, "--height=512", "--width=512", "--rounds=3"]
        for dtype in ("float32", "bfloat16"):
            commands = {"ours": [*flags, f"--dtype={dtype}"]}
            commands["ours, XLA"] = [*commands["ours"], "--xla"]
            if script == "inference.py":
                commands["ours"].append("--no_export")
            yield Group(f"XLA, {script[:-3]} 512x512, {dtype}", commands, [figure, "start_up_s"])
    yield Group(
        "evaluation, 500 images",
        {"ours": ["evaluation.py", "--images=500"]},
        ["seconds", "peak_mib"],
        at_most={"seconds.whole": 5.0},
    )
    yield Group(
        "evaluation, 5,000 images",
        {"ours": ["evaluation.py", "--images=5000"]},
        ["seconds", "peak_mib"],
    )
    yield Group(
        "ground truth of 5,000 images",
        {"ours": ["ground_truth.py", "--images=5000"]},
        ["annotation_file", "records"],
    )
    yield Group(
        "predict",
        {"ours": ["predict.py"]},
        ["seconds", "ratio"],
        at_most={"ratio.nodraw": 1.15, "ratio.draw": 1.15},
    )
    start_up = {"first_picture_s": 2.5, "beyond_import_s": 5.0, "beyond_steady_s": 10.0}
    yield Group("start-up", {"ours": ["start_up.py"]}, list(start_up), at_most=start_up)
    yield Group("input pipeline", {"ours": ["input_pipeline.py"]}, ["images_per_s"])
    yield Group(
        "converter",
        {"ours": ["coco_size.py", "--images=10000"]},
        ["seconds.whole", "seconds.first_record", "ms_per_image", "peak_mib.together"],
    )
    yield Group("film", {"ours": ["film.py"]}, ["frames_per_s", "ratio"])
    for experiment in ("maskrcnn_lite0_fpn", "maskrcnn_r50_fpn"):
        for side in (320, 640):
            flags = ["edge.py", f"--experiment={experiment}", f"--input_size={side},{side}"]
            files = ("saved_model", "litert", "litert_float16", "litert_dynamic", "onnx")
            yield Group(
                f"LiteRT and ONNX files, {experiment} {side}x{side}",
                {name: [*flags, f"--files={name}"] for name in files},
                ["mb", "ms", "peak_mib"],
            )


def _compared(
    name: str,
    script: str,
    flags: list[str],
    targets: dict[str, tuple[float, float | None, float]],
    more: list[str] | None = None,
) -> Group:
    """Ours and torchvision's, in both dtypes.

    Args:
      name: of the group.
      script: ours; torchvision's has a name made of it.
      flags: of both.
      targets: by figure: our float32 over torchvision's, our bfloat16 over that, our bfloat16 over
        torchvision's.
      more: figures that only ours has.
    """
    half, peer = "--dtype=bfloat16", f"peers/torchvision_{script}"
    float32, bfloat16 = "torchvision float32", "torchvision bfloat16"
    ratios = []
    for figure, (of_float32, of_both, of_bfloat16) in targets.items():
        ratios.append(Ratio(figure, "ours float32", float32, of_float32))
        if of_both:
            ratios.append(Ratio(figure, "ours bfloat16", float32, of_both))
        ratios.append(Ratio(figure, "ours bfloat16", bfloat16, of_bfloat16))
    commands = {
        float32: [peer, *flags],
        bfloat16: [peer, *flags, half, "--channels_last"],
        "ours float32": [script, *flags],
        "ours bfloat16": [script, *flags, half],
    }
    return Group(name, commands, [*targets, *(more or [])], ratios)


def run(command: list[str], contestant: str = "ours") -> list[dict[str, Any]]:
    """Run a script of this folder; return the JSON lines that it printed.

    Args:
      command: script and flags.
      contestant: says in which environment.

    Raises:
      RuntimeError: it failed, or printed none; says what it wrote.
    """
    script, *flags = command
    python = _python(contestant)
    assert python is not None
    done = subprocess.run([python, FOLDER / script, *flags], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError("\n".join((done.stdout + done.stderr).strip().splitlines()[-5:]))
    return [json.loads(line) for line in lines]


def record(line: dict[str, Any], log: pathlib.Path | None) -> None:
    """Print a line, and append it to the log."""
    text = json.dumps(line)
    print(text, flush=True)
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def figures_of(line: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the figures under a path: {path: number or summary}; of a group of them, all."""
    found: Any = line
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, dict) and "median" not in found:
        deeper = [figures_of(line, f"{path}.{name}") for name in found]
        return {name: value for figures in deeper for name, value in figures.items()}
    return {} if found is None or isinstance(found, str | list) else {path: found}


def combined(lines: list[dict[str, Any]], path: str) -> tuple[float | None, float | None]:
    """Median over processes of a figure's median, and of its calm median."""
    found = [figures_of(line, path).get(path) for line in lines]
    medians = [f["median"] if isinstance(f, dict) else f for f in found if f is not None]
    calm = [f["calm"] for f in found if isinstance(f, dict) and f.get("calm") is not None]
    return (
        statistics.median(medians) if medians else None,
        statistics.median(calm) if calm else None,
    )


def table(group: Group, lines: dict[str, list[dict[str, Any]]]) -> str:
    """Draw a group's figures and ratios."""
    text = [f"\n{group.name}", "| | " + " | ".join(lines) + " |", "|---" * (len(lines) + 1) + "|"]
    paths = dict.fromkeys(
        path
        for figure in group.figures
        for of_contestant in lines.values()
        for line in of_contestant
        for path in figures_of(line, figure)
    )
    for path in paths:
        cells = []
        for of_contestant in lines.values():
            median, calm = combined(of_contestant, path)
            cell = "" if median is None else f"{median:g}"
            cells.append(cell + (f" ({calm:g})" if calm not in (None, median) else ""))
        limit = f" (target: at most {group.at_most[path]:g})" if path in group.at_most else ""
        text.append(f"| {path}{limit} | " + " | ".join(cells) + " |")
    for ratio in group.ratios:
        if ratio.ours in lines and ratio.other in lines:
            ours, other = (combined(lines[n], ratio.figure) for n in (ratio.ours, ratio.other))
            if ours[0] and other[0]:
                calm = f", calm {ours[1] / other[1]:.3f}" if ours[1] and other[1] else ""
                text.append(
                    f"  {ratio.figure}: {ratio.ours} / {ratio.other} = {ours[0] / other[0]:.3f}"
                    f"{calm} (target: at most {ratio.at_most})"
                )
    return "\n".join(text)


def main() -> None:
    """Run everything that is wanted, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="regular expression on the names of groups")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each contestant")
    parser.add_argument("--log", type=pathlib.Path, help="JSON lines are appended to this file")
    parser.add_argument("--list", action="store_true", help="show the commands and do nothing")
    args = parser.parse_args()
    chosen = [group for group in groups() if re.search(args.only, group.name)]
    if not chosen:
        names = "\n  ".join(group.name for group in groups())
        sys.exit(f"error: --only={args.only!r} fits none of\n  {names}")
    if args.list:
        for group in chosen:
            print(group.name, *(" ".join(c) for c in group.available().values()), sep="\n  ")
        return
    tables, failed, start = [], [], time.monotonic()
    for group in chosen:
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(args.rounds):
            for contestant, command in group.available().items():
                try:
                    lines = run(command, contestant)
                except RuntimeError as error:
                    failed.append(f"{group.name}, {contestant}: {' '.join(command)}\n{error}")
                    continue
                for line in lines:
                    record(line | {"group": group.name, "contestant": contestant}, args.log)
                found.setdefault(contestant, []).extend(lines)
        if found:
            tables.append(table(group, found))
    print("\n".join(tables))
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes")
    if failed:
        sys.exit("\nfailed:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
