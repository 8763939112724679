"""How training went: the curves that a run's folder keeps."""

import dataclasses
import os

from mrcnn_tf import checkpoints
from mrcnn_tf.training import run_folder


@dataclasses.dataclass(frozen=True)
class History:
    """Lines of `train.jsonl` and `metrics.jsonl`.

    Attributes:
      training: a dict per loop of steps, see docs/runs.md.
      evaluations: a dict per evaluation of the run's own checkpoints, as early stopping counts
        them: one for each place.
      step: of the checkpoint that the report is of.
      best_step: of the checkpoint that the run keeps as its best; None if there is none.
    """

    training: list[dict]
    evaluations: list[dict]
    step: int = 0
    best_step: int | None = None

    @property
    def seconds(self) -> float:
        """How long the steps took, waiting for input included, evaluations not."""
        seconds, images = 0.0, 0
        for row in self.training:
            rate = row.get("images_per_second", 0)
            # A run that was set back sees images again.
            seconds += max(row["images"] - images, 0) / rate if rate else 0.0
            images = row["images"]
        return seconds


def read(model_dir: str, checkpoint: str, best_dir: str) -> History:
    """Read a run's folder; files that are not there give nothing.

    Args:
      model_dir: the folder.
      checkpoint: that the report is of.
      best_dir: the folder of the best one.
    """
    best = checkpoints.find_newest(best_dir).checkpoint
    return History(
        _losses(model_dir),
        run_folder.RunFolder(model_dir).evaluations(),
        checkpoints.position(checkpoint).step,
        checkpoints.position(best).step if best else None,
    )


def _losses(model_dir: str) -> list[dict]:
    return list(run_folder.rows(os.path.join(model_dir, run_folder.LOSSES)))
