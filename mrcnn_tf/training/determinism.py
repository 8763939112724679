"""`--deterministic`: the same command gives the same bits, with as many threads as there are."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def enable() -> None:
    """Have this process add up in one order whatever it runs; to be called before it runs anything.

    TensorFlow's own switch leaves one operation out, AddN, which a tape takes for the gradient of
    what is used more than once. Its kernel adds up in the memory of an input that nobody else reads
    any more, and begins with that one: which it is depends on what other threads have finished. A
    feature map of the pyramid, used by the RPN and both heads, then got three gradients in another
    order in one step of ten.
    """
    tf.config.experimental.enable_op_determinism()
    # Grappler would make an AddN of our sums again.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    # There is no public door to how a tape adds up.
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.eager import backprop

    def aggregate(gradients: Sequence[Any]) -> Any:
        if all(isinstance(gradient, tf.Tensor) for gradient in gradients):
            return sum_in_order(gradients)
        return backprop._aggregate_grads(gradients)  # rows of an embedding; there is none here

    space = backprop._default_vspace._replace(aggregate_fn=aggregate)
    pywrap_tfe.TFE_Py_RegisterVSpace(space)


def sum_in_order(terms: Sequence[tf.Tensor]) -> tf.Tensor:
    """Add tensors of one shape to the first, one after the other."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
