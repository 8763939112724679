"""Canvases: the short list of image sizes that batches are padded to.

One canvas for all images wastes much of the work (a 4:3 photo at 800 x 1067 fills 59 % of
1344 x 1344), and every image at its own size makes every batch a new shape. In between, images
of like shape are batched together.
"""

import math

import tensorflow as tf

# Most photos are 4:3 or squarer, or else up to 16:9.
_SQUARER_ASPECT = 4 / 3
_LONGER_ASPECT = 16 / 9
# Several short edges (multi-scale training) share at most this many sizes of canvases: each canvas
# costs a compilation and a window of waiting images.
_MAX_SHORT_EDGES = 3


def make(
    short_edges: tuple[int, ...], long_edge: int, multiple: int = 32
) -> tuple[tuple[int, int], ...]:
    """List the canvases for images resized by `preprocess.resized_size_hw`.

    For each short edge two landscape canvases and their transposes: one holds images up to 4:3,
    the other one longer images, up to `long_edge` for the largest short edge, which is the
    catch-all, and up to 16:9 for the smaller ones. Of more than three short edges only some,
    evenly spaced and with the largest among them, get canvases. Examples:

    * 800, 1333: (800, 1088), (800, 1344) and transposes.
    * 1024, 1024 (fitted into a square): (1024, 1024), (768, 1024), (1024, 768).
    * 640 to 800 in steps of 32, 1333: the above two with 672, 736 and 800 as short edge: 12.

    Args:
      short_edges: the lengths to which the short edge is resized, pixels.
      long_edge: the length that the long edge does not exceed, pixels.
      multiple: sides are multiples of this: the stride of the coarsest feature map from which
        another one is upsampled.

    Returns:
      (height, width) of each canvas, from the smallest to the largest area.
    """
    edges = sorted({min(edge, long_edge) for edge in short_edges})
    step = math.ceil(len(edges) / _MAX_SHORT_EDGES)
    found = set()
    for edge in edges[::-1][::step]:
        squarer = (edge, min(long_edge, edge * _SQUARER_ASPECT))
        # An image longer than this aspect has no longer short side if its long one is the limit.
        short_side = min(edge, long_edge / _SQUARER_ASPECT)
        is_largest = edge == edges[-1]
        longer = (short_side, long_edge if is_largest else min(long_edge, edge * _LONGER_ASPECT))
        for sides in (squarer, longer):
            height, width = (multiple * math.ceil(side / multiple) for side in sides)
            found |= {(height, width), (width, height)}
    return tuple(sorted(found, key=lambda hw: (hw[0] * hw[1], hw)))


def square(side: int, multiple: int = 32) -> tuple[tuple[int, int], ...]:
    """List the one canvas for images that are cut to a square (large-scale jitter).

    The smaller of them would fit smaller canvases, but then a batch would hold small images only,
    or large ones only; and one shape is one compilation.

    Args:
      side: of the square, pixels.
      multiple: see `make`.

    Returns:
      (height, width) of the canvas.
    """
    side = multiple * math.ceil(side / multiple)
    return ((side, side),)


def choose(size_hw: tf.Tensor, canvases: tuple[tuple[int, int], ...]) -> tf.Tensor:
    """Choose the smallest canvas that holds an image.

    Args:
      size_hw: int32 [..., (height, width)] of the resized image.
      canvases: what `make` returned.

    Returns:
      int32 [..., (height, width)].

    Raises:
      InvalidArgumentError: (when it runs) no canvas holds the image.
    """
    canvases_hw = tf.constant(canvases, tf.int32)  # [K, 2]
    fits = tf.reduce_all(size_hw[..., None, :] <= canvases_hw, axis=-1)  # [..., K]
    tf.debugging.Assert(
        tf.reduce_all(tf.reduce_any(fits, axis=-1)),
        ["no canvas holds an image of size", size_hw, "canvases:", canvases_hw],
    )
    # The first one that fits: they come in order of area.
    return tf.gather(canvases_hw, tf.argmax(tf.cast(fits, tf.int32), axis=-1))


def round_up(size_hw: tf.Tensor, multiple: int = 32) -> tf.Tensor:
    """Return the canvas of an image's own size, rounded up.

    Args:
      size_hw: int32 [..., (height, width)].
      multiple: see `make`.

    Returns:
      int32 [..., (height, width)].
    """
    # As `-(-size // multiple)` rounds, which other runtimes' integer division would not.
    return (size_hw + multiple - 1) // multiple * multiple
