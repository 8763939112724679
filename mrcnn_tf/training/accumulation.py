"""Gradient accumulation: the images of a step go through the network in parts, one after the other.

Losses are means over what is sampled in all images of the step, so the numbers that they are
divided by have to be known before the first gradient. Hence two passes: one forward over all parts,
which only counts; then forward and backward, part by part. The sum of the parts' gradients is the
gradient of the whole batch, up to the rounding of sums, since what is sampled for an image does not
depend on the others. The cost is one more forward pass; the memory is that of one part.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Batch = dict[str, tf.Tensor]
Weighted = tuple[tf.Tensor, tf.Tensor]  # a mean, and the number that it is a mean over
Counts = dict[str, tf.Tensor]
# {loss: a part of its mean}, {metric: its mean over the part}, one gradient per variable
Pass = tuple[dict[str, tf.Tensor], dict[str, Weighted], list[tf.Tensor]]


def in_parts(
    batch: Batch,
    parts: tuple[int, int],
    counts_of: Callable[[Batch], Counts],
    over_replicas: Callable[[Counts], Counts],
    gradients_of: Callable[[Batch, Counts], Pass],
    like: Pass,
) -> Pass:
    """Return losses, metrics and gradients of a batch.

    Args:
      batch: of one replica, [B, ...] each; the shape need not say B, as that of a distributed
        data set of several canvases does not.
      parts: how many, and images of each: their product is B.
      counts_of: what a part's losses are to be divided by.
      over_replicas: sums counts over all replicas.
      gradients_of: losses, metrics and gradients of a part, given the counts of all of them.
      like: tensors of the shapes and types that it returns, {metric: (mean, count)} scalars.
    """
    split = {key: _split(values, parts) for key, values in batch.items()}
    no_counts = {name: tf.zeros([]) for name in like[0]}
    counts = over_replicas(_sum(counts_of, split, no_counts))

    def summable(part: Batch) -> Any:
        terms, values, gradients = gradients_of(part, counts)
        totals = {name: (mean * count, count) for name, (mean, count) in values.items()}
        return terms, totals, gradients

    terms, totals, gradients = _sum(summable, split, tf.nest.map_structure(tf.zeros_like, like))
    means = {
        name: (tf.math.divide_no_nan(total, count), count)
        for name, (total, count) in totals.items()
    }
    return terms, means, gradients


def _split(values: tf.Tensor, parts: tuple[int, int]) -> tf.Tensor:
    """[B, ...] -> [parts, images, ...]."""
    split = tf.reshape(values, tf.concat([parts, tf.shape(values)[1:]], axis=0))
    return tf.ensure_shape(split, [*parts, *values.shape[1:]])


def _sum(function: Callable[[Batch], Any], parts: Batch, zeros: Any) -> Any:
    """Add up what a function makes of each part, a nest of tensors."""
    num_parts = next(iter(parts.values())).shape[0]

    def add(k: tf.Tensor, total: Any) -> tuple[tf.Tensor, Any]:
        found = function({key: values[k] for key, values in parts.items()})
        return k + 1, tf.nest.map_structure(tf.add, total, found)

    # One part at a time: side by side they would need the memory that is to be spared.
    _, total = tf.while_loop(
        lambda k, _: k < num_parts, add, (tf.constant(0), zeros), parallel_iterations=1
    )
    return total
