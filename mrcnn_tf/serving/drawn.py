"""Drawings of what was found, in files named as their images. Without TensorFlow."""

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mrcnn_tf.images import drawing, storage
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.results.found import fitting

_SUFFIXES = (".jpg", ".jpeg", ".png")


def path_of(drawn_dir: str, name: str) -> str:
    """Return where an image's drawing goes: its own name, with .png behind unless JPEG or PNG.

    A name that so becomes too long is cut, and a few digits of its hash tell it from others.
    """
    kept = name.lower().endswith(_SUFFIXES)
    folder, last = os.path.split(name if kept else name + ".png")
    return os.path.join(drawn_dir, folder, fitting(last, kept=len(".png")))


def draw(pixels: np.ndarray, detections: Sequence[Detection], score_threshold: float) -> np.ndarray:
    """Draw the detections with at least that score: uint8 [h, w, 3] -> uint8 [h', w', 3]."""
    shown = [d for d in detections if d.score >= score_threshold]
    return drawing.draw_detections(
        pixels,
        np.array([d.box for d in shown], np.float32).reshape(-1, 4),
        masks=[d.mask for d in shown],
        names=[d.category for d in shown],
        scores=[d.score for d in shown],
        **keypoints(shown),
    )


def keypoints(shown: Sequence[Detection]) -> dict[str, Any]:
    """Return what `drawing.draw_detections` is to know of detections with keypoints."""
    found = [one.keypoints for one in shown]
    kinds = next((one.kinds for one in found if one is not None), None)
    if kinds is None:
        return {}
    rows = [None if k is None else np.concatenate([k.points, k.scores[:, None]], 1) for k in found]
    return {"keypoints": rows, "skeleton": kinds.skeleton}


def write(
    path: str, pixels: np.ndarray, detections: Sequence[Detection], score_threshold: float
) -> None:
    """Draw, and write the drawing in the form that its name says.

    Raises:
      OSError, ValueError, tf.errors.OpError: it cannot be written.
    """
    buffer = io.BytesIO()
    kind = "PNG" if path.lower().endswith(".png") else "JPEG"
    # PNG has no quality and ignores it.
    Image.fromarray(draw(pixels, detections, score_threshold)).save(buffer, kind, quality=95)
    storage.write(path, buffer.getvalue())
