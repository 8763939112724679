"""Every format, as its tools write it, through the command's function; masks pixel by pixel."""

import base64
import io
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from data_prep import conversion, create_coco_tfrecord, shards, to_coco
from mrcnn_tf.data import coco_json
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import ground_truth
from tests.data_prep import exports
from tests.data_prep.exports import HEIGHT, NAMES, OBJECTS, WIDTH, labelme_file, labelme_shape
from tests.data_prep.in_process import InProcess

ROOT = pathlib.Path(__file__).resolve().parents[2]
DRAWING = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"  # no mask, of 9 x 9

# {export: (format, the folder of images in it)}
EXPORTS = {
    "roboflow_yolo": ("yolo", "."),
    "cvat_yolo": ("yolo", "images"),
    "label_studio_yolo": ("yolo", "images"),
    "labelme": ("labelme", "images"),
    "voc": ("voc", "."),
    "cvat_masks": ("voc", "JPEGImages"),
    "roboflow_coco": ("coco", "."),
    "cvat_coco": ("coco", "images/default"),
    "label_studio_coco": ("coco", "images"),
}
VOC_NAMES = {"apple": "aeroplane", "red pear": "bicycle"}


def run(folder, images=".", annotations=".", format_name=None, skip=False):
    """Convert; return the content of the COCO file, and the report."""
    output = folder / "out" / "all.json"
    to_coco.convert(str(folder / images), str(folder / annotations), str(output), format_name, skip)
    return json.loads(output.read_text("utf-8")), (folder / "out" / "all.report.txt").read_text()


def refusal(capsys, folder, **kwargs):
    """What is said where a data set is refused."""
    with pytest.raises(SystemExit) as error:
        run(folder, **kwargs)
    assert not (folder / "out").exists()
    return f"{error.value}\n{capsys.readouterr().err}"


def masks(content):
    """{image: [(class, mask)]} by COCO's own rasteriser."""
    names = {row["id"]: row["name"] for row in content["categories"]}
    images = {row["id"]: row for row in content["images"]}
    found = {row["file_name"]: [] for row in content["images"]}
    for row in content["annotations"]:
        image = images[row["image_id"]]
        h, w, segmentation = image["height"], image["width"], row.get("segmentation")
        mask = None
        if isinstance(segmentation, dict):
            mask = coco_mask.decode(segmentation).astype(bool)
        elif segmentation:
            mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, h, w)))
            mask = mask.astype(bool)
        found[image["file_name"]].append((names[row["category_id"]], mask))
    return found


def assert_masks(content, renamed=None):
    found = masks(content)
    assert len(found) == len(OBJECTS)
    for file_name, objects in found.items():
        stem = file_name.replace("\\", "/").rpartition("/")[2].replace("3f2a1b9c-", "")[0]
        expected = [((renamed or {}).get(n, n), mask) for n, mask in exports.masks_of(stem)]
        assert [n for n, _ in objects] == [n for n, _ in expected]
        for (_, mask), (_, truth) in zip(objects, expected, strict=True):
            np.testing.assert_array_equal(mask, truth)


@pytest.fixture
def in_process(monkeypatch):
    """Convert without worker processes."""

    monkeypatch.setattr(shards, "WorkerPool", InProcess)


@pytest.mark.parametrize("export", EXPORTS)
def test_exports_become_coco_and_records(tmp_path, export, capsys, in_process):
    format_name, images = EXPORTS[export]
    getattr(exports, export)(tmp_path / "set")
    output = tmp_path / "all.json"
    to_coco.convert(str(tmp_path / "set" / images), str(tmp_path / "set"), str(output), None, False)
    assert f"format {format_name}, by" in capsys.readouterr().out
    content = json.loads(output.read_text())
    assert_masks(content, VOC_NAMES if export == "voc" else None)
    boxes = {tuple(row["bbox"]) for row in content["annotations"]}
    assert (4, 4, 20, 16) in boxes
    assert {row["area"] for row in content["annotations"]} == {240, 640, 1600}
    job = conversion.Job(
        str(tmp_path / "set" / images), str(output), str(tmp_path / "records" / "x"), 1, "rle", 1,
        False,
    )  # fmt: skip
    create_coco_tfrecord.run(job)
    label_map = LabelMap.from_json((tmp_path / "records" / "label_map.json").read_text())
    truth = ground_truth.from_records(str(tmp_path / "records" / "x-*"), label_map, True)
    areas = sorted(int(coco_mask.area(row["segmentation"])) for row in truth["annotations"])
    assert areas == [240, 240, 640, 1600]


