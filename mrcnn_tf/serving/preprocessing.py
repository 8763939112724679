"""From what a client sends to the network's input, inside the graph.

Shape letters: `B` images of a request, `H W` network-input size, `h w` size of one image.

Images of one request may have any sizes. They go through in two passes, so that at no time all
of them lie in memory at full size: the first looks at their headers, which say how large they are
and how each is to be turned; the second decodes, turns, resizes and pads those of one canvas, a few
at a time. What claims to be larger than `max_image_pixels` is never decoded. What cannot be decoded
is found when it is tried. Both are noted (`detection_status.py`).

Who has decoded images in Python prepares them one by one, `from_pixels`, and puts them together,
`stack`; the network sees the same numbers.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.data import canvases, preprocess, schema
from mrcnn_tf.images import orientation
from mrcnn_tf.serving import attempt, detection_status, encoded_files

# Cameras of 61 megapixels fit; decoded they take 180 MB, a gigabyte on the way to their small size,
# and `encoded_files.PARALLEL` pictures of a request may be on that way at once: 8 GB at worst.
MAX_IMAGE_PIXELS = 64_000_000

_IMAGE_SPEC = tf.TensorSpec([None, None, 3], tf.float32)


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


class Request(NamedTuple):
    """What was sent, after a look at the headers.

    Attributes:
      status: int32 [B], see `detection_status.py`; `DONE` as far as it can be known.
      original_size_hw: int32 [B, (height, width)], the upright image, as its header claims; zeros
        if it is none.
      size_hw: int32 [B, (height, width)], to which it is resized.
      canvas_hw: int32 [B, (height, width)], the canvas that evaluation gives it.
      images: string [B], files, or uint8 [B, h, w, 3], decoded.
      tags: int32 [B], how each is to be turned, see `orientation.py`.
    """

    status: tf.Tensor
    original_size_hw: tf.Tensor
    size_hw: tf.Tensor
    canvas_hw: tf.Tensor
    images: tf.Tensor
    tags: tf.Tensor


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
      max_image_pixels: a file that claims more is not decoded.
    """

    short_edge: int
    long_edge: int
    resize_convention: str
    channel_order: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    canvas_sizes: tuple[tuple[int, int], ...] | None = None
    max_image_pixels: int = MAX_IMAGE_PIXELS

    def look_at_image_bytes(self, encoded: tf.Tensor) -> Request:
        """Look at encoded images of any sizes.

        Args:
          encoded: string [B], see `decoding.decode_as_stored`.
        """
        tags = encoded_files.each(orientation.read, encoded, tf.TensorSpec([], tf.int32))
        stored_hw = encoded_files.claimed_sizes_hw(encoded)
        num_pixels = tf.reduce_prod(tf.cast(stored_hw, tf.int64), axis=-1)
        status = tf.where(
            num_pixels == 0,
            detection_status.UNDECODABLE,
            tf.where(
                num_pixels > self.max_image_pixels,
                detection_status.TOO_LARGE,
                detection_status.DONE,
            ),
        )
        return self._request(status, _turned(stored_hw, tags), encoded, tags)

    def look_at_tf_example(self, serialized: tf.Tensor) -> Request:
        """Look at records: serialized tf.train.Examples with the image in `image/encoded`.

        Args:
          serialized: string [B].
        """
        features = {schema.IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string)}
        index, (found,) = attempt.each(
            lambda record: (tf.io.parse_single_example(record, features)[schema.IMAGE_ENCODED],),
            (serialized,),
            encoded_files.PARALLEL,
        )
        files = tf.fill(tf.shape(serialized), "")  # none where there is no record
        files = tf.tensor_scatter_nd_update(files, index[:, tf.newaxis], found)
        return self.look_at_image_bytes(files)

    def look_at_image_tensor(self, images: tf.Tensor) -> Request:
        """Look at decoded images of one size.

        Args:
          images: uint8 [B, h, w, 3], RGB. They may be of any size: they are in memory already.

        Raises:
          InvalidArgumentError: (when it runs) h or w is 0, and B is not.
        """
        count = tf.shape(images)[0]
        size_hw = tf.repeat(tf.shape(images)[tf.newaxis, 1:3], count, axis=0)
        tf.debugging.assert_positive(size_hw, "images without a pixel: (height, width)")
        done = tf.fill([count], detection_status.DONE)
        return self._request(done, size_hw, images, tf.ones([count], tf.int32))

    def _request(
        self, status: tf.Tensor, original_size_hw: tf.Tensor, images: tf.Tensor, tags: tf.Tensor
    ) -> Request:
        size_hw = self._resized(tf.maximum(original_size_hw, 1))
        canvas_hw = self._canvas(size_hw)
        return Request(status, original_size_hw, size_hw, canvas_hw, images, tags)

    def load(
        self, request: Request, rows: tf.Tensor, canvas_hw: tf.Tensor
    ) -> tuple[tf.Tensor, NetworkInput]:
        """Decode, turn upright, resize, normalise and pad images of one canvas.

        Args:
          request: see there.
          rows: int64 [n], which of its images.
          canvas_hw: int32 [(H, W)].

        Returns:
          rows: int64 [k], those that could be decoded.
          These, B = k.
        """
        count = tf.size(rows)

        def load_some(
            first: tf.Tensor, images: tf.Tensor, loaded: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            some = rows[first : first + encoded_files.PARALLEL]
            index, pixels = self._decode(request, some)
            sources = (
                pixels,
                *(tf.gather(t, tf.gather(some, index)) for t in (request.tags, request.size_hw)),
            )

            def prepare(source: tuple[tf.Tensor, ...]) -> tf.Tensor:
                pixels, tag, size_hw = source
                if pixels.dtype == tf.string:
                    pixels = orientation.turn(encoded_files.parse(pixels), tag)
                return self._prepare(pixels, size_hw, canvas_hw)

            place = tf.cast(index, tf.int32)[:, tf.newaxis] + first
            prepared = tf.cond(
                tf.size(index) > 0,
                lambda: encoded_files.each(prepare, sources, _IMAGE_SPEC),
                lambda: tf.zeros([0, canvas_hw[0], canvas_hw[1], 3]),
            )
            return (
                first + encoded_files.PARALLEL,
                tf.tensor_scatter_nd_update(images, place, prepared),
                tf.tensor_scatter_nd_update(loaded, place, tf.fill(tf.shape(index), True)),
            )

        blank = tf.zeros([count, canvas_hw[0], canvas_hw[1], 3])
        _, images, loaded = tf.while_loop(
            lambda first, images, loaded: first < count,
            load_some,
            (tf.constant(0), blank, tf.fill([count], False)),
            parallel_iterations=1,  # or more pictures would be in memory than meant
        )
        images = tf.cond(
            tf.reduce_all(loaded), lambda: images, lambda: tf.boolean_mask(images, loaded)
        )
        rows = tf.boolean_mask(rows, loaded)
        return rows, NetworkInput(
            tf.ensure_shape(images, [None, None, None, 3]),
            tf.cast(tf.gather(request.size_hw, rows), tf.float32),
            tf.gather(request.original_size_hw, rows),
        )

    def _decode(self, request: Request, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decode a few images.

        Returns:
          index: int64 [k], which of the rows could be decoded, and to what their headers claimed.
          pixels: uint8 [k, h, w, 3]; or, of files, a string [k], see `encoded_files.decode`.
        """
        images = tf.gather(request.images, rows)
        if images.dtype != tf.string:
            return tf.range(tf.size(rows, tf.int64)), images
        index, pixels, sizes_hw = encoded_files.decode(images)
        decoded = tf.gather(rows, index)
        upright_hw = _turned(sizes_hw, tf.gather(request.tags, decoded))
        as_claimed = upright_hw == tf.gather(request.original_size_hw, decoded)
        used = tf.where(tf.reduce_all(as_claimed, axis=-1))[:, 0]
        return tf.gather(index, used), tf.gather(pixels, used)

    def from_pixels(self, pixels: tf.Tensor) -> NetworkInput:
        """Prepare one decoded image.

        Args:
          pixels: uint8 [h, w, 3], RGB, upright.

        Returns:
          That image without B, on the canvas that evaluation gives it.
        """
        original_size_hw = tf.shape(pixels)[:2]
        size_hw = self._resized(original_size_hw)
        image = self._prepare(pixels, size_hw, self._canvas(size_hw))
        return NetworkInput(image, tf.cast(size_hw, tf.float32), original_size_hw)

    def _resized(self, original_hw: tf.Tensor) -> tf.Tensor:
        """Return the network-input size of images: int32 [..., 2] -> int32 [..., 2]."""
        return preprocess.resized_size_hw(
            original_hw, self.short_edge, self.long_edge, self.resize_convention
        )

    def _canvas(self, size_hw: tf.Tensor) -> tf.Tensor:
        """Return the canvas that evaluation gives an image: int32 [..., 2] -> int32 [..., 2]."""
        if self.canvas_sizes is None:
            return canvases.round_up(size_hw)
        return canvases.choose(size_hw, self.canvas_sizes)

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


def _turned(size_hw: tf.Tensor, tags: tf.Tensor) -> tf.Tensor:
    """Return the sizes of upright images: int32 [n, 2], of stored ones, and int32 [n]."""
    return tf.where(tags[:, tf.newaxis] >= 5, size_hw[:, ::-1], size_hw)
