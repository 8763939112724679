"""The tables of docs/results.md, in Markdown, of what benchmarks/results.py has finished.

AP in points, as papers print it. Of several seeds: the mean, and each in brackets.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import result_rows

Line = dict[str, Any]
COMMAND = "python benchmarks/results.py"  # as it is typed
_METRICS = {row.name: group.metrics for group in result_rows.GROUPS for row in group.rows}


def show(lines: Sequence[Line]) -> None:
    """Print all tables that have numbers.

    Args:
      lines: of finished rows, at most one of each row and seed.
    """
    by_row: dict[str, dict[int, Line]] = {}
    for line in lines:
        by_row.setdefault(line["row"], {})[line["seed"]] = line
    for group in result_rows.GROUPS:
        names = {name for row in group.rows for name in (row.beside, row.name)}
        measured = measured_at([line for line in lines if line["row"] in names])
        if not measured:
            continue
        print(f"\n### {group.title}\n")
        if group.text:
            print(f"{group.text}\n")
        print("\n".join(table(group, by_row)))
        print(f"\n{measured}")
    for text in (noise(by_row), timing(by_row), seen(by_row), origin(lines)):
        if text:
            print(f"\n{text}")


def metrics(row: str) -> Sequence[str]:
    """The scores that a row's table shows; none of what is timed."""
    return _METRICS.get(row, ())


def in_a_line(line: Line) -> str:
    """What a finished row says of itself while others run."""
    if "times" in line:
        return str(line["times"]["ratios"])
    scores = {name: of_seeds({0: line}, name).get(0) for name in metrics(line["row"])}
    return ", ".join(f"{_title(name)} {ap:.1f}" for name, ap in scores.items() if ap is not None)


def table(group: result_rows.Group, by_row: dict[str, dict[int, Line]]) -> list[str]:
    """A group's rows, each behind the one that it is compared with.

    Args:
      group: which.
      by_row: {row: {seed: line}}.
    """
    head = ["", *map(_title, group.metrics), "difference", "published, on COCO", "processor"]
    table = [_cells(head), "|" + "---|" * len(head)]
    shown: set[str] = set()
    for row in group.rows:
        for name in (row.beside, row.name):
            if name and name not in shown:
                shown.add(name)
                table.append(_cells(_row(result_rows.ROWS[name], group.metrics, by_row)))
    return table


def _row(
    row: result_rows.Row, metrics: Sequence[str], by_row: dict[str, dict[int, Line]]
) -> list[str]:
    found, base = by_row.get(row.name, {}), by_row.get(row.beside, {})
    cells = [f"{row.what} (`{row.name}`)"]
    for metric in metrics:
        cells.append(_of_seeds([value for value in of_seeds(found, metric).values()], "{:.1f}"))
    differences = []
    for metric in metrics if row.beside else ():
        of_seed = difference(found, base, metric)
        if of_seed:
            differences.append(f"{_title(metric)} {_of_seeds([*of_seed.values()], '{:+.1f}')}")
    taken = [line["cpu_seconds"] for line in found.values() if line["cpu_seconds"] is not None]
    seconds = f"{statistics.mean(taken):.0f} s" if taken else ""
    return [*cells, "; ".join(differences), row.published, seconds]


def of_seeds(found: dict[int, Line], metric: str) -> dict[int, float]:
    """A row's scores: {seed: points}, without those that it has not."""
    return {
        seed: 100 * line["scores"][metric]
        for seed, line in sorted(found.items())
        if line.get("scores", {}).get(metric, -1.0) >= 0.0  # -1: of nothing
    }


def difference(found: dict[int, Line], base: dict[int, Line], metric: str) -> dict[int, float]:
    """What a row has more than the one that it is compared with: {seed of both: points}."""
    here, there = of_seeds(found, metric), of_seeds(base, metric)
    return {seed: here[seed] - there[seed] for seed in here if seed in there}