def test_the_command(tmp_path):
    exports.roboflow_yolo(tmp_path / "set")
    command = [
        *(sys.executable, "data_prep/to_coco.py", f"--images={tmp_path / 'set'}"),
        *(f"--annotations={tmp_path / 'set'}", f"--output_file={tmp_path / 'all.json'}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "format yolo, by" in done.stdout
    assert "2 images, 4 objects, 4 of them with a mask, 2 classes (apple, red pear)" in done.stdout
    assert "split_coco.py" in done.stdout
    assert_masks(json.loads((tmp_path / "all.json").read_text()))
    again = (tmp_path / "all.json").read_bytes()
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "all.json").read_bytes() == again


def test_one_coco_file_is_passed_on_as_it_is(tmp_path):
    exports.cvat_coco(tmp_path)
    content, _ = run(tmp_path, "images/default", "annotations")
    assert content == json.loads((tmp_path / "annotations/instances_default.json").read_text())


def test_several_coco_files_with_unlike_categories_are_refused(tmp_path):
    exports.roboflow_coco(tmp_path)
    path = tmp_path / "valid" / "_annotations.coco.json"
    path.write_text(path.read_text().replace("red pear", "quince"))
    with pytest.raises(SystemExit, match=r"valid/_annotations.*other categories.*quince"):
        run(tmp_path)


# --- recognition


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it is empty"),
        ({"a.zip": ""}, "unpack it first"),
        ({"annotations.xml": "<annotations/>"}, "export as COCO 1.0"),
        ({"a.txt": "0 0.1 0.1 0.2 0.2"}, "data.yaml or classes.txt"),
        ({"a.json": '[{"annotations": []}]'}, "neither COCO's keys nor labelme's"),
        ({"SegmentationClass/a.png": ""}, "SegmentationObject, which tells objects apart"),
        (
            {
                "a.json": '{"images": [], "annotations": [], "categories": []}',
                "b.json": '{"shapes": [], "imagePath": ""}',
            },
            "several formats: coco, by .*a.json; labelme, by .*b.json",
        ),
    ],
)
def test_what_is_not_recognised_is_told_from_what_is_there(tmp_path, files, message):
    exports.write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "set").mkdir()
    for name, text in files.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, "images", "set")
    assert not (tmp_path / "out").exists()


# --- YOLO


def yolo(folder, label, names="names: [apple, red pear]\n", more_images=99):
    """A set of which one label file is of interest; many good ones keep it below 1 %."""
    folder.mkdir(exist_ok=True)
    (folder / "data.yaml").write_text(names)
    exports.write_image(folder / "images" / "a.png")
    (folder / "labels").mkdir()
    raw = label if isinstance(label, bytes) else label.encode()
    (folder / "labels" / "a.txt").write_bytes(raw)
    good = "".join(exports.yolo_line(k, parts) + "\n" for k, parts in OBJECTS["a"])
    for k in range(more_images):
        (folder / "images" / f"more{k}.png").write_bytes((folder / "images/a.png").read_bytes())
        (folder / "labels" / f"more{k}.txt").write_text(good)


