"""The folder that `predict` fills: what is in it, and what is said of it in the end.

Without TensorFlow: `.tflite` and `.onnx` files fill the same folder.
"""

import os
from collections.abc import Sequence

DEFAULT_THRESHOLD = 0.5  # of what is drawn, where no report suggests another
DETECTIONS, DRAWN, FORMS, UNREAD = "detections.json", "drawn", "results", "unread.json"


class OutputFolder:
    """Paths in it.

    Attributes:
      detections: of the results file.
      drawn: of the folder of drawings.
      forms: of the folder of other forms.
      unread: of the list of what could not be read.
    """

    def __init__(self, path: str):
        """Name them; nothing is written yet."""
        self.path = path
        self.detections = os.path.join(path, DETECTIONS)
        self.drawn = os.path.join(path, DRAWN)
        self.forms = os.path.join(path, FORMS)
        self.unread = os.path.join(path, UNREAD)

    @property
    def written(self) -> tuple[str, ...]:
        """All that a run writes, which is no input of the next one."""
        incomplete = self.detections + ".incomplete"
        return self.drawn, self.detections, incomplete, self.forms, self.unread


def threshold(given: float | None, suggested: float | None) -> tuple[float, str]:
    """Return the score from which on objects are drawn, and why, to be put behind a sentence.

    Args:
      given: by the user; None if it is not.
      suggested: by the report of the network; None without one.
    """
    if given is not None:
        return given, ""
    if suggested is None:
        return DEFAULT_THRESHOLD, ""
    why = ", as the report of this network suggests (--score_threshold changes it)"
    return round(suggested, 3), why


def tell(
    folder: OutputFolder,
    *,
    num_detections: int,
    num_turned: int,
    draws: bool,
    forms: Sequence[str],
    num_empty: int,
    score_threshold: float,
    why: str,
) -> None:
    """Say what a run has written.

    Args:
      folder: that it has filled.
      num_detections: rows of detections.json.
      num_turned: images whose EXIF orientation was applied.
      draws: whether drawings were written.
      forms: names of the other forms.
      num_empty: objects that are in none of these, as their mask has no pixel.
      score_threshold: of drawings and other forms.
      why: what `threshold` said.
    """
    if num_turned:
        print(f"{num_turned} turned upright as their EXIF orientation says")
    print(f"{num_detections} detections: {folder.detections}")
    if draws:
        print(f"those with a score of {score_threshold} or more are drawn{why}: {folder.drawn}")
    if forms:
        as_what = ", ".join(forms)
        print(f"those with a score of {score_threshold} or more as {as_what}: {folder.forms}")
    if num_empty:
        print(f"{num_empty} of them whose mask has no pixel are not there")
