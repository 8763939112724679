"""Mask targets: what the mask head should say inside a RoI, read from the full-resolution masks.

Shape letters: `B` images, `G` padded ground-truth objects, `S` bytes of the mask arena, `R` RoIs
per image, `M` mask side, `H W` canvas size, `Y X` numbers of rows and columns looked up, `P`
points per RoI.

The arena (data/schema.py) keeps each object's mask as bits at the resolution of its image. The
bitmap at the resolution of the network input, which Detectron2 and torchvision build and then
sample, is never made: its pixels are looked up where a target needs them.
"""

import tensorflow as tf

from mrcnn_tf.ops import adaptive_taps
from mrcnn_tf.ops import points as point_ops
from mrcnn_tf.ops.roi_align import axis_taps

# Detectron2 pools the bitmap with half-pixel alignment and thresholds; torchvision pools it without
# and keeps the fractions. The paper does not say how "the intersection between a RoI and its
# associated ground-truth mask" is sampled; Detectron2's way is the one that is not shifted.
_CONVENTIONS = {
    # name: (aligned, binary)
    "detectron2": (True, True),
    "torchvision": (False, False),
}

# A target cell is 1 from half coverage on. Sums of the same samples in another order differ by some
# 1e-7, and exact halves are common (a straight edge through the middle), so they need some slack.
_HALF = 0.5 - 1e-5

# Adaptive sampling: pixels of each cell in a work item, and items looked up at a time. With
# 28 x 28 cells these are 1.6 million pixels, some 50 MB.
_ITEM_TAPS = 32
_ROUND = 64


def arena_lookup(
    gt_mask_bits: tf.Tensor,
    offsets: tf.Tensor,
    sizes: tf.Tensor,
    frames: tf.Tensor,
    rows: tf.Tensor,
    cols: tf.Tensor,
) -> tf.Tensor:
    """Read objects' masks at pixels of the network input: a grid of rows x columns per object.

    Args:
      gt_mask_bits: uint8 [B, S], the arena.
      offsets: int32 [B, R], position of each object's first bit.
      sizes: int32 [B, R, (height, width)] of each object's stored crop; 0 if it has no mask.
      frames: float32 [B, R, (y1, x1, y2, x2)], where the crop lies in the network input, pixels;
        x1 > x2 if it is mirrored.
      rows: int32 [B, R, Y], pixel rows of the network input; they may lie anywhere.
      cols: int32 [B, R, X], pixel columns.

    Returns:
      uint8 [B, R, Y, X], 0 or 1; 0 outside the crop.
    """
    y1, x1, y2, x2 = tf.unstack(tf.cast(frames, tf.float32)[..., tf.newaxis], axis=-2)  # [B, R, 1]
    height, width = tf.unstack(sizes[..., tf.newaxis], axis=-2)
    crop_rows, rows_inside = _crop_index(rows, y1, y2, height)
    crop_cols, cols_inside = _crop_index(cols, x1, x2, width)
    row_start = offsets[..., tf.newaxis] + crop_rows * width  # [B, R, Y]
    bit = row_start[..., tf.newaxis] + crop_cols[..., tf.newaxis, :]  # [B, R, Y, X]
    value = _bit_of(tf.gather(gt_mask_bits, _byte_of(bit), batch_dims=1), bit)
    inside = tf.cast(rows_inside, tf.uint8)[..., tf.newaxis]
    return value * inside * tf.cast(cols_inside, tf.uint8)[..., tf.newaxis, :]


def _byte_of(bit: tf.Tensor) -> tf.Tensor:
    """Return the byte that bits int32 lie in. On CPUs a shift takes a quarter of a division."""
    return tf.bitwise.right_shift(bit, 3)


def _bit_of(byte: tf.Tensor, bit: tf.Tensor) -> tf.Tensor:
    """Return bit number `bit`, modulo 8, counted from the highest, of uint8 bytes: 0 or 1."""
    place = tf.cast(tf.bitwise.bitwise_and(bit, 7), tf.uint8)
    return tf.bitwise.right_shift(tf.bitwise.left_shift(byte, place), tf.constant(7, tf.uint8))


