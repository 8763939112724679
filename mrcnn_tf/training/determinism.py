"""`--deterministic`: the same command gives the same bits, with as many threads as there are."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from official.core import config_definitions
from tensorflow.python.framework import test_util

from mrcnn_tf.training import cluster


def enable(runtime: config_definitions.RuntimeConfig) -> None:
    """Have this process add up in one order whatever it runs; to be called before it runs anything.

    TensorFlow's own switch leaves one operation out, AddN, which a tape takes for the gradient of
    what is used more than once. Its kernel adds up in the memory of an input that nobody else reads
    any more, and begins with that one: which it is depends on what other threads have finished. A
    feature map of the pyramid, used by the RPN and both heads, then got three gradients in another
    order in one step of ten.

    Raises:
      ValueError: several machines train on their CPUs with oneDNN. Between them operations run on
        whatever thread a gradient has come in by, and with oneDNN now and then a start rounds
        otherwise than the one before. TensorFlow decides on oneDNN while it is imported, so only
        who starts the process can switch it off.
    """
    machines = cluster.find(runtime)
    on_cpus = not tf.config.list_physical_devices("GPU")
    if machines and machines.others and on_cpus and test_util.IsMklEnabled():
        raise ValueError(
            "runtime.deterministic: on the CPUs of several machines it needs TensorFlow without "
            "oneDNN: start every worker with TF_ENABLE_ONEDNN_OPTS=0 in its environment"
        )
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
