"""Writing the mask arena: crops' pixels as one bit string per image.

Shape letters: `n` objects of one image, `T` pixels of all their crops, `S` bytes of the arena.
`schema.py` explains the arena, its frames and the lookup formula; `ops/masks.py` reads it.
"""

import tensorflow as tf


def pack(pixels: tf.Tensor) -> tf.Tensor:
    """Pack pixels bool [T] into bits uint8 [ceil(T / 8)], zeros behind the last one."""
    pixels = tf.pad(pixels, [[0, -tf.size(pixels) % 8]])
    place_values = tf.constant([[128], [64], [32], [16], [8], [4], [2], [1]], tf.float32)
    # [T / 8, 8] x [8, 1]: exact in float32, and twice as fast as an integer sum.
    packed = tf.matmul(tf.cast(tf.reshape(pixels, [-1, 8]), tf.float32), place_values)
    return tf.cast(packed[:, 0], tf.uint8)


def unpack(bits: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Return the pixels bool [t] at positions int32 [t] of a bit string uint8 [bytes]."""
    # Shifts, as integer divisions take several times longer.
    byte = tf.gather(bits, tf.bitwise.right_shift(index, 3))
    place = tf.cast(tf.bitwise.bitwise_and(index, 7), tf.uint8)
    return tf.bitwise.left_shift(byte, place) >= 128


def pack_runs(runs: tf.Tensor, num_runs: tf.Tensor) -> tf.Tensor:
    """Pack run lengths, without ever making a pixel: cost of T / 8 bytes and of the runs.

    A run of ones is the difference of two steps, and a step from bit p on has 0xFF >> p % 8 in
    byte p // 8 and 0xFF in all later ones. All steps are summed at once.

    Args:
      runs: int [r], run lengths of all objects, one object after the other; each object's runs
        are alternately outside and inside, starting outside.
      num_runs: int [n], how many belong to each object; their sum is r.

    Returns:
      uint8 [ceil(T / 8)], T the sum of all runs.
    """
    runs, num_runs = tf.cast(runs, tf.int32), tf.cast(num_runs, tf.int32)
    run_of_object = tf.range(tf.size(runs)) - tf.repeat(
        tf.cumsum(num_runs, exclusive=True), num_runs
    )
    is_inside = run_of_object % 2 == 1
    stop = tf.cumsum(runs)
    up = tf.boolean_mask(stop - runs, is_inside)
    down = tf.boolean_mask(stop, is_inside)
    position = tf.concat([up, down], axis=0)
    sign = tf.concat([tf.ones_like(up), -tf.ones_like(down)], axis=0)

    num_bytes = (tf.reduce_sum(runs) + 7) // 8
    byte = (position // 8)[:, tf.newaxis]
    shape = [num_bytes + 1]  # a step down may lie right behind the last byte
    within = tf.scatter_nd(byte, sign * tf.bitwise.right_shift(0xFF, position % 8), shape)
    later = tf.cumsum(tf.scatter_nd(byte, sign, shape), exclusive=True)
    return tf.cast((within + 0xFF * later)[:num_bytes], tf.uint8)


def keep(bits: tf.Tensor, num_pixels: tf.Tensor, is_kept: tf.Tensor) -> tf.Tensor:
    """Take objects out of a bit string; the others close up.

    Args:
      bits: uint8 [ceil(T / 8)], crops one after the other.
      num_pixels: int32 [n], pixels of each crop; their sum is T.
      is_kept: bool [n].

    Returns:
      uint8, the kept objects' crops one after the other.
    """
    return tf.cond(
        tf.reduce_all(is_kept), lambda: bits, lambda: _close_up(bits, num_pixels, is_kept)
    )


def _close_up(bits: tf.Tensor, num_pixels: tf.Tensor, is_kept: tf.Tensor) -> tf.Tensor:
    """Return what `keep` does, byte by byte: no pixel is unpacked."""
    kept = tf.boolean_mask(num_pixels, is_kept)
    start = tf.boolean_mask(tf.cumsum(num_pixels, exclusive=True), is_kept)
    new_end = tf.cumsum(kept)
    new_start = new_end - kept
    # The new bytes in which each object has pixels; where one ends and another begins, both have.
    first_byte = tf.bitwise.right_shift(new_start, 3)
    num_bytes = tf.where(kept > 0, tf.bitwise.right_shift(new_end + 7, 3) - first_byte, 0)
    first_part = tf.cumsum(num_bytes, exclusive=True)
    of_object = tf.stack([start - new_start, new_start, new_end, first_byte - first_part], axis=1)
    # Steps from one object to the next, summed; `tf.repeat` pays for each what the largest takes.
    shape = [tf.reduce_sum(num_bytes) + 1]  # the last may be empty
    begins = tf.scatter_nd(first_part[:, tf.newaxis], tf.ones_like(first_part), shape)
    of_part = tf.gather(of_object, tf.cumsum(begins)[:-1] - 1)
    gap, new_start, new_end, shift = tf.unstack(of_part, axis=1)
    byte = tf.range(tf.size(shift)) + shift
    first = byte * 8

    # Where that byte's first pixel was, behind one byte more: an object's first may come later.
    position = first + gap + 8
    old = tf.cast(tf.pad(bits, [[1, 2]]), tf.int32)
    place = tf.bitwise.right_shift(position, 3)
    two = tf.bitwise.left_shift(tf.gather(old, place), 8) + tf.gather(old, place + 1)
    pixels = tf.bitwise.right_shift(two, 8 - tf.bitwise.bitwise_and(position, 7))
    before = tf.bitwise.right_shift(255, tf.clip_by_value(new_start - first, 0, 8))
    behind = tf.bitwise.right_shift(255, tf.clip_by_value(new_end - first, 0, 8))
    pixels = tf.bitwise.bitwise_and(pixels, before - behind)  # the object's alone
    num_new = tf.bitwise.right_shift(tf.reduce_sum(kept) + 7, 3)
    return tf.cast(tf.math.unsorted_segment_sum(pixels, byte, num_new), tf.uint8)


def append(
    bits: tf.Tensor, num_pixels: tf.Tensor, more: tf.Tensor, num_more: tf.Tensor
) -> tf.Tensor:
    """Put a bit string behind another, byte by byte: no pixel is unpacked.

    Args:
      bits: uint8 [ceil(T / 8)], zeros behind the last pixel.
      num_pixels: int32 [], T.
      more: uint8 [ceil(U / 8)], likewise.
      num_more: int32 [], U.

    Returns:
      uint8 [ceil((T + U) / 8)].
    """
    # Each byte falls into two: its upper bits into the byte that has room, the rest into the next.
    halves = tf.bitwise.left_shift(tf.cast(more, tf.int32), 8 - num_pixels % 8)
    upper, lower = tf.bitwise.right_shift(halves, 8), tf.bitwise.bitwise_and(halves, 255)
    moved = tf.pad(upper, [[0, 1]]) + tf.pad(lower, [[1, 0]])
    whole = num_pixels // 8
    both = tf.pad(moved, [[whole, 0]])
    both += tf.pad(tf.cast(bits, tf.int32), [[0, tf.size(both) - tf.size(bits)]])
    return tf.cast(both[: (num_pixels + num_more + 7) // 8], tf.uint8)


def fit(
    bits: tf.Tensor, num_pixels: tf.Tensor, is_wanted: tf.Tensor, arena_pixels: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Put as many of the wanted objects as fit into an arena of fixed size.

    Args:
      bits: uint8 [ceil(T / 8)], crops one after the other.
      num_pixels: int32 [n], pixels of each crop; their sum is T.
      is_wanted: bool [n]; the others need not be kept.
      arena_pixels: capacity of the arena, a multiple of 8.

    Returns:
      bits: uint8 [S], S = arena_pixels / 8, zeros behind the last crop.
      offsets: int32 [n], position of each crop's first pixel in bits; 0 for those left out.
      is_packed: bool [n]: wanted, and lies within the arena. If not all pixels fit, the unwanted
        objects make room; from the first wanted one that does not fit, the rest stays out.

    Raises:
      ValueError: the capacity is not a multiple of 8 or has more bits than int32 counts.
    """
    if arena_pixels % 8 or not 0 <= arena_pixels < 2**31:
        raise ValueError(
            f"mask arena: {arena_pixels} pixels; must be a multiple of 8 from 0 to 2**31 - 8"
        )
    start = tf.cumsum(num_pixels, exclusive=True)

    def drop_some() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        end = tf.cumsum(tf.where(is_wanted, num_pixels, 0))
        is_packed = is_wanted & (end <= arena_pixels)
        offsets = tf.where(is_packed, end - num_pixels, 0)
        return keep(bits, num_pixels, is_packed), offsets, is_packed

    bits, offsets, is_packed = tf.cond(
        tf.reduce_sum(num_pixels) <= arena_pixels,
        lambda: (bits, tf.where(is_wanted, start, 0), is_wanted),
        drop_some,
    )
    arena = tf.pad(bits, [[0, arena_pixels // 8 - tf.size(bits)]])
    arena.set_shape([arena_pixels // 8])
    return arena, offsets, is_packed


def subsample(
    bits: tf.Tensor, sizes: tf.Tensor, frames: tf.Tensor, image_hw: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reduce each crop to one pixel per pixel of the network input.

    For images that were shrunk: the arena need not hold more than the network can look up. Each
    new pixel is what the lookup formula finds at its place, so looking up through the new frames,
    which are integers, not flipped and inside the image, gives the same masks. On an axis that
    was not shrunk the crop grows instead: call this only where both were.

    Args:
      bits: uint8 [ceil(T / 8)], crops row by row, one after the other.
      sizes: int32 [n, (height, width)] of the crops.
      frames: float32 [n, (y1, x1, y2, x2)], network-input pixels; y1 > y2 or x1 > x2 if flipped;
        they may lie partly or wholly outside of the image.
      image_hw: int32 [(height, width)] of the image in the network input.

    Returns:
      bits, sizes and frames of the new crops. An object that falls between the network input's
      pixel centres, or outside, has a crop of size 0.
    """
    top_left, new_sizes, pixels = pixels_inside(bits, sizes, frames, image_hw)
    new_frames = tf.cast(tf.concat([top_left, top_left + new_sizes], axis=1), tf.float32)
    return pack(pixels), new_sizes, new_frames


def pixels_inside(
    bits: tf.Tensor, sizes: tf.Tensor, frames: tf.Tensor, image_hw: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Look up each object's mask at all pixels of an image that its frame covers.

    Args:
      bits: as for `subsample`, as the others.
      sizes: int32 [n, (height, width)].
      frames: float32 [n, (y1, x1, y2, x2)].
      image_hw: int32 [(height, width)].

    Returns:
      top_left: int32 [n, 2], the first row and column of the image inside each frame.
      new_sizes: int32 [n, (height, width)], how many rows and columns of the image that are.
      pixels: bool [sum of height * width]: object by object, row by row.
    """
    top_left, new_sizes, source = _look_up(sizes, frames, image_hw)
    return top_left, new_sizes, unpack(bits, source)


def visible_boxes(
    bits: tf.Tensor, sizes: tf.Tensor, frames: tf.Tensor, image_hw: tf.Tensor
) -> tf.Tensor:
    """Find the smallest box around the mask pixels of each object that lie inside an image.

    Args:
      bits: as for `subsample`, as the others.
      sizes: int32 [n, (height, width)].
      frames: float32 [n, (y1, x1, y2, x2)].
      image_hw: int32 [(height, width)].

    Returns:
      float32 [n, (y1, x1, y2, x2)]; all 0 for an object of which nothing is inside.
    """
    return boxes_around(*pixels_inside(bits, sizes, frames, image_hw))


def boxes_around(top_left: tf.Tensor, sizes: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Find the smallest box around the pixels of each object.

    Args:
      top_left: int32 [n, 2], what `pixels_inside` returned, as the others.
      sizes: int32 [n, (height, width)].
      pixels: bool [sum of height * width].

    Returns:
      float32 [n, (y1, x1, y2, x2)]; all 0 for an object without pixels.
    """
    height, width = tf.unstack(sizes, axis=1)
    num_objects = tf.size(height)
    owner = tf.repeat(tf.range(num_objects), height)  # [rows of all objects]
    row = tf.range(tf.size(owner)) - tf.gather(tf.cumsum(height, exclusive=True), owner)
    row_end = tf.cumsum(tf.gather(width, owner))
    row_start = row_end - tf.gather(width, owner)

    # From the number of pixels inside, up to each one, follow each row's first and last.
    counts = tf.cumsum(tf.cast(pixels, tf.int32))
    counts_from_0 = tf.pad(counts, [[1, 0]])
    before, after = tf.gather(counts_from_0, row_start), tf.gather(counts_from_0, row_end)
    first = tf.searchsorted(counts, before + 1) - row_start
    last = tf.searchsorted(counts, after) - row_start

    low = tf.boolean_mask(tf.stack([row, first], axis=1), after > before)
    high = tf.boolean_mask(tf.stack([row, last], axis=1), after > before) + 1
    owner = tf.boolean_mask(owner, after > before)
    boxes = tf.concat(
        [
            top_left + tf.math.unsorted_segment_min(low, owner, num_objects),
            top_left + tf.math.unsorted_segment_max(high, owner, num_objects),
        ],
        axis=1,
    )
    num_rows = tf.math.unsorted_segment_sum(tf.ones_like(owner), owner, num_objects)
    return tf.where(num_rows[:, tf.newaxis] > 0, tf.cast(boxes, tf.float32), 0.0)


def axis_lookup(
    start: tf.Tensor, end: tf.Tensor, size: tf.Tensor, limit: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Apply the lookup formula along one axis.

    Args:
      start: float32 [n], the frames' y1 or x1.
      end: float32 [n], their y2 or x2.
      size: int32 [n], the crops' height or width.
      limit: int32 [], the image's.

    Returns:
      first: int32 [n], the first of the image's pixels whose centre lies in the frame.
      count: int32 [n], how many there are.
      source: int32 [sum of count], the crop's row or column at each of them, object by object.
    """
    # start <= i + 0.5 < end; flipped: end < i + 0.5 <= start.
    is_flipped = start > end
    first = tf.where(is_flipped, tf.floor(end - 0.5) + 1.0, tf.math.ceil(start - 0.5))
    stop = tf.where(is_flipped, tf.floor(start - 0.5) + 1.0, tf.math.ceil(end - 0.5))
    first = tf.maximum(first, 0.0)
    stop = tf.minimum(stop, tf.cast(limit, tf.float32))
    count = tf.where(size > 0, tf.maximum(tf.cast(stop - first, tf.int32), 0), 0)

    owner = tf.repeat(tf.range(tf.size(size)), count)
    step = tf.range(tf.size(owner)) - tf.repeat(tf.cumsum(count, exclusive=True), count)
    pixel = tf.gather(first, owner) + tf.cast(step, tf.float32)
    of_owner = tf.gather(tf.stack([start, end, tf.cast(size, tf.float32)], axis=1), owner)
    start, end, length = tf.unstack(of_owner, axis=1)
    source = tf.cast(tf.floor((pixel + 0.5 - start) * length / (end - start)), tf.int32)
    # Rounding may put a centre that lies on the frame's edge one pixel outside.
    source = tf.clip_by_value(source, 0, tf.cast(length, tf.int32) - 1)
    return tf.cast(first, tf.int32), count, source


def _look_up(
    sizes: tf.Tensor, frames: tf.Tensor, image_hw: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Find which pixels of each crop the pixels of an image look up.

    Args:
      sizes: as for `subsample`, as the others.
      frames: float32 [n, (y1, x1, y2, x2)].
      image_hw: int32 [(height, width)].

    Returns:
      top_left: int32 [n, 2], the first row and column of the image inside each frame.
      new_sizes: int32 [n, (height, width)], how many rows and columns of the image that are.
      source: int32 [sum of height * width], positions in the bits: object by object, row by row.
    """
    first_y, height, source_row = axis_lookup(frames[:, 0], frames[:, 2], sizes[:, 0], image_hw[0])
    first_x, width, source_col = axis_lookup(frames[:, 1], frames[:, 3], sizes[:, 1], image_hw[1])
    # Where each new row's pixels come from: the source row's start, and the object's columns.
    object_of_row = tf.repeat(tf.range(tf.size(height)), height)
    crop_start = tf.cumsum(sizes[:, 0] * sizes[:, 1], exclusive=True)
    row_start = tf.gather(crop_start, object_of_row)
    row_start += source_row * tf.gather(sizes[:, 1], object_of_row)
    row_width = tf.gather(width, object_of_row)
    # The k-th new pixel is column k - (its row's first k) of its object.
    first_pixel = tf.cumsum(row_width, exclusive=True)
    first_col = tf.gather(tf.cumsum(width, exclusive=True), object_of_row)
    col_index = tf.range(tf.reduce_sum(row_width)) + tf.repeat(first_col - first_pixel, row_width)
    source = tf.repeat(row_start, row_width) + tf.gather(source_col, col_index)
    return tf.stack([first_y, first_x], axis=1), tf.stack([height, width], axis=1), source
