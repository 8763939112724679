"""Simple Copy-Paste: objects of a second image are pasted onto the first.

Both images are flipped and jittered first, each by its own random numbers, and an object is pasted
at the place that it has in its own image. All of this happens in the network input's frame. What
is pasted keeps its mask as it is stored. Where it covers the mask of an object below, that object
gets new bits, one for each pixel of the network input that its frame covers: what the lookup
formula of `schema.py` finds there, and 0 where it finds a pasted object. So every mask has at each
pixel exactly the value that painting all masks there, one after the other, would give; objects that
nothing covers keep their bits.

Shape letters: `n` objects below, `m` pasted objects, `H W` canvas size, `k` covered
pixels.

Source: Ghiasi et al., arXiv 2012.07177, and its code (tensorflow/tpu, `detection/projects/
copy_paste`). As there, the number of objects is drawn from none to all, edges are not blurred,
crowds are not pasted, and pasted objects do not cut each other. There crowds below are left out
altogether; here they are cut like other objects, and `model.ignore_crowds` says what they mean.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.data import arena, augment, schema


class CopyPaste(NamedTuple):
    """How objects are pasted.

    Attributes:
      probability: of a training image to have objects of another pasted onto it.
      min_pixels: an object below of which no more pixels of the network input are left is dropped,
        if its box changed, too.
      max_box_shift: by more than this, pixels, at one of its edges.
    """

    probability: float
    min_pixels: int
    max_box_shift: float


def choose(objects: dict[str, tf.Tensor], seed: tf.Tensor, room: tf.Tensor) -> dict[str, tf.Tensor]:
    """Choose a random subset of the objects of an image: any number of them with equal probability.

    Args:
      objects: what `preprocess.scale_objects` returned.
      seed: int64 [2].
      room: int32 [], the most that there is room for.

    Returns:
      Those chosen, in their order: neither crowds nor objects without a mask.
    """
    sizes = objects[schema.GT_MASK_SIZES]
    is_eligible = ~objects[schema.GT_IS_CROWD] & (sizes[:, 0] * sizes[:, 1] > 0)
    return _some(objects, augment.random_subset(is_eligible, seed, room))


def cover(
    objects: dict[str, tf.Tensor],
    pasted: dict[str, tf.Tensor],
    canvas_hw: tf.Tensor,
    rule: CopyPaste,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Lay objects over those of an image.

    An object that loses pixels gets the smallest box around those that are left; it is dropped if
    none are left, or too few by the rule. Objects without a mask stay as they are.

    Args:
      objects: what `preprocess.scale_objects` returned of the image below: n objects.
      pasted: likewise, m objects.
      canvas_hw: int32 [(H, W)].
      rule: when an object is dropped.

    Returns:
      objects: those that are not covered, those that are in part, and the pasted ones.
      covered: int32 [k], numbers of the canvas' pixels, `row * W + column`, in order.
    """
    top_left, sizes, pixels = _pixels_inside(pasted, canvas_hw)
    places = arena.places(top_left, sizes, canvas_hw[1])
    lid = tf.tensor_scatter_nd_update(
        tf.zeros([canvas_hw[0] * canvas_hw[1]], tf.bool),
        tf.boolean_mask(places, pixels)[:, tf.newaxis],
        tf.ones([tf.math.count_nonzero(pixels)], tf.bool),
    )
    extent = _extent(top_left, sizes)

    # Only what lies within the pasted objects' extent is looked up: empty frames see nothing.
    frames = objects[schema.GT_MASK_FRAMES]
    low = tf.minimum(frames[:, :2], frames[:, 2:])
    high = tf.maximum(frames[:, :2], frames[:, 2:])
    is_near = tf.reduce_all((low < extent[2:]) & (high > extent[:2]), axis=1)
    near = objects | {schema.GT_MASK_FRAMES: tf.where(is_near[:, tf.newaxis], frames, 0.0)}
    top_left, sizes, pixels = _pixels_inside(near, canvas_hw)
    left = pixels & ~tf.gather(lid, arena.places(top_left, sizes, canvas_hw[1]))
    num_pixels = sizes[:, 0] * sizes[:, 1]
    num_before, num_left = _count(pixels, num_pixels), _count(left, num_pixels)
    is_cut = num_left < num_before

    boxes = arena.boxes_around(top_left, sizes, left)
    shift = tf.reduce_max(tf.abs(boxes - objects[schema.GT_BOXES]), axis=1)
    is_seen = (num_left > rule.min_pixels) | (shift <= rule.max_box_shift)
    is_left_in_part = is_cut & (num_left > 0) & is_seen

    cut = {
        schema.GT_BOXES: boxes,
        schema.GT_CLASSES: objects[schema.GT_CLASSES],
        schema.GT_IS_CROWD: objects[schema.GT_IS_CROWD],
        schema.GT_MASK_FRAMES: tf.cast(tf.concat([top_left, top_left + sizes], 1), tf.float32),
        schema.GT_MASK_SIZES: sizes,
    }
    cut = {key: tf.boolean_mask(values, is_left_in_part) for key, values in cut.items()}
    left = tf.boolean_mask(left, tf.repeat(is_left_in_part, num_pixels))
    cut[schema.GT_MASK_BITS] = arena.pack(left)
    together = _join([_some(objects, ~is_cut), cut, pasted])
    return together, tf.cast(tf.where(lid)[:, 0], tf.int32)


