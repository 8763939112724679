"""Image files of a request, inside the graph: what they claim, and their pixels if they have any.

Shape letters: `n` files, `k` those that could be decoded, `h w` size of one.

One file's damage is its own: nothing in here raises an error, whatever the files hold.
"""

from collections.abc import Callable

import tensorflow as tf

from mrcnn_tf.images import decoding
from mrcnn_tf.serving import attempt

# A pixel takes 3 bytes decoded and up to 12 more while its picture is resized: of 24-megapixel
# photos, eight in flight take 0.6 GB and up to 2.9 GB; of the largest that are taken, 7.7 GB.
PARALLEL = 8


def claimed_sizes_hw(files: tf.Tensor) -> tf.Tensor:
    """Return the sizes that files claim in their headers; no pixel is made.

    Args:
      files: string [n], whatever they hold.

    Returns:
      int32 [n, (height, width)], as stored; zeros for what claims nothing.
    """
    index, (found,) = attempt.each(
        lambda file: (decoding.claimed_size_hw(file),), (files,), PARALLEL
    )
    zeros = tf.zeros([tf.size(files), 2], tf.int32)
    return tf.tensor_scatter_nd_update(zeros, index[:, tf.newaxis], found)


def decode(files: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decode what can be decoded, as `decoding.decode_as_stored` does.

    Args:
      files: string [n], of which all pixels are in memory at once.

    Returns:
      index: int64 [k], which files these are, ascending.
      pixels: string [k], as their sizes differ; `parse` makes uint8 [h, w, 3] of each.
      sizes_hw: int32 [k, (height, width)].
    """

    def serialized(file: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels = decoding.decode_as_stored(file)
        return tf.io.serialize_tensor(pixels), tf.shape(pixels)[:2]

    index, (pixels, sizes_hw) = attempt.each(serialized, (files,), PARALLEL)
    return index, pixels, sizes_hw


def parse(pixels: tf.Tensor) -> tf.Tensor:
    """Return one file's pixels, uint8 [h, w, 3], of a string [] of `decode`."""
    return tf.ensure_shape(tf.io.parse_tensor(pixels, tf.uint8), [None, None, 3])


def each(
    function: Callable[..., tf.Tensor],
    elements: tf.Tensor | tuple[tf.Tensor, ...],
    output: tf.TensorSpec,
) -> tf.Tensor:
    """Apply a function to each file, several at a time (in eager mode, one)."""
    parallel = 1 if tf.executing_eagerly() else PARALLEL
    return tf.map_fn(function, elements, parallel_iterations=parallel, fn_output_signature=output)
