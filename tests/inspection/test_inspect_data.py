"""The data doctor as its users run it: what it finds in sets made for it, and how it says so."""

import html.parser
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf import inspect_data
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.experiment import fields
from mrcnn_tf.images import record_image
from mrcnn_tf.inspection import network, photos

KEYS_OF_FINDING = {
    *("severity", "kind", "set", "image_id", "file", "twin_id", "where", "value"),
    *("happens", "advice"),
}
KEYS_OF_SET = {
    *("images_dir", "annotations", "annotations_sha256", "images", "usable_images", "objects"),
    *("usable_objects", "crowds", "objects_with_mask", "most_objects_per_image", "classes"),
    *("object_sides", "too_small", "anchors"),
}


class CocoFolder:
    """A COCO folder in the making; photos are coloured noise, all of them different."""

    def __init__(self, folder: pathlib.Path, categories=("cat", "dog"), seed=0):
        self.path, self.rng = folder, np.random.default_rng(seed)
        (folder / "images").mkdir(parents=True)
        self.content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": k + 1, "name": n} for k, n in enumerate(categories)],
        }

    def add_photo(self, boxes=(), category=1, size=(200, 100), name=None, pixels=None):
        """Add a photo, size (width, height), with rectangles (x, y, width, height) as objects."""
        identifier = len(self.content["images"]) + 1
        name = name or f"photo {identifier}.png"
        if pixels is None:
            noise = self.rng.integers(0, 256, (6, 6, 3), np.uint8)
            pixels = np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))
        Image.fromarray(pixels).save(self.path / "images" / name, "PNG")
        height, width = pixels.shape[:2]
        self.content["images"].append(
            {"id": identifier, "file_name": name, "height": height, "width": width}
        )
        for box in boxes:
            self.add_object(identifier, box, category)
        return pixels

    def add_object(self, image_id, box, category=1, **changes):
        x, y, w, h = box
        row = {
            "id": len(self.content["annotations"]) + 1,
            "image_id": image_id,
            "category_id": category,
            "bbox": list(box),
            "area": w * h,
            "iscrowd": 0,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }
        self.content["annotations"].append({**row, **changes})

    def inspect(self, validation=None, judge=None):
        """Inspect it; what inspection.json then holds."""
        folders = {}
        for key, folder in (("train", self), ("val", validation)):
            if folder:
                file = folder.path / "annotations.json"
                file.write_text(json.dumps(folder.content), "utf-8")
                folders[key] = (str(folder.path / "images"), str(file))
        judge = judge or network.with_image_size(network.default(), 100, 200)
        inspect_data.inspect(folders, judge, self.path / "out", 2)
        return json.loads((self.path / "out" / "inspection.json").read_text("utf-8"))

    def page(self):
        return (self.path / "out" / "inspection.html").read_text("utf-8")


@pytest.fixture
def folder(tmp_path):
    return CocoFolder(tmp_path / "train")


def clean(path, seed=0, num_photos=6):
    """A set with nothing to complain of: 12 cats, 12 dogs, all as large as anchors are."""
    folder = CocoFolder(path, seed=seed)
    for _ in range(num_photos):
        folder.add_photo([(10, 10, 32, 32), (60, 20, 30, 34)], category=1)
        image_id = len(folder.content["images"])
        folder.add_object(image_id, (110, 30, 32, 32), category=2)
        folder.add_object(image_id, (150, 60, 34, 30), category=2)
    return folder


def kinds(found, above_notes=True):
    return {
        (row["severity"], row["kind"], row["set"])
        for row in found["kinds"]
        if not above_notes or row["severity"] != "note"
    }


def only(found, kind, **where):
    """The one finding of its kind."""
    rows = [row for row in found["findings"] if row["kind"] == kind]
    rows = [row for row in rows if all(row[key] == value for key, value in where.items())]
    assert len(rows) == 1, (kind, rows, found["kinds"])
    return rows[0]


