"""Starts TensorFlow in half of its time, for commands that need no Keras.

TensorFlow's package ends with an import of Keras 3, so that SavedModels know its optimizers, and
goes on without it if that fails. Keras imports what it can wrap, scikit-learn and Matplotlib among
it where they are there: together 2 of the 4.6 seconds that TensorFlow takes to start. Another
0.4 s go to the garbage collector, which goes through all that was imported again and again and
finds nothing.
"""

import contextlib
import gc
import sys
from collections.abc import Iterator


class _RefuseKeras:
    """A finder of modules that finds no Keras 3."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "keras.src":
            raise ModuleNotFoundError(name)


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Make TensorFlow's import quick inside of the block.

    Behind it, Keras can be imported as ever, `tf.keras` included. tf_keras is another package and
    not touched.
    """
    refuse_keras = _RefuseKeras()
    sys.meta_path.insert(0, refuse_keras)
    try:
        with without_garbage_collection():
            yield
    finally:
        sys.meta_path.remove(refuse_keras)
        gc.freeze()  # what was imported stays: never look at it again


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Make much that stays, without looking through it again and again for what does not."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
