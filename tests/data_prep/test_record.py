"""One record against the contract: boxes, ids, areas, and masks equal to COCO.annToMask."""

import collections
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from data_prep import record
from mrcnn_tf.data import coco_json, rle, schema
from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.coco_masks import Mask
from mrcnn_tf.images.record_image import EncodedImage

_IMAGE = ImageEntry("90000000000000000001", "ordner/bäume 1.jpg", 40, 50)
_ENCODED = EncodedImage(b"not really an image", "jpeg", "")
_NAMES = {3: "dog", 90: "Hündchen"}


def _object(**changes):
    square = np.array([10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0])
    mask = Mask([square], None)
    entry = ObjectEntry(7, 3, (10.0, 10.0, 20.0, 20.0), 400.0, False, mask)
    return entry._replace(**changes)


def _build(objects, mask_format="rle"):
    counts = collections.Counter()
    text = record.build_example(_IMAGE, _ENCODED, objects, _NAMES, mask_format, counts)
    assert text == record.build_example(
        _IMAGE, _ENCODED, objects, _NAMES, mask_format, collections.Counter()
    )
    feature = tf.train.Example.FromString(text).features.feature
    values = {}
    for key, one in feature.items():
        kind = one.WhichOneof("kind")
        values[key] = list(getattr(one, kind).value) if kind else []
    return values, counts


def _masks(values, height, width):
    """Reads the run-length features back, object by object."""
    crops = np.array(values[schema.MASK_CROP]).reshape(-1, 4)
    ends = np.cumsum(values[schema.MASK_NUM_RUNS])
    runs = np.array(values[schema.MASK_RUNS], np.int64)
    for crop, end, num_runs in zip(crops, ends, values[schema.MASK_NUM_RUNS], strict=True):
        mask = np.zeros((height, width), bool)
        y, x, crop_height, crop_width = crop
        pixels = []
        for k, run in enumerate(runs[end - num_runs : end]):
            pixels += [k % 2 == 1] * run
        mask[y : y + crop_height, x : x + crop_width] = np.reshape(
            np.array(pixels, bool), (crop_height, crop_width)
        )
        yield mask


def test_image_without_objects():
    values, counts = _build([])
    assert values[schema.IMAGE_SOURCE_ID] == [b"90000000000000000001"]
    assert values[schema.IMAGE_FILENAME] == ["ordner/bäume 1.jpg".encode()]
    assert values[schema.IMAGE_FORMAT] == [b"jpeg"]
    assert values[schema.IMAGE_HEIGHT] == [40]
    assert values[schema.IMAGE_WIDTH] == [50]
    assert len(values[schema.IMAGE_KEY_SHA256][0]) == 64
    assert values[schema.BBOX_AREA_FLOAT64] == [b""]
    for key in (schema.BBOX_YMIN, schema.CLASS_LABEL, schema.MASK_CROP, schema.MASK_RUNS):
        assert values[key] == []
    assert counts["images without objects"] == 1


def test_boxes_are_clipped_for_training_and_kept_for_scoring():
    inside = _object(annotation_id=2**62, bbox=(10.1, 10.2, 20.3, 20.4), area=123.456)
    beyond = _object(category_id=90, bbox=(-5.0, 30.5, 100.0, 20.0), is_crowd=True)
    values, counts = _build([inside, beyond])
    expected = {
        schema.BBOX_YMIN: [10.2 / 40, 30.5 / 40],
        schema.BBOX_XMIN: [10.1 / 50, 0.0],
        schema.BBOX_YMAX: [30.6 / 40, 1.0],
        schema.BBOX_XMAX: [30.4 / 50, 1.0],
        schema.AREA: [123.456, 400.0],
    }
    for key, numbers in expected.items():
        np.testing.assert_allclose(values[key], numbers, rtol=1e-6)
    assert values[schema.CLASS_LABEL] == [3, 90]
    assert values[schema.CLASS_TEXT] == [b"dog", "Hündchen".encode()]
    assert values[schema.IS_CROWD] == [0, 1]
    assert values[schema.OBJECT_ID] == [2**62, 7]
    scoring = np.frombuffer(values[schema.BBOX_AREA_FLOAT64][0], "<f8").reshape(2, 5)
    assert scoring.tolist() == [[10.1, 10.2, 20.3, 20.4, 123.456], [-5.0, 30.5, 100, 20, 400]]
    assert counts["boxes clipped"] == 1
    assert counts["crowds"] == 1