def test_a_clean_set(tmp_path):
    train, val = clean(tmp_path / "train"), clean(tmp_path / "val", seed=1)
    found = train.inspect(val)
    assert (found["severity"], found["exit_code"], found["findings"]) == (None, 0, [])
    assert found["counts"] == {"error": 0, "warning": 0, "note": 0}
    assert found["sets"]["train"].keys() == KEYS_OF_SET
    assert found["sets"]["train"]["classes"] == [
        {"id": 1, "name": "cat", "objects": 12, "images": 6},
        {"id": 2, "name": "dog", "objects": 12, "images": 6},
    ]
    assert found["sets"]["val"]["usable_objects"] == 24
    assert found["sets"]["train"]["object_sides"]["100"] == 32.0
    assert "Nothing is wrong with this data." in train.page()


def test_small_objects(folder):
    # Short edge 100 -> 50: sides are halved; visible from 4 / 2 = 2 pixels on.
    folder.add_photo([(10, 10, 32, 32), (50, 50, 3.9, 3.9), (70, 10, 3, 3)])
    folder.add_photo([(10, 10, 4, 4), (30, 10, 2, 32)])  # 2; sqrt(1 * 16) = 4
    judge = network.with_image_size(network.default(), 50, 100)
    found = folder.inspect(judge=judge)
    row = only(found, "objects too small to be seen")
    assert row["severity"] == "warning"
    assert row["image_id"] == 1
    assert row["file"] == "photo 1.png"
    assert "2 of 3 objects, the smallest 1.5 pixels across, where 2 are the least" in row["value"]
    # The smallest of a hundred is 1.5 pixels and a little: 50 * 2 / 1.5 = 67, in multiples of 32.
    assert "short edge 96 shows 99 % of them" in row["advice"]
    assert found["sets"]["train"]["too_small"] == 2
    coarse = judge._replace(strides=(16,))
    assert only(folder.inspect(judge=coarse), "objects too small to be seen", image_id=2)


def test_more_objects_than_fit(folder):
    folder.add_photo([(10 * k, 10 * j, 8, 8) for k in range(3) for j in range(2)])
    folder.add_photo([(10, 10, 32, 32)] * 1)
    judge = network.default()._replace(max_instances=5)
    row = only(folder.inspect(judge=judge), "more objects than max_instances")
    assert row["value"] == "6 objects, max_instances is 5"
    assert row["happens"].startswith("1 of them")
    assert "to 6 or more" in row["advice"]


def test_classes_on_one_side_or_rare(tmp_path):
    train = CocoFolder(tmp_path / "train", ["both", "rare", "no val", "no train", "never"])
    val = CocoFolder(tmp_path / "val", ["never", "no train", "no val", "rare", "both", "new"], 1)
    row = [(25 * k, 20, 24, 24) for k in range(8)]
    train.add_photo(row, 1)
    train.add_photo(row[:2], 1)  # 10: enough
    train.add_photo(row[:7] + [(0, 60, 24, 24), (30, 60, 24, 24)], 2)  # 9
    train.add_photo(row, 3)
    train.add_photo(row, 3)
    val.add_photo(row[:1], 2)  # no train
    val.add_photo(row[:1], 4)  # rare
    val.add_photo(row[:1], 5)  # both
    val.add_photo(row[:2], 6)  # new
    found = train.inspect(val)
    rare = only(found, "rare class")
    assert (rare["where"], rare["value"][:9]) == ("category 'rare'", "9 objects")
    assert only(found, "class without a validation object")["where"] == "category 'no val'"
    assert only(found, "class without a training object")["where"] == "category 'no train'"
    assert only(found, "class without objects")["where"] == "category 'never'"
    lacking = only(found, "class that training lacks")
    assert (lacking["severity"], lacking["where"]) == ("error", "category 'new'")
    assert lacking["value"].startswith("2 objects")
    assert only(found, "category ids differ between the files")["severity"] == "note"
    assert found["exit_code"] == 3


