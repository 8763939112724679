"""Record -> decoded example.

Shape letters: `n` objects of the image, `h w` its size in pixels, `T` sum of the crops' pixels.

Reads what `data_prep/create_coco_tfrecord.py` writes, what Model Garden's and the TF Object
Detection API's converters write, and the TFDS data sets of `data_prep/tfds`. From here on boxes are
yxyx pixels of the stored image.
"""

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import arena, columns, schema

_COLUMNS = (
    *(schema.IMAGE_ENCODED, schema.IMAGE_SOURCE_ID, schema.CLASS_LABEL, schema.IS_CROWD),
    *(schema.BBOX_YMIN, schema.BBOX_XMIN, schema.BBOX_YMAX, schema.BBOX_XMAX),
)
_LISTS = {
    schema.NEG_CLASSES: schema.NEG_CATEGORY_IDS,
    schema.NOT_EXHAUSTIVE_CLASSES: schema.NOT_EXHAUSTIVE_CATEGORY_IDS,
}
_MASK_COLUMNS = (schema.MASK_CROP, schema.MASK_NUM_RUNS, schema.MASK_RUNS, schema.MASK_PNG)


def decode(
    serialized: tf.Tensor,
    *,
    label_ids: tuple[int, ...],
    include_masks: bool,
    include_lists: bool = False,
) -> dict[str, tf.Tensor]:
    """Decode one serialized `tf.train.Example`.

    Masks come from our run lengths if the record has them, else from one full-image PNG per
    object. Objects of a record with neither get crops of size 0: no mask.

    Args:
      serialized: string [].
      label_ids: the data set's own category ids in the order of the classes: `LabelMap.ids`.
      include_masks: False leaves the masks undecoded; every crop has size 0.
      include_lists: whether to say what a federated record knows of classes; of another record
        that is nothing.

    Returns:
      A decoded example, see `schema.py`.

    Raises:
      InvalidArgumentError: (when it runs) no or too long an image id, a category id that is not in
        `label_ids`, a box without area, or columns of unequal length. Names the image id.

    Source: JPEGs are decoded with the accurate integer transform, which is what Pillow and OpenCV
      use, so images are bit-equal to Detectron2's and torchvision's; TensorFlow's default is the
      coarser fast one (up to 17 of 255 off on a COCO photo, and here no faster).
    """
    lists = _LISTS if include_lists else {}
    parsed = columns.parse(
        serialized, (*_COLUMNS, *(_MASK_COLUMNS if include_masks else ()), *lists.values())
    )
    source_id = parsed[schema.IMAGE_SOURCE_ID]
    _check_source_id(source_id)
    encoded = parsed[schema.IMAGE_ENCODED]
    has_image = tf.debugging.Assert(
        tf.strings.length(encoded) > 0, ["image", source_id, f"has no {schema.IMAGE_ENCODED}"]
    )
    with tf.control_dependencies([has_image]):
        encoded = tf.identity(encoded)
    # Reads PNG as well.
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    boxes = _boxes(parsed, tf.shape(image)[:2], source_id)
    classes = _classes(parsed[schema.CLASS_LABEL], label_ids, source_id)
    num_objects = tf.size(classes)
    is_crowd = tf.cast(parsed[schema.IS_CROWD], tf.bool)
    is_crowd = tf.cond(  # optional in the Object Detection API
        tf.size(is_crowd) > 0, lambda: is_crowd, lambda: tf.zeros([num_objects], tf.bool)
    )
    _check_count(tf.size(is_crowd), num_objects, schema.IS_CROWD, source_id)
    if include_masks:
        bits, crops = _masks(parsed, num_objects, source_id)
    else:
        bits, crops = _no_masks(num_objects)
    top_left, size = crops[:, :2], crops[:, 2:]
    of_classes = {
        key: _listed(_classes(parsed[column], label_ids, source_id), len(label_ids) + 1)
        for key, column in lists.items()
    }
    return of_classes | {
        schema.IMAGE: image,
        schema.SOURCE_ID: source_id,
        schema.GT_BOXES: boxes,
        schema.GT_CLASSES: classes,
        schema.GT_IS_CROWD: is_crowd,
        schema.GT_MASK_BITS: bits,
        schema.GT_MASK_FRAMES: tf.cast(tf.concat([top_left, top_left + size], axis=1), tf.float32),
        schema.GT_MASK_SIZES: size,
    }


