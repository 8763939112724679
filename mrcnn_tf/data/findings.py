"""What is wrong with a data set, and what was done about it: one rule for all that reads one.

    noted     harmless, counted
    repaired  what is missing or wrong follows from the rest: counted and listed
    left out  the smallest thing that cannot be used: a part, a mask, an object, an image
    refused   it would teach or score something wrong: nothing is made of the file

Left out may be at most 1 % of the objects and 1 % of the images; who wants to go on with less
has to say so, and nobody goes on without any image.
"""

import collections
import enum
from collections.abc import Iterable
from typing import NamedTuple


class Level(enum.StrEnum):
    """How bad it is, see the head of this module."""

    NOTED = "noted"
    REPAIRED = "repaired"
    LEFT_OUT = "left out"
    REFUSED = "refused"


class Finding(NamedTuple):
    """Something odd in a data set.

    Attributes:
      level: how bad it is.
      kind: a few words, the same for all findings of the kind.
      where: which image (id and file), annotation or category.
      value: the offending value, and what was expected.
      remedy: what was done about it.
      objects: how many objects are lost by it.
      images: how many images are.
      image_id: of the image, where it is one image's, as the file has it.
      file_name: that image's file, where it has a name.
    """

    level: Level
    kind: str
    where: str
    value: str
    remedy: str
    objects: int = 0
    images: int = 0
    image_id: int | str | None = None
    file_name: str = ""

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.kind, self.where, self.value) if part)
        return text if self.level == Level.REFUSED else f"{text} -> {self.remedy}"


class RefusedError(ValueError):
    """A data set is not used; the message says why.

    Attributes:
      reasons: sentences.
      findings: all that was found, to be listed.
      can_skip: whether leaving out more than 1 % would do.
    """

    def __init__(
        self, name: str, reasons: list[str], findings: list[Finding], can_skip: bool
    ) -> None:
        super().__init__(f"{name}: " + "; ".join([*reasons, *_first_of_each_kind(findings)]))
        self.reasons, self.findings, self.can_skip = reasons, findings, can_skip


def check(
    findings: list[Finding], *, num_objects: int, num_images: int, skip: bool, name: str
) -> None:
    """Refuse a data set of which too much is left out, or that is wrong as a whole.

    Args:
      findings: all that was found.
      num_objects: of the data set, with those left out.
      num_images: likewise.
      skip: whether any number of objects and images may be left out.
      name: the file, for the message.

    Raises:
      RefusedError: it is refused.
    """
    refused = [str(finding) for finding in findings if finding.level == Level.REFUSED]
    lost_objects = sum(finding.objects for finding in findings)
    lost_images = sum(finding.images for finding in findings)
    if num_images and lost_images >= num_images:
        refused.append(f"none of {num_images:,} images can be used")
    too_many = [] if skip else [
        f"{lost:,} of {total:,} {what} cannot be used, more than 1 %"
        for lost, total, what in (
            (lost_images, num_images, "images"), (lost_objects, num_objects, "objects")
        )
        if 100 * lost > total
    ]  # fmt: skip
    if refused or too_many:
        raise RefusedError(name, [*refused, *too_many], findings, can_skip=not refused)


def count_kinds(findings: Iterable[Finding]) -> list[tuple[Finding, int]]:
    """Return one finding of each kind and how many there are, the worst level first."""
    first: dict[tuple[str, str, str], Finding] = {}
    counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for finding in findings:
        key = (finding.level, finding.kind, finding.remedy)
        first.setdefault(key, finding)
        counts[key] += 1
    order = list(Level)[::-1]
    keys = sorted(counts, key=lambda key: (order.index(Level(key[0])), -counts[key]))
    return [(first[key], counts[key]) for key in keys]


def _first_of_each_kind(findings: list[Finding]) -> list[str]:
    """Return an example of each kind of what is left out, for a message of one line."""
    lost = [f for f in findings if f.level == Level.LEFT_OUT and (f.objects or f.images)]
    return [
        f"{finding}" + (f" (and {count - 1:,} more such)" if count > 1 else "")
        for finding, count in count_kinds(lost)
    ]