def test_photos_on_both_sides(tmp_path):
    train, val = clean(tmp_path / "train"), clean(tmp_path / "val", seed=1)
    boxes = [(10, 10, 32, 32), (60, 20, 30, 34)]
    pixels = train.add_photo(boxes, 1, name="seen.png")
    val.add_photo(boxes, 1, name="copy.png", pixels=pixels)
    larger = Image.fromarray(pixels).resize((260, 130), Image.Resampling.BICUBIC)
    val.add_photo(boxes, 1, name="larger.png", pixels=np.asarray(larger))
    found = train.inspect(val)
    rows = [r for r in found["findings"] if r["kind"] == "photo in training and validation"]
    assert {row["file"]: row["set"] for row in rows} == {"copy.png": "val", "larger.png": "val"}
    values = {row["file"]: row["value"] for row in rows}
    assert {row["twin_id"] for row in rows} == {7}
    assert values["copy.png"] == "the same file as seen.png (image 7) of the training set"
    assert "seen.png (image 7)" in values["larger.png"]
    assert only(found, "photos that show almost the same", set="val")["file"] == "copy.png"
    assert found["exit_code"] == 2


def test_boxes_that_contradict_their_masks(tmp_path):
    folder = clean(tmp_path / "train", num_photos=30)
    folder.add_object(3, (120, 5, 20, 20), segmentation=[[10, 60, 40, 60, 40, 90, 10, 90]])
    found = folder.inspect()
    row = only(found, "box contradicts its mask")
    assert (row["severity"], row["image_id"]) == ("warning", 3)
    assert "bbox [120.0, 5.0, 20.0, 20.0], but its mask lies in" in row["value"]
    assert row["happens"] == "object left out"
    assert found["exit_code"] == 2  # 1 of 121 objects is less than 1 %
    folder.add_object(4, (120, 5, 20, 20), segmentation=[[10, 60, 40, 60, 40, 90, 10, 90]])
    found = folder.inspect()
    assert "2 of 122 objects cannot be used" in only(found, "too much cannot be used")["value"]
    assert found["exit_code"] == 3


def test_a_box_that_fits_its_outline_loosely(tmp_path):
    folder = clean(tmp_path / "train")
    folder.add_object(2, (10, 50, 40, 40), segmentation=[[10, 50, 40, 50, 40, 90, 10, 90]])
    # The outline is 30 of the box's 40 wide: IoU 0.75, an edge 10 pixels away.
    row = only(folder.inspect(), "box that does not fit its outline closely")
    assert (row["severity"], row["image_id"]) == ("note", 2)
    assert row["value"].startswith("1 of 5 objects")


def test_outlines_that_cover_nothing_and_objects_annotated_twice(tmp_path):
    folder = clean(tmp_path / "train")
    folder.add_object(1, (70, 60, 20, 20), segmentation=[[70, 60, 90, 80, 70, 60]])
    folder.add_object(5, (10.4, 10, 32, 32.5))  # as the first one of each photo
    folder.add_object(6, (10.4, 10, 32, 32.5), category=2)  # of another class: another object
    found = folder.inspect()
    line = only(found, "outline that covers no pixel")
    assert line["where"] == "annotation 25 of image 1 (photo 1.png)"
    twice = only(found, "object annotated twice")
    assert (twice["image_id"], twice["value"][:16]) == (5, "1 of 5 objects h")


def test_images_that_cannot_be_used(tmp_path):
    folder = clean(tmp_path / "train")
    broken = folder.path / "images" / "photo 1.png"
    broken.write_bytes(broken.read_bytes()[:-100])
    (folder.path / "images" / "photo 2.png").unlink()
    Image.new("RGB", (30, 30)).save(folder.path / "images" / "photo 3.png")
    Image.new("RGB", (30, 30)).save(folder.path / "images" / "extra.png")
    found = folder.inspect()
    assert only(found, "undecodable file")["image_id"] == 1
    assert only(found, "missing file")["image_id"] == 2
    size = only(found, "size differs from the file's (width x height)")
    assert (size["image_id"], size["value"][:28]) == (3, "200 x 100 in the annotations")
    assert "3 of 6 images" in only(found, "too much cannot be used")["value"]
    assert only(found, "images without annotations")["value"] == "extra.png"
    assert found["sets"]["train"]["usable_images"] == 3
    assert found["sets"]["train"]["usable_objects"] == 12


