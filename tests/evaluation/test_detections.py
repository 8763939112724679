"""Network frame to stored image."""

import numpy as np
import pytest

from mrcnn_tf.data.schema import SOURCE_ID_BYTES
from mrcnn_tf.evaluation import detections


def test_each_axis_has_its_own_scale_and_boxes_are_clipped():
    # 480 x 641 resized to 800 x 1068: 641 * 800 / 480 = 1068.33 was rounded.
    boxes = np.float32([[[0, 0, 800, 1068], [400, 534, 500, 600], [-9, 1000, 900, 1344]]])
    mapped = detections.to_original_frame(boxes, np.float32([800, 1068]), np.float32([480, 641]))
    assert mapped.dtype == np.float64
    np.testing.assert_allclose(mapped[0, 0], [0, 0, 480, 641], atol=1e-9)
    np.testing.assert_allclose(mapped[0, 1], [240, 320.5, 300, 600 * 641 / 1068], atol=1e-9)
    np.testing.assert_allclose(mapped[0, 2], [0, 1000 * 641 / 1068, 480, 641], atol=1e-9)


@pytest.mark.parametrize("text", ["", "0", "dir/größe.jpg", "x" * SOURCE_ID_BYTES])
def test_source_ids(text):
    row = np.zeros(SOURCE_ID_BYTES, np.uint8)
    encoded = np.frombuffer(text.encode(), np.uint8)
    row[: len(encoded)] = encoded
    assert detections.decode_source_id(row) == text


def test_no_detections_yield_nothing():
    results = detections.to_coco_results(
        image_id=1,
        boxes=np.zeros([0, 4]),
        classes=np.zeros([0], np.int32),
        scores=np.zeros([0]),
        masks=np.zeros([0, 28, 28]),
        original_size_hw=(5, 5),
        label_map=None,
    )
    assert results == []


def test_empty_boxes_are_no_detections():
    """Clipped to the image, a box that lay outside of it has no area."""
    boxes = np.float32([[10, 10, 20, 20], [-9, 5, -1, 9], [30, 70, 40, 80], [0, 0, 5, 5]])
    boxes = detections.to_original_frame(boxes, np.float32([50, 60]), np.float32([100, 120]))
    results = detections.to_coco_results(
        image_id=1,
        boxes=boxes,
        classes=np.array([1, 2, 3, 4]),
        scores=np.float32([0.9, 0.8, 0.7, 0.6]),
        masks=None,
        original_size_hw=(100, 120),
        label_map=None,
    )
    found = [(row["category_id"], row["bbox"]) for row in results]
    assert found == [(1, [20, 20, 20, 20]), (4, [0, 0, 10, 10])]
