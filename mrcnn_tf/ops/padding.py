"""Padding for what cannot be empty."""

import tensorflow as tf


def at_least_one(tensor: tf.Tensor, axis: int, value: float | int | bool = 0) -> tf.Tensor:
    """Add one entry along an axis that has none.

    Some operations refuse an empty axis (the best of no boxes, the first of no entries), in a
    batch of no images for one. With an entry that counts as padding they need not be asked.

    Args:
      tensor: any.
      axis: which axis.
      value: of the entry.

    Returns:
      The tensor itself, unless it is empty along the axis.
    """
    known = tensor.shape[axis]
    if known:
        return tensor
    missing = 1 if known == 0 else tf.maximum(1 - tf.shape(tensor)[axis], 0)
    padding = [[0, missing if i == axis else 0] for i in range(len(tensor.shape))]
    return tf.pad(tensor, padding, constant_values=tf.cast(value, tensor.dtype))
