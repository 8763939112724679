"""The synthetic data set: exact annotations, its promised oddities, the same bytes every time."""

import hashlib
import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from data_prep import create_shapes_coco, shape_scene, shape_varieties
from mrcnn_tf.data import coco_json

_SCRIPT = pathlib.Path(create_shapes_coco.__file__)
_NUM_SCENES = 120


@pytest.fixture(scope="module")
def scenes():
    return [
        shape_scene.draw_scene(np.random.default_rng([7, k]), 128, 128) for k in range(_NUM_SCENES)
    ]


def _rasterise(segmentation, height, width):
    """What pycocotools' COCO.annToMask does."""
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    else:
        rle = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(rle).astype(bool)


def test_annotations_reproduce_the_drawn_pixels(scenes):
    for _, objects in scenes:
        for scene_object in objects:
            annotation = create_shapes_coco.annotate(scene_object, 5, 9)
            mask = _rasterise(annotation["segmentation"], 128, 128)
            np.testing.assert_array_equal(mask, scene_object.mask)
            assert annotation["area"] == mask.sum()
            x, y, width, height = annotation["bbox"]
            assert mask[y : y + height, x : x + width].sum() == mask.sum()
            for edge in (mask[y], mask[y + height - 1], mask[:, x], mask[:, x + width - 1]):
                assert edge.any()
            assert annotation["iscrowd"] == scene_object.is_crowd
            assert (annotation["id"], annotation["image_id"]) == (5, 9)


def test_objects_are_disjoint_large_enough_and_at_least_half_visible(scenes):
    for image, objects in scenes:
        assert image.shape == (128, 128, 3)
        assert image.dtype == np.uint8
        assert len(objects) <= 8
        for first, second in itertools.combinations(objects, 2):
            assert not (first.mask & second.mask).any()
        for scene_object in objects:
            assert scene_object.mask.sum() >= 0.5 * scene_object.full_area
            y, x = np.nonzero(scene_object.mask)
            assert 12 <= max(np.ptp(y), np.ptp(x)) + 1 <= 100


def test_every_promised_kind_of_annotation_occurs(scenes):
    annotations = [
        create_shapes_coco.annotate(scene_object, 1, 1)
        for _, objects in scenes
        for scene_object in objects
    ]
    polygons = [a for a in annotations if isinstance(a["segmentation"], list)]
    holes = [a for a in annotations if isinstance(a["segmentation"], dict) and not a["iscrowd"]]
    assert {a["category_id"] for a in annotations} == set(create_shapes_coco.CATEGORY_IDS)
    assert len(polygons) > len(holes) > 0
    assert sum(len(a["segmentation"]) > 1 for a in polygons) > 0
    assert sum(a["iscrowd"] for a in annotations) > 0
    counts = {len(objects) for _, objects in scenes}
    assert {0, 1, 8} <= counts
    assert sum(not objects for _, objects in scenes) < 0.15 * len(scenes)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("ellipse", np.pi / 4),
        ("rectangle", 1.0),
        ("triangle", 0.5),
        ("ring", np.pi / 4 * (1 - 0.25)),
        # Ten triangles of sides 1 and 0.48 around the centre, 36 degrees each.
        ("star", 10 * 0.5 * 0.48 * np.sin(np.pi / 5) / 4),
    ],
)
def test_shapes_fill_their_share_of_their_frame(name, share):
    v, u = np.mgrid[-1:1:801j, -1:1:801j]
    inside = shape_scene._inside_shape(name, u, v, hole=0.5)
    assert inside.mean() == pytest.approx(share, abs=0.01)


