"""Reads the keypoints of one annotation of a COCO file."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mrcnn_tf.data import coco_values
from mrcnn_tf.data.findings import Level

VISIBILITIES = (0, 1, 2)  # not annotated; annotated but hidden; annotated and seen


def read(
    row: dict[str, Any],
    names: tuple[str, ...],
    height: int,
    width: int,
    report: Callable[[Level, str, str, str], None],
) -> np.ndarray | None:
    """Read the keypoints of an annotation whose category has some.

    Args:
      row: the annotation's JSON.
      names: of the category's keypoints, K.
      height: of the image, pixels.
      width: of the image, pixels.
      report: called with level, kind, value and remedy of what was repaired or left out.

    Returns:
      float64 [K, (x, y, visibility)], pixels as COCO counts them: a keypoint in the middle of pixel
      i has the coordinate i. All 0 where nothing is annotated. None: the object has none, or they
      cannot be used.
    """
    given = row.get("keypoints")
    if given is None or (isinstance(given, list) and not given):
        return None
    due = 3 * len(names)
    values = [coco_values.number(v) for v in given] if isinstance(given, list) else []
    if len(values) != due or None in values:
        count = f"{len(given)} values" if isinstance(given, list) else "no list"
        value = f"keypoints {coco_values.short(given)}, {count}; expected {due} finite numbers "
        value += f"[x, y, visibility, ...] of {len(names)} keypoints"
        report(Level.LEFT_OUT, "malformed keypoints", value, "object kept without keypoints")
        return None
    keypoints = np.array(values, np.float64).reshape(-1, 3)
    for name, (x, y, visibility) in zip(names, keypoints.tolist(), strict=True):
        remedy = "taken as not annotated"
        if visibility not in VISIBILITIES:
            value = f"{name}: visibility {visibility:g}; expected 0, 1 or 2"
            report(Level.REPAIRED, "visibility that is not 0, 1 or 2", value, remedy)
        elif visibility and not (0 <= x <= width and 0 <= y <= height):
            value = f"{name} at ({x:g}, {y:g}) in an image of {width} x {height} (width x height)"
            report(Level.REPAIRED, "keypoint outside the image", value, remedy)
        else:
            continue
        keypoints[names.index(name)] = 0.0
    keypoints[keypoints[:, 2] == 0] = 0.0
    num, counted = row.get("num_keypoints"), int((keypoints[:, 2] > 0).sum())
    if num is not None and coco_values.integer(num) != counted:
        value = f"num_keypoints {coco_values.short(num)}; annotated are {counted}"
        report(Level.REPAIRED, "num_keypoints that is another number", value, "counted anew")
    return keypoints
