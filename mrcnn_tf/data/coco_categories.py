"""The categories of a COCO file: which of them are classes."""

import dataclasses
from collections.abc import Set
from typing import Any

from mrcnn_tf.data import coco_values, keypoint_set
from mrcnn_tf.data.findings import Finding, Level
from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.data.label_map import LabelMap


def read(
    rows: list[dict[str, Any]], used: Set[int | None], findings: list[Finding]
) -> tuple[LabelMap, dict[str, int]]:
    """Check the categories of a COCO file.

    A category without objects that shares its name with another is no class: Roboflow exports the
    project as a root category 0, whose name may be that of a class. Two categories with objects
    and one name are refused, since nobody can tell whether they are one class.

    Args:
      rows: the JSON of the file's categories.
      used: the category ids of the file's annotations.
      findings: what is wrong is appended.

    Returns:
      The classes, in the order of ascending id; and how often what harmless thing was met.
    """
    if not rows:
        value = "the list 'categories' is empty, so no object can have a class"
        findings.append(Finding(Level.REFUSED, "no categories", "", value, ""))
    names: dict[int, str] = {}
    notes: dict[str, int] = {}
    for k, row in enumerate(rows):
        where, name = f"categories[{k}]", coco_values.text(row.get("name"))
        identifier = coco_values.integer(row.get("id"))
        if identifier is None or name is None or not name.strip():
            value = (
                f"id {coco_values.short(row.get('id'))}, name {coco_values.short(row.get('name'))}"
            )
            value += "; expected an integer and a text"
            level = Level.REFUSED if identifier in used - {None} else Level.LEFT_OUT
            findings.append(Finding(level, "malformed category", where, value, "category left out"))
        elif names.get(identifier, name) != name:
            value = f"id {identifier} of {name!r} is that of {names[identifier]!r} already"
            findings.append(Finding(Level.REFUSED, "duplicate category id", where, value, ""))
        else:
            if identifier in names:
                notes["categories listed twice"] = notes.get("categories listed twice", 0) + 1
            names[identifier] = name
    for name in dict.fromkeys(names.values()):
        _settle_shared_name(name, names, used, findings)
    label_map = LabelMap.from_coco_categories([{"id": i, "name": n} for i, n in names.items()])
    keypoints = _keypoints(rows, label_map, findings)
    label_map = dataclasses.replace(label_map, keypoints=keypoints)
    num_unused = sum(identifier not in used for identifier in label_map.ids)
    if num_unused:
        notes["categories without objects, kept as classes"] = num_unused
    return label_map, notes


def _keypoints(
    rows: list[dict[str, Any]], label_map: LabelMap, findings: list[Finding]
) -> KeypointSet | None:
    """Read the keypoints of the categories that are classes and have some; all have the same."""
    found: dict[int, KeypointSet] = {}  # by category id
    for k, row in enumerate(rows):
        identifier, names = coco_values.integer(row.get("id")), row.get("keypoints")
        if identifier not in label_map.ids or identifier in found or names in (None, []):
            continue
        where = f"categories[{k}]"
        if not keypoint_set.are_names(names):
            value = f"keypoints {coco_values.short(names)}; expected different texts"
            finding = Finding(Level.REFUSED, "malformed names of keypoints", where, value, "")
            findings.append(finding)
            continue
        skeleton = row.get("skeleton", [])
        if not keypoint_set.are_edges(skeleton, 1, len(names)):
            value = f"skeleton {coco_values.short(skeleton)}; expected pairs of 1..{len(names)}"
            findings.append(
                Finding(Level.REPAIRED, "malformed skeleton", where, value, "skeleton left out")
            )
            skeleton = []
        edges = tuple((a - 1, b - 1) for a, b in skeleton)
        found[identifier] = KeypointSet(tuple(names), edges)
    if not found:
        return None
    first = next(iter(found.values()))
    if any(other.names != first.names for other in found.values()):
        listed = "; ".join(
            f"{label_map.names[label_map.ids.index(i)]!r} has {', '.join(other.names)}"
            for i, other in found.items()
        )
        value = f"{listed[:400]}: categories share one list, of which each object annotates some"
        findings.append(Finding(Level.REFUSED, "categories differ in keypoints", "", value, ""))
    classes = tuple(k for k, i in enumerate(label_map.ids, start=1) if i in found)
    return dataclasses.replace(first, classes=classes)


def _settle_shared_name(
    name: str, names: dict[int, str], used: Set[int | None], findings: list[Finding]
) -> None:
    """Leave one category of a name in `names`."""
    sharing = [identifier for identifier in names if names[identifier] == name]
    if len(sharing) == 1:
        return
    with_objects = [identifier for identifier in sharing if identifier in used]
    if len(with_objects) > 1:
        value = f"the categories {with_objects} are all called {name!r} and have objects: "
        value += "rename them, or give the objects of all one id"
        findings.append(Finding(Level.REFUSED, "categories share a name", "", value, ""))
        return
    kept = with_objects[0] if with_objects else max(sharing)  # a root comes first
    for identifier in sharing:
        if identifier != kept:
            del names[identifier]
            value = f"id {identifier} shares the name {name!r} with id {kept} and has no objects"
            kind = "category that is no class"
            findings.append(Finding(Level.NOTED, kind, "", value, "category left out"))
