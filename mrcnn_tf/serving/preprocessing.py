"""From what a client sends to the network's input, inside the graph.

Shape letters: `B` images of a request, `H W` network-input size, `h w` size of one image.

Images of one request may have any sizes. They go through in two passes, so that at no time all
of them lie in memory at full size: the first reads their sizes and orientations (for JPEG and PNG
without decoding) and finds the canvas that holds all resized ones; the second decodes, turns
upright, resizes and pads each image straight into that canvas. What stays is the batch itself plus
`PARALLEL_IMAGES` images in flight.

Who has decoded images in Python prepares them one by one, `from_pixels`, and puts them together,
`stack`; the network sees the same numbers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.data import canvases, preprocess, schema
from mrcnn_tf.images import decoding, orientation

# A 24-megapixel photo takes 72 MB decoded: eight in flight are still well below a gigabyte.
PARALLEL_IMAGES = 8


class NetworkInput(NamedTuple):
    """A request, ready for the network.

    Attributes:
      images: float32 [B, H, W, 3], normalised, 0 in the padding at the bottom and on the right.
      image_size_hw: float32 [B, (height, width)], the resized image inside H x W.
      original_size_hw: int32 [B, (height, width)], the image as it was sent, turned upright.
    """

    images: tf.Tensor
    image_size_hw: tf.Tensor
    original_size_hw: tf.Tensor


def stack(prepared: Sequence[NetworkInput]) -> NetworkInput:
    """Put images that were prepared one by one together, on the smallest canvas that holds theirs.

    Args:
      prepared: of each image, what `Preprocessor.from_pixels` returned, as eager tensors.

    Returns:
      The batch, B = len(prepared).
    """
    heights, widths = zip(*(one.images.shape[:2] for one in prepared), strict=True)
    canvas_hw = (max(heights), max(widths))
    with tf.device("CPU:0"):
        images = [
            one.images
            if one.images.shape[:2] == canvas_hw
            else preprocess.pad_to_canvas(one.images, tf.constant(canvas_hw))
            for one in prepared
        ]
        return NetworkInput(
            tf.stack(images),
            tf.stack([one.image_size_hw for one in prepared]),
            tf.stack([one.original_size_hw for one in prepared]),
        )


def encode_example(encoded_image: bytes) -> bytes:
    """Return a serialized tf.train.Example that holds one encoded image and nothing else."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded_image]))
    features = tf.train.Features(feature={schema.IMAGE_ENCODED: feature})
    return tf.train.Example(features=features).SerializeToString()


