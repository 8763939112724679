"""`inspection.json`: what the doctor found, for programs; docs/inspect-data.md lists its keys."""

import collections
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn_tf.console import whole_file
from mrcnn_tf.inspection import checks
from mrcnn_tf.inspection.data_set import DataSet
from mrcnn_tf.inspection.network import Network
from mrcnn_tf.inspection.problems import EXIT_CODES, Problem, Severity, by_kind, worst

VERSION = 1  # raise it when a key changes its meaning or goes
# Sides of objects, pixels of the network input: where the ranges of "anchors" begin and end.
SIZE_EDGES = (0, 4, 8, 16, 32, 64, 128, 256, 512)
IOUS = (0.5, 0.7)


def content(
    sets: Sequence[DataSet], problems: Sequence[Problem], network: Network
) -> dict[str, Any]:
    """Return what the file holds."""
    return {
        "version": VERSION,
        "severity": worst(problems),
        "exit_code": EXIT_CODES[worst(problems)],
        "counts": {
            severity: sum(problem.severity == severity for problem in problems)
            for severity in Severity
        },
        "network": {
            "experiment": network.name,
            "short_edge": network.short_edge,
            "long_edge": network.long_edge,
            "smallest_visible": network.smallest_visible,
            "max_instances": network.max_instances,
            "anchor_sizes": list(network.rpn.anchor_sizes),
            "anchor_ratios": list(network.rpn.anchor_ratios),
        },
        "sets": {data_set.key: _of_set(data_set, network) for data_set in sets},
        "kinds": [
            {
                "severity": kind.first.severity,
                "kind": kind.first.kind,
                "set": kind.first.data_set,
                "count": len(kind.problems),
            }
            for kind in by_kind(problems)
        ],
        "findings": [
            {
                "severity": problem.severity,
                "kind": problem.kind,
                "set": problem.data_set,
                "image_id": problem.image_id,
                "file": problem.file_name,
                "twin_id": problem.twin_id,
                "where": problem.where,
                "value": problem.value,
                "happens": problem.happens,
                "advice": problem.advice,
            }
            for kind in by_kind(problems)
            for problem in kind.problems
        ],
    }


def write(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Write the file; one of that name is replaced at once."""
    # Half surrogates, of file names that are not UTF-8, are written as escapes.
    whole_file.write(path, json.dumps(values, indent=1) + "\n")


def _of_set(data_set: DataSet, network: Network) -> dict[str, Any]:
    coco = data_set.coco
    objects = data_set.table(network)
    single = ~objects.is_crowd
    return {
        "images_dir": data_set.images_dir,
        "annotations": data_set.annotations,
        "annotations_sha256": coco.sha256 if coco else "",
        "images": coco.num_images if coco else 0,
        "usable_images": len(data_set.photos),
        "objects": coco.num_objects if coco else 0,
        "usable_objects": len(single),
        "crowds": int(objects.is_crowd.sum()),
        "objects_with_mask": sum(entry.mask is not None for _, _, entry in data_set.entries()),
        "most_objects_per_image": int(np.bincount(objects.image).max(initial=0)),
        "classes": classes_of(data_set),
        "object_sides": quantiles(objects.network_sides[single]),
        "too_small": int((objects.network_sides[single] < network.smallest_visible).sum()),
        "anchors": _of_anchors(data_set, network),
    }


def classes_of(data_set: DataSet) -> list[dict[str, Any]]:
    """Return id, name, objects that are no crowds, and images with such, of each class."""
    objects: collections.Counter[int] = collections.Counter()
    images: dict[int, set[int]] = {}
    for place, _, entry in data_set.entries():
        if not entry.is_crowd:
            objects[entry.category_id] += 1
            images.setdefault(entry.category_id, set()).add(place)
    return [
        {
            "id": identifier,
            "name": name,
            "objects": objects[identifier],
            "images": len(images.get(identifier, ())),
        }
        for identifier, name in data_set.class_names.items()
    ]


def quantiles(values: np.ndarray) -> dict[str, float | None]:
    """Return the smallest, the largest, and some between, by percent."""
    return {
        str(percent): round(float(np.percentile(values, percent)), 2) if values.size else None
        for percent in (0, 5, 25, 50, 75, 95, 100)
    }


def by_size(sides: np.ndarray, ious: np.ndarray) -> list[dict[str, Any]]:
    """Return how well anchors fit objects of each range of sizes that has any."""
    rows = []
    for low, high in zip(SIZE_EDGES, (*SIZE_EDGES[1:], np.inf), strict=True):
        inside = (sides >= low) & (sides < high)
        if inside.any():
            rows.append({
                "from": low, "to": None if high == np.inf else high, "objects": int(inside.sum()),
                **_recalls(ious[inside]),
            })  # fmt: skip
    return rows


def _of_anchors(data_set: DataSet, network: Network) -> dict[str, Any]:
    sides, ious = checks.best_ious(data_set, network)
    return {"objects": len(ious), **_recalls(ious), "by_size": by_size(sides, ious)}


def _recalls(ious: np.ndarray) -> dict[str, float | None]:
    def share(values: np.ndarray) -> float | None:
        return round(float(values.mean()), 4) if values.size else None

    recalls = {f"recall_{int(100 * least)}": share(ious >= least) for least in IOUS}
    return {"mean_best_iou": share(ious), **recalls}
