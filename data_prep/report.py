"""Says what was odd about a data set: by kind on the console, each case in a file."""

import sys
from collections.abc import Iterable, Mapping

from mrcnn_tf.data.findings import Finding, Level, count_kinds, with_it

from . import manifest

# Of each kind, how many are printed where nothing gets written that could list them.
_NUM_EXAMPLES = 5


def by_kind(findings: Iterable[Finding], notes: Mapping[str, int]) -> list[str]:
    """Return a line per kind: level, how many, what, and what was done."""
    lines = [
        f"  {kind.first.level:<9} {kind.num:>9,} x {kind.first.kind} -> {kind.first.remedy}"
        f"{with_it(kind.annotations)}"
        for kind in count_kinds(findings)
    ]
    return lines + [f"  {Level.NOTED:<9} {n:>9,} x {what}" for what, n in notes.items() if n]


def write(
    path: str, findings: list[Finding], notes: Mapping[str, int], warnings: list[str]
) -> None:
    """List in a file what was odd, each with image, value and remedy."""
    lines = [*(f"warning: {text}" for text in warnings), *by_kind(findings, notes)]
    lines += [f"{finding.level}: {finding}" for finding in findings]
    manifest.write_text(path, "".join(f"{line}\n" for line in lines))


def print_written(
    path: str, findings: list[Finding], notes: Mapping[str, int], warnings: list[str]
) -> None:
    """Print what was odd by kind, and where each case is listed."""
    lines = by_kind(findings, notes)
    if lines:
        print(f"what was odd, listed in {path}:")
        for line in lines:
            print(line)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def print_examples(findings: list[Finding]) -> None:
    """Print how many there are of each kind, after some of each."""
    shown: dict[str, int] = {}
    for finding in findings:
        shown[finding.kind] = shown.get(finding.kind, 0) + 1
        if shown[finding.kind] <= _NUM_EXAMPLES:
            print(f"{finding.level}: {finding}", file=sys.stderr)
    for kind in count_kinds(findings):
        print(f"  {kind.first.level:<9} {kind.num:>9,} x {kind.first.kind}", file=sys.stderr)
