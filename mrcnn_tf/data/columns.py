"""The columns of a record, whichever of two layouts it has: ours, or that of a TFDS data set.

Both are `tf.train.Example`s in TFRecord files. Ours have the names of `schema.py`; what
`data_prep/tfds/coco_folder` builds holds the same values under the names that users of TensorFlow
Datasets know, `objects/bbox` for one. A record has one layout or the other and says so by what is
in it, so that files, order and sharding are the same business for both, and who reads columns
through this module knows our names only.

Shape letter: `n` objects of the image.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import schema

# Of a TFDS data set, as its `tfds.features.FeaturesDict` is flattened into an Example.
TFDS_IMAGE = "image"
TFDS_BBOX = "objects/bbox"  # float32 [n * 4]: y1, x1, y2, x2, normalised
# float32 [n * K * 3]: x, y, normalised, and visibility; empty in a data set without keypoints.
TFDS_KEYPOINTS = "objects/keypoints/ragged_flat_values"
# Raw little-endian float64, one bytes value per object: (x, y, width, height), and the area.
TFDS_COCO_BBOX = "objects/coco_bbox"
TFDS_AREA = "objects/area"
# {our column: theirs with the same values}. `image/filename`, `height` and `width` have one name.
TFDS_NAMES = {
    schema.IMAGE_ENCODED: TFDS_IMAGE,
    schema.IMAGE_FILENAME: schema.IMAGE_FILENAME,
    schema.IMAGE_SOURCE_ID: "image/id",
    schema.IMAGE_HEIGHT: schema.IMAGE_HEIGHT,
    schema.IMAGE_WIDTH: schema.IMAGE_WIDTH,
    schema.CLASS_LABEL: "objects/category_id",
    schema.IS_CROWD: "objects/is_crowd",
    schema.OBJECT_ID: "objects/id",
    schema.MASK_CROP: "objects/mask/crop",
    schema.MASK_NUM_RUNS: "objects/mask/runs/ragged_row_lengths_0",
    schema.MASK_RUNS: "objects/mask/runs/ragged_flat_values",
}
_BOX_SIDES = (schema.BBOX_YMIN, schema.BBOX_XMIN, schema.BBOX_YMAX, schema.BBOX_XMAX)
_OF_KEYPOINTS = (schema.KEYPOINT_X, schema.KEYPOINT_Y, schema.KEYPOINT_VISIBILITY)
# {our column: theirs that holds its values among others, the first one's place, how many go round}.
_PARTS = {
    **{name: (TFDS_BBOX, k, 4) for k, name in enumerate(_BOX_SIDES)},
    **{name: (TFDS_KEYPOINTS, k, 3) for k, name in enumerate(_OF_KEYPOINTS)},
}

_TYPES = {
    schema.IMAGE_ENCODED: tf.string,
    schema.IMAGE_SOURCE_ID: tf.string,
    **dict.fromkeys(_BOX_SIDES, tf.float32),
    schema.CLASS_LABEL: tf.int64,
    schema.IS_CROWD: tf.int64,
    schema.MASK_CROP: tf.int64,
    schema.MASK_NUM_RUNS: tf.int64,
    schema.MASK_RUNS: tf.int64,
    schema.MASK_PNG: tf.string,
    schema.KEYPOINT_X: tf.float32,
    schema.KEYPOINT_Y: tf.float32,
    schema.KEYPOINT_VISIBILITY: tf.int64,
    schema.NEG_CATEGORY_IDS: tf.int64,
    schema.NOT_EXHAUSTIVE_CATEGORY_IDS: tf.int64,
}
_SCALARS = (schema.IMAGE_ENCODED, schema.IMAGE_SOURCE_ID)


def parse(serialized: tf.Tensor, names: Iterable[str]) -> dict[str, tf.Tensor]:
    """Parse columns of one record, in a graph or eagerly.

    Args:
      serialized: string [].
      names: of `schema.py`: the image, its id, or what a decoder wants of the objects.

    Returns:
      {name: string [] of the image and its id, else a vector}; empty what the record has not.
    """
    names = list(names)
    # What only one of the layouts has is empty in a record of the other: joining both chooses.
    sources = {name: [name, *_in_tfds(name)] for name in names}
    features = {
        source: tf.io.FixedLenFeature([], _TYPES[name], default_value="")
        if name in _SCALARS
        else tf.io.FixedLenSequenceFeature([], _type_of(source, name), allow_missing=True)
        for name in names
        for source in sources[name]
    }
    parsed = tf.io.parse_single_example(serialized, features)
    columns = {}
    for name in names:
        values = [parsed[source] for source in sources[name]]
        if name in _PARTS:
            _, first, step = _PARTS[name]
            values[1] = tf.cast(values[1][first::step], _TYPES[name])
        if name in _SCALARS:
            columns[name] = tf.strings.join(values)
        else:
            columns[name] = tf.concat(values, axis=0)
    return columns


def of_record(serialized: bytes) -> Mapping[str, tf.train.Feature]:
    """Return all columns of one record by their names in `schema.py`, in Python.

    A column that the record has not is an empty feature.

    Args:
      serialized: the `tf.train.Example`.
    """
    features = tf.train.Example.FromString(serialized).features.feature
    if TFDS_IMAGE not in features:
        return features
    ours = tf.train.Features().feature
    for name, theirs in TFDS_NAMES.items():
        ours[name].CopyFrom(features[theirs])
    for name, (theirs, first, step) in _PARTS.items():
        values = features[theirs].float_list.value[first::step]
        if name == schema.KEYPOINT_VISIBILITY and values:
            ours[name].int64_list.value.extend(int(v) if v in (0, 1, 2) else -1 for v in values)
        elif values or name in _BOX_SIDES:
            ours[name].float_list.value.extend(values)
    exact = [
        np.frombuffer(b"".join(features[name].bytes_list.value), "<f8").reshape(-1, width)
        for name, width in ((TFDS_COCO_BBOX, 4), (TFDS_AREA, 1))
    ]
    rows = np.concatenate(exact, axis=1)  # [n, (x, y, width, height, area)]
    ours[schema.BBOX_AREA_FLOAT64].bytes_list.value.append(rows.tobytes())
    return ours


def _in_tfds(name: str) -> list[str]:
    """Return the feature of a TFDS data set that a column's values are in, if there is one."""
    if name in _PARTS:
        return [_PARTS[name][0]]
    return [TFDS_NAMES[name]] if name in TFDS_NAMES else []


def _type_of(source: str, name: str) -> tf.DType:
    """Return the type of the feature of either layout that a column's values are in."""
    return _TYPES[name] if source == name or name not in _PARTS else tf.float32
