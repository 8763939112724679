"""Keypoints from a COCO file over a record to a batch: named, repaired, mirrored, cut, scaled."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import augment, coco_json, decoder, keypoints, preprocess, schema
from mrcnn_tf.data.findings import Level
from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.data.label_map import LabelMap

NAMES = ("nose", "left_eye", "right_eye")
POINTS = [12, 14, 2, 20, 11, 1, 0, 0, 0]  # nose seen, left eye hidden, right eye not annotated


def read(tmp_path, category=None, **changes):
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400}
    annotation |= {"iscrowd": 0, "keypoints": POINTS, "num_keypoints": 2} | changes
    person = {"id": 3, "name": "person", "keypoints": list(NAMES), "skeleton": [[1, 2], [1, 3]]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 50}],
        "annotations": [{k: v for k, v in annotation.items() if v != "absent"}],
        "categories": [{"id": 1, "name": "dog"}, person | (category or {})],
    }
    path = tmp_path / "person_keypoints.json"
    path.write_text(json.dumps(content))
    return coco_json.read(str(path), include_masks=False)


def test_a_good_file(tmp_path):
    coco = read(tmp_path)
    assert coco.findings == []
    assert coco.label_map.keypoints == KeypointSet(NAMES, ((0, 1), (0, 2)), (2,))
    (entry,) = coco.objects["1"]
    np.testing.assert_array_equal(entry.keypoints, np.reshape(POINTS, [3, 3]))


@pytest.mark.parametrize(
    ("changes", "level", "kind", "value", "expected"),
    [
        ({"keypoints": POINTS[:6]}, Level.LEFT_OUT, "malformed keypoints", "6 values", None),
        ({"keypoints": "x"}, Level.LEFT_OUT, "malformed keypoints", "'x', no list", None),
        (
            {"keypoints": [None, *POINTS[1:]]},
            *(Level.LEFT_OUT, "malformed keypoints", "expected 9 finite numbers", None),
        ),
        (
            {"keypoints": [12, 14, 3, *POINTS[3:]], "num_keypoints": 1},
            *(Level.REPAIRED, "visibility that is not 0, 1 or 2", "nose: visibility 3"),
            [[0, 0, 0], [20, 11, 1], [0, 0, 0]],
        ),
        (
            {"keypoints": [12, 14, 2, 51, 11, 1, 0, 0, 0], "num_keypoints": 1},
            *(Level.REPAIRED, "keypoint outside the image", "left_eye at (51, 11) in an image of"),
            [[12, 14, 2], [0, 0, 0], [0, 0, 0]],
        ),
        (
            {"num_keypoints": 3},
            *(Level.REPAIRED, "num_keypoints that is another number", "3; annotated are 2"),
            [[12, 14, 2], [20, 11, 1], [0, 0, 0]],
        ),
    ],
)
def test_odd_keypoints_are_named_and_the_object_is_kept(
    tmp_path, changes, level, kind, value, expected
):
    coco = read(tmp_path, **changes)
    (finding,) = coco.findings
    assert (finding.level, finding.kind, finding.objects) == (level, kind, 0)
    assert value in finding.value
    assert "annotation 1 of image 1 (a.jpg)" in finding.where
    (entry,) = coco.objects["1"]
    if expected is None:
        assert entry.keypoints is None
    else:
        np.testing.assert_array_equal(entry.keypoints, expected)


def test_what_may_be_missing(tmp_path):
    for absent in ({"keypoints": "absent"}, {"keypoints": []}):
        coco = read(tmp_path, num_keypoints="absent", **absent)
        assert coco.findings == []
        assert coco.objects["1"][0].keypoints is None


def test_odd_categories(tmp_path):
    (finding,) = read(tmp_path, {"skeleton": [[0, 1]]}).findings
    assert (finding.level, finding.kind) == (Level.REPAIRED, "malformed skeleton")
    findings = read(tmp_path, {"keypoints": ["nose", "nose"]}).findings
    assert findings[0].level == Level.REFUSED
    assert "expected different texts" in findings[0].value


def test_categories_with_other_keypoints_are_refused(tmp_path):
    coco = read(tmp_path, {"id": 1, "name": "dog", "keypoints": ["tail"]})
    assert coco.label_map.keypoints.names == ("tail",)  # one alone: id 1 is the dog's
    content = json.loads((tmp_path / "person_keypoints.json").read_text())
    content["categories"] = [
        {"id": 1, "name": "dog", "keypoints": ["tail"]},
        {"id": 3, "name": "person", "keypoints": list(NAMES)},
    ]
    (tmp_path / "both.json").write_text(json.dumps(content))
    refused = [f for f in coco_json.read(str(tmp_path / "both.json")).findings if f.objects == 0]
    assert any("'dog' has tail; 'person' has nose, left_eye" in f.value for f in refused)


def test_sides_change_places_in_a_mirror():
    assert KeypointSet(NAMES).mirrored() == (0, 2, 1)
    assert KeypointSet(("L", "hand_left", "left", "hand_right")).mirrored() == (0, 3, 2, 1)
    coco = ("nose", *(f"{s}_{n}" for n in ("eye", "ear", "hip") for s in ("left", "right")))
    assert KeypointSet(coco).mirrored() == (0, 2, 1, 4, 3, 6, 5)
    assert KeypointSet(coco).sigmas() == (0.026, 0.025, 0.025, 0.035, 0.035, 0.107, 0.107)


def test_the_label_map_keeps_them():
    label_map = LabelMap((1, 3), ("dog", "person"), KeypointSet(NAMES, ((0, 1),), (2,)))
    assert LabelMap.from_json(label_map.to_json()) == label_map
    other = LabelMap((7, 5), ("person", "dog"), KeypointSet(NAMES, (), (1,)))
    assert label_map.renumbered(other, "val") == LabelMap(
        (5, 7), ("dog", "person"), label_map.keypoints
    )
    with pytest.raises(ValueError, match="val has the keypoints nose, the network nose, left_eye"):
        label_map.renumbered(LabelMap((1,), ("dog",), KeypointSet(("nose",))), "val")
    for content, fault in (
        ('{"names": ["a", "a"], "skeleton": [], "classes": [1]}', "names"),
        ('{"names": ["a"], "skeleton": [[0, 1]], "classes": [1]}', "skeleton"),
        ('{"names": ["a"], "skeleton": [], "classes": [3]}', "expected some of 1..2"),
    ):
        text = label_map.to_json().partition(',\n"keypoints"')[0] + f', "keypoints": {content}}}'
        with pytest.raises(ValueError, match=rf"x\.json: keypoints: .*{fault}"):
            LabelMap.from_json(text, "x.json")


# --- From a record to a batch -------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(make_scene):
    return make_scene(4, 10, 20, 2)


def decode(serialize, scene, **columns):
    x = [0.25, 0.5, 0.0, 0.9, 0.95, 0.0]  # pixels 5, 10; 18, 19 of 20
    y = [0.1, 0.2, 0.0, 0.5, 0.9, 0.0]  # pixels 1, 2; 5, 9 of 10
    visible = [2, 1, 0, 1, 2, 0]
    given = dict(zip(keypoints.COLUMNS, (x, y, visible), strict=True)) | columns
    record = serialize(scene, **given)
    example = decoder.decode(record, label_ids=(1, 7, 90), include_masks=True)
    return example | keypoints.decode(record, example, 3)


def test_decoded_by_hand(serialize, scene):
    example = decode(serialize, scene)
    # COCO's pixel i is from i to i + 1.
    want = [[[1.5, 5.5], [2.5, 10.5], [0, 0]], [[5.5, 18.5], [9.5, 19.5], [0, 0]]]
    np.testing.assert_allclose(example[schema.GT_KEYPOINTS], want, atol=1e-5)
    valid = [[True, True, False]] * 2
    np.testing.assert_array_equal(example[schema.GT_KEYPOINTS_VALID], valid)


def test_a_record_without_keypoints_has_none_and_a_wrong_count_is_named(serialize, scene):
    example = decode(serialize, scene, **dict.fromkeys(keypoints.COLUMNS, ()))
    assert example[schema.GT_KEYPOINTS].shape == (2, 3, 2)
    assert not np.any(example[schema.GT_KEYPOINTS_VALID])
    with pytest.raises(tf.errors.InvalidArgumentError, match="42"):
        decode(serialize, scene, **{schema.KEYPOINT_X: [0.5]})


def test_mirrored_by_hand_and_twice(serialize, scene):
    example, mirrored = decode(serialize, scene), (0, 2, 1)
    flipped = augment.flip_left_right(example, tf.constant(True), mirrored)
    want = [[[1.5, 14.5], [0, 0], [2.5, 9.5]], [[5.5, 1.5], [0, 0], [9.5, 0.5]]]
    np.testing.assert_allclose(flipped[schema.GT_KEYPOINTS], want, atol=1e-5)
    np.testing.assert_array_equal(flipped[schema.GT_KEYPOINTS_VALID], [[True, False, True]] * 2)
    twice = augment.flip_left_right(flipped, tf.constant(True), mirrored)
    never = augment.flip_left_right(example, tf.constant(False), mirrored)
    for key in keypoints.KEYS:
        np.testing.assert_allclose(np.float32(twice[key]), np.float32(example[key]), atol=1e-5)
        np.testing.assert_array_equal(never[key], example[key])


def test_what_a_crop_cuts_off_is_not_valid_and_goes_with_its_object(serialize, scene):
    example = decode(serialize, scene)
    example[schema.GT_BOXES] = tf.constant([[0.0, 0, 4, 9], [4, 12, 10, 20]])
    example[schema.GT_MASK_SIZES] = tf.zeros([2, 2], tf.int32)
    example[schema.GT_MASK_BITS] = tf.zeros([0], tf.uint8)
    part = augment.crop(example, tf.constant([0, 6]), tf.constant([9, 14]))
    want = [[[0, 0], [2.5, 4.5], [0, 0]], [[5.5, 12.5], [0, 0], [0, 0]]]
    np.testing.assert_allclose(part[schema.GT_KEYPOINTS], want, atol=1e-5)
    valid = [[False, True, False], [True, False, False]]
    np.testing.assert_array_equal(part[schema.GT_KEYPOINTS_VALID], valid)
    gone = augment.crop(example, tf.constant([0, 10]), tf.constant([10, 10]))
    np.testing.assert_allclose(
        gone[schema.GT_KEYPOINTS], [[[5.5, 8.5], [9.5, 9.5], [0, 0]]], atol=1e-5
    )


def test_scaled_and_padded_in_the_order_of_the_objects(serialize, make_scene):
    scene = make_scene(4, 10, 20, 2)
    scene.crowds = [True, False]
    example = decode(serialize, scene)
    row = preprocess.prepare_objects(
        example, tf.constant([20, 30]), max_instances=3, mask_arena_pixels=2**10
    )
    want = [[[11, 27.75], [19, 29.25], [0, 0]], [[3, 8.25], [5, 15.75], [0, 0]], [[0, 0]] * 3]
    np.testing.assert_allclose(row[schema.GT_KEYPOINTS], want, atol=1e-4)
    valid = [[True, True, False], [True, True, False], [False] * 3]
    np.testing.assert_array_equal(row[schema.GT_KEYPOINTS_VALID], valid)