def paste_pixels(
    image: tf.Tensor, covered: tf.Tensor, pixels_at: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Paste pixels onto a canvas.

    Args:
      image: float32 [H, W, 3].
      covered: int32 [k], what `cover` returned.
      pixels_at: from rows and columns int32 [k, 2] to pixels float32 [k, 3].

    Returns:
      float32 [H, W, 3].
    """
    pixels = pixels_at(rows_and_columns(covered, tf.shape(image)[1]))
    flat = tf.reshape(image, [-1, 3])
    pasted = tf.tensor_scatter_nd_update(flat, covered[:, tf.newaxis], pixels)
    pasted = tf.reshape(pasted, tf.shape(image))
    pasted.set_shape(image.shape)
    return pasted


def grown(size_hw: tf.Tensor, covered: tf.Tensor, canvas_width: tf.Tensor) -> tf.Tensor:
    """Return int32 [(height, width)] of an image after pasting, which may reach into its padding.

    Args:
      size_hw: int32 [2], the image inside its canvas.
      covered: int32 [k], what `cover` returned.
      canvas_width: int32 [].
    """
    ends = rows_and_columns(covered, canvas_width) + 1
    return tf.maximum(
        size_hw, tf.reduce_max(tf.concat([ends, size_hw[tf.newaxis]], axis=0), axis=0)
    )


def rows_and_columns(places: tf.Tensor, canvas_width: tf.Tensor) -> tf.Tensor:
    """Return int32 [k, (row, column)] of numbers int32 [k] of a canvas' pixels."""
    return tf.stack([places // canvas_width, places % canvas_width], axis=1)


def _pixels_inside(objects, canvas_hw):
    return arena.pixels_inside(
        objects[schema.GT_MASK_BITS],
        objects[schema.GT_MASK_SIZES],
        objects[schema.GT_MASK_FRAMES],
        canvas_hw,
    )


def _extent(top_left: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Return float32 [(y1, x1, y2, x2)] around rectangles; turned inside out if there are none."""
    return tf.cast(
        tf.concat(
            [tf.reduce_min(top_left, axis=0), tf.reduce_max(top_left + sizes, axis=0)], axis=0
        ),
        tf.float32,
    )


def _count(pixels: tf.Tensor, num_pixels: tf.Tensor) -> tf.Tensor:
    """Return int32 [n]: how many of each object's pixels are set; `num_pixels` int32 [n] each."""
    counts = tf.pad(tf.cumsum(tf.cast(pixels, tf.int32)), [[1, 0]])
    end = tf.cumsum(num_pixels)
    return tf.gather(counts, end) - tf.gather(counts, end - num_pixels)


def _some(objects: dict[str, tf.Tensor], is_kept: tf.Tensor) -> dict[str, tf.Tensor]:
    sizes = objects[schema.GT_MASK_SIZES]
    return {
        key: arena.keep(values, sizes[:, 0] * sizes[:, 1], is_kept)
        if key == schema.GT_MASK_BITS
        else tf.boolean_mask(values, is_kept)
        for key, values in objects.items()
    }


def _join(parts: list[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    """Put the objects of several images into one list, and their masks into one arena."""
    joined = {key: tf.concat([part[key] for part in parts], axis=0) for key in parts[0]}
    bits, num_pixels = tf.zeros([0], tf.uint8), tf.constant(0)
    for part in parts:
        num_more = tf.reduce_sum(tf.reduce_prod(part[schema.GT_MASK_SIZES], axis=1))
        bits = arena.append(bits, num_pixels, part[schema.GT_MASK_BITS], num_more)
        num_pixels += num_more
    return joined | {schema.GT_MASK_BITS: bits}
