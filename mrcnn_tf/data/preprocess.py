"""Preprocessing: decoded example -> network input of fixed counts.

Shape letters: `h w` an image's size, `H W` canvas size, `G` padded ground-truth objects
(`max_instances`), `n` objects of the image, `S` bytes of the mask arena.

The functions that take only an image are the ones that run inside the exported model too, so
training and serving cannot drift apart.

Resizing follows one of these conventions, because trained weights carry them:

* "detectron2": sizes are rounded to the nearest pixel; bilinear with antialiasing when shrinking,
  as Pillow does; resized images are rounded to whole numbers. The paper does not say; its
  authors' implementations are this one and its ancestors.
* "torchvision": sizes are rounded down after multiplying with the scale (480 x 640 becomes 800 x
  1066 for 800; where torchvision is scripted or traced its scale is float32, which gives 799);
  bilinear without antialiasing; nothing is rounded.
"""

import tensorflow as tf

from mrcnn_tf.data import arena, keypoints, schema

CONVENTIONS = ("detectron2", "torchvision")
CHANNEL_ORDERS = ("rgb", "bgr")

# What `identity` says.
IDENTITY = (schema.SOURCE_ID, schema.IMAGE_KEY, schema.IMAGE_SIZE_HW, schema.ORIGINAL_SIZE_HW)


def resized_size_hw(
    original_hw: tf.Tensor, short_edge: tf.Tensor, long_edge: int, convention: str
) -> tf.Tensor:
    """Return the size to which an image is resized.

    The short edge becomes `short_edge`, unless the long one would exceed `long_edge`, which it
    then becomes. At least one pixel each.

    Args:
      original_hw: int32 [..., (height, width)], pixels.
      short_edge: int or int32, pixels, [] or [..., 1].
      long_edge: pixels.
      convention: see the module.

    Returns:
      int32 [..., (height, width)].

    Source: Detectron2's ResizeShortestEdge, with its two roundings of double precision one after
      the other; torchvision's GeneralizedRCNNTransform.
    """
    _check_known("convention", convention, CONVENTIONS)
    shortest = tf.reduce_min(original_hw, axis=-1, keepdims=True)
    longest = tf.reduce_max(original_hw, axis=-1, keepdims=True)
    if convention == "detectron2":
        edge = tf.cast(short_edge, tf.float64)
        scaled = edge / tf.cast(shortest, tf.float64) * tf.cast(original_hw, tf.float64)
        # The short edge itself is set, not computed.
        size = tf.where(original_hw == shortest, edge, scaled)
        longest = tf.reduce_max(size, axis=-1, keepdims=True)
        size = tf.where(longest > long_edge, size * (long_edge / longest), size)
        size = tf.floor(size + 0.5)
    else:
        scale = tf.minimum(
            tf.cast(short_edge, tf.float64) / tf.cast(shortest, tf.float64),
            tf.cast(long_edge, tf.float64) / tf.cast(longest, tf.float64),
        )
        size = tf.floor(tf.cast(original_hw, tf.float64) * scale)
    return tf.maximum(tf.cast(size, tf.int32), 1)


def resize_image(image: tf.Tensor, size_hw: tf.Tensor, convention: str) -> tf.Tensor:
    """Resize an image.

    Args:
      image: uint8 [h, w, 3] or [B, h, w, 3].
      size_hw: int32 [(height, width)], what `resized_size_hw` returned.
      convention: see the module.

    Returns:
      float32 [..., height, width, 3] in 0..255.

    Source: torchvision normalises first; that is the same up to float32 rounding, since the
      weights of each pixel sum to 1. Detectron2 resizes with Pillow, which also rounds between its
      two passes: at most 1 of 255 apart.
    """
    _check_known("convention", convention, CONVENTIONS)
    if convention == "torchvision":
        return tf.image.resize(image, size_hw)
    # Antialiasing changes nothing where nothing shrinks, but takes twice the time.
    resized = tf.cond(
        tf.reduce_any(size_hw < tf.shape(image)[-3:-1]),
        lambda: tf.image.resize(image, size_hw, antialias=True),
        lambda: tf.image.resize(image, size_hw),
    )
    return tf.floor(resized + 0.5)


def order_channels(image: tf.Tensor, channel_order: str) -> tf.Tensor:
    """Put RGB channels into the network's order.

    Args:
      image: [..., 3] RGB.
      channel_order: "rgb" or "bgr".

    Returns:
      Like `image`.
    """
    _check_known("channel order", channel_order, CHANNEL_ORDERS)
    return tf.reverse(image, axis=[-1]) if channel_order == "bgr" else image


