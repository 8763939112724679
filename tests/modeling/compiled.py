"""A network compiled by XLA against the same run eagerly, for tests of every kind of network."""

from typing import Any

import numpy as np
import tensorflow as tf


def train_as_eager(network: Any, batch: dict[str, tf.Tensor], within: float) -> tuple[str, ...]:
    """Hold losses and gradients of a compiled step against the eager ones; return their names.

    Args:
      network: a `MaskRCNN` of any kind.
      batch: as `tests/tiny_network.py` makes it.
      within: relative to each loss, and of gradients to the largest of all.
    """

    def train(given):
        with tf.GradientTape() as tape:
            sums = network.losses_of(network.train_forward(given, 3, tf.constant(0, tf.int64)))
            loss = tf.add_n([term.mean() for term in sums.values()])
        return sums, tape.gradient(loss, network.trainable_variables)

    want, want_gradients = train(batch)
    got, gradients = tf.function(train, jit_compile=True, autograph=False)(batch)
    for name, term in want.items():
        np.testing.assert_allclose(got[name].total, term.total, rtol=within, err_msg=name)
        assert float(got[name].count) == float(term.count), name
    assert all(gradient is not None for gradient in want_gradients)
    largest = max(np.abs(tf.convert_to_tensor(g)).max() for g in want_gradients)
    for ours, theirs in zip(gradients, want_gradients, strict=True):
        difference = tf.convert_to_tensor(ours) - tf.convert_to_tensor(theirs)
        assert np.abs(difference).max() < within * largest
    return tuple(want)


def detections_are_close(got: Any, want: Any, relative: float, absolute: float) -> None:
    """Hold all that two `Detections` have against each other; what one lacks, both do."""
    for name, value in want._asdict().items():
        if value is None:
            assert getattr(got, name) is None, name
        else:
            np.testing.assert_allclose(getattr(got, name), value, relative, absolute, err_msg=name)
