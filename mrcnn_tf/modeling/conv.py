"""Convolutions: padded symmetrically, as the reference implementations have it, and SAME."""

import tensorflow as tf
import tf_keras

from mrcnn_tf.modeling import normalization, prepared
from mrcnn_tf.ops import depthwise

# He et al. 2015 (arXiv:1502.01852) over the fan-out, not truncated: what Detectron2
# (`c2_msra_fill`) and torchvision (`kaiming_normal_(mode="fan_out")`) give their ResNets.
MSRA = tf_keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
# Caffe2's XavierFill: uniform with variance 1 / fan_in, used by Detectron and Detectron2 for FPN.
XAVIER = tf_keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
# Of a depthwise kernel [k, k, 1, C], an input of which reaches k * k outputs, not k * k * C.
_DEPTHWISE_MSRA = tf_keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")


class Conv2D(tf_keras.layers.Layer):
    """2-D convolution, NHWC, padded by `kernel_size // 2` zeros on every side.

    TensorFlow's `SAME` pads a strided layer on the bottom and right only when the input is even,
    which shifts its features by half a pixel against the weights of every other framework.

    Variables: `kernel` [k, k, Cin / groups, Cout] and, if `use_bias`, `bias` [Cout], as in Keras.

    Args:
      filters: number of output channels.
      kernel_size: side k of the square kernel, odd.
      stride: step in both directions.
      groups: output channels see only the input channels of their own group (ResNeXt).
      use_bias: whether a bias is added; without it where a normalisation follows.
      kernel_initializer: Keras initializer of the kernel.
      name: layer name.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        use_bias: bool = False,
        kernel_initializer: tf_keras.initializers.Initializer = MSRA,
        name: str | None = None,
    ):
        super().__init__(name=name)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to pad symmetrically, not {kernel_size}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = groups
        self.use_bias = use_bias
        pad = [kernel_size // 2] * 2
        self._explicit_padding = [[0, 0], pad, pad, [0, 0]]
        # A copy of its own: an unseeded Keras initializer that is called twice warns.
        self._kernel_initializer = type(kernel_initializer).from_config(
            kernel_initializer.get_config()
        )

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create the variables from the number of input channels."""
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(f"{self.name}: the number of input channels must be known")
        shape = [self.kernel_size, self.kernel_size, channels // self.groups, self.filters]
        # In float32 until a norm is part of them.
        self.kernel = self.add_weight(
            "kernel", shape, initializer=self._kernel_initializer, experimental_autocast=False
        )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias", [self.filters], initializer="zeros", experimental_autocast=False
            )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, norm: tf_keras.layers.Layer | None = None) -> tf.Tensor:
        """Convolve.

        Args:
          inputs: [B, H, W, Cin], the layer's compute type.
          norm: whose scale and offset become part of kernel and bias, see `normalised`.

        Returns:
          [B, (H - 1) // stride + 1, (W - 1) // stride + 1, filters].
        """
        kernel, bias = prepared.weights(self, norm, inputs.dtype)
        outputs = self._convolve(inputs, kernel)
        return outputs if bias is None else tf.nn.bias_add(outputs, bias)

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        stride = self.stride
        padding: str | list = self._explicit_padding
        if stride == 1:
            # The same without a stride; its gradient takes a third less time on CPUs.
            padding = "SAME"
        elif inputs.dtype != tf.float32 or self.groups > 1:
            # On CPUs the gradients of explicit padding run outside of oneDNN: in half precision
            # twenty times slower than a copy of the input and the rest together
            # (`benchmarks/op_choices.py`, `strided_convolution`), and of groups there are none.
            inputs, stride, padding = self._without_padding(inputs)
        return tf.nn.conv2d(inputs, kernel, stride, padding)

    def _without_padding(self, inputs: tf.Tensor) -> tuple[tf.Tensor, int, str]:
        """Return what takes the place of inputs, stride and explicit padding."""
        if self.kernel_size == 1:  # what a stride passes over, it never sees
            return inputs[:, :: self.stride, :: self.stride], 1, "VALID"
        return tf.pad(inputs, self._explicit_padding), self.stride, "VALID"


class DilatedConv2D(Conv2D):
    """`Conv2D` of stride 1 whose taps lie two pixels apart, padded by as many more zeros.

    Every second pixel of every second row is an image of its own, convolved without dilation: four
    of them. TensorFlow's kernels for CPUs have no gradient of dilated convolutions.
    """

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        missing = tf.shape(inputs)[1:3] % 2  # to whole pairs of rows and of columns
        ends = tf.stack([tf.zeros_like(missing), missing], axis=1)  # [(height, width), (0, end)]
        images = tf.space_to_batch(inputs, [2, 2], ends)  # [4 * B, ceil(H / 2), ceil(W / 2), Cin]
        outputs = tf.nn.conv2d(images, kernel, 1, "SAME")
        outputs = tf.batch_to_space(outputs, [2, 2], ends)
        return tf.ensure_shape(outputs, [*inputs.shape[:3], self.filters])


class SameConv2D(Conv2D):
    """`Conv2D` padded as TensorFlow's `SAME` does, for weights that were trained with it."""

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(inputs, kernel, self.stride, "SAME")


class SameDepthwiseConv2D(Conv2D):
    """Convolution of each channel with a kernel of its own, padded as TensorFlow's `SAME` does.

    Variables: `kernel` [k, k, 1, C], that of a `Conv2D` with C groups, so that norms become part of
    it in the same way.

    Args:
      channels: C, of inputs and outputs.
      kernel_size: side k of the square kernel, odd.
      stride: step in both directions.
      name: layer name.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, name: str | None = None):
        super().__init__(
            channels, kernel_size, stride, channels, kernel_initializer=_DEPTHWISE_MSRA, name=name
        )

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return depthwise.depthwise_conv(inputs, kernel, self.stride)


def normalised(
    conv: Conv2D, norm: tf_keras.layers.Layer, inputs: tf.Tensor, training: bool
) -> tf.Tensor:
    """Convolve and normalise: [B, H, W, Cin] -> [B, h, w, filters].

    A norm that does not look at its batch is a factor of the kernel and a bias. So it costs the
    feature map no pass of its own, and TensorFlow joins convolution, bias and ReLU.

    Args:
      conv: without a bias.
      norm: any that `normalization.build` returns.
      inputs: the layers' compute type.
      training: whether norms that learn use the batch's statistics.
    """
    # The first call creates the norm's variables.
    if norm.built and normalization.is_fixed(norm, training):
        return conv(inputs, norm=norm)
    return norm(conv(inputs), training=training)


class ConvNormReLU(tf_keras.layers.Layer):
    """3x3 convolution, normalisation if there is one (then without bias), ReLU: what heads stack.

    Args:
      filters: number of output channels.
      norm: layer that normalises [B, H, W, filters], or None.
      kernel_initializer: Keras initializer of the kernel.
      name: layer name.
    """

    def __init__(
        self,
        filters: int,
        norm: tf_keras.layers.Layer | None,
        kernel_initializer: tf_keras.initializers.Initializer,
        name: str,
    ):
        super().__init__(name=name)
        self.conv = Conv2D(
            filters, 3, use_bias=norm is None, kernel_initializer=kernel_initializer, name="conv"
        )
        self.norm = norm

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, Cin] -> [B, H, W, filters]."""
        if self.norm is None:
            return tf.nn.relu(self.conv(inputs))
        return tf.nn.relu(normalised(self.conv, self.norm, inputs, training))
