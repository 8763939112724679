"""Starts TensorFlow without Keras 3, which nothing here uses.

TensorFlow's package ends with an import of Keras, so that its optimizers are known to SavedModels,
and goes on without it if that fails. Keras imports what it can wrap, scikit-learn and Matplotlib
among it where they are there: together 2 of the 4.6 seconds that TensorFlow takes to start.
"""

import contextlib
import sys
from collections.abc import Iterator


class _Refuse:
    """A finder of modules that finds no Keras."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "keras.src":
            raise ModuleNotFoundError(name)


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Make imports of Keras 3 fail inside of the block, in which TensorFlow is imported.

    Behind it, Keras can be imported as ever, `tf.keras` included. tf_keras is another package.
    """
    refuse = _Refuse()
    sys.meta_path.insert(0, refuse)
    try:
        yield
    finally:
        sys.meta_path.remove(refuse)
