"""A record in TFDS's layout is read as ours is: in a graph, in Python, and where it is damaged."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import columns, decoder, schema

IDS = (1, 7, 90)


def in_tfds_layout(record: bytes, **changes) -> bytes:
    """The same image and objects as TFDS would write them; `changes` replaces lists of values."""
    ours = tf.train.Example.FromString(record).features.feature
    sides = [ours[f"image/object/bbox/{side}"].float_list.value for side in SIDES]
    n = len(sides[0])
    ints = {
        "image/height": ours["image/height"],
        "image/width": ours["image/width"],
        "objects/category_id": ours["image/object/class/label"],
        "objects/is_crowd": ours["image/object/is_crowd"],
        "objects/mask/crop": ours["image/object/mask/crop"],
        "objects/mask/runs/ragged_row_lengths_0": ours["image/object/mask/num_runs"],
        "objects/mask/runs/ragged_flat_values": ours["image/object/mask/runs"],
    }
    values = {
        "image": [ours["image/encoded"].bytes_list.value[0]],
        "image/id": [ours["image/source_id"].bytes_list.value[0]],
        "image/filename": [b"a.png"],
        **{name: list(feature.int64_list.value) for name, feature in ints.items()},
        "objects/id": list(range(100, 100 + n)),
        "objects/label": [IDS.index(i) for i in ints["objects/category_id"].int64_list.value],
        "objects/bbox": np.array(sides, np.float32).T.ravel().tolist(),
        "objects/coco_bbox": [np.array([k, 2, 3, 1 / 3]).tobytes() for k in range(n)],
        "objects/area": [np.array(k / 3).tobytes() for k in range(n)],
    }
    features = {name: feature(v) for name, v in (values | changes).items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


SIDES = ("ymin", "xmin", "ymax", "xmax")


def feature(values):
    if values and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def decode_in_graph(record, include_masks=True):
    dataset = tf.data.Dataset.from_tensors(record)
    dataset = dataset.map(
        lambda text: decoder.decode(text, label_ids=IDS, include_masks=include_masks)
    )
    return next(iter(dataset))


@pytest.mark.parametrize(("num_objects", "include_masks"), [(0, True), (5, True), (5, False)])
def test_both_layouts_decode_to_the_same(num_objects, include_masks, make_scene, serialize):
    ours = serialize(make_scene(3, 40, 50, num_objects, source_id="ü 7"))
    if not num_objects:  # as TFDS writes empty lists, each with its type
        empty = {"objects/bbox": [], "objects/coco_bbox": [], "objects/area": []}
        theirs = in_tfds_layout(ours, **empty)
        example = tf.train.Example.FromString(theirs)
        example.features.feature["objects/bbox"].float_list.SetInParent()
        theirs = example.SerializeToString()
    else:
        theirs = in_tfds_layout(ours)
    expected = decode_in_graph(ours, include_masks)
    for found in (
        decode_in_graph(theirs, include_masks),
        decoder.decode(tf.constant(theirs), label_ids=IDS, include_masks=include_masks),
    ):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].dtype == value.dtype
            np.testing.assert_array_equal(found[key], value, err_msg=key)
    size_hw = [decoder.image_size_hw(tf.constant(record)).numpy() for record in (ours, theirs)]
    assert [size.tolist() for size in size_hw] == [[40, 50]] * 2


def test_both_layouts_have_the_same_columns_in_python(make_scene, serialize):
    ours = serialize(make_scene(3, 40, 50, 3))
    theirs = columns.of_record(in_tfds_layout(ours))
    ours = columns.of_record(ours)
    for name in set(ours) - {schema.IMAGE_FORMAT}:
        assert theirs[name] == ours[name], name
    assert list(theirs[schema.OBJECT_ID].int64_list.value) == [100, 101, 102]
    assert list(theirs[schema.IMAGE_FILENAME].bytes_list.value) == [b"a.png"]
    (exact,) = theirs[schema.BBOX_AREA_FLOAT64].bytes_list.value
    rows = np.frombuffer(exact, "<f8").reshape(-1, 5).tolist()
    assert rows == [[k, 2, 3, 1 / 3, k / 3] for k in range(3)]
    assert not theirs[schema.MASK_PNG].bytes_list.value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": [b""]}, r"image.*42.*has no image/encoded"),
        ({"image/id": [b""]}, "must have 1 to 128 bytes"),
        ({"objects/bbox": [0.1, 0.2, 0.3, 0.4, 0.5]}, "42.*of count"),
        ({"objects/bbox": [0.1, 0.2, 0.1, 0.4] * 3}, "42.*has boxes without area"),
        ({"objects/category_id": [1, 7, 8]}, r"42.*label map does not know.*8"),
        ({"objects/is_crowd": [0]}, "42.*is_crowd of count"),
        ({"objects/mask/crop": [1, 2, 3, 4]}, "42.*mask/crop of count"),
        ({"objects/mask/runs/ragged_flat_values": [5]}, "42.*mask/runs of count"),
    ],
)
def test_what_is_damaged_is_named(changes, message, make_scene, serialize):
    record = in_tfds_layout(serialize(make_scene(3, 40, 50, 3)), **changes)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){message}"):
        decode_in_graph(record)


def test_keypoints_of_both_layouts(make_scene, serialize):
    """Three objects with two keypoints each; and what is no visibility is none."""
    ours = serialize(make_scene(3, 40, 50, 3))
    example = tf.train.Example.FromString(ours)
    x, y = np.linspace(0, 1, 6, dtype=np.float32), np.linspace(1, 0.5, 6, dtype=np.float32)
    visibility = [0, 1, 2, 2, 1, 0]
    for name, values in ((schema.KEYPOINT_X, x), (schema.KEYPOINT_Y, y)):
        example.features.feature[name].float_list.value.extend(values)
    example.features.feature[schema.KEYPOINT_VISIBILITY].int64_list.value.extend(visibility)
    flat = np.stack([x, y, np.float32(visibility)], axis=1).ravel().tolist()
    theirs = in_tfds_layout(ours, **{columns.TFDS_KEYPOINTS: flat})
    names = (schema.KEYPOINT_X, schema.KEYPOINT_Y, schema.KEYPOINT_VISIBILITY)
    parsed = [
        columns.parse(tf.constant(record), names)
        for record in (example.SerializeToString(), theirs)
    ]
    for name in names:
        assert parsed[0][name].dtype == parsed[1][name].dtype
        assert parsed[0][name].numpy().tolist() == parsed[1][name].numpy().tolist()
        assert columns.of_record(theirs)[name] == example.features.feature[name]
    damaged = flat[:2] + [float("inf")] + flat[3:]
    theirs = in_tfds_layout(ours, **{columns.TFDS_KEYPOINTS: damaged})
    (first, *_) = columns.of_record(theirs)[schema.KEYPOINT_VISIBILITY].int64_list.value
    assert first == -1
    assert schema.KEYPOINT_X not in columns.of_record(in_tfds_layout(ours))
