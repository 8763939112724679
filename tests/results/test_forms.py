"""What is written for other tools, and what the converter reads back: the same masks."""

import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from data_prep import to_coco
from mrcnn_tf.data import pixel_polygons
from mrcnn_tf.ops import coco_rle
from mrcnn_tf.results import crops, forms, labelme, supervision, voc_masks, yolo
from mrcnn_tf.results.detection import Detection, ImageDetections
from mrcnn_tf.results.found import Found

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 60, 90
CATEGORIES = {7: "pear: red", 3: "äpple", 2**24 + 1: "never seen"}


def masks():
    """A plain one, one of two parts, one with a hole, parts with holes, a pixel; they overlap."""
    plain, parts, hole, both, dot = np.zeros((5, HEIGHT, WIDTH), bool)
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    plain[:] = (yy - 20) ** 2 + (xx - 25) ** 2 < 150
    parts[5:15, 60:70] = parts[15:20, 70:89] = parts[30:33, 50:51] = True
    hole[35:59, 2:30] = True
    hole[40:50, 10:20] = hole[52:54, 22:25] = False
    both[25:55, 40:60] = both[45:60, 70:90] = True
    both[30:40, 45:50] = both[50:52, 75:80] = False
    dot[0, 0] = True
    return [plain, parts, hole, both, dot]


def detection(mask, score, category_id, mask_too=True):
    y, x = np.nonzero(mask)
    box = np.array([y.min(), x.min(), y.max() + 1, x.max() + 1], np.float64) + 0.25
    runs = coco_rle.crop_to_rle(mask, 0, 0, *mask.shape) if mask_too else None
    return Detection(box, score, category_id, CATEGORIES[category_id], runs)


def scene(mask_too=True):
    ids = [7, 3, 7, 3, 3]
    return [detection(mask, 0.9 - k / 10, ids[k], mask_too) for k, mask in enumerate(masks())]


@pytest.fixture
def photos(tmp_path):
    """Two photos, one of them in a sub-folder and without objects."""
    rng = np.random.default_rng(0)
    for name in ("photos/a b.png", "photos/sub/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path / "photos"


def found_in(photos, mask_too=True):
    for name, detections in (("a b.png", scene(mask_too)), ("sub/c.png", [])):
        pixels = np.asarray(Image.open(photos / name))
        yield Found(name, str(photos / name), pixels, [*enumerate(detections)])


def write(form, folder, photos, mask_too=True):
    writer = forms.OF_IMAGES[form](CATEGORIES, str(folder))
    files = [*writer.of_classes()]
    for found in found_in(photos, mask_too):
        files += writer.of_image(found)
    for name, content in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_back(photos, folder, tmp_path):
    """{image: [(class, mask or box)]} of what the converter makes of it, finding nothing odd."""
    output = tmp_path / "back/all.json"
    to_coco.convert(str(photos), str(folder), str(output), None, skip=False)
    report = (tmp_path / "back/all.report.txt").read_text()
    assert "left out" not in report
    assert "repaired" not in report
    content = json.loads(output.read_text("utf-8"))
    names = {row["id"]: row["name"] for row in content["categories"]}
    objects = {row["file_name"]: [] for row in content["images"]}
    files = {row["id"]: row["file_name"] for row in content["images"]}
    for row in content["annotations"]:
        segmentation = row.get("segmentation")
        if isinstance(segmentation, list):
            runs = coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)
            segmentation = coco_mask.merge(runs)
        what = coco_mask.decode(segmentation).astype(bool) if segmentation else row["bbox"]
        objects[files[row["image_id"]]].append((names[row["category_id"]], what))
    return objects


@pytest.mark.parametrize("form", ["labelme", "yolo"])
def test_masks_come_back_as_they_were(photos, tmp_path, form):
    """Parts, holes and single pixels too; YOLO's bridges enclose nothing."""
    write(form, tmp_path / "out", photos)
    back = read_back(photos, tmp_path / "out", tmp_path)
    assert back["sub/c.png"] == []
    assert len(back["a b.png"]) == 5
    for (category, mask), thing, truth in zip(back["a b.png"], scene(), masks(), strict=True):
        assert category == thing.category
        np.testing.assert_array_equal(mask, truth)