def noise(by_row: dict[str, dict[int, Line]]) -> str:
    """How far the seeds of one row lie apart, and what that means for differences."""
    said = []
    for name in ("baseline", "jitter"):
        for metric in result_rows.MASKS:
            values = [*of_seeds(by_row.get(name, {}), metric).values()]
            if len(values) > 1:
                said.append(
                    f"* `{name}`, {_title(metric)}: {min(values):.1f} to {max(values):.1f} with "
                    f"{len(values)} seeds, standard deviation {statistics.stdev(values):.2f}"
                )
    if not said:
        return ""
    variances = [
        statistics.variance(values)
        for found in by_row.values()
        if len(values := [*of_seeds(found, "mask_ap").values()]) > 2
    ]
    if variances:
        deviation = statistics.mean(variances) ** 0.5
        single, of_means = (2 * deviation * (2 / seeds) ** 0.5 for seeds in (1, 3))
        said.append(
            f"* over all rows of three seeds the standard deviation of mask AP is {deviation:.2f}: "
            f"a difference of two single runs says nothing below {single:.1f} points (twice its "
            f"standard deviation), one of two means of three below {of_means:.1f}."
        )
    return "The same with another seed:\n\n" + "\n".join(said)


def timing(by_row: dict[str, dict[int, Line]]) -> str:
    """The evaluations that were timed in turn."""
    found = by_row.get("evaluation_time", {}).get(0)
    if not found:
        return ""
    times = found["times"]
    head = ["evaluation of", "seconds", "calm", "times the baseline's"]
    rows = [_cells(head), "|" + "---|" * len(head)]
    for name, seconds in times["seconds"].items():
        calm = "" if seconds["calm"] is None else f"{seconds['calm']:.2f}"
        ratio = f"{times['ratios'][name]:.2f}"
        rows.append(_cells([f"`{name}`", f"{seconds['median']:.2f}", calm, ratio]))
    text = (
        f"The validation images from their records to the scores, {times['rounds']} rounds in "
        f"turn in one process on {found['cores']} cores; the median, that of the runs during which "
        "others used less than 5 % of the machine, and the median of the rounds' ratios:"
    )
    return "\n\n".join(("### Time of an evaluation", text, "\n".join(rows), measured_at([found])))


def seen(by_row: dict[str, dict[int, Line]]) -> str:
    """What each row did beside the one that it is compared with, for a cell of docs/models.md."""
    said = []
    for row in result_rows.ROWS.values():
        found, base = by_row.get(row.name, {}), by_row.get(row.beside, {})
        parts = []
        for metric in _METRICS[row.name][:2] if row.beside else ():
            differences = [*difference(found, base, metric).values()]
            values = [*of_seeds(found, metric).values()]
            if differences:
                parts.append(f"{_title(metric)} {statistics.mean(differences):+.1f}")
            elif values:
                parts.append(f"{_title(metric)} {statistics.mean(values):.1f}")
        if parts:
            seeds = f" ({len(found)} seeds)" if len(found) > 1 else ""
            said.append(f"* `{row.name}`: {', '.join(parts)}{seeds}")
    return "### Seen here\n\n" + "\n".join(said) if said else ""


def measured_at(lines: Sequence[Line]) -> str:
    """What stands below a table; "" of no lines."""
    commits = [f"`{commit}`" for commit in sorted({line["commit"] for line in lines})]
    if not commits:
        return ""
    first = f"{', '.join(commits[:-1])} and " if commits[1:] else ""
    return f"Measured at {first}{commits[-1]} by `{COMMAND}`."


def origin(lines: Sequence[Line]) -> str:
    """Which code made them, in which time."""
    if not lines:
        return "Nothing is finished yet."
    commits = sorted({line["commit"] for line in lines})
    steps = sorted({line["steps"] for line in lines if "steps" in line})
    taken = [line["cpu_seconds"] for line in lines]
    known = [seconds for seconds in taken if seconds is not None]
    return (
        f"{len(lines)} lines; steps: {', '.join(map(str, steps))}; commits: {', '.join(commits)}; "
        f"{sum(known) / 60:.0f} minutes of processor time"
        + (f", that of {len(taken) - len(known)} not known" if len(known) < len(taken) else "")
    )


def _of_seeds(values: Sequence[float], form: str) -> str:
    """`41.2 (40.9 41.5)`; of one the number, of none nothing."""
    if not values:
        return ""
    each = [form.format(value) for value in values]
    mean = form.format(statistics.mean(values))
    return mean if len(values) == 1 else f"{mean} ({' '.join(each)})"


def _title(metric: str) -> str:
    """`mask_ap/star` is "mask AP, star", `mask_ap_rare` "mask AP rare"."""
    name, _, category = metric.partition("/")
    return name.replace("_ap", " AP").replace("_", " ") + (f", {category}" if category else "")


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