def test_one_folder_for_both_sets(tmp_path):
    train, val = clean(tmp_path / "train"), clean(tmp_path / "val", seed=1)
    for row in val.content["images"]:
        old, row["file_name"] = row["file_name"], f"val {row['file_name']}"
        os.rename(val.path / "images" / old, train.path / "images" / row["file_name"])
    (val.path / "images").rmdir()
    (val.path / "images").symlink_to(train.path / "images")
    assert train.inspect(val)["findings"] == []
    Image.new("RGB", (30, 30)).save(train.path / "images" / "extra.png")
    row = only(train.inspect(val), "images without annotations")
    assert (row["set"], row["where"], row["value"]) == ("train", "1 file", "extra.png")


def test_anchors(folder):
    # Of 12 objects, 8 are anchors of stride 8 (64 pixels, centres on multiples of 8); 4 lie in
    # anchors of 32 pixels and fill a quarter of them.
    for k in range(4):
        folder.add_photo([(16, 16, 64, 64), (112, 24, 64, 64)], size=(200, 100), category=1 + k % 2)
    folder.add_photo([(40, 40, 16, 16), (100, 40, 16, 16), (40, 64, 16, 16), (100, 64, 16, 16)])
    judge = network.default()._replace(
        short_edge=100, long_edge=200, rpn=fields.RPN(anchor_ratios=(1.0,))
    )
    found = folder.inspect(judge=judge)
    anchors = found["sets"]["train"]["anchors"]
    assert anchors["objects"] == 12
    assert anchors["recall_50"] == anchors["recall_70"] == 0.6667
    assert anchors["mean_best_iou"] == pytest.approx((8 + 4 * 0.25) / 12)
    assert anchors["by_size"] == [
        {"from": 16, "to": 32, "objects": 4, "mean_best_iou": 0.25, "recall_50": 0, "recall_70": 0},
        {"from": 64, "to": 128, "objects": 8, "mean_best_iou": 1, "recall_50": 1, "recall_70": 1},
    ]
    assert "67% of the objects" in only(found, "anchors that do not fit the objects")["value"]


def test_sets_without_masks_or_objects(tmp_path):
    folder = clean(tmp_path / "train")
    for row in folder.content["annotations"]:
        row["segmentation"] = []
    found = folder.inspect()
    assert only(found, "nothing to learn from")["severity"] == "error"
    judge = network.default()._replace(has_masks=False)
    assert ("error", "nothing to learn from", "train") not in kinds(folder.inspect(judge=judge))
    folder.content["annotations"] = []
    found = folder.inspect()
    assert only(found, "nothing to learn from")["severity"] == "error"
    assert only(found, "images without objects")["where"] == "6 images"
    folder.content["images"] = []
    found = folder.inspect()
    assert only(found, "no image")["severity"] == "error"
    assert found["exit_code"] == 3


def test_a_file_that_is_no_coco_file_does_not_hide_the_other(tmp_path):
    train, val = clean(tmp_path / "train"), clean(tmp_path / "val", seed=1)
    val.content = [1, 2]
    found = train.inspect(val)
    row = only(found, "no COCO file")
    assert (row["severity"], row["set"]) == ("error", "val")
    assert "expected an object with the lists" in row["value"]
    assert found["sets"]["train"]["usable_objects"] == 24
    assert found["sets"]["val"]["images"] == 0


def test_every_finding_says_where_what_and_what_to_do(tmp_path):
    folder = clean(tmp_path / "train")
    rows = folder.content["annotations"]
    del rows[0]["area"], rows[1]["bbox"], rows[2]["segmentation"]
    rows[3].update(iscrowd=None)
    rows[4].update(category_id=9)
    rows[5].update(bbox=[1, 2, 0, 4])
    rows[6].update(segmentation=[[1, 2], rows[6]["segmentation"][0]])
    rows[7].update(image_id=77)
    found = folder.inspect()
    by_severity = {row["kind"]: row["severity"] for row in found["findings"]}
    assert {"no area", "no bbox", "iscrowd that is not 0 or 1", "stray part of a polygon"} <= {
        kind for kind, severity in by_severity.items() if severity == "note"
    }
    assert {"no segmentation", "unknown category", "box without area", "unknown image"} <= {
        kind for kind, severity in by_severity.items() if severity == "warning"
    }
    for row in found["findings"]:
        assert row.keys() == KEYS_OF_FINDING
        texts = [row[key] for key in ("kind", "where", "value", "happens", "advice")]
        assert all(isinstance(text, str) and text for text in texts), row
    assert only(found, "no segmentation")["file"] == "photo 1.png"