def test_pictures_of_masks_give_a_pixel_to_the_better_object(photos, tmp_path):
    write("masks", tmp_path / "out", photos)
    objects = read_back(photos, tmp_path / "out", tmp_path)["a b.png"]
    taken = np.zeros((HEIGHT, WIDTH), bool)
    for (category, mask), thing, truth in zip(objects, scene(), masks(), strict=True):
        assert category == thing.category
        np.testing.assert_array_equal(mask, truth & ~taken)
        taken |= truth
    assert sum(mask.sum() for mask in masks()) > taken.sum()  # there is an overlap to decide
    assert Image.open(tmp_path / "out/SegmentationObject/a b.png").mode == "P"


def test_pictures_of_more_objects_than_a_palette_has(photos, tmp_path):
    """256 objects of one pixel each: numbers of 16 bits, 255 not among them."""
    things = []
    for k in range(256):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[k // 40, 2 * (k % 40)] = True
        things.append((k, detection(mask, 1 - k / 300, 3)))
    found = next(found_in(photos))._replace(detections=things)
    writer = voc_masks.VocMasks(CATEGORIES, "")
    for name, content in (*writer.of_classes(), *writer.of_image(found)):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    numbers = np.asarray(Image.open(tmp_path / "out/SegmentationObject/a b.png"))
    assert set(np.unique(numbers)) == {*range(255), 256, 257}
    assert len(read_back(photos, tmp_path / "out", tmp_path)["a b.png"]) == 256


def test_more_classes_than_pictures_can_number():
    with pytest.raises(ValueError, match="255 categories; pictures of classes number 254 at most"):
        voc_masks.VocMasks({k: f"c{k}" for k in range(255)}, "")


@pytest.mark.parametrize("form", ["labelme", "yolo"])
def test_boxes_where_there_are_no_masks(photos, tmp_path, form):
    write(form, tmp_path / "out", photos, mask_too=False)
    objects = read_back(photos, tmp_path / "out", tmp_path)["a b.png"]
    for (_, what), thing in zip(objects, scene(), strict=True):
        y1, x1, y2, x2 = thing.box
        if form == "yolo":
            x2, y2 = min(x2, WIDTH), min(y2, HEIGHT)
            assert what[:2] == pytest.approx([x1, y1], abs=1e-3)
        else:  # a rectangle is an outline; the box's rows are those whose centres it holds
            assert what[round(y1) : round(y2), round(x1) : round(x2)].all()
            assert what.sum() == round(min(y2, HEIGHT) - y1) * round(min(x2, WIDTH) - x1)


def test_masks_need_masks(photos, tmp_path):
    with pytest.raises(ValueError, match="this network makes no masks"):
        write("masks", tmp_path / "out", photos, mask_too=False)


def test_labelme_says_where_the_image_is(photos, tmp_path):
    write("labelme", tmp_path / "out", photos)
    for name in ("a b", "sub/c"):
        path = tmp_path / "out" / f"{name}.json"
        stated = json.loads(path.read_text("utf-8"))["imagePath"]
        assert os.path.samefile(path.parent / stated, photos / f"{name}.png")
    (photos / "link.png").symlink_to(photos / "a b.png")
    found = next(found_in(photos))._replace(name="link.png", path=str(photos / "link.png"))
    ((_, content),) = labelme.Labelme(CATEGORIES, str(tmp_path / "out")).of_image(found)
    assert json.loads(content)["imagePath"] == "../photos/link.png"
    shapes = json.loads((tmp_path / "out/a b.json").read_text("utf-8"))["shapes"]
    kinds = [(s["shape_type"], s["group_id"], s["description"]) for s in shapes]
    assert kinds == [
        ("polygon", None, "0.900"),
        *[("polygon", 2, "0.800")] * 3,  # touching at a corner does not make one part
        ("mask", None, "0.700"),
        ("mask", None, "0.600"),
        ("polygon", None, "0.500"),
    ]


def test_one_line_of_yolo_by_hand():
    square = np.zeros((10, 20), bool)
    square[2:4, 5:10] = True
    found = Found("x.jpg", "", np.zeros((10, 20, 3), np.uint8), [(0, detection(square, 1.0, 7))])
    ((name, line),) = yolo.Yolo(CATEGORIES, "").of_image(found)
    assert name == "labels/x.txt"
    assert line == (  # clockwise from the upper right corner
        b"1 0.500000 0.200000 0.500000 0.400000 0.250000 0.400000 0.250000 0.200000\n"
    )


def test_bridges_enclose_nothing():
    """Random masks of many parts and holes, against pycocotools' filling."""
    rng = np.random.default_rng(1)
    for k in range(60):
        height, width = (int(n) for n in rng.integers(1, 40, 2))
        mask = np.kron(rng.random((height, width)) < 0.5, np.ones((1 + k % 3, 1 + k % 2), bool))
        if not mask.any():
            continue
        line = yolo.join(pixel_polygons.trace(mask)).ravel().astype(float).tolist()
        runs = coco_mask.frPyObjects([line], *mask.shape)
        np.testing.assert_array_equal(coco_mask.decode(runs)[..., 0], mask)


def test_crops_are_the_masks_pixels(photos, tmp_path):
    write("crops", tmp_path / "out", photos)
    pixels = np.asarray(Image.open(photos / "a b.png"))
    for k, (thing, mask) in enumerate(zip(scene(), masks(), strict=True)):
        folder = {"pear: red": "pear_ red"}.get(thing.category, thing.category)
        crop = np.asarray(Image.open(tmp_path / f"out/{folder}/a b.png-{k}.png"))
        y, x = np.nonzero(mask)
        here = (slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1))
        np.testing.assert_array_equal(crop[..., :3], pixels[here])
        np.testing.assert_array_equal(crop[..., 3], mask[here] * 255)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 5