def test_script_writes_a_coco_folder_deterministically(tmp_path):
    digests = []
    for name in ("a", "b"):
        command = [sys.executable, str(_SCRIPT), f"--output_dir={tmp_path / name}"]
        command += ["--num_train=4", "--num_val=3", "--image_size=48-96", "--seed=3"]
        subprocess.run(command, check=True, cwd=tmp_path)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        digests.append(
            [
                (str(p.relative_to(tmp_path / name)), hashlib.sha256(p.read_bytes()).hexdigest())
                for p in files
            ]
        )
    assert digests[0] == digests[1]
    assert len(digests[0]) == 4 + 3 + 2
    content = json.loads((tmp_path / "a/annotations/instances_train.json").read_text())
    assert len(content["images"]) == 4
    for image in content["images"]:
        with Image.open(tmp_path / "a/train" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
            assert all(48 <= side <= 96 for side in opened.size)
    assert (tmp_path / "a/val/000000000001.jpg").read_bytes() != (
        tmp_path / "a/train/000000000001.jpg"
    ).read_bytes()


def test_second_run_reuses_and_other_settings_rewrite(tmp_path):
    def create(num_images, seed):
        return create_shapes_coco.create_split(tmp_path, "val", num_images, (40, 40), seed)

    assert create(2, 1)
    first = (tmp_path / "val/000000000002.jpg").read_bytes()
    assert not create(2, 1)
    assert create(3, 1)
    assert (tmp_path / "val/000000000002.jpg").read_bytes() == first
    assert create(3, 2)
    assert (tmp_path / "val/000000000002.jpg").read_bytes() != first


@pytest.mark.parametrize("text", ["", "x", "16", "128-96", "1-2-3", "4096", "-128"])
def test_bad_image_size_is_refused(text):
    with pytest.raises(ValueError, match="--image_size="):
        create_shapes_coco.parse_image_size(text)


def test_image_size_forms():
    assert create_shapes_coco.parse_image_size("128") == (128, 128)
    assert create_shapes_coco.parse_image_size("96-160") == (96, 160)


def test_many_categories_on_the_same_images_annotated_as_lvis_is(tmp_path):
    for name, num_categories in (("five", 0), ("many", 1203)):
        create_shapes_coco.create_split(
            tmp_path / name, "train", 25, (96, 96), seed=5, num_categories=num_categories
        )
    texts = [
        (tmp_path / name / "annotations/instances_train.json").read_text()
        for name in ("five", "many")
    ]
    five, many = map(json.loads, texts)
    for image in five["images"]:
        paths = [tmp_path / name / "train" / image["file_name"] for name in ("five", "many")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert [category["id"] for category in many["categories"]] == list(range(1, 1204))
    assert len({category["name"] for category in many["categories"]}) == 1203
    data = coco_json.read(str(tmp_path / "many/annotations/instances_train.json"))
    assert not data.findings
    counts = dict(zip(data.label_map.ids, data.label_map.image_counts, strict=True))
    assert sum(counts.values()) == len(many["annotations"])
    assert 30 < sum(count > 0 for count in counts.values()) < len(many["annotations"])
    objects = {
        (a["image_id"], *a["bbox"]): a["category_id"]
        for a in five["annotations"]
        if not a["iscrowd"]
    }
    num_hidden = 0
    for image in data.images:
        present = [entry.category_id for entry in data.objects.get(image.source_id, ())]
        assert len(set(present)) == len(present)
        assert len(image.neg_category_ids) == 10
        assert not {*image.neg_category_ids} & {*present}
        assert {*image.not_exhaustive_category_ids} <= {*present}
        num_hidden += len(image.not_exhaustive_category_ids)
    for annotation in many["annotations"]:
        shape = objects[annotation["image_id"], *annotation["bbox"]]
        assert create_shapes_coco.CATEGORY_IDS[(annotation["category_id"] - 1) % 5] == shape
    assert len(many["annotations"]) + num_hidden <= len(objects)


@pytest.mark.parametrize(("number", "keypoints"), [(1, False), (4, False), (4, True), (5, True)])
def test_categories_that_cannot_be_are_refused(number, keypoints):
    with pytest.raises(ValueError, match="--num_categories"):
        create_shapes_coco.check_categories(number, keypoints)


def test_one_category_of_each_shape(tmp_path):
    for number, keypoints in ((0, True), (0, False), (5, False)):
        create_shapes_coco.check_categories(number, keypoints)
    create_shapes_coco.create_split(tmp_path, "val", 3, (64, 64), 0, num_categories=5)
    content = json.loads((tmp_path / "annotations/instances_val.json").read_text())
    assert [row["name"].split()[0] for row in content["categories"]] == [*shape_scene.CLASS_NAMES]
    for image in content["images"]:
        present = {a["category_id"] for a in content["annotations"] if a["image_id"] == image["id"]}
        assert present | {*image["neg_category_ids"]} == {1, 2, 3, 4, 5}


def test_categories_are_as_uneven_as_lvis():
    varieties = shape_varieties.Varieties(1203, seed=0)
    triangle = shape_scene.SceneObject(2, np.ones([1, 1], bool), full_area=1)
    colours = np.random.default_rng(1).uniform(25, 230, [1720, 3])  # as many as of 2,000 images
    ids = [varieties.category_id(triangle, colour[None, None]) for colour in colours]
    assert {(i - 1) % 5 for i in ids} == {2}
    counts = np.bincount(ids)
    assert 3 <= (counts > 100).sum() <= 8  # frequent ones
    assert 20 <= ((counts > 10) & (counts <= 100)).sum() <= 40  # common
    assert 80 <= ((counts > 0) & (counts <= 10)).sum() <= 140  # rare