class Elements(html.parser.HTMLParser):
    def __init__(self, markup):
        super().__init__()
        self.names, self.sources, self.handlers = [], [], []
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.sources += [value for key, value in attributes if key in ("src", "href")]
        self.handlers += [key for key, _ in attributes if key.startswith("on")]


def test_names_cannot_break_out_of_the_page(tmp_path):
    hostile = "<script>alert(1)</script>"
    folder = CocoFolder(tmp_path / "train", [hostile, "'\"><svg onload=alert(2)>", "</title>"])
    name = "'\"><img src=x onerror=alert(3)>.png"
    folder.add_photo([(10, 10, 32, 32)], 1, name=name)
    folder.add_object(1, (60, 10, 1.5, 1.5), category=2)
    folder.add_object(1, (90, 10, 20, 20), category=3, segmentation="<script>")
    folder.add_object(1, (90, 10, 20, 20), category="<img onerror=alert(4)>")
    folder.inspect()
    page = Elements(folder.page())
    assert "script" not in page.names
    assert not page.handlers
    assert page.names.count("title") == 1 + folder.page().count("<title>") - 1
    assert all(source.startswith(("data:image/jpeg;base64,", "#s")) for source in page.sources)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in folder.page()


def test_photos_that_exif_turns_lie_under_their_outlines(tmp_path):
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, :50] = 255  # stored: white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise, the left side is on top
    Image.fromarray(pixels).save(tmp_path / "a.jpg", "JPEG", exif=exif)
    upright = ImageEntry(1, "a.jpg", 200, 100)
    stored = ImageEntry(2, "a.jpg", 100, 200)
    rule = record_image.ExifRule()
    seen = list(photos.look_at([upright, stored], str(tmp_path), rule, 1, lambda: None))
    assert seen[0].pixels().shape == (200, 100, 3)
    assert seen[0].pixels()[:40].min() > 200
    assert seen[0].pixels()[60:].max() < 50
    assert seen[1].pixels().shape == (100, 200, 3)
    assert seen[1].pixels()[:, :40].min() > 200
    assert "EXIF orientation applied" in seen[0].change


