"""The one place that decides which of two implementations of an operation runs.

A few operations are written twice, with the same numbers up to rounding. The one for accelerators
does everything at once and in plain tensor operations: XLA fuses them, a GPU runs them in parallel.
The one for CPUs goes in small steps that stay in a processor's cache, or calls a kernel that only
CPUs have, and that XLA could not compile. Which is right is known

* under XLA when the graph is traced: the one for accelerators, also where XLA compiles for a CPU;
* eagerly at once: by the device that operations are placed on, GPUs first;
* in any other graph only where it runs. A SavedModel is written on a machine without a GPU and
  served on one with. So the graph holds both, and an operation of TensorFlow that says on which
  kind of device it finds itself leads to one of them.

Nobody outside `ops/` need know that there are two.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_forced: bool | None = None  # see `force`: True for accelerators, False for CPUs


class Either:
    """A function with two implementations, which decides anew at each call.

    No gradient should pass through it: the branch that is not taken would have to be differentiated
    too, and both would keep what their gradients need. An operation with a gradient gets a
    `tf.custom_gradient` around two of these, one for each direction; the forward pass asks the
    other's `here()` for what the gradient will call.
    """

    def __init__(self, for_accelerators: Callable[..., Any], for_cpus: Callable[..., Any]):
        """Join the two.

        Args:
          for_accelerators: takes tensors and Python values, returns a tensor or a tuple of them.
          for_cpus: takes and returns the same; shapes may be known less well.
        """
        self._for_accelerators, self._for_cpus = for_accelerators, for_cpus

    def here(self) -> Callable[..., Any]:
        """Decide now, if it is known: a gradient is traced later, out of sight of XLA's context.

        Where several replicas train, the tape stands outside of what XLA compiles, and TensorFlow
        makes the compiled gradient only when it is asked for one.
        """
        if _forced is not None:
            return self._for_accelerators if _forced else self._for_cpus
        # Keras, too, asks so whether XLA is tracing. It holds inside nested functions and loops.
        if tf.__internal__.get_enclosing_xla_context() is not None:
            return self._for_accelerators
        return self

    def __call__(self, *args: Any) -> Any:
        """Run one of them, or trace both."""
        chosen = self.here()
        if chosen is not self:
            return chosen(*args)
        # 0 on a CPU and 1 everywhere else. Under XLA, for a function that was traced outside of it,
        # 1 as well.
        index = tf.raw_ops.DeviceIndex(device_names=["CPU"])
        branches = [functools.partial(f, *args) for f in (self._for_cpus, self._for_accelerators)]
        if tf.executing_eagerly():
            return branches[int(index)]()
        return tf.switch_case(index, branches)


@contextlib.contextmanager
def force(accelerators: bool) -> Iterator[None]:
    """Take one implementation wherever it runs: for tests, for benchmarks, and for other runtimes.

    Those have the plain tensor operations that accelerators get, and no kernels of TensorFlow's.
    Gradients of what runs inside keep to it.
    """
    global _forced
    before, _forced = _forced, accelerators
    try:
        yield
    finally:
        _forced = before
