"""Simple Copy-Paste: objects of a second image are pasted onto the first.

Both images are flipped and jittered first, each by its own random numbers, and an object is pasted
at the place that it has in its own image. All of this happens in the network input's frame. What
is pasted keeps its mask as it is stored. Where it covers the mask of an object below, that object
gets new bits, one for each pixel of the network input in its window (`bit_rows.py`): what the
lookup formula of `schema.py` finds there, and 0 where it finds a pasted object. So every mask has
at each pixel exactly the value that painting all masks there, one after the other, would give;
objects that nothing covers keep their bits.

The second image is the one at the same place of the step before (`with_step_before`), as the
network saw it there but for what was pasted onto it. So no image is read, decoded or resized only
to be pasted from, and no object is in a step twice.

Shape letters: `n` objects below, `m` pasted objects, `H W` canvas size, `W8` bytes of its rows, `k`
bytes in which pixels are covered, `p` of them those in which not all are.

Source: Ghiasi et al., arXiv 2012.07177, and its code (tensorflow/tpu, `detection/projects/
copy_paste`). As there, the number of objects is drawn from none to all, edges are not blurred,
crowds are not pasted, and pasted objects do not cut each other. There crowds below are left out
altogether; here they are cut like other objects, and `model.ignore_crowds` says what they mean.
There the second image is drawn from the whole set, and jittered anew.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.data import arena, augment, bit_rows, schema

# What `preprocess.scale_objects` says of the objects of an image, as far as they are pasted.
OBJECTS = (
    *(schema.GT_BOXES, schema.GT_CLASSES, schema.GT_IS_CROWD),
    *(schema.GT_MASK_BITS, schema.GT_MASK_FRAMES, schema.GT_MASK_SIZES),
)


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


def with_step_before(images: tf.data.Dataset, share: int) -> tf.data.Dataset:
    """Pair each image with the one at its place in the step before: (image, image before).

    Args:
      images: dicts of tensors, steps one after the other; those of the first are only before.
      share: images per step.
    """

    def pair(step: tuple[dict[str, tf.Tensor], ...], image: dict[str, tf.Tensor]) -> tuple:
        return (*step[1:], image), (image, step[0])

    nothing = {
        key: tf.zeros([length or 0 for length in spec.shape], spec.dtype)
        for key, spec in images.element_spec.items()
    }
    return images.scan((nothing,) * share, pair).skip(share)


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
      lid: uint8 [H, W8], the covered pixels of the canvas as rows of bits (`bit_rows.py`).
    """
    above, below = _windows(pasted, canvas_hw), _windows(objects, canvas_hw)
    lid = bit_rows.unite(above, pasted[schema.GT_MASK_BITS], canvas_hw)
    near = tf.where(tf.reduce_any(_meet(below.boxes, above.boxes), axis=1))[:, 0]
    near = tf.cast(near, tf.int32)
    boxes, bits = objects[schema.GT_BOXES], objects[schema.GT_MASK_BITS]

    def cut(
        step: tf.Tensor, is_cut: tf.Tensor, is_left: tf.Tensor, new: tf.Tensor, new_bits: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        number = near[step]
        window = below.boxes[number]
        y1, x1, y2, x2 = tf.unstack(window)
        whole = bit_rows.look_up(bits, below, number)
        left = tf.bitwise.bitwise_and(whole, tf.bitwise.invert(lid[y1:y2, x1:x2]))
        num_left = bit_rows.count(left)
        box = bit_rows.box_around(left) + tf.tile(window[:2] * [1, 8], [2])
        shift = tf.reduce_max(tf.abs(tf.cast(box, tf.float32) - boxes[number]))
        is_seen = (num_left > rule.min_pixels) | (shift <= rule.max_box_shift)
        is_this_cut = num_left < bit_rows.count(whole)
        is_this_left = is_this_cut & (num_left > 0) & is_seen
        kept = tf.reshape(left, [-1])[: tf.where(is_this_left, tf.size(left), 0)]
        return (
            step + 1,
            tf.concat([is_cut, is_this_cut[tf.newaxis]], axis=0),
            tf.concat([is_left, is_this_left[tf.newaxis]], axis=0),
            tf.concat([new, tf.concat([box, window * [1, 8, 1, 8]], axis=0)[tf.newaxis]], axis=0),
            tf.concat([new_bits, kept], axis=0),
        )

    nothing = tf.zeros([0], tf.bool)
    of_any_count = tf.TensorShape([None])
    _, is_cut, is_left, new, new_bits = tf.while_loop(
        lambda step, *_: step < tf.size(near),
        cut,
        (0, nothing, nothing, tf.zeros([0, 8], tf.int32), tf.zeros([0], tf.uint8)),
        shape_invariants=(
            tf.TensorShape([]),
            of_any_count,
            of_any_count,
            tf.TensorShape([None, 8]),
            of_any_count,
        ),
    )
    of_left, new = tf.boolean_mask(near, is_left), tf.boolean_mask(new, is_left)
    in_part = {
        schema.GT_BOXES: tf.cast(new[:, :4], tf.float32),
        schema.GT_CLASSES: tf.gather(objects[schema.GT_CLASSES], of_left),
        schema.GT_IS_CROWD: tf.gather(objects[schema.GT_IS_CROWD], of_left),
        schema.GT_MASK_BITS: new_bits,
        schema.GT_MASK_FRAMES: tf.cast(new[:, 4:], tf.float32),
        schema.GT_MASK_SIZES: new[:, 6:] - new[:, 4:6],
    }
    is_whole = tf.tensor_scatter_nd_update(
        tf.ones_like(objects[schema.GT_IS_CROWD]), near[:, tf.newaxis], ~is_cut
    )
    together = _join([_some(objects, is_whole), in_part, pasted])
    return together, lid


def paste_pixels(image: tf.Tensor, lid: tf.Tensor, above: tf.Tensor) -> tf.Tensor:
    """Paste pixels of one canvas onto another, those of a byte at once.

    Args:
      image: float32 [H, W, 3], W a multiple of 8.
      lid: uint8 [H, W8], what `cover` returned.
      above: float32 [H, W, 3], where the pixels come from.

    Returns:
      float32 [H, W, 3].
    """
    shape = tf.shape(image)
    lid = tf.reshape(lid, [-1])
    image, above = (tf.reshape(canvas, [-1, 8, 3]) for canvas in (image, above))  # [H * W8, 8, 3]
    place = tf.where(lid > 0)  # [k, 1]
    bits, pasted = tf.gather_nd(lid, place), tf.gather_nd(above, place)  # [k], [k, 8, 3]
    in_part = tf.where(bits < 255)  # [p, 1]
    is_pasted = bit_rows.unpack(tf.gather_nd(bits, in_part))[:, :, tf.newaxis]  # [p, 8, 1]
    kept = tf.gather_nd(image, tf.gather_nd(place, in_part))  # [p, 8, 3]
    mixed = tf.where(is_pasted, tf.gather_nd(pasted, in_part), kept)
    pasted = tf.tensor_scatter_nd_update(pasted, in_part, mixed)
    return tf.reshape(tf.tensor_scatter_nd_update(image, place, pasted), shape)


def grown(size_hw: tf.Tensor, lid: tf.Tensor) -> tf.Tensor:
    """Return int32 [(height, width)] of an image after pasting, which may reach into its padding.

    Args:
      size_hw: int32 [2], the image inside its canvas.
      lid: uint8 [H, W8], what `cover` returned.
    """
    reach = tf.where(tf.reduce_any(lid > 0), bit_rows.box_around(lid)[2:], 0)
    return tf.maximum(size_hw, reach)


def _windows(objects: dict[str, tf.Tensor], canvas_hw: tf.Tensor) -> bit_rows.Windows:
    return bit_rows.windows(
        objects[schema.GT_MASK_SIZES], objects[schema.GT_MASK_FRAMES], canvas_hw
    )


def _meet(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Return bool [n, m]: whether boxes int32 [n, 4] and [m, 4] share an area."""
    first = tf.maximum(boxes[:, tf.newaxis, :2], others[:, :2])
    behind = tf.minimum(boxes[:, tf.newaxis, 2:], others[:, 2:])
    return tf.reduce_all(first < behind, axis=2)


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