def run(*options, cwd):
    command = [sys.executable, "-m", "mrcnn_tf.inspect_data", *options]
    root = pathlib.Path(inspect_data.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_the_command(tmp_path):
    train, val = clean(tmp_path / "train"), clean(tmp_path / "val", seed=1)
    train.inspect(val)  # writes the annotation files
    options = [f"--images={train.path / 'images'}", f"--annotations={train.path}/annotations.json"]
    finished = run(*options, "--image_size=100,200", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "training: 6 photos, 24 objects\nnothing is wrong\n" in finished.stdout
    assert (tmp_path / "inspection" / "inspection.html").is_file()
    options += [f"--val_annotations={val.path}/annotations.json", f"--val_images={val.path}/images"]
    os.remove(val.path / "images" / "photo 1.png")
    finished = run(*options, "--output_dir=o", "--image_size=100", cwd=tmp_path)
    assert finished.returncode == 3
    assert "error        1 x too much cannot be used (validation)" in finished.stdout
    assert "image 1 (photo 1.png)" in finished.stdout
    assert json.loads((tmp_path / "o" / "inspection.json").read_text())["exit_code"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images=nowhere"], "--images=nowhere: no such folder"),
        (["--annotations=no.json"], "--annotations=no.json: no such file"),
        (["--val_images=."], "--val_images needs --val_annotations"),
        (["--image_size=800,0"], "--image_size=800,0: expected the short edge"),
    ],
)
def test_what_the_command_refuses(tmp_path, options, message):
    (tmp_path / "a.json").write_text("{}")
    finished = run("--images=.", "--annotations=a.json", *options, cwd=tmp_path)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_an_experiment_decides_what_is_visible(tmp_path):
    train = clean(tmp_path / "train")
    train.inspect()
    options = [f"--images={train.path / 'images'}", f"--annotations={train.path}/annotations.json"]
    finished = run(*options, "--experiment=maskrcnn_r50_c4", cwd=tmp_path)
    assert finished.returncode in (0, 2), finished.stderr
    found = json.loads((tmp_path / "inspection" / "inspection.json").read_text())["network"]
    assert (found["experiment"], found["smallest_visible"]) == ("maskrcnn_r50_c4", 8)
    finished = run(*options, "--experiment=maskrcnn_r50_fnp", cwd=tmp_path)
    assert finished.returncode == 1
    assert "unknown experiment 'maskrcnn_r50_fnp'" in finished.stderr


FAULTS = {
    "stray_polygon_part": ("note", "stray part of a polygon"),
    "null_values": ("note", "iscrowd that is not 0 or 1"),
    "no_bbox": ("note", "no bbox"),
    "boxes_only": ("error", "nothing to learn from"),
    "all_crowd": ("error", "nothing to learn from"),
    "no_categories": ("error", "no categories"),
    "bbox_xyxy": ("error", "boxes are not COCO's"),
    "bbox_normalised": ("error", "boxes are not COCO's"),
    "odd_sizes": ("note", "no image size"),
    "long_file_name": ("warning", "missing file"),
    "broken_png": ("warning", "undecodable file"),
    "float_and_12bit": ("warning", "undecodable file"),
    "roboflow_same_name": ("note", "category that is no class"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_sets_that_are_faulty_on_purpose(shared, tmp_path, name):
    folder = shared / "data" / "faults" / name
    found = _inspect(folder / "images", folder / "ann.json", tmp_path)
    assert FAULTS[name] in {(row["severity"], row["kind"]) for row in found["kinds"]}


def test_odd_cases_are_all_told_apart(shared, tmp_path):
    folder = shared / "data" / "conformance" / "odd_cases"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    annotations = next(p for p in folder.rglob("*.json") if p.name != "EXPECTED.json")
    images = next(p for p in folder.rglob("*") if p.is_dir() and any(p.glob("*.jpg")))
    found = _inspect(images, annotations, tmp_path)
    assert found["severity"] == "error"  # one of few images is missing, another of another size
    assert {"missing file", "size differs from the file's (width x height)"} <= {
        row["kind"] for row in found["findings"]
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAULTS, "odd_boxes", "huge_numbers", "json_bom"])
def test_the_doctor_refuses_what_the_converter_refuses(shared, tmp_path, name):
    folder = shared / "data" / "faults" / name
    found = _inspect(folder / "images", folder / "ann.json", tmp_path)
    script = pathlib.Path(inspect_data.__file__).parents[1] / "data_prep/create_coco_tfrecord.py"
    command = [sys.executable, str(script), f"--image_dir={folder / 'images'}"]
    command += [f"--object_annotations_file={folder / 'ann.json'}", "--num_processes=1"]
    command += [f"--output_file_prefix={tmp_path / 'records' / 'train'}", "--num_shards=1"]
    (tmp_path / "records").mkdir()
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = {row["kind"] for row in found["findings"] if row["severity"] == "error"}
    assert bool(finished.returncode) == bool(errors - {"nothing to learn from"}), finished.stderr
    report = tmp_path / "records" / "train.report.txt"
    values = {row["value"] for row in found["findings"]}
    for line in report.read_text().splitlines() if report.is_file() else ():
        if line.startswith(("left out:", "repaired:")):
            assert any(value in line for value in values), line


def _inspect(images, annotations, output_dir):
    folders = {"train": (str(images), str(annotations))}
    inspect_data.inspect(folders, network.default(), output_dir, 2)
    return json.loads((output_dir / "inspection.json").read_text())
