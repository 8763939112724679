"""The score threshold that a report suggests, on its way into an export."""

import json
import os

import tensorflow as tf

FOLDER, FILE = "report", "report.json"


def of_checkpoint(checkpoint: str) -> float | None:
    """Return what the report beside a checkpoint suggests; None if there is no report of it.

    Args:
      checkpoint: its path, with its number.
    """
    folder = os.path.dirname(checkpoint)
    for beside in (folder, os.path.dirname(folder)):  # best/ckpt-1 lies one folder down
        path = os.path.join(beside, FOLDER, FILE)
        if not tf.io.gfile.exists(path):
            continue
        with tf.io.gfile.GFile(path) as file:
            report = json.loads(file.read())
        if _place(report.get("checkpoint", ""), beside) == _place(checkpoint, beside):
            return report.get("suggested_score_threshold")
    return None


def _place(checkpoint: str, run: str) -> str:
    """Return "ckpt-1" or "best/ckpt-1": a run's folder may have been moved since."""
    name, folder = os.path.basename(checkpoint), os.path.basename(os.path.dirname(checkpoint))
    return f"{folder}/{name}" if folder == "best" and os.path.basename(run) != "best" else name
