"""Keypoints as places in a square map over a RoI, and back.

Training says in which of the S x S cells of its RoI a keypoint lies; inference asks where in the
box the map, resized to the box's pixels, is highest.

Shape letters: `B` images, `R` RoIs, `K` keypoints, `S` side of a map; in `decode` `N` boxes of all
images, `J` work items of a step, `T` side of a tile.
"""

import tensorflow as tf

_TILE = 64  # pixels; a tile of all keypoints of `_AT_ONCE` boxes fits a cache
_AT_ONCE = 8
_CUBIC = -0.75  # of the interpolation: PyTorch's and OpenCV's
_LOWEST = -1e30  # below every logit


def cells(
    keypoints: tf.Tensor, valid: tf.Tensor, rois: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Find the cell of its RoI's map that each keypoint lies in.

    A keypoint on the RoI's lower or right edge lies in the last row or column; one outside of it
    has no cell, and teaches nothing.

    Args:
      keypoints: float32 [B, R, K, (y, x)], network-input pixels.
      valid: bool [B, R, K].
      rois: float32 [B, R, 4], the same frame.
      size: S.

    Returns:
      int32 [B, R, K], row * S + column, 0 where there is none; and bool [B, R, K], where there is.

    Source: Detectron2's `_keypoints_to_heatmap`; torchvision has the same.
    """
    start, end = rois[:, :, tf.newaxis, :2], rois[:, :, tf.newaxis, 2:]  # [B, R, 1, 2]
    extent = end - start
    scaled = (keypoints - start) * (size / tf.where(extent > 0.0, extent, 1.0))
    # Not `==`, whose result has no static rank where sizes are unknown.
    place = tf.where(tf.equal(keypoints, end), size - 1.0, tf.floor(scaled))
    # Compared as float32: far outside there may be no int32 for it.
    inside = tf.reduce_all((place >= 0.0) & (place < size) & (extent > 0.0), axis=-1)
    valid &= inside
    row, column = tf.unstack(
        tf.cast(tf.where(valid[..., tf.newaxis], place, 0.0), tf.int32), axis=-1
    )
    return row * size + column, valid


def upsample_twice(maps: tf.Tensor) -> tf.Tensor:
    """Resize to twice the side, bilinearly, edge pixels extended: [N, S, S, C] -> [N, 2S, 2S, C].

    Pixel i covers [i, i + 1), so each new pixel is 3/4 of the one that holds it and 1/4 of the one
    it is nearer to. In sums, because XLA has no gradient of `tf.image.resize` with such centres.
    """
    for axis in (1, 2):
        first, last = (1, 0), (0, 1)
        before = _shifted(maps, axis, first)
        behind = _shifted(maps, axis, last)
        pairs = [0.75 * maps + 0.25 * before, 0.75 * maps + 0.25 * behind]
        shape = tf.shape(maps)
        doubled = tf.concat([shape[:axis], [2 * maps.shape[axis]], shape[axis + 1 :]], axis=0)
        static = maps.shape.as_list()
        static[axis] *= 2
        maps = tf.ensure_shape(tf.reshape(tf.stack(pairs, axis=axis + 1), doubled), static)
    return maps


def _shifted(maps: tf.Tensor, axis: int, edges: tuple[int, int]) -> tf.Tensor:
    """Move by a pixel along an axis: towards its end for (1, 0), its begin for (0, 1)."""
    side = maps.shape[axis]
    index = [max(i - 1, 0) if edges[0] else min(i + 1, side - 1) for i in range(side)]
    return tf.gather(maps, index, axis=axis)


def decode(logits: tf.Tensor, boxes: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Find the highest place of each map, resized to the pixels of its box.

    Maps are resized bicubically to the box's sides, rounded up, and the middle of the highest pixel
    is where the keypoint is. Its score is the probability there: exp of the logit over the sum of
    the exp of all S x S cells, so that it does not depend on how large the box is (it may exceed 1
    a little, since cubic curves overshoot; then it is 1).

    Boxes have any size, and a map of a whole photo for each keypoint would fill the memory. So a
    box is cut into tiles, and a loop looks at some tiles at a time: shapes are fixed, and XLA
    compiles it.

    Args:
      logits: float32 [B, R, K, S, S].
      boxes: float32 [B, R, (y1, x1, y2, x2)], pixels. Sides shorter than a pixel count as one.
      valid: bool [B, R].

    Returns:
      float32 [B, R, K, (y, x, score)], pixels in the frame of the boxes; 0 where not valid.

    Source: Detectron's and Detectron2's `heatmaps_to_keypoints`; torchvision's gives the logit in
      the place of the probability.
    """
    batch, rois = tf.shape(logits)[0], tf.shape(logits)[1]
    num_keypoints, side = logits.shape[2], logits.shape[3]
    maps = tf.reshape(logits, [-1, num_keypoints, side, side])  # [N, K, S, S]
    flat_boxes, is_box = tf.reshape(boxes, [-1, 4]), tf.reshape(valid, [-1])
    extents = tf.maximum(flat_boxes[:, 2:] - flat_boxes[:, :2], 1.0)  # [N, 2]
    sides = tf.where(is_box[:, tf.newaxis], tf.cast(tf.math.ceil(extents), tf.int32), 1)
    peaks, places = _highest(maps, sides, is_box)  # [N, K], [N, K, 2]
    correction = extents / tf.cast(sides, tf.float32)
    points = (tf.cast(places, tf.float32) + 0.5) * correction[:, tf.newaxis]
    points += flat_boxes[:, tf.newaxis, :2]
    total = tf.reduce_logsumexp(tf.reshape(maps, [-1, num_keypoints, side * side]), axis=-1)
    scores = tf.exp(tf.minimum(peaks - total, 0.0))
    found = tf.concat([points, scores[..., tf.newaxis]], axis=-1)  # [N, K, 3]
    found = tf.where(is_box[:, tf.newaxis, tf.newaxis], found, 0.0)
    return tf.reshape(found, [batch, rois, num_keypoints, 3])


def _highest(maps: tf.Tensor, sides: tf.Tensor, is_box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the highest value of each resized map, and its pixel.

    Args:
      maps: float32 [N, K, S, S].
      sides: int32 [N, (height, width)], what each is resized to.
      is_box: bool [N], the others are not looked at.

    Returns:
      float32 [N, K] and int32 [N, K, (row, column)].
    """
    count, num_keypoints, side = tf.shape(maps)[0], maps.shape[1], maps.shape[2]
    num_tiles = (sides + _TILE - 1) // _TILE  # [N, 2]
    of_box = tf.where(is_box, num_tiles[:, 0] * num_tiles[:, 1], 0)
    ends = tf.cumsum(of_box)  # [N]: where the items of each box end
    num_items = tf.reduce_sum(of_box)

    def look(
        first: tf.Tensor, peaks: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        item = first + tf.range(_AT_ONCE)  # [J]
        is_item = item < num_items
        box = tf.minimum(tf.searchsorted(ends, item, side="right"), count - 1)
        tile = item - (tf.gather(ends, box) - tf.gather(of_box, box))
        size = tf.gather(sides, box)  # [J, 2]
        in_row = tf.maximum(tf.gather(num_tiles, box)[:, 1], 1)
        corner = tf.stack([tile // in_row, tile % in_row], axis=1) * _TILE  # [J, 2]
        pixel = corner[:, :, tf.newaxis] + tf.range(_TILE)  # [J, 2, T]
        weights = _cubic_weights(pixel, size[:, :, tf.newaxis], side)  # [J, 2, T, S]
        tall = tf.einsum("jts,jkso->jkto", weights[:, 0], tf.gather(maps, box))
        tiles = tf.einsum("jkto,jxo->jktx", tall, weights[:, 1])  # [J, K, T, T]
        inside = (pixel < size[:, :, tf.newaxis]) & is_item[:, tf.newaxis, tf.newaxis]
        inside = inside[:, 0, :, tf.newaxis] & inside[:, 1, tf.newaxis, :]
        tiles = tf.where(inside[:, tf.newaxis], tiles, _LOWEST)
        flat = tf.reshape(tiles, [_AT_ONCE, num_keypoints, _TILE * _TILE])
        peak = tf.reduce_max(flat, axis=-1)  # [J, K]
        place = tf.argmax(flat, axis=-1, output_type=tf.int32)
        row = corner[:, :1] + place // _TILE
        column = corner[:, 1:] + place % _TILE
        # Items one after the other: several may be of one box.
        for j in range(_AT_ONCE):
            is_higher = peak[j] > peaks[box[j]]  # [K]
            index = [[box[j]]]
            peaks, rows, columns = (
                tf.tensor_scatter_nd_update(old, index, [tf.where(is_higher, new[j], old[box[j]])])
                for old, new in ((peaks, peak), (rows, row), (columns, column))
            )
        return first + _AT_ONCE, peaks, rows, columns

    shape = [count, num_keypoints]
    _, peaks, rows, columns = tf.while_loop(
        lambda first, *_: first < num_items,
        look,
        (0, tf.fill(shape, _LOWEST), tf.zeros(shape, tf.int32), tf.zeros(shape, tf.int32)),
        parallel_iterations=1,
    )
    return peaks, tf.stack([rows, columns], axis=-1)


def _cubic_weights(pixel: tf.Tensor, size: tf.Tensor, side: int) -> tf.Tensor:
    """Weights of bicubic interpolation along an axis, pixels beyond the edge being the edge's.

    Args:
      pixel: int32 [..., T], of the resized map.
      size: int32 [..., 1], how many it has.
      side: S, how many the map has.

    Returns:
      float32 [..., T, S], of which four or less are not 0.
    """
    scale = side / tf.cast(size, tf.float32)
    place = (tf.cast(pixel, tf.float32) + 0.5) * scale - 0.5
    left = tf.floor(place)
    part = place - left  # [..., T], from 0 up to 1
    weights = 0.0
    for k in (-1, 0, 1, 2):
        distance = tf.abs(part - k)
        if k in (0, 1):  # within one pixel
            value = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1
        else:
            value = ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC
        source = tf.clip_by_value(tf.cast(left, tf.int32) + k, 0, side - 1)
        weights += tf.one_hot(source, side) * value[..., tf.newaxis]
    return weights
