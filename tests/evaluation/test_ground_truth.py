"""Ground truth from annotation files and from records: the same objects either way."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import ground_truth

CONVERTER = pathlib.Path(__file__).parents[2] / "data_prep" / "create_coco_tfrecord.py"
LABEL_MAP = LabelMap((3, 90), ("cat", "bird"))
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 90, "name": "bird"}]
HEIGHT, WIDTH = 6, 9
# A ring (one hole) and a single pixel at the image's corner.
RING = np.zeros([HEIGHT, WIDTH], bool)
RING[1:5, 2:7] = True
RING[2:4, 3:6] = False
PIXEL = np.zeros([HEIGHT, WIDTH], bool)
PIXEL[5, 8] = True
NOTHING = np.zeros([HEIGHT, WIDTH], bool)
# The ring's crop row by row: 5 in; in, 3 out, in; in, 3 out, in; 5 in -> 0 6 3 2 3 6.
RING_RUNS, PIXEL_RUNS = [0, 6, 3, 2, 3, 6], [0, 1]
MASKS = [RING, PIXEL, NOTHING]
# Boxes stick out of the image and are no multiples of anything, as annotated ones are.
BOXES = [(1.93, 0.871, 5.01, 4.27), (7.5, 4.9, 2.6, 1.7), (0.1, 0.2, 3.0, 3.0)]
AREAS = [14.123456789012345, 1.0, 2.5]


def _example(**columns):
    feature = {}
    for key, values in columns.items():
        if isinstance(values[0], bytes):
            feature[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif isinstance(values[0], float):
            feature[key] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            feature[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _columns(source_id="41"):
    """What every converter of the TF Object Detection API writes."""
    x, y, w, h = np.array(BOXES).T
    return {
        schema.IMAGE_SOURCE_ID: [source_id.encode()],
        schema.IMAGE_HEIGHT: [HEIGHT],
        schema.IMAGE_WIDTH: [WIDTH],
        schema.BBOX_YMIN: np.clip(y / HEIGHT, 0, 1).tolist(),
        schema.BBOX_XMIN: np.clip(x / WIDTH, 0, 1).tolist(),
        schema.BBOX_YMAX: np.clip((y + h) / HEIGHT, 0, 1).tolist(),
        schema.BBOX_XMAX: np.clip((x + w) / WIDTH, 0, 1).tolist(),
        schema.CLASS_LABEL: [90, 3, 3],
        schema.IS_CROWD: [0, 1, 0],
        schema.AREA: AREAS,
    }


def _our_columns():
    """What our converter adds."""
    exact = np.concatenate([np.array(BOXES), np.array(AREAS)[:, None]], axis=1)
    return {
        schema.OBJECT_ID: [2**40, 0, 7],
        schema.BBOX_AREA_FLOAT64: [exact.astype("<f8").tobytes()],
        schema.MASK_CROP: [1, 2, 4, 5, 5, 8, 1, 1, 0, 0, 0, 0],
        schema.MASK_NUM_RUNS: [len(RING_RUNS), len(PIXEL_RUNS), 0],
        schema.MASK_RUNS: RING_RUNS + PIXEL_RUNS,
    }


def _png_column():
    pngs = [tf.io.encode_png(m[:, :, None].astype(np.uint8)).numpy() for m in MASKS]
    return {schema.MASK_PNG: pngs}


def _write(path, *examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)


def _check_masks(truth):
    for annotation, mask in zip(truth["annotations"], MASKS, strict=True):
        decoded = coco_mask.decode(annotation["segmentation"])
        np.testing.assert_array_equal(decoded.astype(bool), mask)


def test_our_records(tmp_path):
    _write(tmp_path / "val-0.tfrecord", _example(**_columns(), **_our_columns()))
    truth = ground_truth.from_records(str(tmp_path / "val-*"), LABEL_MAP)
    assert truth["images"] == [{"id": 41, "height": HEIGHT, "width": WIDTH}]
    assert truth["categories"] == CATEGORIES
    annotations = truth["annotations"]
    assert [a["bbox"] for a in annotations] == [list(box) for box in BOXES]  # bit by bit
    assert [a["area"] for a in annotations] == AREAS
    assert [a["id"] for a in annotations] == [2**40, 0, 7]
    assert [a["category_id"] for a in annotations] == [90, 3, 3]
    assert [a["iscrowd"] for a in annotations] == [0, 1, 0]
    _check_masks(truth)


def test_model_garden_records(tmp_path):
    _write(tmp_path / "val", _example(**_columns(), **_png_column()))
    truth = ground_truth.from_records(str(tmp_path / "val"), LABEL_MAP)
    annotations = truth["annotations"]
    x, y, w, h = np.array(BOXES[0])
    np.testing.assert_allclose(annotations[0]["bbox"], (x, y, w, h), rtol=1e-6)
    # The second box left the image on the right and below; the float32 columns are clipped.
    np.testing.assert_allclose(annotations[1]["bbox"], (7.5, 4.9, 1.5, 1.1), rtol=1e-6)
    np.testing.assert_allclose([a["area"] for a in annotations], AREAS, rtol=1e-6)
    _check_masks(truth)


def test_images_without_objects_and_text_ids(tmp_path):
    empty = {schema.IMAGE_HEIGHT: [4], schema.IMAGE_WIDTH: [5]}
    names = ["0", "-3", "007", "größe 1.jpg", "9223372036854775808", "²"]
    examples = [_example(**empty, **{schema.IMAGE_SOURCE_ID: [n.encode()]}) for n in names]
    _write(tmp_path / "a", *examples[:4])
    _write(tmp_path / "b", *examples[4:])
    truth = ground_truth.from_records(str(tmp_path / "*"), LABEL_MAP)
    ids = [image["id"] for image in truth["images"]]
    assert ids == [0, -3, "007", "größe 1.jpg", 2**63, "²"]
    assert truth["annotations"] == []


def test_records_without_masks(tmp_path):
    _write(tmp_path / "val", _example(**_columns()))
    truth = ground_truth.from_records(str(tmp_path / "val"), LABEL_MAP, include_masks=False)
    assert all("segmentation" not in a for a in truth["annotations"])
    with pytest.raises(ValueError, match="val: record 1, of image '41': 3 objects but 0 masks"):
        ground_truth.from_records(str(tmp_path / "val"), LABEL_MAP)


def test_wrong_records_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="create_coco_tfrecord"):
        ground_truth.from_records(str(tmp_path / "nothing*"), LABEL_MAP)
    example = _example(**_columns(), **_our_columns())
    _write(tmp_path / "twice", example, example)
    with pytest.raises(ValueError, match="image 41 occurs more than once"):
        ground_truth.from_records(str(tmp_path / "twice"), LABEL_MAP)
    with pytest.raises(ValueError, match="image 41 has an object of category 90"):
        ground_truth.from_records(str(tmp_path / "twice"), LabelMap((3,), ("cat",)))


def _dataset(**changes):
    annotation = {
        "id": 0,
        "image_id": "a",
        "category_id": 3,
        "iscrowd": 0,
        "area": 3.5,
        "bbox": [1, 2, 3, 2],
        "segmentation": [[1, 2, 4, 2, 4, 4, 1, 4]],
    }
    return {
        "images": [{"id": "a", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{**annotation, **changes}],
        "categories": CATEGORIES,
    }


def _without(key):
    dataset = _dataset()
    del dataset["annotations"][0][key]
    return dataset


def test_annotation_file(tmp_path):
    path = tmp_path / "größe.json"
    path.write_text(json.dumps(_dataset()))
    truth = ground_truth.from_annotation_file(str(path))
    (annotation,) = truth["annotations"]
    mask = coco_mask.decode(annotation.pop("segmentation"))
    assert mask.sum() == mask[2:4, 1:4].sum() == 6
    expected = {"id": 0, "image_id": "a", "category_id": 3, "iscrowd": 0, "area": 3.5}
    assert annotation == {**expected, "bbox": [1.0, 2.0, 3.0, 2.0]}


def test_ids_are_matched_as_text():
    dataset = _dataset(image_id="7")
    dataset["images"][0].update(id=7, height=6.0)
    dataset["categories"] = [{"id": "3", "name": "cat"}]
    dataset["annotations"][0]["category_id"] = "3"
    truth = ground_truth.from_coco_dict(dataset)
    assert truth["images"] == [{"id": 7, "height": 6, "width": WIDTH}]
    assert truth["annotations"][0]["image_id"] == 7
    assert truth["annotations"][0]["category_id"] == truth["categories"][0]["id"] == 3


def test_missing_keys_have_cocos_meaning():
    of = ground_truth.from_coco_dict
    assert of(_without("iscrowd"))["annotations"][0]["iscrowd"] == 0
    assert of(_without("bbox"))["annotations"][0]["bbox"] == [1.0, 2.0, 3.0, 2.0]
    assert of(_without("area"))["annotations"][0]["area"] == 6.0
    assert of(_without("area"), include_masks=False)["annotations"][0]["area"] == 6.0
    for none in ([], None):
        (annotation,) = of(_dataset(segmentation=none))["annotations"]
        assert coco_mask.area(annotation["segmentation"]) == 0
        assert annotation["segmentation"]["size"] == [HEIGHT, WIDTH]


@pytest.mark.parametrize("compressed", [True, False])
def test_both_forms_of_run_lengths(compressed):
    rle = coco_mask.encode(np.asfortranarray(RING, np.uint8))
    if not compressed:
        column_major = RING.ravel(order="F")
        changes = np.flatnonzero(np.diff(column_major)) + 1
        counts = np.diff([0, *changes, RING.size]).tolist()
        rle = {"size": [HEIGHT, WIDTH], "counts": counts}
    else:
        rle["counts"] = rle["counts"].decode()
    dataset = _dataset(segmentation=rle, bbox=[2, 1, 5, 4])
    (annotation,) = ground_truth.from_coco_dict(dataset)["annotations"]
    np.testing.assert_array_equal(coco_mask.decode(annotation["segmentation"]), RING)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": "b"}, "first with id 0: no image has the id b"),
        ({"category_id": 4}, "annotation 0 of image a .*: no category has the id 4"),
        ({"bbox": [1, 2, float("nan"), 4]}, r"annotation 0 of image a .*: bbox \[1, 2, nan, 4\]"),
        ({"bbox": [10**400, 2, 3, 2]}, r"bbox \[10000000... \(401 digits\), 2, 3, 2\]; expected"),
        ({"bbox": [1, 2, 0, 4]}, "box without area: annotation 0"),
    ],
)
def test_wrong_annotations_are_refused(changes, message):
    """As by the converter: one object of one is more than 1 %."""
    with pytest.raises(ValueError, match="^val.json: .*" + message) as caught:
        ground_truth.from_coco_dict(_dataset(**changes), name="val.json")
    assert "1 of 1 objects cannot be used" in str(caught.value)


@pytest.mark.parametrize(
    "segmentation", [{"size": [9, 6], "counts": [54]}, [["x"]], [[5, 5, 20, 20]], "x"]
)
def test_an_object_whose_mask_cannot_be_used_keeps_its_box(segmentation, caplog):
    truth = ground_truth.from_coco_dict(_dataset(segmentation=segmentation), name="val.json")
    (annotation,) = truth["annotations"]
    assert annotation["bbox"] == [1.0, 2.0, 3.0, 2.0]
    assert coco_mask.area(annotation["segmentation"]) == 0
    assert "val.json: 1 x " in caplog.text
    assert "annotation 0 of image a" in caplog.text


def test_wrong_images_are_refused():
    dataset = _dataset()
    del dataset["images"][0]["height"]
    with pytest.raises(ValueError, match="val.json: .*image 'a' .*height None, width 9"):
        ground_truth.from_coco_dict(dataset, name="val.json")
    dataset = _dataset()
    dataset["images"] *= 2
    with pytest.raises(ValueError, match="val.json: image ids occur more than once: image 'a'"):
        ground_truth.from_coco_dict(dataset, name="val.json")


def test_a_byte_order_mark_is_none_of_the_text(tmp_path):
    path = tmp_path / "val.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(_dataset()).encode())
    assert len(ground_truth.from_annotation_file(str(path))["annotations"]) == 1


def test_whole_numbers_written_as_floats_are_the_same_ids():
    dataset = _dataset(image_id=1.0, category_id=3.0, id=5.0)
    dataset["images"][0]["id"] = 1.0
    truth = ground_truth.from_coco_dict(dataset)
    assert [type(image["id"]) for image in truth["images"]] == [int]
    assert truth["annotations"][0]["image_id"] == 1
    assert truth["annotations"][0]["id"] == 5


def test_a_category_without_objects_that_shares_a_name_is_no_class():
    dataset = _dataset()
    dataset["categories"] = [{"id": 0, "name": "cat", "supercategory": "none"}, *CATEGORIES]
    assert ground_truth.from_coco_dict(dataset)["categories"] == CATEGORIES


def test_records_in_a_folder_with_brackets_and_on_another_file_system(tmp_path):
    folder = tmp_path / "my [new] records"
    folder.mkdir()
    _write(folder / "val-0.tfrecord", _example(**_columns(), **_our_columns()))
    assert ground_truth.from_records(str(folder / "val-*"), LABEL_MAP)["annotations"]
    _write("ram://truth/val-0.tfrecord", _example(**_columns(), **_our_columns()))
    assert ground_truth.from_records("ram://truth/val-*", LABEL_MAP)["annotations"]
    with tf.io.gfile.GFile("ram://truth/val.json", "w") as file:
        file.write(json.dumps(_dataset()))
    assert ground_truth.from_annotation_file("ram://truth/val.json")["annotations"]


def test_masks_are_pycocotools_masks(shared):
    """Every mask of real COCO annotations (polygons, crowds) against `COCO.annToMask`."""
    path = shared / "data" / "coco_small" / "annotations" / "instances_val2017.json"
    coco = COCO()
    coco.dataset = json.loads(path.read_text())
    coco.createIndex()
    truth = ground_truth.from_annotation_file(str(path))
    assert len(truth["annotations"]) == 624
    for ours in truth["annotations"]:
        theirs = coco.annToMask(coco.anns[ours["id"]])
        np.testing.assert_array_equal(coco_mask.decode(ours["segmentation"]), theirs)


def test_converted_records_hold_the_annotation_file(shared, tmp_path):
    """Boxes, areas and masks of real annotations survive the converter bit by bit."""
    data = shared / "data" / "coco_small"
    path = data / "annotations" / "instances_val2017.json"
    arguments = {
        "image_dir": data / "val2017",
        "object_annotations_file": path,
        "output_file_prefix": tmp_path / "val",
        "num_shards": 2,
    }
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, CONVERTER, *flags], check=True, env=environment)
    label_map = LabelMap.from_json((tmp_path / schema.LABEL_MAP_FILE).read_text())
    ours = ground_truth.from_records(str(tmp_path / "val-*.tfrecord"), label_map)
    theirs = ground_truth.from_annotation_file(str(path))
    for part in ("images", "annotations", "categories"):
        by_id = {entry["id"]: entry for entry in theirs[part]}
        assert len(ours[part]) == len(by_id) > 0
        assert all(entry == by_id[entry["id"]] for entry in ours[part])