@pytest.mark.parametrize(
    ("label", "report"),
    [
        ("2 0.1 0.1 0.3 0.1 0.3 0.3\n", "unknown class: .*a.txt line 1: 2; expected 0..1"),
        ("0.5 0.1 0.1 0.3 0.1 0.3 0.3\n", "unknown class"),
        ("-1 0.1 0.1 0.3 0.1 0.3 0.3\n", "unknown class"),
        ("\n0 0.1 x 0.3 0.1 0.3 0.3\n", "not a number: .*a.txt line 2: 'x'"),
        ("0 nan 0.1 0.3 0.1 0.3 0.3\n", "not a number"),
        ("0 1e999 0.1 0.3 0.1 0.3 0.3\n", "not a number"),
        ("0 0.1 0.1\n", "malformed line: .* 2 numbers behind the class"),
        ("0 0.1 0.1 0.3 0.1 0.3 0.3 0.2\n", "malformed line: .* 7 numbers"),
        ("0 8 8 24 8 24 24\n", "coordinates are no fractions: .*look like pixels"),
        ("0 0.5 0.5 0 0\n", "box without area"),
        ("0 1.5 1.5 1.6 1.5 1.6 1.6\n", "mask covers no pixel"),
        (b"\xff\xfe\xff\n", "label file not in UTF-8"),
    ],
)
def test_yolo_lines_that_cannot_be_used_are_left_out(tmp_path, label, report):
    yolo(tmp_path, label)
    content, text = run(tmp_path)
    assert len(content["annotations"]) == 3 * 99
    assert re.search(f"left out: {report}", text), text


def test_more_than_one_percent_is_refused(tmp_path, capsys):
    yolo(tmp_path, "2 0.1 0.1 0.3 0.1 0.3 0.3\n", more_images=3)
    with pytest.raises(SystemExit, match=r"1 of 10 objects cannot be used.*--on_error=skip"):
        run(tmp_path)
    assert not (tmp_path / "out").exists()
    assert "a.txt line 1" in capsys.readouterr().err
    content, _ = run(tmp_path, skip=True)
    assert len(content["annotations"]) == 9


def test_yolo_boxes_are_objects_without_masks(tmp_path):
    yolo(tmp_path, "1 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.1 0.1 0.9\n", more_images=0)
    content, report = run(tmp_path)
    first, second = content["annotations"]
    assert first["bbox"] == [30, 15, 20, 30]
    assert first["area"] == 600
    assert "segmentation" not in first
    assert second["bbox"] == pytest.approx([16, 12, 8, 6])
    assert "2 x boxes without a mask" in report
    assert "1 x boxes with a score behind them" in report
    assert "warning: none of 2 objects has a mask" in report


def test_yolo_odd_files_that_mean_something(tmp_path):
    line = exports.yolo_line(*OBJECTS["a"][0])
    yolo(tmp_path, b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}\r\n".encode(), more_images=1)
    exports.write_image(tmp_path / "images" / "bare.png")
    exports.write_image(tmp_path / "images" / "empty.png")
    (tmp_path / "labels" / "empty.txt").write_text("")
    content, report = run(tmp_path)
    assert len(content["images"]) == 4
    assert len(content["annotations"]) == 1 + 3
    assert "line twice in a file: " in report
    assert "1 of 4 images have no label file" in report


def test_yolo_outlines_over_the_edge_are_cut_off(tmp_path):
    yolo(tmp_path, "0 -0.1 0.5 0.5 0.5 0.5 1.05 -0.1 1.05\n", more_images=0)
    content, report = run(tmp_path)
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[30:, :40] = True
    [(_, mask)] = masks(content)["images/a.png"]
    np.testing.assert_array_equal(mask, truth)
    assert "1 x outlines that reach out of their image" in report


def test_yolo_label_without_image(tmp_path):
    yolo(tmp_path, "", more_images=120)
    (tmp_path / "labels" / "gone.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    _, report = run(tmp_path)
    assert "left out: label file without image: " in report
    assert "gone.txt: no image gone.*" in report


def test_yolo_images_of_one_part_take_its_labels(tmp_path):
    exports.roboflow_yolo(tmp_path)
    content, report = run(tmp_path, "train/images")
    assert [row["file_name"] for row in content["images"]] == ["a_jpg.rf.0123abcd.jpg"]
    assert len(content["annotations"]) == 3
    assert "1 x label files of other folders" in report


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: []\n", "expected a list of class names"),
        ("nc: 2\n", "no entry 'names'"),
        ("names: {0: a, 2: b}\n", r"expected the numbers 0..1, found \[0, 2\]"),
        ("names: [a, a]\n", "classes share a name.*0 and 1"),
        ("names: ['a', ' ']\n", r"names\[1\]"),
        ("names: [a\n", "not a YAML file"),
        ("names: [a, b]\nkpt_shape: [17, 3]\n", "poses"),
    ],
)
def test_yolo_names_that_are_none(tmp_path, names, message):
    yolo(tmp_path, "", names, more_images=0)
    with pytest.raises(SystemExit, match=message):
        run(tmp_path)