@pytest.mark.parametrize("category", ["../up", ".hidden", "a/b", "..", "nul\0", "", "/"])
def test_no_category_leads_out_of_the_folder(photos, category):
    found = next(found_in(photos))
    found = found._replace(detections=found.detections[:1])
    ((name, _),) = crops.Crops({7: category}, "").of_image(found)
    folder, _, rest = name.partition("/")
    assert rest == "a b.png-0.png"
    assert folder
    assert not folder.startswith(".")
    assert "\0" not in folder


def test_crops_without_masks_are_boxes(photos):
    found = next(found_in(photos, mask_too=False))
    (_, content), *_ = crops.Crops(CATEGORIES, "").of_image(found)
    with open(photos / "crop.png", "wb") as file:
        file.write(content)
    crop = np.asarray(Image.open(photos / "crop.png"))
    y, x = np.nonzero(masks()[0])  # boxes are a quarter of a pixel off: one more on two sides
    np.testing.assert_array_equal(crop, found.pixels[y.min() : y.max() + 2, x.min() : x.max() + 2])


class StandIn:
    """As much of supervision.Detections as checks what it is given, as that does."""

    def __init__(self, xyxy, mask, confidence, class_id, data):
        count = len(xyxy)
        assert xyxy.ndim == 2
        assert xyxy.shape == (count, 4)
        assert mask is None or (mask.ndim == 3 and mask.dtype == bool and len(mask) == count)
        assert confidence.shape == class_id.shape == (count,)
        assert all(len(values) == count for values in data.values())
        self.xyxy, self.mask, self.confidence = xyxy, mask, confidence
        self.class_id, self.data = class_id, data


@pytest.fixture(params=["stand-in", "supervision"])
def of_supervision(request, monkeypatch):
    if request.param == "supervision":
        pytest.importorskip("supervision", reason="supervision is not installed")
    else:
        module = types.SimpleNamespace(Detections=StandIn)
        monkeypatch.setitem(sys.modules, "supervision", module)


@pytest.mark.usefixtures("of_supervision")
def test_to_supervision():
    detections = ImageDetections(scene()).to_supervision()
    np.testing.assert_array_equal(detections.mask, masks())
    np.testing.assert_allclose(detections.confidence, [0.9, 0.8, 0.7, 0.6, 0.5])
    assert detections.class_id.tolist() == [7, 3, 7, 3, 3]
    assert detections.data["class_name"].tolist() == [thing.category for thing in scene()]
    np.testing.assert_allclose(detections.xyxy[1], [50.25, 5.25, 89.25, 33.25])  # x first
    assert ImageDetections(scene(mask_too=False)).to_supervision().mask is None
    nothing = ImageDetections().to_supervision()
    assert nothing.xyxy.shape == (0, 4)
    assert nothing.mask is None


def test_without_supervision(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        supervision.to_supervision([])


def test_nothing_here_takes_tensorflow():
    """So that what a runtime without it finds can be written alike, and joined from tiles."""
    program = """
import sys
from mrcnn_tf.results import forms, joining, supervision
from mrcnn_tf.serving import tiles
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 0
