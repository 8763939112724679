"""Records written with --mask_format=png are read by Model Garden's own decoder."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from pycocotools.coco import COCO

from data_prep import record
from mrcnn_tf.data import coco_json
from mrcnn_tf.images import record_image


@pytest.mark.slow
def test_boxes_classes_and_masks_are_equal(shared):
    tf_example_decoder = pytest.importorskip("official.vision.dataloaders.tf_example_decoder")
    folder = shared / "data/coco_small"
    path = folder / "annotations/instances_val2017.json"
    oracle, coco = COCO(str(path)), coco_json.read(str(path))
    names = dict(zip(coco.label_map.ids, coco.label_map.names, strict=True))
    decoder = tf_example_decoder.TfExampleDecoder(include_mask=True)
    for image in coco.images[:25]:
        file = folder / "val2017" / image.file_name
        encoded = record_image.load(str(file), image.height, image.width, record_image.ExifRule())
        objects = coco.objects[image.source_id]
        counts = collections.Counter()
        text = record.build_example(image, encoded, objects, names, "png", counts)
        decoded = {k: v.numpy() for k, v in decoder.decode(tf.constant(text)).items()}
        assert decoded["source_id"] == image.source_id.encode()
        assert decoded["image"].shape == (image.height, image.width, 3)
        rows = [oracle.anns[entry.annotation_id] for entry in objects]
        x, y, width, height = np.array([row["bbox"] for row in rows]).T
        sides = np.array([image.height, image.width] * 2)
        boxes = np.stack([y, x, y + height, x + width], axis=1) / sides
        np.testing.assert_allclose(decoded["groundtruth_boxes"], np.clip(boxes, 0, 1), atol=1e-6)
        assert decoded["groundtruth_classes"].tolist() == [row["category_id"] for row in rows]
        assert decoded["groundtruth_is_crowd"].tolist() == [bool(row["iscrowd"]) for row in rows]
        areas = [row["area"] for row in rows]
        np.testing.assert_allclose(decoded["groundtruth_area"], areas, rtol=1e-6)
        masks = np.stack([oracle.annToMask(row) for row in rows])
        np.testing.assert_array_equal(decoded["groundtruth_instance_masks"], masks)