def image_size_hw(serialized: tf.Tensor) -> tf.Tensor:
    """Return int32 [(height, width)] of a record's image, from the header of a JPEG or PNG file.

    The record's own `image/height` and `width` are what an annotation file said, not what `decode`
    will find.

    Args:
      serialized: string [].
    """
    encoded = columns.parse(serialized, [schema.IMAGE_ENCODED])[schema.IMAGE_ENCODED]

    def png_size_hw() -> tf.Tensor:
        # A PNG file begins with 8 bytes of signature, then the length and name of the chunk IHDR,
        # whose first fields are width and height, most significant byte first.
        width_height = tf.io.decode_raw(
            tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False
        )
        return tf.ensure_shape(width_height[::-1], [2])

    return tf.cond(
        tf.strings.substr(encoded, 0, 4) == b"\x89PNG",
        png_size_hw,
        lambda: tf.image.extract_jpeg_shape(encoded)[:2],
    )


def categories(serialized: tf.Tensor) -> tf.Tensor:
    """Return int64 [c], the data set's own ids of the different categories in a record.

    Args:
      serialized: string [].
    """
    return tf.unique(columns.parse(serialized, [schema.CLASS_LABEL])[schema.CLASS_LABEL]).y


def _boxes(parsed: dict[str, tf.Tensor], image_hw: tf.Tensor, source_id: tf.Tensor) -> tf.Tensor:
    """Return boxes float32 [n, (y1, x1, y2, x2)] in pixels, clipped to the image."""
    names = (schema.BBOX_YMIN, schema.BBOX_XMIN, schema.BBOX_YMAX, schema.BBOX_XMAX)
    num_objects = tf.size(parsed[schema.CLASS_LABEL])
    checks = [_check_count(tf.size(parsed[name]), num_objects, name, source_id) for name in names]
    with tf.control_dependencies(checks):
        normalised = tf.stack([parsed[name] for name in names], axis=1)
    size = tf.cast(image_hw, tf.float32)
    boxes = tf.clip_by_value(normalised, 0.0, 1.0) * tf.tile(size, [2])
    # Written so that a NaN is refused too.
    is_bad = ~tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1)
    tf.debugging.Assert(
        ~tf.reduce_any(is_bad),
        ["image", source_id, "has boxes without area; their indices:", tf.where(is_bad)[:, 0]]
        + ["(y1, x1, y2, x2) in pixels:", tf.boolean_mask(boxes, is_bad)],
        summarize=20,
    )
    return boxes


def _classes(
    category_ids: tf.Tensor, label_ids: tuple[int, ...], source_id: tf.Tensor
) -> tf.Tensor:
    """Map the data set's category ids int64 [n] to classes int32 [n], 1..N-1."""
    order = np.argsort(label_ids)
    sorted_ids = tf.constant(np.asarray(label_ids, np.int64)[order])
    sorted_classes = tf.constant((order + 1).astype(np.int32))
    position = tf.searchsorted(sorted_ids, category_ids)
    position = tf.minimum(position, len(label_ids) - 1)
    is_unknown = tf.gather(sorted_ids, position) != category_ids
    tf.debugging.Assert(
        ~tf.reduce_any(is_unknown),
        ["image", source_id, "has category ids that the label map does not know:"]
        + [tf.boolean_mask(category_ids, is_unknown)],
        summarize=20,
    )
    return tf.gather(sorted_classes, position)