def _crop_index(pixel, start, end, size):
    """Map network-input pixels to pixels of the crop along one axis; also say which lie inside.

    pixel int32 [B, R, Y]; start, end float32 [B, R, 1]; size int32 [B, R, 1]. Returns int32 and
    bool [B, R, Y]; where the pixel is outside, the index is 0.
    """
    length = end - start  # negative if mirrored: the quotient is positive inside all the same
    length = tf.where(length == 0.0, 1.0, length)  # padding: its size is 0, so nothing is inside
    count = tf.cast(size, tf.float32)
    position = tf.floor((tf.cast(pixel, tf.float32) + 0.5 - start) * count / length)
    inside = (position >= 0.0) & (position < count)
    return tf.cast(tf.where(inside, position, 0.0), tf.int32), inside


def mask_targets(
    gt_mask_bits: tf.Tensor,
    offsets: tf.Tensor,
    sizes: tf.Tensor,
    frames: tf.Tensor,
    image_size_hw: tf.Tensor,
    roi_boxes: tf.Tensor,
    gt_index: tf.Tensor,
    mask_size: int,
    convention: str,
    sampling_ratio: int,
) -> tf.Tensor:
    """Cut the target of each RoI out of its object's mask: RoI ∩ object, on an M x M grid.

    RoIAlign over the object's bitmap at the resolution of the network input. "detectron2" then asks
    whether a cell is at least half covered; "torchvision" keeps the fraction.

    Both projects sample adaptively, which is `sampling_ratio` 0. A fixed number costs less; choose
    an odd one for binary targets. With 2 x 2 samples in a bin of many pixels an
    edge between the two columns gives exactly one half, which counts as covered, so that targets
    of large RoIs grow by a quarter of a cell on every side; with 1 or 3 the middle column decides.
    Mean IoU with the targets of adaptive sampling, of objects of 56 to 224 / 224 to 800 pixels:
    0.991 / 0.994 for 1, 0.989 / 0.976 for 2, 0.998 / 0.995 for 3 (`benchmarks/op_choices.py`).

    Args:
      gt_mask_bits: uint8 [B, S], the arena of data/schema.py, as the next three.
      offsets: int32 [B, G], in bits.
      sizes: int32 [B, G, (height, width)], pixels of the stored crops.
      frames: float32 [B, G, (y1, x1, y2, x2)], network-input pixels.
      image_size_hw: float32 [B, (height, width)], the image inside the canvas: the bitmap ends
        there, and samples beyond its outermost pixel centres repeat them.
      roi_boxes: float32 [B, R, (y1, x1, y2, x2)], network-input pixels.
      gt_index: int32 [B, R], which object each RoI belongs to, 0..G-1 (any of them for RoIs
        that are background or padding; the caller ignores their targets).
      mask_size: M.
      convention: "detectron2" or "torchvision".
      sampling_ratio: samples per cell and axis; 0 for ceil(RoI length / M).

    Returns:
      float32 [B, R, M, M] in [0, 1], 0 or 1 if the convention is binary. No gradient.

    Raises:
      ValueError: unknown convention.

    Source: Mask R-CNN section 3.1; Detectron2 `BitMasks.crop_and_resize`, torchvision
    `project_masks_on_boxes`.
    """
    if convention not in _CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}; known: {sorted(_CONVENTIONS)}")
    aligned, binary = _CONVENTIONS[convention]
    part = coverage(
        gt_mask_bits,
        offsets,
        sizes,
        frames,
        image_size_hw,
        roi_boxes,
        gt_index,
        mask_size,
        sampling_ratio,
        aligned,
    )
    return tf.cast(part >= _HALF, tf.float32) if binary else part


def coverage(
    gt_mask_bits: tf.Tensor,
    offsets: tf.Tensor,
    sizes: tf.Tensor,
    frames: tf.Tensor,
    image_size_hw: tf.Tensor,
    roi_boxes: tf.Tensor,
    gt_index: tf.Tensor,
    mask_size: int,
    sampling_ratio: int,
    aligned: bool = True,
) -> tf.Tensor:
    """Return which part of each cell its object covers.

    Args:
      gt_mask_bits: as for `mask_targets`, and so those that follow.
      offsets: int32 [B, G].
      sizes: int32 [B, G, 2].
      frames: float32 [B, G, 4].
      image_size_hw: float32 [B, 2].
      roi_boxes: float32 [B, R, 4].
      gt_index: int32 [B, R].
      mask_size: M.
      sampling_ratio: samples per cell and axis; 0 for ceil(RoI length / M).
      aligned: see `roi_align.roi_align`.

    Returns:
      float32 [B, R, M, M], in [0, 1]. No gradient.
    """
    # The object of each RoI: [B, R], [B, R, 2], [B, R, 4]
    offsets, sizes, frames = (
        tf.gather(x, gt_index, batch_dims=1) for x in (offsets, sizes, frames)
    )
    boxes = tf.stop_gradient(tf.cast(roi_boxes, tf.float32))
    arguments = (gt_mask_bits, offsets, sizes, frames, image_size_hw, boxes, mask_size)
    if sampling_ratio == 0:
        return tf.stop_gradient(_coverage_adaptive(*arguments, aligned))
    return tf.stop_gradient(_coverage_fixed(*arguments, sampling_ratio, aligned))


