"""Weights as a convolution uses them: with the norm behind it in them, in the compute type.

While a network trains they are made anew in each step, and gradients pass. A network that is
exported does not change any more: while `once` is open, each is computed once, and what is traced
reads the result. That saves a SavedModel a pass over all of its weights per call.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf
import tf_keras

from mrcnn_tf.modeling import normalization

_Weights = tuple[tf.Tensor, tf.Tensor | None]

_once: dict[int, tuple[tf.Variable, tf.Variable | None]] | None = None


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Make what is traced inside read weights that are prepared now.

    A later change of the network's own weights is not seen by it. What is prepared are variables of
    the traced function; they have to be kept before the block ends, as functions do not keep them.
    """
    global _once
    before, _once = _once, {}
    try:
        yield
    finally:
        _once = before


def weights(
    conv: tf_keras.layers.Layer, norm: tf_keras.layers.Layer | None, dtype: tf.DType
) -> _Weights:
    """Return kernel [k, k, Cin / groups, Cout] and bias [Cout] of a convolution.

    Args:
      conv: has float32 `kernel` and, if `use_bias`, `bias`.
      norm: with which they are joined, see `normalization.is_fixed`; None for none.
      dtype: what they are cast to.

    Returns:
      The kernel; and the bias, None if there is neither bias nor norm.
    """
    if _once is None:
        return _weights(conv, norm, dtype)
    if id(conv) not in _once:
        with tf.init_scope():  # outside of the graph that is traced
            kernel, bias = _weights(conv, norm, dtype)
            _once[id(conv)] = (
                tf.Variable(kernel, trainable=False, name=f"{conv.name}_kernel"),
                None
                if bias is None
                else tf.Variable(bias, trainable=False, name=f"{conv.name}_bias"),
            )
    kernel, bias = _once[id(conv)]
    return kernel.read_value(), None if bias is None else bias.read_value()


def _weights(
    conv: tf_keras.layers.Layer, norm: tf_keras.layers.Layer | None, dtype: tf.DType
) -> _Weights:
    kernel = tf.convert_to_tensor(conv.kernel)
    bias = tf.convert_to_tensor(conv.bias) if conv.use_bias else None
    if norm is not None:
        scale, offset = normalization.fixed_affine(norm)
        kernel *= scale  # of each output channel, which is the last axis
        bias = offset if bias is None else bias * scale + offset
    return tf.cast(kernel, dtype), None if bias is None else tf.cast(bias, dtype)
