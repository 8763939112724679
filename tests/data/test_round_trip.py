"""From a COCO file through the converter and the data path: masks equal COCO.annToMask."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from pycocotools.coco import COCO

from mrcnn_tf.data import augment, decoder, preprocess, schema
from mrcnn_tf.data.label_map import LabelMap

_CONVERTER = pathlib.Path(__file__).resolve().parents[2] / "data_prep/create_coco_tfrecord.py"


def _small_coco(folder: pathlib.Path) -> pathlib.Path:
    """Write two PNGs with a polygon of two parts, a crowd, a hole (RLE) and an empty image."""
    rng = np.random.default_rng(0)
    images = []
    for image_id in (7, 139):
        name = f"{image_id}.png"
        pixels = rng.integers(0, 256, [37, 53, 3], dtype=np.uint8)
        (folder / name).write_bytes(tf.io.encode_png(pixels).numpy())
        images.append({"id": image_id, "file_name": name, "height": 37, "width": 53})
    ring = np.zeros([37, 53], np.uint8)
    ring[5:20, 8:30] = 1
    ring[9:15, 12:25] = 0
    crowd = np.zeros([37, 53], np.uint8)
    crowd[30:36, ::2] = 1

    def annotation(k, category, segmentation, bbox, crowd=0):
        return {
            "id": k, "image_id": 139, "category_id": category, "segmentation": segmentation,
            "bbox": bbox, "area": 100.0, "iscrowd": crowd,
        }  # fmt: skip

    def run_lengths(mask):
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([0, *edges, flat.size]).tolist()
        return {"counts": [0, *runs] if flat[0] else runs, "size": list(mask.shape)}

    two_parts = [[1.5, 2.2, 20.1, 3.9, 7.7, 18.0], [30.0, 20.0, 52.9, 21.5, 40.3, 36.8]]
    annotations = [
        annotation(1, 90, two_parts, [1.5, 2.2, 51.4, 34.6]),
        annotation(2, 4, run_lengths(crowd), [0, 30, 53, 6], crowd=1),
        annotation(3, 4, run_lengths(ring), [8, 5, 22, 15]),
    ]
    categories = [{"id": 90, "name": "a"}, {"id": 4, "name": "b"}]
    path = folder / "instances.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """(annotation file, folder of images)."""
    folder = tmp_path_factory.mktemp("small_coco")
    return _small_coco(folder), folder


def _convert(annotations, images, output, mask_format):
    command = [
        sys.executable, str(_CONVERTER), f"--image_dir={images}",
        f"--object_annotations_file={annotations}", f"--output_file_prefix={output}/set",
        "--num_shards=1", "--num_processes=1", f"--mask_format={mask_format}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    label_map = LabelMap.from_json((output / schema.LABEL_MAP_FILE).read_text())
    files = sorted(str(path) for path in output.glob("*.tfrecord"))
    return tf.data.TFRecordDataset(files), label_map


def _expected_masks(coco, example):
    image_id = int(example[schema.SOURCE_ID].numpy())
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
    height, width = example[schema.IMAGE].shape[:2]
    masks = [coco.annToMask(a) for a in annotations]
    return np.array(masks, bool).reshape(-1, height, width), annotations


@pytest.mark.parametrize("mask_format", ["rle", "png"])
def test_converted_set_equals_pycocotools(
    small_set, tmp_path, example_masks, arena_masks, mask_format
):
    annotations_file, images = small_set
    records, label_map = _convert(annotations_file, images, tmp_path, mask_format)
    coco = COCO(str(annotations_file))
    num_objects = []
    for serialized in records:
        example = decoder.decode(serialized, label_ids=label_map.ids, include_masks=True)
        expected, annotations = _expected_masks(coco, example)
        num_objects.append(len(expected))
        np.testing.assert_array_equal(example_masks(example, 37, 53), expected)
        names = [label_map.ids[c - 1] for c in example[schema.GT_CLASSES].numpy()]
        assert names == [a["category_id"] for a in annotations]
        np.testing.assert_array_equal(
            example[schema.GT_IS_CROWD], [bool(a["iscrowd"]) for a in annotations]
        )
        # Mirrored and at twice the size, through the arena: every pixel becomes 2 x 2.
        flipped = augment.flip_left_right(example, tf.constant(True))
        row = preprocess.prepare_objects(
            flipped, tf.constant([74, 106]), max_instances=4, mask_arena_pixels=2**13
        )
        order = np.argsort([a["iscrowd"] for a in annotations], kind="stable").astype(int)
        doubled = expected[order][:, :, ::-1].repeat(2, axis=1).repeat(2, axis=2)
        np.testing.assert_array_equal(arena_masks(row, 74, 106)[: len(expected)], doubled)
    assert sorted(num_objects) == [0, 3]


def test_real_photos(shared, tmp_path):
    """All 1447 objects of the COCO sample, at the size of the stored images."""
    folder = shared / "data/coco_small"
    annotations_file = folder / "annotations/instances_train2017.json"
    records, label_map = _convert(annotations_file, folder / "train2017", tmp_path, "rle")
    coco = COCO(str(annotations_file))
    records = records.map(
        lambda serialized: decoder.decode(serialized, label_ids=label_map.ids, include_masks=True)
    )
    num_objects = 0
    for example in records:
        expected, _ = _expected_masks(coco, example)
        bits = np.unpackbits(example[schema.GT_MASK_BITS].numpy()).astype(bool)
        start = 0
        frames = example[schema.GT_MASK_FRAMES].numpy().astype(int)
        for mask, (y1, x1, y2, x2) in zip(expected, frames, strict=True):
            crop = mask[y1:y2, x1:x2]
            np.testing.assert_array_equal(bits[start : start + crop.size], crop.ravel())
            assert crop.sum() == mask.sum()  # nothing lies outside the crop
            start += crop.size
        num_objects += len(expected)
    assert num_objects == 1447
