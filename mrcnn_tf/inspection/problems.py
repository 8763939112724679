"""What the doctor says: a problem, how bad it is, where it is, and what to do about it."""

import enum
from collections.abc import Iterable
from typing import NamedTuple

from mrcnn_tf.data.findings import Finding, Level


class Severity(enum.StrEnum):
    """How bad a problem is.

    error     the converter refuses the data, or nothing can be learnt from it
    warning   something is lost, or results will be worse or say less than they seem to
    note      harmless, or repaired
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


EXIT_CODES = {None: 0, Severity.NOTE: 0, Severity.WARNING: 2, Severity.ERROR: 3}


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
      severity: how bad it is.
      kind: a few words, the same for all problems of the kind.
      data_set: "train", "val", or "" if it is both's.
      where: image, annotation or category.
      value: the offending value, and what was expected.
      happens: what becomes of it if nobody does anything.
      advice: what to do about it.
      image_id: of the image, where it is one image's.
      file_name: that image's file.
      twin_id: of the training image that shows the same, where that is the problem.
    """

    severity: Severity
    kind: str
    data_set: str
    where: str
    value: str
    happens: str
    advice: str
    image_id: int | str | None = None
    file_name: str = ""
    twin_id: int | str | None = None


class Kind(NamedTuple):
    """All problems of one kind, of one severity and one data set."""

    problems: list[Problem]

    @property
    def first(self) -> Problem:
        """The one that stands for all."""
        return self.problems[0]


def counted(number: int, what: str) -> str:
    """Return "1 object" or "2 objects"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def worst(problems: Iterable[Problem]) -> Severity | None:
    """Return the worst severity; None if there is no problem."""
    order = list(Severity)
    return min((problem.severity for problem in problems), key=order.index, default=None)


def by_kind(problems: Iterable[Problem]) -> list[Kind]:
    """Group problems, the worst first, then the most frequent."""
    groups: dict[tuple[str, str, str, str], list[Problem]] = {}
    for problem in problems:
        key = (problem.severity, problem.kind, problem.data_set, problem.happens)
        groups.setdefault(key, []).append(problem)
    order = list(Severity)
    kinds = [Kind(group) for group in groups.values()]
    return sorted(kinds, key=lambda k: (order.index(k.first.severity), -len(k.problems)))


_SEVERITIES = {
    Level.NOTED: Severity.NOTE,
    Level.REPAIRED: Severity.NOTE,
    Level.LEFT_OUT: Severity.WARNING,
    Level.REFUSED: Severity.ERROR,
}
_REDRAW = "Open the image in the annotation tool, draw this object anew, and export again."
_EXPORT = "Export again as COCO instances, or mend the file by hand."
_NOTHING = "Nothing: the value follows from the rest."
_ADVICE = {
    "missing file": "Put the file into the image folder, or take the image out of the annotations.",
    "file of another name": "Nothing, as long as the right file was found.",
    "no image size": "Nothing: it was read from the file.",
    "malformed image id": "Give each image a number or a short text of its own as id.",
    "malformed image size": "Write the image's width and height, in pixels, into the annotations.",
    "image ids occur more than once": "Give each image an id of its own. Files that were joined "
    "by hand often share ids: let the annotation tool join them.",
    "size differs from the file's (width x height)": "The image was resized, cropped or turned "
    "after it was annotated, or the annotations are another image's. Use the original file, or "
    "annotate this one.",
    "undecodable file": "Open the image and save it again as JPEG or PNG, or leave it out.",
    "unknown orientation": "Tell the converter which way up images were annotated: --exif=apply "
    "for upright ones (most tools), --exif=ignore for pixels as they are stored.",
    "unknown category": "Add the category to `categories`, or correct the object's category_id.",
    "unknown image": "Add the image to `images`, or take these annotations out.",
    "malformed box": _REDRAW,
    "box without area": "A click without a drag, most likely: delete the object or draw it anew.",
    "box outside the image": _REDRAW,
    "box contradicts its mask": "Box and outline of this object are at different places, so nobody "
    "can tell where it is. " + _REDRAW,
    "box within one pixel": "Boxes are [x, y, width, height] in pixels, not fractions. " + _EXPORT,
    "boxes are not COCO's": "Choose the export format `COCO` (instance segmentation) in the "
    "annotation tool, or convert the boxes to [x, y, width, height] in pixels.",
    "no bbox": _NOTHING,
    "no area": _NOTHING,
    "area that is no number of pixels": _NOTHING,
    "iscrowd that is not 0 or 1": "Write 0 for an object, 1 for a region of many.",
    "stray part of a polygon": "Nothing: a part of less than three points covers nothing.",
    "unusual form of segmentation": "Nothing: the form is understood.",
    "no usable object": "See what is wrong with the objects, below.",
    "no categories": "List the classes in `categories`, each with `id` and `name`.",
    "malformed category": "Give each category an integer id and a name.",
    "duplicate category id": "Give each category an id of its own.",
    "categories share a name": "Rename them, or give the objects of all one category id.",
    "category that is no class": "Nothing: export tools write such a root category.",
}  # fmt: skip
_MASK_ADVICE = "The object teaches its box only. " + _REDRAW
_EMPTY_ADVICE = "The object has a box but no outline: draw one, or train a Faster R-CNN."


def of_finding(finding: Finding, data_set: str) -> Problem:
    """Return what the reader of annotations found as a problem, with advice."""
    keeps_object = finding.remedy == "object kept without a mask"
    if keeps_object:
        is_empty = finding.kind in ("no segmentation", "empty segmentation")
        advice = _EMPTY_ADVICE if is_empty else _MASK_ADVICE
    elif finding.level == Level.LEFT_OUT and finding.kind == "no bbox":
        advice = _REDRAW
    else:
        advice = _ADVICE.get(finding.kind, _EXPORT)
    happens = {
        Level.REFUSED: "the converter refuses the file",
        Level.LEFT_OUT: finding.remedy,
        Level.REPAIRED: f"repaired: {finding.remedy}",
        Level.NOTED: finding.remedy,
    }[finding.level]
    return Problem(
        _SEVERITIES[finding.level], finding.kind, data_set, finding.where or "the whole file",
        finding.value, happens, advice, finding.image_id, finding.file_name,
    )  # fmt: skip