@dataclasses.dataclass(frozen=True)
class Preprocessor:
    """The data path's resizing and normalising for whole requests.

    The rules are those of `data/preprocess.py`, called from here, so that training and serving
    cannot drift apart.

    Attributes:
      short_edge: the shorter side is resized to this, in pixels ...
      long_edge: ... unless the longer one would exceed this.
      resize_convention: "detectron2" or "torchvision", see `data/preprocess.py`.
      channel_order: "rgb" or "bgr", what the network expects.
      pixel_mean: subtracted per channel, in that order, on the 0..255 scale.
      pixel_std: divided by, likewise.
      canvas_sizes: (height, width) of the canvases that evaluation pads to, see `data/canvases.py`;
        None pads to the next multiple of 32. Padding changes what a network sees, most of all one
        whose group norms take their statistics over it, so serving pads as evaluation does.
    """

    short_edge: int
    long_edge: int
    resize_convention: str
    channel_order: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    canvas_sizes: tuple[tuple[int, int], ...] | None = None

    def from_image_bytes(self, encoded: tf.Tensor) -> NetworkInput:
        """Prepare encoded images of any sizes, upright as their EXIF orientation says.

        Args:
          encoded: string [B], see `decoding.decode_as_stored`.

        Returns:
          The batch on the smallest canvas that holds every image's own.
        """

        def look(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            tag = orientation.read(file)
            size_hw = orientation.turn_size_hw(decoding.stored_size_hw(file), tag)
            return size_hw, self._resized(size_hw), tag

        def decode(file: tf.Tensor, tag: tf.Tensor) -> tf.Tensor:
            return orientation.turn(decoding.decode_as_stored(file), tag)

        pair = tf.TensorSpec([2], tf.int32)
        original_size_hw, size_hw, tags = _map(
            look, encoded, (pair, pair, tf.TensorSpec([], tf.int32))
        )
        return self._batch((encoded, tags), decode, original_size_hw, size_hw)

    def from_tf_example(self, serialized: tf.Tensor) -> NetworkInput:
        """Prepare records: serialized tf.train.Examples with the image in `image/encoded`.

        Args:
          serialized: string [B].

        Returns:
          As `from_image_bytes`.
        """
        features = {schema.IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string)}
        parsed = tf.io.parse_example(serialized, features)
        return self.from_image_bytes(parsed[schema.IMAGE_ENCODED])

    def from_image_tensor(self, images: tf.Tensor) -> NetworkInput:
        """Prepare decoded images of one size.

        Args:
          images: uint8 [B, h, w, 3], RGB.

        Returns:
          As `from_image_bytes`.
        """
        original_size_hw = tf.shape(images)[1:3]
        tf.debugging.assert_positive(original_size_hw, "images without a pixel: (height, width)")
        sizes = tf.stack([original_size_hw, self._resized(original_size_hw)])
        sizes = tf.repeat(sizes[:, tf.newaxis], tf.shape(images)[0], axis=1)  # [2, B, 2]
        return self._batch((images,), lambda image: image, sizes[0], sizes[1])

    def from_pixels(self, pixels: tf.Tensor) -> NetworkInput:
        """Prepare one decoded image.

        Args:
          pixels: uint8 [h, w, 3], RGB, upright.

        Returns:
          That image without B, on the canvas that evaluation gives it.
        """
        original_size_hw = tf.shape(pixels)[:2]
        size_hw = self._resized(original_size_hw)
        image = self._prepare(pixels, size_hw, self._canvas(size_hw[tf.newaxis]))
        return NetworkInput(image, tf.cast(size_hw, tf.float32), original_size_hw)

    def _resized(self, original_hw: tf.Tensor) -> tf.Tensor:
        """Return the network-input size of one image: int32 [2] -> int32 [2]."""
        return preprocess.resized_size_hw(
            original_hw, self.short_edge, self.long_edge, self.resize_convention
        )

    def _canvas(self, size_hw: tf.Tensor) -> tf.Tensor:
        """Return the canvas of a request: sizes int32 [B, 2] -> int32 [(height, width)].

        An image that is sent alone gets the canvas that evaluation gives it.
        """
        if self.canvas_sizes is None:
            own_hw = canvases.round_up(size_hw)
        else:
            own_hw = canvases.choose(size_hw, self.canvas_sizes)
        return tf.reduce_max(own_hw, axis=0)

    def _prepare(self, pixels: tf.Tensor, size_hw: tf.Tensor, canvas_hw: tf.Tensor) -> tf.Tensor:
        """Resize, normalise and pad: uint8 [h, w, 3] -> float32 [H, W, 3]."""
        return preprocess.prepare_image(
            pixels,
            size_hw,
            canvas_hw,
            convention=self.resize_convention,
            channel_order=self.channel_order,
            pixel_mean=self.pixel_mean,
            pixel_std=self.pixel_std,
        )

    def _batch(
        self,
        sources: tuple[tf.Tensor, ...],
        decode: Callable[..., tf.Tensor],
        original_size_hw: tf.Tensor,
        size_hw: tf.Tensor,
    ) -> NetworkInput:
        """Decode, resize, normalise and pad every image into one canvas.

        Args:
          sources: what `decode` takes, each [B, ...].
          decode: returns one image: uint8 [h, w, 3].
          original_size_hw: int32 [B, 2], of what `decode` returns.
          size_hw: int32 [B, 2], to be resized to.
        """
        canvas_hw = self._canvas(size_hw)

        def prepare(source_and_size: tuple[tf.Tensor, ...]) -> tf.Tensor:
            *source, image_size_hw = source_and_size
            return self._prepare(decode(*source), image_size_hw, canvas_hw)

        images = _map(prepare, (*sources, size_hw), tf.TensorSpec([None, None, 3], tf.float32))
        return NetworkInput(images, tf.cast(size_hw, tf.float32), original_size_hw)


def _map(
    function: Callable[..., tf.Tensor | tuple[tf.Tensor, ...]],
    elements: tf.Tensor | tuple[tf.Tensor, ...],
    output: tf.TensorSpec | tuple[tf.TensorSpec, ...],
) -> tf.Tensor | tuple[tf.Tensor, ...]:
    """Apply a function to each image, several at a time (in eager mode, one)."""
    parallel = 1 if tf.executing_eagerly() else PARALLEL_IMAGES
    return tf.map_fn(function, elements, parallel_iterations=parallel, fn_output_signature=output)
