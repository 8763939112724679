"""Sampling: a random subset of fixed size of each image's positives and negatives.

Shape letters: `B` images, `A` candidates (anchors or proposals) per image, `S` samples per image.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.ops import padding


class Samples(NamedTuple):
    """The candidates drawn, positives first, then negatives, then padding.

    Attributes:
      index: int32 [B, S], which candidate; 0 where not valid.
      is_positive: bool [B, S]; False where not valid.
      valid: bool [B, S].
    """

    index: tf.Tensor
    is_positive: tf.Tensor
    valid: tf.Tensor


def image_seeds(seed, step, image_key, stream):
    """Return one seed pair per image for TensorFlow's stateless random functions.

    The four arguments fill the 128 bits side by side, so different arguments never share a seed;
    the philox generator scrambles them. What an image draws depends on itself and the step, not on
    its place in the batch, on the batch size or on the replica.

    Args:
      seed: Python int, the seed of the run, below 2**32.
      step: int tensor [] or Python int, the training step, below 2**32.
      image_key: int32 [B], fingerprint of each image.
      stream: Python int, below 2**31: tells apart the draws of one step (RPN, RoI heads, ...).

    Returns:
      int64 [B, 2].

    Raises:
      ValueError: seed or stream is out of range.
    """
    if not (0 <= seed < 2**32 and 0 <= stream < 2**31):
        raise ValueError(f"seed {seed} must be below 2**32 and stream {stream} below 2**31")
    key = tf.cast(image_key, tf.int64) & 0xFFFFFFFF
    high = tf.bitwise.left_shift(tf.constant(seed, tf.int64), 32) | key
    low = tf.constant(stream << 32, tf.int64) | tf.cast(step, tf.int64)
    return tf.stack([high, tf.broadcast_to(low, tf.shape(high))], axis=-1)


def sample(is_positive, is_negative, num_samples, positive_fraction, seeds):
    """Draw positives and negatives of each image uniformly, without replacement.

    At most floor(num_samples * positive_fraction) positives are drawn; negatives fill the rest.
    Where either is short the sample has fewer valid entries.

    Each candidate gets a random number and the largest win, the lower index first among equal
    ones; the numbers come from the stateless philox generator, so the sample is the same eager, in
    a graph and under XLA.

    Args:
      is_positive: bool [B, A].
      is_negative: bool [B, A], disjoint from is_positive.
      num_samples: Python int S.
      positive_fraction: Python float in [0, 1].
      seeds: int64 [B, 2] of `image_seeds`.

    Returns:
      `Samples` with S entries per image.

    Source: Faster R-CNN section 3.1.3 (256 anchors, half), Fast R-CNN section 2.3 (a quarter).
    """
    num_candidates = tf.shape(is_positive)[1]
    selectors = tf.stack([is_positive, is_negative], axis=1)  # [B, 2, A]
    counts = tf.reduce_sum(tf.cast(selectors, tf.int32), axis=-1)  # [B, 2]
    # At least S columns, so that the shapes below are static; the added ones are never selected.
    selectors = tf.pad(
        selectors, [[0, 0], [0, 0], [0, tf.maximum(num_samples - num_candidates, 0)]]
    )
    priorities = _random_priorities(seeds, tf.shape(selectors)[-1])  # [B, A']
    priorities = tf.where(selectors, priorities[:, tf.newaxis, :], -1.0)  # [B, 2, A']
    _, ranked = tf.math.top_k(priorities, k=num_samples)  # [B, 2, S]

    num_positives = tf.minimum(counts[:, :1], int(num_samples * positive_fraction))  # [B, 1]
    num_negatives = tf.minimum(counts[:, 1:], num_samples - num_positives)
    slot = tf.range(num_samples)[tf.newaxis, :]  # [1, S]
    from_positives = slot < num_positives
    valid = slot < num_positives + num_negatives
    # One gather from both lists: slicing them apart would hide top_k from XLA's compiler, which
    # then sorts all candidates (20 times slower: `benchmarks/op_choices.py`, `top_k_of_slices`).
    position = tf.where(from_positives, slot, num_samples + slot - num_positives)
    lists = tf.reshape(ranked, [-1, 2 * num_samples])  # [B, 2, S] -> [B, 2*S]
    index = tf.gather(lists, tf.where(valid, position, 0), axis=1, batch_dims=1)
    return Samples(tf.where(valid, index, 0), from_positives, valid)


def _random_priorities(seeds, count):
    """Return random whole numbers in [0, 2**24), float32 [B, count], row b from seeds[b] alone.

    float32 holds them exactly, and XLA's top_k on CPUs is some 70 times faster on float32 than on
    int32 (`benchmarks/op_choices.py`, `top_k_of_int32`).
    """

    def one_image(seed):
        bits = tf.random.stateless_uniform(
            [count], seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
        )
        return tf.cast(tf.bitwise.right_shift(bits, 8), tf.float32)

    # The numbers of no image have no known count.
    some_seeds = padding.at_least_one(seeds, axis=0)
    numbers = tf.map_fn(
        one_image, some_seeds, fn_output_signature=tf.TensorSpec([None], tf.float32)
    )
    return numbers[: tf.shape(seeds)[0]]


def random_numbers(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """Return random numbers in [0, 1), float32 [B, count]; row b depends on seeds[b] alone.

    The same eager, in a graph and under XLA.

    Args:
      seeds: int64 [B, 2] of `image_seeds`.
      count: numbers per image.
    """
    return tf.ensure_shape(_random_priorities(seeds, count), [None, count]) * 2.0**-24
