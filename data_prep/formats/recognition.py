"""Tells of which format annotations are, by the files that are there."""

import collections
import os
import pathlib
import re
from typing import NamedTuple

from . import voc_masks, yolo

FORMATS = ("coco", "yolo", "labelme", "voc")
_KEYS = re.compile(rb'"(images|annotations|categories|shapes|imagePath)"\s*:')
_OF_COCO = {"images", "annotations", "categories"}
_PHOTOS = {".jpg", ".jpeg", ".heic", ".webp", ".tif", ".tiff", ".bmp"}  # no format has only these
# What people have who exported something else, and what to do.
_ELSEWHERE = {
    ".zip": "unpack it first",
    ".xml": "CVAT's or VOC's boxes: export as COCO 1.0 or as Segmentation mask 1.1",
    ".csv": "a table: export as COCO",
}


class Recognised(NamedTuple):
    """A format, and where it was found.

    Attributes:
      name: one of FORMATS.
      paths: files (coco, labelme), or the folder or file to read from (yolo, voc).
      why: what it was recognised by.
    """

    name: str
    paths: list[str]
    why: str


def recognise(annotations: str, wanted: str | None = None, written: str = "") -> Recognised:
    """Find out which format a file or a folder is of.

    Args:
      annotations: file or folder.
      wanted: the only format to look for; None for any.
      written: a file that is ours, and to be passed over.

    Raises:
      ValueError: it is none, or several; the message names what was seen.
    """
    if not os.path.exists(annotations):
        raise ValueError(f"--annotations={annotations}: not found")
    path = pathlib.Path(annotations)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    files = [file for file in files if not written or not _same(file, written)]
    found = [one for one in _all(annotations, files, wanted) if wanted in (None, one.name)]
    if len(found) > 1:
        seen = "; ".join(f"{one.name}, by {one.why}" for one in found)
        raise ValueError(
            f"--annotations={annotations}: several formats: {seen}. Name one with --format, or "
            "the folder or file that is meant"
        )
    if not found:
        what = f"nothing of the format {wanted}" if wanted else "no format that is known"
        raise ValueError(f"--annotations={annotations}: {what}{_seen(files)}")
    return found[0]


def _all(annotations: str, files: list[pathlib.Path], wanted: str | None) -> list[Recognised]:
    """List the formats that the files look like."""
    found = []
    keys_of = {str(file): _keys(file) for file in files if file.suffix.lower() == ".json"}
    # Two of three: a file that was cut off is met where it is read.
    coco = [path for path, keys in keys_of.items() if len(keys & _OF_COCO) >= 2]
    others = [path for path in keys_of if path not in coco]
    labelme = [path for path in others if "shapes" in keys_of[path]]
    if coco:
        why = f"the lists images, annotations and categories in {coco[0]}"
        found.append(Recognised("coco", coco, why + _and_more(coco)))
    if labelme or (others and wanted == "labelme"):
        why = f"the list shapes in {[*labelme, *others][0]}"
        found.append(Recognised("labelme", others, why + _and_more(labelme)))
    names_file = yolo.find_names_file(annotations) if wanted in (None, "yolo") else None
    if names_file and _has_labels(annotations, names_file):
        why = f"{names_file} and the label files (labels/*.txt)"
        found.append(Recognised("yolo", [annotations], why))
    root = voc_masks.find_root(annotations) if wanted in (None, "voc") else None
    if root:
        why = f"the folder {os.path.join(root, voc_masks.OBJECTS)}"
        found.append(Recognised("voc", [root], why))
    return found


def _has_labels(annotations: str, names_file: str) -> bool:
    is_file = os.path.isfile(annotations)
    if is_file and os.path.basename(annotations) not in yolo.NAMES_FILES:
        return False
    root = pathlib.Path(os.path.dirname(names_file) if is_file else annotations).resolve()
    return any("labels" in (root.name, *p.relative_to(root).parts) for p in root.rglob("*.txt"))


def _keys(file: pathlib.Path) -> set[str]:
    """Return which of the keys that tell formats apart stand in a JSON file."""
    raw = file.read_bytes()
    if raw[:4].count(b"\0") or raw[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16 or UTF-32
        raw = raw.replace(b"\0", b"")
    return {match.decode() for match in _KEYS.findall(raw)}


def _and_more(paths: list[str]) -> str:
    return f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""


def _same(file: pathlib.Path, other: str) -> bool:
    return os.path.realpath(file) == os.path.realpath(other)


def _seen(files: list[pathlib.Path]) -> str:
    """Say what is there instead."""
    counts = collections.Counter(file.suffix.lower() or file.name for file in files)
    if not counts:
        return " (it is empty)"
    seen = ", ".join(f"{count:,} {ending}" for ending, count in counts.most_common(6))
    if set(counts) <= _PHOTOS:
        return f" (seen: {seen}): there are only photos here. Name what your tool exported"
    advice = [f"{end}: {text}" for end, text in _ELSEWHERE.items() if end in counts]
    if ".txt" in counts:
        advice.append(".txt: YOLO's label files take a data.yaml or classes.txt with the names")
    if ".png" in counts:
        advice.append(f".png: masks take a folder {voc_masks.OBJECTS}, which tells objects apart")
    if ".json" in counts:
        advice.append(
            ".json: neither COCO's keys nor labelme's are in them, or they are cut; export as COCO"
        )
    return f" (seen: {seen})" + "".join(f". {text}" for text in advice)
