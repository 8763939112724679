"""Hand-worked answers in the Object Detection API's terms."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.serving import postprocessing

IDS = (90, 3, 2**24 + 1)
SIZE = tf.constant([[100.0, 200.0], [50.0, 50.0]])  # resized
ORIGINAL = tf.constant([[300, 600], [25, 25]])


def rows(masks: bool = True) -> Detections:
    boxes = [
        [[10.0, 20.0, 60.0, 120.0], [-5.0, 0.0, 100.0, 230.0], [0.0] * 4],
        [[0.0, 0.0, 25.0, 50.0], [0.0] * 4, [0.0] * 4],
    ]
    valid = tf.constant([[True, True, False], [True, False, False]])
    scores = tf.constant([[0.9, 0.3, 0.0], [0.8, 0.0, 0.0]])
    classes = tf.constant([[1, 2, 0], [3, 0, 0]])
    grid = tf.reshape(tf.range(24, dtype=tf.float32), [2, 3, 2, 2]) / 24.0
    grid = tf.where(valid[..., tf.newaxis, tf.newaxis], grid, 0.0)
    return Detections(tf.constant(boxes), classes, scores, valid, grid if masks else None)


def serve(*tensors):
    detections = Detections(*tensors)
    return postprocessing.object_detection_outputs(detections, SIZE, ORIGINAL, IDS)


def test_hand_worked():
    out = {k: v.numpy() for k, v in serve(*rows()).items()}
    np.testing.assert_array_equal(out["num_detections"], np.float32([2, 1]))
    np.testing.assert_allclose(
        out["detection_boxes"],
        [
            [[0.1, 0.1, 0.6, 0.6], [0.0, 0.0, 1.0, 1.0], [0.0] * 4],
            [[0.0, 0.0, 0.5, 1.0], [0.0] * 4, [0.0] * 4],
        ],
        atol=1e-7,
    )
    np.testing.assert_array_equal(out["detection_class_ids"], [[90, 3, 0], [2**24 + 1, 0, 0]])
    np.testing.assert_array_equal(out["detection_classes"], np.float32([[90, 3, 0], [2**24, 0, 0]]))
    np.testing.assert_array_equal(
        out["detection_scores"], np.float32([[0.9, 0.3, 0.0], [0.8, 0.0, 0.0]])
    )
    grid = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / np.float32(24)
    nothing = np.zeros([2, 2], np.float32)
    expected = [[grid[0, 0], grid[0, 1], nothing], [grid[1, 0], nothing, nothing]]
    np.testing.assert_array_equal(out["detection_masks"], expected)
    np.testing.assert_array_equal(out["image_size"], [[300, 600], [25, 25]])


def test_types_are_those_clients_of_the_api_read():
    out = serve(*rows())
    floats = {k for k, v in out.items() if v.dtype == tf.float32}
    names = ["num_detections", *(f"detection_{n}" for n in ("boxes", "classes", "scores", "masks"))]
    assert floats == set(names)
    assert out["detection_class_ids"].dtype == tf.int64
    assert out["image_size"].dtype == tf.int32


def test_without_masks():
    out = serve(*rows(masks=False))
    assert "detection_masks" not in out
    np.testing.assert_array_equal(out["num_detections"], [2, 1])


def test_nothing_found():
    out = serve(*[x if x is None else tf.zeros_like(x) for x in rows()])
    for name in set(out) - {"image_size"}:
        assert not out[name].numpy().any(), name


@pytest.mark.parametrize("jit_compile", [False, True])
def test_same_in_a_graph(jit_compile):
    eager = serve(*rows())
    compiled = tf.function(serve, jit_compile=jit_compile)(*rows())
    for name, value in eager.items():
        np.testing.assert_allclose(compiled[name], value, rtol=1e-6, err_msg=name)


def test_empty_boxes_are_no_detections():
    """Outside of the image, or so thin that the division makes nothing of it: the rest moves up."""
    thin = [50.0, 10.0, np.nextafter(np.float32(50.0), np.float32(51.0)), 90.0]
    boxes = [[-9.0, 0.0, 0.0, 50.0], [10.0, 20.0, 60.0, 120.0], thin, [0.0, 200.0, 50.0, 230.0]]
    boxes = tf.constant([boxes, [[0.0, 0.0, 25.0, 50.0], [0.0] * 4, [0.0] * 4, [0.0] * 4]])
    valid = tf.constant([[True] * 4, [True, False, False, False]])
    scores = tf.constant([[0.9, 0.8, 0.7, 0.6], [0.5, 0.0, 0.0, 0.0]])
    classes = tf.constant([[1, 2, 3, 1], [3, 0, 0, 0]])
    masks = scores[..., tf.newaxis, tf.newaxis] * tf.ones([2, 4, 2, 2])
    # Of 150.7 rows, 50 and the next float32 are the same fraction.
    size = tf.constant([[150.7, 200.0], [50.0, 50.0]])
    assert np.float32(thin[0]) / np.float32(150.7) == np.float32(thin[2]) / np.float32(150.7)
    out = postprocessing.object_detection_outputs(
        Detections(boxes, classes, scores, valid, masks), size, ORIGINAL, IDS
    )
    np.testing.assert_array_equal(out["num_detections"], [1, 1])
    np.testing.assert_array_equal(out["detection_class_ids"], [[3, 0, 0, 0], [2**24 + 1, 0, 0, 0]])
    expected = np.float32([[0.8, 0, 0, 0], [0.5, 0, 0, 0]])
    np.testing.assert_array_equal(out["detection_scores"], expected)
    np.testing.assert_allclose(out["detection_boxes"][0, 0], [10 / 150.7, 0.1, 60 / 150.7, 0.6])
    assert not out["detection_boxes"][:, 1:].numpy().any()
    np.testing.assert_array_equal(out["detection_masks"][0, 0], np.full([2, 2], np.float32(0.8)))
    assert not out["detection_masks"][:, 1:].numpy().any()