def normalise(
    image: tf.Tensor, pixel_mean: tuple[float, ...], pixel_std: tuple[float, ...]
) -> tf.Tensor:
    """Subtract the mean and divide by the standard deviation of each channel.

    Args:
      image: float32 [..., H, W, 3] in 0..255, in the network's channel order.
      pixel_mean: per channel, same order and range. (Statistics of a 0..1 range times 255.)
      pixel_std: likewise.

    Returns:
      float32, same shape.
    """
    # As rows of W * 3 numbers: broadcasting three numbers at a time is three times slower.
    width = tf.shape(image)[-2]
    rows = tf.reshape(image, [-1, width * 3])
    rows -= tf.tile(tf.constant(pixel_mean, tf.float32), [width])
    if any(std != 1.0 for std in pixel_std):
        rows /= tf.tile(tf.constant(pixel_std, tf.float32), [width])
    normalised = tf.reshape(rows, tf.shape(image))
    normalised.set_shape(image.shape)
    return normalised


def pad_to_canvas(image: tf.Tensor, canvas_hw: tf.Tensor) -> tf.Tensor:
    """Pad an image with zeros at the bottom and on the right.

    Args:
      image: [h, w, 3], normalised: padding is the mean colour.
      canvas_hw: int32 [(H, W)], at least (h, w).

    Returns:
      [H, W, 3].
    """
    missing = canvas_hw - tf.shape(image)[:2]
    return tf.pad(image, [[0, missing[0]], [0, missing[1]], [0, 0]])


def prepare_image(
    image: tf.Tensor,
    size_hw: tf.Tensor,
    canvas_hw: tf.Tensor,
    *,
    convention: str,
    channel_order: str,
    pixel_mean: tuple[float, ...],
    pixel_std: tuple[float, ...],
) -> tf.Tensor:
    """Turn an image into network input: order channels, resize, normalise, pad.

    Args:
      image: uint8 [h, w, 3] RGB.
      size_hw: int32 [2], what `resized_size_hw` returned.
      canvas_hw: int32 [(H, W)].
      convention: see the module.
      channel_order: see `order_channels`.
      pixel_mean: see `normalise`.
      pixel_std: see `normalise`.

    Returns:
      float32 [H, W, 3].
    """
    image = resize_image(order_channels(image, channel_order), size_hw, convention)
    return pad_to_canvas(normalise(image, pixel_mean, pixel_std), canvas_hw)


def prepare_objects(
    example: dict[str, tf.Tensor], size_hw: tf.Tensor, *, max_instances: int, mask_arena_pixels: int
) -> dict[str, tf.Tensor]:
    """Scale the objects to the network input, pack their masks, and pad them to a fixed count.

    Of more than `max_instances` objects the first ones stay, crowds being last in line; the rest
    is counted in `num_dropped_objects`. Objects whose masks do not fit into the arena, counted in
    `num_dropped_masks`, or vanish between the network input's pixels, keep box and class.

    Args:
      example: a decoded example.
      size_hw: int32 [2], the resized image.
      max_instances: G.
      mask_arena_pixels: capacity of the arena, a multiple of 8.

    Returns:
      The `gt_` keys of a batch and the counts of what was dropped, for one image (without B).
    """
    return pad_objects(
        scale_objects(example, size_hw),
        max_instances=max_instances,
        mask_arena_pixels=mask_arena_pixels,
    )


def scale_objects(example: dict[str, tf.Tensor], size_hw: tf.Tensor) -> dict[str, tf.Tensor]:
    """Scale the objects to the network input; masks keep their bits unless the image shrinks.

    Args:
      example: a decoded example.
      size_hw: int32 [2], the resized image.

    Returns:
      The `gt_` keys of a decoded example; boxes and frames are network-input pixels.
    """
    original_hw = tf.shape(example[schema.IMAGE])[:2]
    scale = tf.cast(size_hw, tf.float32) / tf.cast(original_hw, tf.float32)
    scale = tf.tile(scale, [2])
    bits = example[schema.GT_MASK_BITS]
    sizes = example[schema.GT_MASK_SIZES]
    frames = example[schema.GT_MASK_FRAMES] * scale
    bits, sizes, frames = tf.cond(
        tf.reduce_all(size_hw < original_hw),
        lambda: arena.subsample(bits, sizes, frames, size_hw),
        lambda: (bits, sizes, frames),
    )
    return keypoints.scaled(example, scale[:2]) | {
        schema.GT_BOXES: example[schema.GT_BOXES] * scale,
        schema.GT_CLASSES: example[schema.GT_CLASSES],
        schema.GT_IS_CROWD: example[schema.GT_IS_CROWD],
        schema.GT_MASK_BITS: bits,
        schema.GT_MASK_FRAMES: frames,
        schema.GT_MASK_SIZES: sizes,
    }


