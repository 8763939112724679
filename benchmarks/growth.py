"""How the cost of a training step and of inference grows, one thing at a time (CPU).

python benchmarks/growth.py --plot=docs/growth.png [--log=runs/growth.jsonl]

R50-FPN in float32 on `scene.py`, around one image of 320 x 320 with 20 objects, 1000 proposals and
80 categories; every point is a fresh process of `train_step.py` or `inference.py`. Prints their
JSON lines, and for each task and axis a line with the slopes between neighbours in log-log: 1 is
linear growth, less is what a constant part leaves of it. --plot draws them.
"""

import argparse
import math
import pathlib
from typing import Any

import run
import timing

BASE = {"height": 320, "width": 320, "batch": 1, "objects": 20, "proposals": 1000, "classes": 81}
TASKS = {"train": ("train_step.py", "step"), "inference": ("inference.py", "with_masks")}
# {axis: {its value: the flags that differ}}.
AXES: dict[str, dict[int, dict[str, int]]] = {
    "pixels": {side * side: {"height": side, "width": side} for side in (224, 320, 448, 640, 896)},
    "batch": {n: {"batch": n} for n in (1, 2, 4)},
    "objects": {n: {"objects": n} for n in (5, 20, 100)},
    "proposals": {n: {"proposals": n} for n in (250, 1000, 4000)},
    "categories": {n: {"classes": n + 1} for n in (80, 300, 1200)},
}


def command(task: str, differing: dict[str, int], rounds: int) -> list[str]:
    """The flags of one point."""
    script, _ = TASKS[task]
    flags = BASE | differing
    if task == "inference":
        flags.pop("objects")
    words = [script, *(f"--{name}={value}" for name, value in flags.items()), f"--rounds={rounds}"]
    return words + (["--no_export"] if task == "inference" else [])


def slopes(seconds: dict[int, float]) -> list[float]:
    """Between neighbours, in log-log."""
    points = sorted(seconds.items())
    return [
        round(math.log(after / before) / math.log(right / left), 2)
        for (left, before), (right, after) in zip(points, points[1:], strict=False)
    ]


def draw(growth: dict[str, dict[str, dict[int, float]]], path: pathlib.Path) -> None:
    """Draw a panel per axis, seconds over it in log-log, with a line of slope 1 for comparison.

    Args:
      growth: {axis: {task: {value: seconds}}}.
      path: of the PNG.
    """
    from PIL import Image, ImageDraw, ImageFont

    side, left, top, gap = 360, 90, 60, 60
    font, colors = ImageFont.load_default(22), {"train": "#b03030", "inference": "#2050a0"}
    picture = Image.new("RGB", (left + (side + gap) * len(growth), side + 150), "white")
    pen = ImageDraw.Draw(picture)
    every = [s for tasks in growth.values() for of in tasks.values() for s in of.values()]
    low, high = math.log10(min(every)) - 0.1, math.log10(max(every)) + 0.1

    def y_of(seconds: float) -> float:
        return top + side * (high - math.log10(seconds)) / (high - low)

    ticks = [m * 10.0**e for e in range(-3, 4) for m in (1, 2, 5)]
    ticks = [s for s in ticks if low <= math.log10(s) <= high]
    for panel, (axis, tasks) in enumerate(growth.items()):
        x0 = left + panel * (side + gap)
        values = sorted({value for of in tasks.values() for value in of})
        first, last = math.log10(values[0]), math.log10(values[-1])

        def x_of(value: float, x0=x0, first=first, last=last) -> float:
            return x0 + 20 + (side - 40) * (math.log10(value) - first) / (last - first)

        pen.rectangle([x0, top, x0 + side, top + side], outline="black")
        title = "pixels (side of the image)" if axis == "pixels" else axis
        pen.text((x0 + side / 2, 30), title, "black", font, anchor="mm")
        for s in ticks:
            pen.line([(x0, y_of(s)), (x0 + side, y_of(s))], "#dddddd")
            if panel == 0:
                pen.text((x0 - 10, y_of(s)), f"{s:g} s", "black", font, anchor="rm")
        for value in values:
            text = str(math.isqrt(value) if axis == "pixels" else value)
            pen.text((x_of(value), top + side + 20), text, "black", font, anchor="mm")
        for task, seconds in tasks.items():
            points = [(x_of(v), y_of(s)) for v, s in sorted(seconds.items())]
            start = min(seconds.items())
            # As far along slope 1 as the panel is high.
            reach = min(values[-1] / start[0], 10**high / start[1])
            end = (start[0] * reach, start[1] * reach)
            pen.line([points[0], (x_of(end[0]), y_of(end[1]))], "#999999", 1)
            pen.line(points, colors[task], 3)
            for x, y in points:
                pen.ellipse([x - 5, y - 5, x + 5, y + 5], colors[task])
    for k, (task, color) in enumerate(colors.items()):
        pen.rectangle([left + k * 260, side + 115, left + k * 260 + 14, side + 129], color)
        pen.text((left + k * 260 + 24, side + 110), task, color, font)
    pen.text((left + 520, side + 110), "grey: linear", "#777777", font)
    picture.save(path)


def main() -> None:
    """Run all points and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axis", choices=AXES, action="append", help="some only")
    parser.add_argument("--task", choices=TASKS, action="append", help="one only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=pathlib.Path)
    parser.add_argument("--log", type=pathlib.Path, help="JSON lines are appended to this file")
    args = parser.parse_args()
    known: dict[str, float] = {}  # the point in the middle lies on every axis
    growth: dict[str, dict[str, dict[int, float]]] = {}
    for axis in args.axis or AXES:
        for task in args.task or TASKS:
            if task == "inference" and axis == "objects":
                continue
            of_task = growth.setdefault(axis, {}).setdefault(task, {})
            for value, differing in AXES[axis].items():
                words = command(task, differing, args.rounds)
                if " ".join(words) not in known:
                    [line] = run.run(words)
                    run.record(line, args.log)
                    known[" ".join(words)] = _seconds(line, TASKS[task][1])
                of_task[value] = known[" ".join(words)]
            timing.print_line(
                benchmark="growth", task=task, axis=axis, seconds=of_task, slopes=slopes(of_task)
            )
    if args.plot:
        draw(growth, args.plot)


def _seconds(line: dict[str, Any], name: str) -> float:
    summary = line["seconds"][name]
    return summary["calm"] or summary["median"]


if __name__ == "__main__":
    main()