def _coverage_fixed(
    bits, offsets, sizes, frames, image_size_hw, boxes, mask_size, sampling_ratio, aligned
):
    """Return which part of each cell is covered, float32 [B, R, M, M]; all arguments per RoI."""
    y1, x1, y2, x2 = tf.unstack(boxes, axis=-1)  # [B, R]
    height, width = tf.unstack(image_size_hw[:, tf.newaxis, :], axis=-1)  # [B, 1]
    rows, row_weight = axis_taps(y1, y2, height, mask_size, sampling_ratio, aligned)
    cols, col_weight = axis_taps(x1, x2, width, mask_size, sampling_ratio, aligned)

    # [B, R, M, K] -> [B, R, M * K] for the lookup
    num_images, num_rois = tf.unstack(tf.shape(boxes)[:2])
    taps = rows.shape[-1]
    per_axis = [num_images, num_rois, mask_size * taps]
    rows, cols = tf.reshape(rows, per_axis), tf.reshape(cols, per_axis)
    values = arena_lookup(bits, offsets, sizes, frames, rows, cols)
    # Weighted sum over the taps, columns first: [B, R, M * K, M * K] -> [B, R, M, M]
    values = tf.cast(values, tf.float32)
    values = tf.reshape(values, [num_images, num_rois, mask_size * taps, mask_size, taps])
    values = tf.reduce_sum(values * col_weight[:, :, tf.newaxis], axis=-1)
    values = tf.reshape(values, [num_images, num_rois, mask_size, taps, mask_size])
    return tf.reduce_sum(values * row_weight[..., tf.newaxis], axis=-2)


def _coverage_adaptive(bits, offsets, sizes, frames, image_size_hw, boxes, mask_size, aligned):
    """Return the same as `_coverage_fixed`, from as many samples as a cell has pixels.

    Pixels are looked up by work items of `adaptive_taps`; there are some 80 per cell for a RoI of
    200 x 200 pixels and up to 1500.
    """
    num_images, num_rois = tf.unstack(tf.shape(boxes)[:2])
    # All RoIs of all images in one row, [B * R, ...].
    image = tf.repeat(tf.range(num_images), num_rois)
    offsets, sizes, frames = (tf.reshape(x, [-1, *x.shape[2:]]) for x in (offsets, sizes, frames))
    y1, x1, y2, x2 = tf.unstack(tf.reshape(boxes, [-1, 4]), axis=-1)
    height, width = tf.unstack(tf.gather(image_size_hw, image), axis=-1)
    rows = adaptive_taps.adaptive_axis(y1, y2, height, mask_size, aligned)
    cols = adaptive_taps.adaptive_axis(x1, x2, width, mask_size, aligned)

    def add(roi, ordinal, valid, total):
        row, col, row_weight, col_weight = adaptive_taps.item_weights(
            rows.of(roi), cols.of(roi), ordinal * _ITEM_TAPS, _ITEM_TAPS, mask_size
        )
        # Per item and pixel: [I, 1, 1, 1], as row [I, M, 1, T] and col [I, 1, M, T].
        y1, x1, y2, x2, height, width, offset, of_image = (
            x[:, tf.newaxis, tf.newaxis, tf.newaxis]
            for x in (
                *tf.unstack(tf.gather(frames, roi), axis=-1),
                *tf.unstack(tf.gather(sizes, roi), axis=-1),
                tf.gather(offsets, roi),
                tf.gather(image, roi),
            )
        )
        crop_row, row_inside = _crop_index(row, y1, y2, height)
        crop_col, col_inside = _crop_index(col, x1, x2, width)
        bit = (offset + crop_row * width) + crop_col  # [I, M, M, T]
        byte = of_image * tf.shape(bits)[1] + _byte_of(bit)
        value = tf.cast(_bit_of(tf.gather(tf.reshape(bits, [-1]), byte), bit), tf.float32)
        # What does not count has no weight, decided axis by axis.
        row_counts = row_inside & valid[:, tf.newaxis, tf.newaxis, tf.newaxis]
        row_weight = tf.where(row_counts, row_weight, 0.0)
        col_weight = tf.where(col_inside, col_weight, 0.0)
        part = tf.reduce_sum(value * row_weight * col_weight, axis=-1)
        return tf.tensor_scatter_nd_add(total, roi[:, tf.newaxis], part)

    num_items = adaptive_taps.num_items(rows, cols, _ITEM_TAPS)
    total = tf.zeros([num_images * num_rois, mask_size, mask_size])
    coverage = adaptive_taps.for_all_items(num_items, _ROUND, add, total)
    return tf.reshape(coverage, [num_images, num_rois, mask_size, mask_size])


