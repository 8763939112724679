"""Ends a run whose evaluations have stopped getting better.

What it knows comes from the run's own lines of evaluations (metrics.jsonl), never from a counter
of its own, so a run that was killed and goes on counts as one that never stopped.
"""

import math
from collections.abc import Sequence

from mrcnn_tf.experiment.experiment import Trainer


class EarlyStopping:
    """Counts evaluations since the best one, as Keras' callback of this name does.

    An evaluation is better if its number is strictly better than all before. What differs:
    before something that is found is right, evaluations are not counted. A network that learns
    slowly begins with a score of 0 several times, and has not stopped getting better.

    Args:
      config: `patience`, and which number is better how: `best_checkpoint_eval_metric` and
        `best_checkpoint_metric_comp`.
      before: the run's evaluations so far, in their order: "step" and the metric are read.
    """

    def __init__(self, config: Trainer, before: Sequence[dict[str, float]] = ()):
        self._patience = config.patience
        self._metric = config.best_checkpoint_eval_metric
        self._sign = 1.0 if config.best_checkpoint_metric_comp == "higher" else -1.0
        self._best: tuple[float, int] | None = None  # value, step
        self._since = 0
        for row in before:
            self.add(int(row["step"]), row)

    def add(self, step: int, evaluation: dict[str, float]) -> None:
        """Take down one evaluation.

        One without the metric (it was not computed then) or with what is not finite is none; nor is
        a score of -1, which stands for nothing to measure on, and one of 0 before all others.
        """
        value = evaluation.get(self._metric, math.nan)
        if not math.isfinite(value):
            return
        if self._sign > 0 and (value < 0 or (value == 0 and self._best is None)):
            return
        if self._best is None or self._sign * (value - self._best[0]) > 0:
            self._best, self._since = (value, step), 0
        else:
            self._since += 1

    @property
    def is_due(self) -> bool:
        """Whether the run should end here."""
        return 0 < self._patience <= self._since

    def reason(self) -> str:
        """Say why, in words; only if it is due."""
        assert self._best is not None
        value, step = self._best
        return (
            f"{self._metric} was best at step {step:,} ({value:.4g}) and not better in the "
            f"{self._since} evaluations since (trainer.patience: {self._patience})"
        )
