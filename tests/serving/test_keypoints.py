"""Keypoints on their way out: from the network's frame to answers, results, files, drawings."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.edge import graph
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.results import coco, joining
from mrcnn_tf.results.column_runs import Rectangle
from mrcnn_tf.results.detection import Detection, Keypoints
from mrcnn_tf.results.found import Found
from mrcnn_tf.serving import answers, drawn, postprocessing, signatures

KINDS = KeypointSet(("head", "left_foot", "right_foot"), ((0, 1), (0, 2)), (2,))
LABELS = LabelMap((17, 5), ("tree", "man"), KINDS)
NAMES = dict(zip(LABELS.ids, LABELS.names, strict=True))


def found(keypoints=True):
    """A man and a tree in a network input of 100 x 200, of an image of 50 x 400."""
    points = [[[10.0, 20.0, 0.9], [60.0, 20.0, 0.5], [60.0, 120.0, 0.04]]] * 2 + [[[0.0] * 3] * 3]
    return Detections(
        tf.constant([[[10.0, 20.0, 60.0, 120.0], [0.0, 0.0, 50.0, 50.0], [0.0] * 4]]),
        tf.constant([[2, 1, 0]]),
        tf.constant([[0.9, 0.8, 0.0]]),
        tf.constant([[True, True, False]]),
        keypoints=tf.constant([points]) if keypoints else None,
    )


def answer(detections):
    outputs = postprocessing.object_detection_outputs(
        detections, tf.constant([[100.0, 200.0]]), tf.constant([[50, 400]]), LABELS.ids
    )
    return {name: value.numpy() for name, value in outputs.items()}


def test_answers_by_hand():
    outputs = answer(found())
    want = [[[0.1, 0.1], [0.6, 0.1], [0.6, 0.6]]] * 2 + [[[0, 0]] * 3]
    np.testing.assert_allclose(outputs["detection_keypoints"][0], want, atol=1e-6)
    scores = [[0.9, 0.5, 0.04]] * 2 + [[0, 0, 0]]
    np.testing.assert_allclose(outputs["detection_keypoint_scores"][0], scores, atol=1e-6)
    assert not any("keypoint" in name for name in answer(found(False)))


def test_results_by_hand():
    """Fractions of 50 x 400; COCO's middle of a pixel is a whole number."""
    description = json.loads(signatures.describe("image_bytes", "pixel_centres", LABELS))
    kinds = answers.keypoints_of(description)
    assert kinds == KINDS
    man, tree = answers.read_detections(answer(found()), 0, NAMES, "pixel_centres", kinds)
    assert (man.category, tree.category) == ("man", "tree")
    assert tree.keypoints is None  # which its category has not
    np.testing.assert_allclose(man.keypoints.points, [[5, 40], [30, 40], [30, 240]], atol=1e-4)
    assert man.keypoints.kinds.names == KINDS.names
    row = man.to_coco("a.jpg")
    want = [39.5, 4.5, 0.9, 39.5, 29.5, 0.5, 239.5, 29.5, 0.04]
    assert row["keypoints"] == pytest.approx(want, abs=2e-3)
    assert "keypoints" not in tree.to_coco("a.jpg")
    for without in (answer(found(False)), answer(found())):
        kinds = KINDS if "detection_keypoints" not in without else None
        read = answers.read_detections(without, 0, NAMES, "pixel_centres", kinds)
        assert all(one.keypoints is None for one in read)
    assert answers.keypoints_of({"categories": []}) is None


def a_man(points=((5.0, 40.0), (30.0, 40.0), (30.0, 60.0)), scores=(0.9, 0.5, 0.04)):
    kept = Keypoints(np.array(points), np.array(scores), KINDS)
    return Detection(np.array([2.0, 30.0, 40.0, 70.0]), 0.9, 5, "man", None, keypoints=kept)


def test_cocos_file_of_a_data_set():
    content = json.loads(coco.head(NAMES, KINDS) + coco.tail([]))
    man, tree = content["categories"]  # by id
    assert man == {
        "id": 5,
        "name": "man",
        "keypoints": list(KINDS.names),
        "skeleton": [[1, 2], [1, 3]],
    }
    assert tree == {"id": 17, "name": "tree"}
    (row,) = coco.annotations(Found("a.jpg", "a.jpg", np.zeros([9, 9, 3]), [(0, a_man())]))
    assert row["keypoints"] == [39.5, 4.5, 2, 39.5, 29.5, 2, 59.5, 29.5, 2]
    assert row["num_keypoints"] == 3


def test_keypoints_of_a_tile_move_with_it():
    moved = joining.piece(0, Rectangle(100, 200, 300, 400), a_man()).detection
    np.testing.assert_array_equal(moved.keypoints.points[0], [105, 240])
    np.testing.assert_array_equal(moved.box, [102, 230, 140, 270])


def test_the_skeleton_is_drawn_without_weak_keypoints():
    image = np.zeros([600, 600, 3], np.uint8)
    man = a_man([(100.0, 100.0), (100.0, 300.0), (500.0, 100.0)])
    with_points = drawn.draw(image, [man], 0.5)
    without = drawn.draw(image, [man._replace(keypoints=None)], 0.5)
    changed = (with_points != without).any(axis=-1)
    assert changed[100, 200]  # on the line from head to left foot
    assert (with_points[100, 300] == 255).all()  # its dot
    assert not changed[200:].any()  # neither line nor dot for the right foot


def test_files_for_devices_refuse():
    with pytest.raises(ValueError, match="a LiteRT or ONNX file has no keypoints yet"):
        graph._outputs(found())