def masks_at_points(
    gt_mask_bits: tf.Tensor,
    offsets: tf.Tensor,
    sizes: tf.Tensor,
    frames: tf.Tensor,
    image_size_hw: tf.Tensor,
    points: tf.Tensor,
    gt_index: tf.Tensor,
) -> tf.Tensor:
    """Read objects' masks at points: what a mask head that decides points should say there.

    Bilinear interpolation of the bitmap at the resolution of the network input, four of whose
    pixels are looked up for each point; see `points.neighbours`.

    Args:
      gt_mask_bits: uint8 [B, S], the arena of data/schema.py, as the next three.
      offsets: int32 [B, G], in bits.
      sizes: int32 [B, G, (height, width)], pixels of the stored crops.
      frames: float32 [B, G, (y1, x1, y2, x2)], network-input pixels.
      image_size_hw: float32 [B, (height, width)], the image inside the canvas: the bitmap ends
        there, and beyond it is 0.
      points: float32 [B, R, P, (y, x)], network-input pixels.
      gt_index: int32 [B, R], which object each RoI belongs to, 0..G-1.

    Returns:
      float32 [B, R, P], in 0..1. No gradient.

    Source: PointRend (arXiv 1912.08193); Detectron2 `sample_point_labels`.
    """
    # Of each RoI, the same for all of its points: [B, R, 1, 1].
    offset, height, width, y1, x1, y2, x2 = (
        tf.gather(column, gt_index, batch_dims=1)[..., tf.newaxis, tf.newaxis]
        for column in (offsets, *tf.unstack(sizes, axis=-1), *tf.unstack(frames, axis=-1))
    )
    image_height, image_width = tf.unstack(image_size_hw[:, tf.newaxis, tf.newaxis], axis=-1)
    rows, cols, weight = point_ops.neighbours(points, image_height, image_width)  # [B, R, P, 4]
    crop_row, row_inside = _crop_index(rows, y1, y2, height)
    crop_col, col_inside = _crop_index(cols, x1, x2, width)
    bit = offset + crop_row * width + crop_col
    value = _bit_of(tf.gather(gt_mask_bits, _byte_of(bit), batch_dims=1), bit)
    weight = tf.where(row_inside & col_inside, weight, 0.0)
    return tf.stop_gradient(tf.reduce_sum(tf.cast(value, tf.float32) * weight, axis=-1))


def full_masks(
    gt_mask_bits: tf.Tensor,
    offsets: tf.Tensor,
    sizes: tf.Tensor,
    frames: tf.Tensor,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
) -> tf.Tensor:
    """Decode the arena into full masks: for images and tests, not for training.

    Args:
      gt_mask_bits: uint8 [B, S], the arena of data/schema.py, as the next three.
      offsets: int32 [B, G].
      sizes: int32 [B, G, (height, width)].
      frames: float32 [B, G, (y1, x1, y2, x2)], network-input pixels.
      height: H, rows of the canvas.
      width: W.

    Returns:
      bool [B, G, H, W].
    """
    num_images, num_objects = tf.unstack(tf.shape(offsets))
    rows = tf.broadcast_to(tf.range(height), [num_images, num_objects, height])
    cols = tf.broadcast_to(tf.range(width), [num_images, num_objects, width])
    return tf.cast(arena_lookup(gt_mask_bits, offsets, sizes, frames, rows, cols), tf.bool)
