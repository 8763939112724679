"""Remembers the first step whose loss was not finite: which term, which images.

A run that diverged is only worth something if it says where to look. The mean that a loop of many
steps reports is NaN whatever happened in it, so the step itself keeps what is needed, in variables.
"""

from collections.abc import Sequence

import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.evaluation.detections import decode_source_id


class FirstNonFinite(tf.Module):
    """The first step with a NaN or an infinity among its loss terms, since the last `reset`.

    Each replica keeps its own record and nothing is exchanged between them, so that the images
    are those of the replica that it happened on. Updating costs a few bytes and waits for nothing.

    Args:
      terms: names of the loss terms.
      images_per_replica: `B`, images in a replica's batch.
    """

    def __init__(self, terms: Sequence[str], images_per_replica: int):
        super().__init__()
        self._terms = tuple(terms)

        def per_replica(initial: tf.Tensor) -> tf.Variable:
            return tf.Variable(
                initial,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

        self._step = per_replica(tf.constant(-1, tf.int64))
        self._is_bad = per_replica(tf.zeros([len(self._terms)], tf.bool))
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
        is_bad = tf.stack([~tf.math.is_finite(losses[name]) for name in self._terms])
        is_first = (self._step < 0) & tf.reduce_any(is_bad)
        for variable, value in (
            (self._is_bad, is_bad),
            (self._source_ids, tf.cast(source_ids, tf.float32)),
            (self._step, step),
        ):
            variable.assign(tf.where(is_first, value, variable))

    def describe(self, strategy: tf.distribute.Strategy) -> str:
        """Say what was seen, in words; "" if every step was finite.

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
        bad: set[str] = set()
        images: list[str] = []
        for step, is_bad, rows in zip(
            steps, of_replicas(self._is_bad), of_replicas(self._source_ids), strict=True
        ):
            if step == first:
                bad |= {name for name, flag in zip(self._terms, is_bad, strict=True) if flag}
                images += [decode_source_id(row) for row in rows]
        terms = ", ".join(name for name in self._terms if name in bad)
        text = f"not finite at step {first:,}: {terms}; images {', '.join(images)}"
        if len(bad) == len(self._terms):
            text += ". All terms at once: the update of the step before broke the weights"
        return text
