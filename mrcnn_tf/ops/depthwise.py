"""Depthwise convolution with TensorFlow's SAME padding, fast backwards in half precision too.

TensorFlow's CPU kernels for the gradients of a depthwise convolution with a stride, or with a
kernel larger than 3x3, take two to four times as long in bfloat16 as in float32
(`benchmarks/op_choices.py`, `depthwise_convolution`). So on CPUs those are computed in float32, and
their results cast.
"""

import tensorflow as tf

from mrcnn_tf.ops import implementation

_Gradients = tuple[tf.Tensor, tf.Tensor]


def depthwise_conv(inputs: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Convolve each channel with a kernel of its own.

    SAME pads so that the output has `ceil(side / stride)` pixels. Of an odd number of zeros one
    more is behind than in front: none above and one below for a 3x3 kernel of stride 2 on an even
    side, one and two for a 5x5.

    Args:
      inputs: [B, H, W, C], float32, bfloat16 or float16.
      kernel: [k, k, 1, C] of the same type: laid out as of a convolution with C groups.
      stride: step in both directions.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C], of the same type.
    """
    is_fast = stride == 1 and kernel.shape[0] <= 3
    if inputs.dtype == tf.float32 or is_fast:
        return _forward(inputs, kernel, stride)

    @tf.custom_gradient
    def convolve(inputs: tf.Tensor, kernel: tf.Tensor):
        backward = _BACKWARD.here()
        return _forward(inputs, kernel, stride), lambda dy: backward(inputs, kernel, dy, stride)

    return convolve(inputs, kernel)


def _forward(inputs: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    filters = tf.transpose(kernel, [0, 1, 3, 2])  # [k, k, C, 1], as the op wants it
    return tf.nn.depthwise_conv2d(inputs, filters, [1, stride, stride, 1], "SAME")


def _backward(inputs: tf.Tensor, kernel: tf.Tensor, dy: tf.Tensor, stride: int) -> _Gradients:
    """Gradients of inputs and kernel, in the type that they have."""
    filters = tf.transpose(kernel, [0, 1, 3, 2])
    how = {"strides": [1, stride, stride, 1], "padding": "SAME"}
    d_inputs = tf.nn.depthwise_conv2d_backprop_input(tf.shape(inputs), filters, dy, **how)
    d_filters = tf.nn.depthwise_conv2d_backprop_filter(inputs, filters.shape, dy, **how)
    return d_inputs, tf.transpose(d_filters, [0, 1, 3, 2])


def _backward_in_float32(
    inputs: tf.Tensor, kernel: tf.Tensor, dy: tf.Tensor, stride: int
) -> _Gradients:
    x, filters, d_outputs = (tf.cast(tensor, tf.float32) for tensor in (inputs, kernel, dy))
    d_inputs, d_kernel = _backward(x, filters, d_outputs, stride)
    return tf.cast(d_inputs, inputs.dtype), tf.cast(d_kernel, kernel.dtype)


_BACKWARD = implementation.Either(for_accelerators=_backward, for_cpus=_backward_in_float32)
