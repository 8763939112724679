"""Keypoints of decoded examples: from a record to a batch's row.

Shape letters: `n` objects of one image, `K` keypoints of each.

Inside they are (y, x) in pixels, continuous as boxes are: COCO's coordinate i, which is the middle
of pixel i, becomes i + 0.5 here, and `evaluation/` and `results/` take the half away again.
"""

import tensorflow as tf

from mrcnn_tf.data import columns, schema

COLUMNS = (schema.KEYPOINT_X, schema.KEYPOINT_Y, schema.KEYPOINT_VISIBILITY)
KEYS = (schema.GT_KEYPOINTS, schema.GT_KEYPOINTS_VALID)


def decode(
    serialized: tf.Tensor, example: dict[str, tf.Tensor], num_keypoints: int
) -> dict[str, tf.Tensor]:
    """Read the keypoints of a record.

    Args:
      serialized: string [], the record.
      example: what `decoder.decode` made of it.
      num_keypoints: K.

    Returns:
      `schema.GT_KEYPOINTS` and `GT_KEYPOINTS_VALID` of the example; none valid if the record has no
      keypoints, as one of a data set without.

    Raises:
      InvalidArgumentError: (when it runs) columns of another length than n * K. Names the image id.
    """
    parsed = columns.parse(serialized, COLUMNS)
    num_objects = tf.shape(example[schema.GT_BOXES])[0]
    sizes = tf.stack([tf.size(parsed[name]) for name in COLUMNS])
    due = num_objects * num_keypoints
    is_due = tf.reduce_all(sizes == due)
    tf.debugging.Assert(
        is_due | tf.reduce_all(sizes == 0),
        ["image", example[schema.SOURCE_ID], "has keypoints (x, y, visibility) of count", sizes]
        + ["where this count was due:", due],
    )
    size_hw = tf.cast(tf.shape(example[schema.IMAGE])[:2], tf.float32)
    missing = [[0, tf.where(is_due, 0, due)]]
    x, y, visibility = (tf.pad(parsed[name], missing) for name in COLUMNS)
    points_yx = tf.stack([y, x], axis=-1) * size_hw + 0.5  # [n * K, 2]
    shape = tf.stack([num_objects, num_keypoints])
    valid = tf.reshape(visibility > 0, shape) & tf.reduce_all(
        tf.math.is_finite(tf.reshape(points_yx, [num_objects, num_keypoints, 2])), axis=-1
    )
    points = tf.reshape(points_yx, [num_objects, num_keypoints, 2])
    return {
        schema.GT_KEYPOINTS: tf.where(valid[..., tf.newaxis], points, 0.0),
        schema.GT_KEYPOINTS_VALID: valid,
    }


def flipped(
    example: dict[str, tf.Tensor], width: tf.Tensor, mirrored: tuple[int, ...]
) -> dict[str, tf.Tensor]:
    """Mirror the keypoints of an example about its image's vertical middle line.

    Args:
      example: with keypoints.
      width: float32 [], of its image.
      mirrored: of `KeypointSet.mirrored`: the left eye of a mirror image was the right one.

    Returns:
      Its keypoints.
    """
    y, x = tf.unstack(example[schema.GT_KEYPOINTS], axis=-1)
    valid = example[schema.GT_KEYPOINTS_VALID]
    points = tf.where(valid[..., tf.newaxis], tf.stack([y, width - x], axis=-1), 0.0)
    return {
        schema.GT_KEYPOINTS: tf.gather(points, mirrored, axis=1),
        schema.GT_KEYPOINTS_VALID: tf.gather(valid, mirrored, axis=1),
    }


def cropped(
    example: dict[str, tf.Tensor], corner_yx: tf.Tensor, size_hw: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Return keypoints in the frame of a part of the image; those outside are not valid.

    Args:
      example: with keypoints.
      corner_yx: int32 [2], the part's first row and column.
      size_hw: int32 [2], its height and width.
    """
    points = example[schema.GT_KEYPOINTS] - tf.cast(corner_yx, tf.float32)
    far = tf.cast(size_hw, tf.float32)
    inside = tf.reduce_all((points >= 0.0) & (points <= far), axis=-1)
    valid = example[schema.GT_KEYPOINTS_VALID] & inside
    return {
        schema.GT_KEYPOINTS: tf.where(valid[..., tf.newaxis], points, 0.0),
        schema.GT_KEYPOINTS_VALID: valid,
    }


def scaled(example: dict[str, tf.Tensor], scale_yx: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return an example's keypoints, if it has some, times float32 [2]."""
    if schema.GT_KEYPOINTS not in example:
        return {}
    return {
        schema.GT_KEYPOINTS: example[schema.GT_KEYPOINTS] * scale_yx,
        schema.GT_KEYPOINTS_VALID: example[schema.GT_KEYPOINTS_VALID],
    }