def _listed(classes: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Return which classes are in a list of them, int32 [n]: bool [N]."""
    return tf.scatter_nd(classes[:, tf.newaxis], tf.ones_like(classes), [num_classes]) > 0


def _masks(
    parsed: dict[str, tf.Tensor], num_objects: tf.Tensor, source_id: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mask bits uint8 [ceil(T / 8)] and crops int32 [n, (y, x, height, width)]."""
    png, crop = parsed[schema.MASK_PNG], parsed[schema.MASK_CROP]
    return tf.cond(
        tf.size(crop) > 0,
        lambda: _masks_from_runs(parsed, num_objects, source_id),
        lambda: tf.cond(
            tf.size(png) > 0,
            lambda: _masks_from_pngs(png, num_objects, source_id),
            lambda: _no_masks(num_objects),
        ),
    )


def _masks_from_runs(
    parsed: dict[str, tf.Tensor], num_objects: tf.Tensor, source_id: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what `_masks` returns, from our run lengths."""
    crop, num_runs, runs = (
        tf.cast(parsed[name], tf.int32)
        for name in (schema.MASK_CROP, schema.MASK_NUM_RUNS, schema.MASK_RUNS)
    )
    num_runs_due = tf.reduce_sum(num_runs)
    checks = [
        _check_count(tf.size(crop), 4 * num_objects, schema.MASK_CROP, source_id),
        _check_count(tf.size(num_runs), num_objects, schema.MASK_NUM_RUNS, source_id),
        _check_count(tf.size(runs), num_runs_due, schema.MASK_RUNS, source_id),
    ]
    with tf.control_dependencies(checks):
        crops = tf.reshape(crop, [-1, 4])
        num_pixels_due = tf.reduce_sum(crops[:, 2] * crops[:, 3])
        bits = arena.pack_runs(runs, num_runs)
    _check_count(tf.reduce_sum(runs), num_pixels_due, "mask pixels", source_id)
    return bits, crops


def _masks_from_pngs(
    pngs: tf.Tensor, num_objects: tf.Tensor, source_id: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what `_masks` returns, from one full-image PNG per object: string [n]."""
    _check_count(tf.size(pngs), num_objects, schema.MASK_PNG, source_id)
    pixels, crops = tf.map_fn(
        _png_to_crop,
        pngs,
        fn_output_signature=(
            tf.RaggedTensorSpec([None], tf.bool, ragged_rank=0),
            tf.TensorSpec([4], tf.int32),
        ),
    )
    return arena.pack(pixels.flat_values), crops


def _png_to_crop(png: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a full-image PNG to the pixels bool [T] of its crop int32 [(y, x, height, width)].

    The crop is the smallest rectangle that holds all non-zero pixels; all 0 if there are none.
    """
    mask = tf.io.decode_png(png, channels=1)[..., 0] > 0  # [h, w]

    def extent(has_pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first = tf.argmax(has_pixels, output_type=tf.int32)
        last = tf.size(has_pixels) - tf.argmax(has_pixels[::-1], output_type=tf.int32)
        return first, tf.where(tf.reduce_any(has_pixels), last, first)

    y1, y2 = extent(tf.reduce_any(mask, axis=1))
    x1, x2 = extent(tf.reduce_any(mask, axis=0))
    return tf.reshape(mask[y1:y2, x1:x2], [-1]), tf.stack([y1, x1, y2 - y1, x2 - x1])


def _no_masks(num_objects: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what `_masks` returns for objects without masks."""
    return tf.zeros([0], tf.uint8), tf.zeros([num_objects, 4], tf.int32)


def _check_source_id(source_id: tf.Tensor) -> None:
    """Refuse an image id that a batch cannot carry, or an error could not name."""
    length = tf.strings.length(source_id)
    # A point matches no byte that belongs to no character.
    tf.debugging.Assert(
        tf.strings.regex_full_match(source_id, "(?s).*"),
        [f"a record's {schema.IMAGE_SOURCE_ID} is no UTF-8; in Base64:"]
        + [tf.io.encode_base64(tf.strings.substr(source_id, 0, schema.SOURCE_ID_BYTES))],
    )
    tf.debugging.Assert(
        (length > 0) & (length <= schema.SOURCE_ID_BYTES),
        [f"a record's {schema.IMAGE_SOURCE_ID} must have 1 to {schema.SOURCE_ID_BYTES} bytes, not"]
        + [length, "image:", source_id],
    )


def _check_count(
    count: tf.Tensor, due: tf.Tensor, what: str, source_id: tf.Tensor
) -> tf.Operation | None:
    """Refuse a column whose count is not the one that is due; return the check itself."""
    return tf.debugging.Assert(
        tf.equal(count, due),
        ["image", source_id, f"has {what} of count", count, "where this count was due:", due],
    )