def test_yolo_of_a_turned_photo_refers_to_the_upright_one(tmp_path):
    yolo(tmp_path, "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n", more_images=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "a.png", exif=exif)
    content, _ = run(tmp_path)
    assert (content["images"][0]["height"], content["images"][0]["width"]) == (WIDTH, HEIGHT)


# --- labelme


def labelme(folder, *shapes, **more):
    """A set of one JSON file beside its image."""
    exports.write_image(folder / "a.png")
    (folder / "a.json").write_text(json.dumps(labelme_file("a.png", shapes, **more)))


def disk(x, y, radius):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.hypot(rows - y, columns - x) < radius


def test_labelme_shapes(tmp_path):
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[5:25, 10:30] = True
    odd = np.random.default_rng(0).random((6, 9)) < 0.5
    odd[0, 0] = odd[-1, -1] = True
    labelme(
        tmp_path,
        labelme_shape("box", [(30, 25), (10, 5)], "rectangle"),
        labelme_shape("disk", [(40, 30), (50, 30)], "circle"),
        labelme_shape("odd", [(60, 40), (68, 45)], "mask", mask=exports.png(odd)),
        labelme_shape("tilted", [(10, 5), (30, 5), (30, 25), (10, 25)], "oriented_rectangle"),
    )
    content, _ = run(tmp_path)
    found = dict(masks(content)["a.png"])
    np.testing.assert_array_equal(found["box"], square)
    np.testing.assert_array_equal(found["tilted"], square)
    np.testing.assert_array_equal(found["odd"][40:46, 60:69], odd)
    assert found["odd"].sum() == odd.sum()
    # COCO's rasteriser rounds what lies between pixels: it may differ where the border passes.
    np.testing.assert_array_less(disk(40, 30, 9.4), found["disk"] + 0.5)
    np.testing.assert_array_less(found["disk"], disk(40, 30, 10.6) + 0.5)
    assert abs(int(found["disk"].sum()) - np.pi * 100) < 5


def test_labelme_groups_are_objects(tmp_path):
    left, right = [(4, 4), (10, 4), (10, 10), (4, 10)], [(20, 4), (30, 4), (30, 10), (20, 10)]
    pixels = np.ones((3, 3), bool)
    labelme(
        tmp_path,
        labelme_shape("cat", left, group_id=1),
        labelme_shape("dog", left, group_id=1),
        labelme_shape("cat", right, group_id=1),
        labelme_shape("cat", right, group_id=2),
        labelme_shape("cat", [(50, 50), (52, 52)], "mask", group_id=2, mask=exports.png(pixels)),
        labelme_shape("__ignore__", left),
    )
    content, report = run(tmp_path)
    found = masks(content)["a.png"]
    assert [name for name, _ in found] == ["cat", "dog", "cat"]
    np.testing.assert_array_equal(found[0][1], exports.mask_of([left, right]))
    expected = exports.mask_of([right])
    expected[50:53, 50:53] = True
    np.testing.assert_array_equal(found[2][1], expected)
    assert "1 x groups of several labels" in report
    assert "1 x shapes labelled __ignore__" in report


