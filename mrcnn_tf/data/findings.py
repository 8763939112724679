"""What is wrong with a data set, and what was done about it: one rule for all that reads one.

    noted     harmless, counted
    repaired  what is missing or wrong follows from the rest: counted and listed
    left out  the smallest thing that cannot be used: a part, a mask, an object, an image
    refused   it would teach or score something wrong: nothing is made of the file

Left out may be at most 1 % of the objects and 1 % of the images; who wants to go on with less
has to say so, and nobody goes on without any image.
"""

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
      annotations: of an image that is lost, how many go with it; `objects` does not count them.
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
    annotations: int = 0

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.kind, self.where, self.value) if part)
        if self.level == Level.REFUSED:
            return text
        return f"{text} -> {self.remedy}{with_it(self.annotations)}"


def with_it(annotations: int) -> str:
    """Say how many annotations go with what is left out; "" if none do."""
    if not annotations:
        return ""
    return f", and {annotations:,} annotation{'s' * (annotations != 1)} with it"


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


class OfKind(NamedTuple):
    """Findings of one kind.

    Attributes:
      first: one of them.
      num: how many there are.
      annotations: how many annotations go with the images that are lost.
    """

    first: Finding
    num: int
    annotations: int


def count_kinds(findings: Iterable[Finding]) -> list[OfKind]:
    """Count findings by kind, the worst level first."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.level, finding.kind, finding.remedy), []).append(finding)
    order = list(Level)[::-1]
    kinds = [OfKind(g[0], len(g), sum(f.annotations for f in g)) for g in groups.values()]
    return sorted(kinds, key=lambda kind: (order.index(Level(kind.first.level)), -kind.num))


def _first_of_each_kind(findings: list[Finding]) -> list[str]:
    """Return an example of each kind of what is left out, for a message of one line."""
    lost = [f for f in findings if f.level == Level.LEFT_OUT and (f.objects or f.images)]
    return [
        f"{kind.first}" + (f" (and {kind.num - 1:,} more such)" if kind.num > 1 else "")
        for kind in count_kinds(lost)
    ]