def test_square_by_hand():
    values, _ = _build([_object()])
    assert values[schema.MASK_CROP] == [10, 10, 20, 20]
    assert values[schema.MASK_NUM_RUNS] == [2]
    assert values[schema.MASK_RUNS] == [0, 400]


def test_an_object_without_a_mask_keeps_its_box():
    values, counts = _build([_object(mask=None), _object()])
    assert values[schema.MASK_CROP] == [0, 0, 0, 0, 10, 10, 20, 20]
    assert values[schema.MASK_NUM_RUNS] == [0, 2]
    assert len(values[schema.BBOX_YMIN]) == 2
    assert counts["masks"] == counts["objects without a mask"] == 1
    values, _ = _build([_object(mask=None), _object()], mask_format="png")
    with Image.open(io.BytesIO(values[schema.MASK_PNG][0])) as image:
        assert not np.asarray(image).any()
        assert image.size == (50, 40)


def test_a_polygon_between_pixel_centres_has_no_mask_but_a_box():
    sliver = [np.array([10.0, 10.0, 10.01, 10.0, 10.01, 10.01])]
    values, counts = _build([_object(mask=Mask(sliver, None)), _object()])
    masks = list(_masks(values, 40, 50))
    assert values[schema.MASK_CROP][:4] == [0, 0, 0, 0]
    assert values[schema.MASK_NUM_RUNS] == [0, 2]
    assert not masks[0].any()
    assert masks[1].sum() == 400
    assert len(values[schema.BBOX_YMIN]) == 2
    assert counts["masks"] == 1
    assert counts["masks without a pixel"] == 1


def _random_objects():
    """Polygons of all kinds and run lengths, with what pycocotools makes of them."""
    rng = np.random.default_rng(11)
    for _ in range(60):
        parts = [rng.uniform(-10, 60, 2 * rng.integers(3, 9)) for _ in range(rng.integers(1, 4))]
        merged = coco_mask.merge(coco_mask.frPyObjects([p.tolist() for p in parts], 40, 50))
        yield _object(mask=Mask(parts, None)), coco_mask.decode(merged).astype(bool)
        noise = rng.random((40, 50)) < rng.choice([0.0, 0.01, 0.5, 1.0])
        runs = rle.run_lengths(noise.ravel(order="F"))
        yield _object(mask=Mask(None, runs)), noise


def test_masks_equal_pycocotools():
    objects, expected = zip(*_random_objects(), strict=True)
    values, _ = _build(list(objects))
    for mask, wanted in zip(_masks(values, 40, 50), expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)


def test_png_masks_are_zeros_and_ones():
    objects, expected = zip(*_random_objects(), strict=True)
    values, _ = _build(list(objects), mask_format="png")
    assert schema.MASK_RUNS not in values
    for png, wanted in zip(values[schema.MASK_PNG], expected, strict=True):
        with Image.open(io.BytesIO(png)) as image:
            np.testing.assert_array_equal(np.asarray(image), wanted.astype(np.uint8))


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_mask_of_real_coco_equals_ann_to_mask(shared, split):
    path = shared / f"data/coco_small/annotations/instances_{split}2017.json"
    oracle = COCO(str(path))
    coco = coco_json.read(str(path))
    assert coco.findings == []
    num_compared = 0
    for image in coco.images:
        for entry in coco.objects.get(image.source_id, []):
            crop = entry.mask.to_crop(image.height, image.width)
            mask = rle.crop_to_full_mask(crop, image.height, image.width)
            wanted = oracle.annToMask(oracle.anns[entry.annotation_id])
            np.testing.assert_array_equal(mask, wanted)
            num_compared += 1
    assert num_compared == {"train": 1447, "val": 624}[split]