@pytest.mark.parametrize(
    ("shape", "report"),
    [
        (labelme_shape("x", [(1, 1)], "point"), "shape without area"),
        (labelme_shape("x", [(1, 1), (9, 9)], "line"), "shape without area"),
        (labelme_shape("x", [(1, 1), (9, 1)]), "polygon of less than three points"),
        (labelme_shape("", [(1, 1), (9, 1), (9, 9)]), "shape without a label"),
        (labelme_shape("x", [(1, 1), (9, 1), (9, 9)]) | {"label": None}, "shape without a label"),
        (labelme_shape("x", [(1, 1), (9, float("nan")), (9, 9)]), "malformed points"),
        (labelme_shape("x", []) | {"points": "no"}, "malformed points"),
        (labelme_shape("x", [(1, 1), (9, 9)], "blob"), "unknown shape"),
        (labelme_shape("x", [(1, 1), (9, 9)], "mask", mask="?"), "malformed mask"),
        (
            labelme_shape("x", [(1, 1), (9, 9)], "mask", mask=base64.b64encode(DRAWING).decode()),
            "malformed mask: .*cannot identify",
        ),
        (
            labelme_shape("x", [(1, 1), (9, 9)], "mask", mask=exports.png(np.ones((4, 4)))),
            "mask of another size: .*4 x 4 pixels between corners of 9 x 9",
        ),
        (labelme_shape("x", [(900, 900), (990, 900), (990, 990)]), "polygon far outside|no pixel"),
        ("no shape", "malformed shape"),
    ],
)
def test_labelme_shapes_that_cannot_be_used(tmp_path, shape, report):
    good = labelme_shape("good", [(1, 1), (9, 1), (9, 9)])
    labelme(tmp_path, *[good] * 120, shape)
    content, text = run(tmp_path)
    assert len(content["annotations"]) == 120
    assert re.search(f"left out: ({report})", text), text
    assert "a.json shapes[120]" in text


def test_labelme_embedded_image(tmp_path):
    labelme(tmp_path / "set", labelme_shape("x", [(1, 1), (9, 1), (9, 9)]))
    raw = (tmp_path / "set" / "a.png").read_bytes()
    (tmp_path / "set" / "a.png").unlink()
    data = labelme_file("C:\\photos\\a.png", [labelme_shape("x", [(1, 1), (9, 1), (9, 9)])])
    data["imageData"] = base64.b64encode(raw).decode()
    (tmp_path / "set" / "a.json").write_text(json.dumps(data))
    content, report = run(tmp_path, "images", "set")
    assert content["images"][0]["file_name"] == "a.png"
    assert (tmp_path / "images" / "a.png").read_bytes() == raw
    assert "image in the JSON file alone" in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:40], "not a JSON file.*line"),
        (lambda text: text.replace('"shapes": [', '"shapes": {}, "x": ['), "no list of shapes"),
        (lambda text: text.replace(": 60", ": 61"), r"80 x 61 in .*, 80 x 60 in the file"),
    ],
)
def test_labelme_files_that_cannot_be_used(tmp_path, change, message, capsys):
    labelme(tmp_path, labelme_shape("x", [(1, 1), (9, 1), (9, 9)]))
    path = tmp_path / "a.json"
    path.write_text(change(path.read_text()))
    assert re.search(message, refusal(capsys, tmp_path, format_name="labelme"))


def test_labelme_image_of_another_name(tmp_path):
    labelme(tmp_path, labelme_shape("x", [(1, 1), (9, 1), (9, 9)]))
    path = tmp_path / "a.json"
    path.write_text(path.read_text().replace("a.png", "gone.png"))
    (tmp_path / "settings.json").write_text('{"zoom": 2}')
    content, report = run(tmp_path)
    assert content["images"][0]["file_name"] == "a.png"
    assert "repaired: file of another name: " in report
    assert "JSON file that is not labelme's, not read: " in report


def test_labelme_two_files_of_one_image_are_refused(tmp_path):
    labelme(tmp_path, labelme_shape("x", [(1, 1), (9, 1), (9, 9)]))
    (tmp_path / "b.json").write_text((tmp_path / "a.json").read_text())
    with pytest.raises(SystemExit, match=r"two JSON files of one image.*a\.json and .*b\.json"):
        run(tmp_path)


# --- VOC


def edit(path, change):
    with Image.open(path) as picture:
        pixels = np.array(picture)
    change(pixels)
    Image.fromarray(pixels).save(path)