def pad_objects(
    objects: dict[str, tf.Tensor], *, max_instances: int, mask_arena_pixels: int
) -> dict[str, tf.Tensor]:
    """Pack objects' masks into the arena, and pad the objects to a fixed count.

    Args:
      objects: what `scale_objects` returned.
      max_instances: G.
      mask_arena_pixels: capacity of the arena, a multiple of 8.

    Returns:
      See `prepare_objects`.
    """
    bits, sizes = objects[schema.GT_MASK_BITS], objects[schema.GT_MASK_SIZES]
    is_crowd = objects[schema.GT_IS_CROWD]
    order = tf.concat([tf.where(~is_crowd), tf.where(is_crowd)], axis=0)[:max_instances]  # [m, 1]
    num_objects, num_kept = tf.size(is_crowd), tf.shape(order)[0]
    is_kept = tf.scatter_nd(order, tf.ones([num_kept], tf.bool), [num_objects])
    num_pixels = sizes[:, 0] * sizes[:, 1]
    bits, offsets, is_packed = arena.fit(bits, num_pixels, is_kept, mask_arena_pixels)

    def pad(values: tf.Tensor) -> tf.Tensor:
        """[n, ...] -> [G, ...]."""
        kept = tf.gather_nd(values, order)
        paddings = [[0, max_instances - num_kept]] + [[0, 0]] * (len(values.shape) - 1)
        padded = tf.pad(kept, paddings)
        padded.set_shape([max_instances, *values.shape[1:]])
        return padded

    points = {key: pad(objects[key]) for key in keypoints.KEYS if key in objects}
    return points | {
        schema.GT_BOXES: pad(objects[schema.GT_BOXES]),
        schema.GT_CLASSES: pad(objects[schema.GT_CLASSES]),
        schema.GT_IS_CROWD: pad(is_crowd),
        schema.GT_VALID: tf.range(max_instances) < num_kept,
        schema.GT_MASK_BITS: bits,
        schema.GT_MASK_OFFSETS: pad(offsets),
        schema.GT_MASK_SIZES: pad(sizes),
        schema.GT_MASK_FRAMES: pad(objects[schema.GT_MASK_FRAMES]),
        schema.GT_MASKS_VALID: pad(is_packed & (num_pixels > 0)),
        schema.NUM_DROPPED_OBJECTS: num_objects - num_kept,
        schema.NUM_DROPPED_MASKS: tf.math.count_nonzero(
            is_kept & ~is_packed & (num_pixels > 0), dtype=tf.int32
        ),
    }


def prepare_proposals(
    example: dict[str, tf.Tensor], size_hw: tf.Tensor, num_proposals: int
) -> dict[str, tf.Tensor]:
    """Scale an example's proposals to the network input, and pad the best to a fixed count.

    Args:
      example: a decoded example, its proposals best first.
      size_hw: int32 [2], the resized image.
      num_proposals: P.

    Returns:
      The `proposal` keys of a batch, for one image (without B).
    """
    original_hw = tf.shape(example[schema.IMAGE])[:2]
    scale = tf.tile(tf.cast(size_hw, tf.float32) / tf.cast(original_hw, tf.float32), [2])
    best = example[schema.PROPOSAL_BOXES][:num_proposals] * scale
    num_kept = tf.shape(best)[0]
    boxes = tf.pad(best, [[0, num_proposals - num_kept], [0, 0]])
    boxes.set_shape([num_proposals, 4])
    return {
        schema.PROPOSAL_BOXES: boxes,
        schema.PROPOSALS_VALID: tf.range(num_proposals) < num_kept,
    }


def identity(example: dict[str, tf.Tensor], size_hw: tf.Tensor) -> dict[str, tf.Tensor]:
    """Say which image this is and what was done to its size.

    Args:
      example: a decoded example.
      size_hw: int32 [2], the resized image.

    Returns:
      `source_id`, `image_key`, `image_size_hw` and `original_size_hw` of a batch, without B.
    """
    source_id = example[schema.SOURCE_ID]
    return {
        schema.SOURCE_ID: tf.io.decode_raw(
            source_id, tf.uint8, fixed_length=schema.SOURCE_ID_BYTES
        ),
        schema.IMAGE_KEY: tf.cast(tf.strings.to_hash_bucket_fast(source_id, 2**31 - 1), tf.int32),
        schema.IMAGE_SIZE_HW: tf.cast(size_hw, tf.float32),
        schema.ORIGINAL_SIZE_HW: tf.cast(tf.shape(example[schema.IMAGE])[:2], tf.float32),
    }


def _check_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what}: {value!r}; known: {', '.join(known)}")
