"""The network as one function of fixed shapes and plain operations: what is converted.

Shape letters: `H W` input size, `D` detections at most, `M` mask side.

LiteRT and ONNX know fewer operations than TensorFlow, and their converters need all shapes. So the
picture comes resized (`device.fit`), there is one at a time, and of what is written twice
(`ops/implementation.py`) the one in plain operations is taken.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import preprocess as pixels_lib
from mrcnn_tf.edge import device
from mrcnn_tf.modeling import prepared
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.ops import implementation
from mrcnn_tf.serving.preprocessing import Preprocessor

Detect = Callable[[tf.Tensor, tf.Tensor], Detections]
Answer = Callable[[np.ndarray, np.ndarray], device.Outputs]

MULTIPLE = 32  # of both sides of the input: the stride of the coarsest map that is enlarged
_HALF = (tf.float16, tf.bfloat16)


class Graph(tf.Module):
    """What a converter gets.

    Attributes:
      function: the concrete function, of `image` uint8 [1, H, W, 3] RGB and `image_size` int32
        [(height, width)] of the picture in its upper left corner; returns what
        `device.Network.run` does. What lies outside of the picture is not looked at.
      weights: its variables, kept here because the function does not keep them.
    """

    def __init__(self, detect: Detect, preprocess: Preprocessor, input_hw: tuple[int, int]):
        """Trace.

        Args:
          detect: the network: float32 [1, H, W, 3] and float32 [1, 2] -> `Detections`.
          preprocess: its normalisation and order of channels are built in.
          input_hw: (H, W), multiples of `MULTIPLE`.

        Raises:
          ValueError: the input size is none, or the network computes in half precision.
        """
        super().__init__()
        check_input(*input_hw)
        specs = (
            tf.TensorSpec([1, *input_hw, 3], tf.uint8, "image"),
            tf.TensorSpec([2], tf.int32, "image_size"),
        )

        def network(image: tf.Tensor, image_size: tf.Tensor) -> dict[str, tf.Tensor]:
            return _outputs(detect(*_network_input(image, image_size, preprocess)))

        traced = tf.function(network, input_signature=specs, autograph=False)
        with implementation.force(accelerators=True), prepared.once():
            self.function = traced.get_concrete_function()
            self.weights = list(self.function.variables)
        if any(weight.dtype in _HALF for weight in self.weights):
            raise ValueError(
                "the network computes in half precision, for which the runtimes have no kernels: "
                "--mixed_precision=none, and --quantize=float16 for a smaller file"
            )


def check_input(height: int, width: int) -> None:
    """Raise ValueError unless a network can take input of this size."""
    if any(side < MULTIPLE or side % MULTIPLE for side in (height, width)):
        raise ValueError(
            f"input_size: {height},{width}: both sides have to be multiples of {MULTIPLE}"
        )


def reference(detect: Detect, preprocess: Preprocessor) -> Answer:
    """Return what a file is compared with: the Keras network, as it runs on this machine.

    It prepares a picture by the data path's own steps, which know of no pixels around it.

    Args:
      detect: the network.
      preprocess: how it prepares pictures.

    Returns:
      A function as `device.Network.run`, of any H and W.
    """
    specs = (tf.TensorSpec([1, None, None, 3], tf.float32), tf.TensorSpec([1, 2], tf.float32))
    traced = tf.function(
        lambda images, size: _outputs(detect(images, size)), input_signature=specs, autograph=False
    )

    def answer(image: np.ndarray, size_hw: np.ndarray) -> device.Outputs:
        picture = tf.constant(image[0, : size_hw[0], : size_hw[1]])
        ordered = pixels_lib.order_channels(tf.cast(picture, tf.float32), preprocess.channel_order)
        normalised = pixels_lib.normalise(ordered, preprocess.pixel_mean, preprocess.pixel_std)
        padded = pixels_lib.pad_to_canvas(normalised, tf.constant(image.shape[1:3]))
        found = traced(padded[tf.newaxis], tf.constant(size_hw[np.newaxis], tf.float32))
        return {name: value.numpy() for name, value in found.items()}

    return answer


def _network_input(
    image: tf.Tensor, image_size: tf.Tensor, preprocess: Preprocessor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return float32 [1, H, W, 3], 0 outside of the picture, and float32 [1, 2]."""
    height, width = image.shape[1:3]
    size_hw = tf.minimum(tf.maximum(image_size, 1), [height, width])
    ordered = pixels_lib.order_channels(tf.cast(image, tf.float32), preprocess.channel_order)
    normalised = pixels_lib.normalise(ordered, preprocess.pixel_mean, preprocess.pixel_std)
    is_row = tf.cast(tf.range(height) < size_hw[0], tf.float32)
    is_column = tf.cast(tf.range(width) < size_hw[1], tf.float32)
    inside = tf.reshape(is_row, [1, height, 1, 1]) * tf.reshape(is_column, [1, 1, width, 1])
    return normalised * inside, tf.cast(size_hw, tf.float32)[tf.newaxis]


def _outputs(found: Detections) -> dict[str, Any]:
    """Name the detections of the one picture, without the batch's dimension.

    Raises:
      ValueError: they have keypoints.
    """
    if found.keypoints is not None:
        raise ValueError(
            "a LiteRT or ONNX file has no keypoints yet: export a SavedModel, which has "
            "(--format=saved_model)"
        )
    outputs = {
        "boxes": found.boxes[0],
        "classes": found.classes[0],
        "scores": found.scores[0],
        "count": tf.reduce_sum(tf.cast(found.valid[0], tf.int32)),
    }
    if found.masks is not None:
        outputs["masks"] = found.masks[0]
    if found.mask_scores is not None:
        outputs["mask_scores"] = found.mask_scores[0]
    return outputs