def test_voc_object_of_several_classes(tmp_path):
    exports.cvat_masks(tmp_path)

    def few(pixels):
        pixels[10:12, 45:50] = (250, 50, 83)

    edit(tmp_path / "SegmentationClass" / "a.png", few)
    content, report = run(tmp_path)
    assert_masks(content)
    assert "repaired: object of several classes: " in report
    assert "red pear (630 pixels), apple (10 pixels)" in report


@pytest.mark.parametrize(
    ("colour", "message"),
    [
        ((0, 0, 0), "object without a class.*background"),
        ((1, 2, 3), "object without a class.*a colour without a name"),
    ],
)
def test_voc_object_without_a_class(tmp_path, colour, message):
    exports.cvat_masks(tmp_path)

    def all_of_it(pixels):
        pixels[30:50, 8:20] = colour

    edit(tmp_path / "SegmentationClass" / "a.png", all_of_it)
    with pytest.raises(SystemExit, match="1 of 4 objects cannot be used"):
        run(tmp_path)
    content, report = run(tmp_path, skip=True)
    assert len(content["annotations"]) == 3
    assert re.search(message, report), report


def test_voc_class_without_an_object(tmp_path):
    exports.cvat_masks(tmp_path)

    def gone(pixels):
        pixels[4:20, 4:24] = 0

    edit(tmp_path / "SegmentationObject" / "a.png", gone)
    _, report = run(tmp_path, skip=True)
    assert "class without an object: " in report
    assert "apple: 240 pixels in SegmentationClass, none in SegmentationObject" in report


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "SegmentationClass/a.png").unlink(), "missing file.*SegmentationClass"),
        (lambda f: (f / "JPEGImages/a.jpg").unlink(), "missing file.*no image a"),
        (lambda f: (f / "SegmentationObject/a.png").write_bytes(b"\x89PNG"), "undecodable file"),
        (
            lambda f: Image.new("RGB", (70, 60)).save(f / "SegmentationObject/a.png"),
            "size differs.*image 80 x 60, objects 70 x 60",
        ),
        (lambda f: (f / "labelmap.txt").write_text("apple:1,2::\n"), "labelmap.txt line 1"),
        (lambda f: (f / "labelmap.txt").write_text("a:1,2,3::\nb:1,2,3::\n"), "another's"),
        (lambda f: (f / "labelmap.txt").write_text("background:0,0,0::\n"), "no class but"),
    ],
)
def test_voc_broken(tmp_path, break_it, message, capsys):
    exports.cvat_masks(tmp_path)
    break_it(tmp_path)
    assert re.search(message, refusal(capsys, tmp_path))


def test_voc_names_of_labelme2voc(tmp_path):
    exports.voc(tmp_path)
    (tmp_path / "class_names.txt").write_text("_background_\napple\nred pear\n")
    content, report = run(tmp_path)
    assert_masks(content)
    assert "border around objects" in report
    assert [row["name"] for row in content["categories"]] == list(NAMES)


# --- all


def test_what_is_written_is_read_without_findings(tmp_path):
    exports.cvat_masks(tmp_path)
    run(tmp_path)
    data = coco_json.read(str(tmp_path / "out" / "all.json"))
    assert data.findings == []
    assert data.num_objects == 4


def test_annotations_that_are_not_there(tmp_path):
    done = subprocess.run(
        [sys.executable, "data_prep/to_coco.py", "--images=x", "--annotations=gone",
         "--output_file=y.json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--annotations=gone: not found" in done.stderr


def test_the_own_output_is_no_input(tmp_path):
    exports.roboflow_yolo(tmp_path)
    for _ in range(2):
        to_coco.convert(str(tmp_path), str(tmp_path), str(tmp_path / "all.json"), None, False)
    with pytest.raises(SystemExit, match="is what is to be read"):
        to_coco.convert(
            str(tmp_path), str(tmp_path / "all.json"), str(tmp_path / "all.json"), None, False
        )


def test_png_helper_writes_what_labelme_does():
    picture = Image.open(io.BytesIO(base64.b64decode(exports.png(np.eye(3, dtype=bool)))))
    assert picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), np.eye(3))
