"""Remembers the first step whose loss went beyond all bounds: which term, which images.

A run that diverged is only worth something if it says where to look. The mean that a loop of many
steps reports is NaN whatever happened in it, so the step itself keeps what is needed, in variables.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.evaluation.detections import decode_source_id


class FirstDivergence(tf.Module):
    """The first step with a loss that is not finite, or too large, since the last `reset`.

    Each replica keeps its own record and nothing is exchanged between them, so that the images
    are those of the replica that it happened on. Updating costs a few bytes and waits for nothing.

    Args:
      terms: names of the loss terms.
      images_per_replica: `B`, images in a replica's batch.
      upper_bound: a sum of the terms above it is a divergence too: `trainer.loss_upper_bound`.
    """

    def __init__(
        self, terms: Sequence[str], images_per_replica: int, upper_bound: float = float("inf")
    ):
        super().__init__()
        self._terms = tuple(terms)
        self._upper_bound = upper_bound

        def per_replica(initial: tf.Tensor) -> tf.Variable:
            return tf.Variable(
                initial,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

        self._step = per_replica(tf.constant(-1, tf.int64))
        self._values = per_replica(tf.zeros([len(self._terms)]))
        # Bytes, but as floats: there is no GPU kernel that selects among bytes.
        self._source_ids = per_replica(tf.zeros([images_per_replica, schema.SOURCE_ID_BYTES]))

    def reset(self) -> None:
        """Forget; called between steps."""
        self._step.assign(tf.constant(-1, tf.int64))

    def update(self, step: tf.Tensor, losses: dict[str, tf.Tensor], source_ids: tf.Tensor) -> None:
        """Look at one step of one replica; any mode of execution, XLA included.

        Args:
          step: int64 [], counted from 1.
          losses: {term: float []}, this replica's part of each.
          source_ids: uint8 [B, SOURCE_ID_BYTES] of its batch.
        """
        values = tf.stack([tf.cast(losses[name], tf.float32) for name in self._terms])
        total = tf.reduce_sum(tf.abs(values))
        # Not `~(total <= bound)`: in a graph that becomes `total > bound`, false for NaN.
        is_bad = ~tf.math.is_finite(total) | (total > self._upper_bound)
        is_first = (self._step < 0) & is_bad
        for variable, value in (
            (self._values, values),
            (self._source_ids, tf.cast(source_ids, tf.float32)),
            (self._step, step),
        ):
            variable.assign(tf.where(is_first, value, variable))

    def describe(self, strategy: tf.distribute.Strategy) -> str:
        """Say what was seen, in words; "" if nothing was.

        Args:
          strategy: that the variables were created under. Of several workers, each sees its own
            replicas.
        """

        def of_replicas(variable: tf.Variable) -> list:
            return [value.numpy() for value in strategy.experimental_local_results(variable)]

        steps = of_replicas(self._step)
        if max(steps) < 0:
            return ""
        first = min(step for step in steps if step >= 0)
        values: list[np.ndarray] = []
        images: list[str] = []
        for step, of_step, rows in zip(
            steps, of_replicas(self._values), of_replicas(self._source_ids), strict=True
        ):
            if step == first:
                values.append(of_step)
                images += filter(None, (decode_source_id(row) for row in rows))
        where = f"at step {first:,}"
        bad: np.ndarray = ~np.isfinite(np.stack(values)).all(axis=0)
        if not bad.any():
            worst = np.abs(values).max(axis=0)
            largest = f"{self._terms[int(worst.argmax())]} {worst.max():.3g}"
            return (
                f"beyond trainer.loss_upper_bound ({self._upper_bound:g}) {where}: {largest}; "
                f"images {', '.join(images)}"
            )
        terms = ", ".join(name for name, flag in zip(self._terms, bad, strict=True) if flag)
        text = f"not finite {where}: {terms}; images {', '.join(images)}"
        if bad.all():
            text += ". All terms at once: the update of the step before broke the weights"
        return text
