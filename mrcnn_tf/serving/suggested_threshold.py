"""The score threshold that a report suggests, on its way into an export."""

import json
import os

import tensorflow as tf

FOLDER, FILE = "report", "report.json"


def of_checkpoint(checkpoint: str) -> float | None:
    """Return what the report beside a checkpoint suggests; None if there is no report of it.

    Args:
      checkpoint: its path, with its number.

    Raises:
      ValueError: the report is damaged.
    """
    for beside in _folders(checkpoint):
        path = os.path.join(beside, FOLDER, FILE)
        if not tf.io.gfile.exists(path):
            continue
        with tf.io.gfile.GFile(path) as file:
            text = file.read()
        try:
            report = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}: no JSON ({error}); make the report anew") from error
        if _place(report.get("checkpoint", ""), beside) == _place(checkpoint, beside):
            return report.get("suggested_score_threshold")
    return None


def is_found(checkpoint: str, output_dir: str) -> bool:
    """Whether a report of a checkpoint ("" for none) lies where an export of it will look."""
    places = {os.path.abspath(os.path.join(beside, FOLDER)) for beside in _folders(checkpoint)}
    return bool(checkpoint) and os.path.abspath(output_dir) in places


def _folders(checkpoint: str) -> tuple[str, str]:
    folder = os.path.dirname(checkpoint)
    return folder, os.path.dirname(folder)  # best/ckpt-1 lies one folder down


def _place(checkpoint: str, run: str) -> str:
    """Return "ckpt-1" or "best/ckpt-1": a run's folder may have been moved since."""
    name, folder = os.path.basename(checkpoint), os.path.basename(os.path.dirname(checkpoint))
    return f"{folder}/{name}" if folder == "best" and os.path.basename(run) != "best" else name
