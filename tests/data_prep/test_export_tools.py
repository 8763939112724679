"""Annotation files as export tools write them, through the command, and again by the evaluator.

Each case is a folder of three images with nine objects each, changed in one way. Where it
converts, the records and the annotation file have to give the evaluator the same ground truth.
"""

import copy
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from data_prep import conversion, create_coco_tfrecord, shards
from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import ground_truth
from tests.data_prep.in_process import InProcess

_HEIGHT, _WIDTH = 90, 120
_NAMES = ("date", "fig", "hazelnut")


def _content():
    """Nine hexagons an image in three rows, one class a row."""
    images, annotations = [], []
    for image_id in (1, 2, 3):
        name = f"pic{image_id}.jpg"
        images.append({"id": image_id, "file_name": name, "width": _WIDTH, "height": _HEIGHT})
        for k in range(9):
            x, y = 3 + 38 * (k % 3) + image_id, 2 + 29 * (k // 3)
            points = [(8, 0), (24, 0), (32, 12), (24, 24), (8, 24), (0, 12)]
            polygon = [float(v) for dx, dy in points for v in (x + dx, y + dy)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": k // 3 + 1,
                    "bbox": [float(x), float(y), 32.0, 24.0],
                    "area": 576.0,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(_NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder `images` of three images; conversion in this process."""
    monkeypatch.setattr(shards, "WorkerPool", InProcess)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for k in (1, 2, 3):
        pixels = rng.integers(0, 255, (_HEIGHT, _WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"pic{k}.jpg")
    return tmp_path


def _write(folder, content, name="ann.json"):
    path = folder / name
    path.write_text(json.dumps(content), "utf-8")
    return str(path)


def _convert(folder, annotations_file, prefix="out/x", skip=False, masks="rle"):
    """What the command does once TensorFlow is there."""
    job = conversion.Job(
        str(folder / "images"), annotations_file, str(folder / prefix), 2, masks, 1, skip
    )
    create_coco_tfrecord.run(job)
    text = (folder / prefix).with_name("label_map.json").read_text("utf-8")
    return LabelMap.from_json(text)


def _truths(folder, annotations_file, label_map, prefix="out/x", include_masks=True):
    """Ground truth from the records and from the annotation file, by annotation id."""
    pattern = str(folder / f"{prefix}-*.tfrecord")
    both = (
        ground_truth.from_records(pattern, label_map, include_masks),
        ground_truth.from_annotation_file(annotations_file, include_masks),
    )
    return [{row["id"]: row for row in truth["annotations"]} for truth in both]


def _all(**changes):
    def change(content):
        for row in content["annotations"]:
            row.update(copy.deepcopy(changes))

    return change


def _without(*keys):
    def change(content):
        for row in content["annotations"]:
            for key in keys:
                del row[key]

    return change


def _first(**changes):
    def change(content):
        content["annotations"][0].update(changes)

    return change


def _stray_parts(content):
    for k, part in enumerate(([100.0, 75.0], [10.0, 10.0, 12.0, 10.0], [], [1.0, 2.0, 3.0])):
        content["annotations"][k]["segmentation"].insert(k % 2, part)


def _floats(content):
    for rows in content.values():
        for row in rows:
            for key in ("id", "image_id", "category_id"):
                if key in row:
                    row[key] = float(row[key])


def _root_category(content):
    content["categories"].insert(0, {"id": 0, "name": "fig", "supercategory": "none"})


def _run_lengths(is_list):
    """CVAT's brush masks (lists) and other tools' (compressed)."""

    def change(content):
        for row in content["annotations"]:
            rle = coco_mask.merge(coco_mask.frPyObjects(row["segmentation"], _HEIGHT, _WIDTH))
            flat = coco_mask.decode(rle).ravel(order="F")
            edges = np.flatnonzero(np.diff(flat)) + 1
            runs = np.diff([0, *edges, flat.size]).tolist()
            counts = runs if is_list else rle["counts"].decode()
            row["segmentation"] = {"size": [_HEIGHT, _WIDTH], "counts": counts}
            row["attributes"] = {"occluded": False}

    return change


def _label_studio(content):
    for k, image in enumerate(content["images"]):
        image["file_name"] = (
            f"../../label-studio/data/upload/1/pic{k + 1}.jpg",
            "images\\1\\pic2.jpg",
            "%70ic3.jpg",
        )[k]
        del image["width"], image["height"]
    for row in content["annotations"]:
        row["category_id"] -= 1
        row["ignore"] = 0
    for row in content["categories"]:
        row["id"] -= 1


def _pairs(content):
    for row in content["annotations"]:
        row["segmentation"] = np.reshape(row["segmentation"], (1, -1, 2)).tolist()


# What converts by default: the change, what is printed, and what one object then has.
_CONVERTED = {
    "stray_polygon_part": (_stray_parts, "repaired          4 x stray part of a polygon", {}),
    "null_values": (
        _all(iscrowd=None, area=None),
        "repaired         27 x no area -> computed from the mask",
        {"area": 576.0, "iscrowd": 0},
    ),
    "no_iscrowd": (_without("iscrowd"), "noted            27 x annotations without iscrowd", {}),
    "no_bbox": (_without("bbox"), "27 x no bbox -> taken from the mask", {"bbox": [4, 2, 32, 24]}),
    "no_bbox_no_area": (_without("bbox", "area"), "27 x no bbox", {"area": 576.0}),
    "odd_area": (_first(area="12"), "1 x area that is no number", {"area": 576.0}),
    "huge_area": (_first(area=10**400), "1 x area that is no number", {"area": 576.0}),
    "odd_crowd": (_first(iscrowd="0"), "1 x iscrowd that is not 0 or 1", {"iscrowd": 0}),
    "no_ids": (_without("id"), "27 x annotations without a whole number as id", {}),
    "float_ids": (_floats, "27 annotations", {"image_id": 1}),
    "roboflow_root": (_root_category, "noted             1 x category that is no class", {}),
    "cvat_brush": (_run_lengths(True), "27 masks", {}),
    "compressed": (_run_lengths(False), "27 masks", {}),
    "pairs_of_points": (_pairs, "27 x unusual form of segmentation -> read as polygons", {}),
    "mask_of_other_size": (
        _first(segmentation={"size": [9, 9], "counts": [81]}),
        "1 x run lengths of another size -> object kept without a mask",
        {"bbox": [4, 2, 32, 24]},
    ),
    "boxes_only": (_all(segmentation=[]), "27 objects without a mask", {}),
    "no_segmentation": (_without("segmentation"), "27 objects without a mask", {}),
}


@pytest.mark.parametrize("case", _CONVERTED)
def test_converts_and_the_evaluator_reads_the_same(folder, capsys, case):
    change, printed, expected = _CONVERTED[case]
    content = _content()
    change(content)
    path = _write(folder, content)
    label_map = _convert(folder, path)
    assert label_map.names == _NAMES
    assert printed in capsys.readouterr().out
    from_records, from_file = _truths(folder, path, label_map)
    assert from_records == from_file
    assert len(from_file) == 27
    first = from_file[1]
    assert {key: first[key] for key in expected} == expected


def test_label_studio_names_sizes_and_ids(folder, capsys):
    content = _content()
    _label_studio(content)
    label_map = _convert(folder, _write(folder, content))
    printed = capsys.readouterr().out
    assert "repaired          3 x no image size -> taken from the image file" in printed
    assert "repaired          3 x file of another name" in printed
    assert label_map == LabelMap((0, 1, 2), _NAMES)
    truth = ground_truth.from_records(str(folder / "out/x-*"), label_map)
    assert truth["images"][0] == {"id": 1, "height": _HEIGHT, "width": _WIDTH}
    assert len(truth["annotations"]) == 27


def test_a_name_that_two_images_would_share_is_no_file(folder):
    content = _content()
    content["images"][1]["file_name"] = "b/pic1.jpg"
    with pytest.raises(SystemExit, match="1 of 3 images cannot be used"):
        _convert(folder, _write(folder, content))


def _corners(content):
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        row["bbox"] = [x, y, x + w, y + h]


def _fractions(content):
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        row["bbox"] = [x / _WIDTH, y / _HEIGHT, w / _WIDTH, h / _HEIGHT]
        points = np.reshape(row["segmentation"], (-1, 2)) / [_WIDTH, _HEIGHT]
        row["segmentation"] = [points.ravel().tolist()]


def _corners_only(content):
    _corners(content)
    _all(segmentation=[])(content)


def _swapped_masks(content):
    """Each object has the mask of another one."""
    rows = content["annotations"]
    masks = [row["segmentation"] for row in rows]
    for row, mask in zip(rows, masks[4:] + masks[:4], strict=True):
        row["segmentation"] = mask


def _no_categories(content):
    content["categories"], content["annotations"] = [], []


def _two_figs(content):
    content["categories"].append({"id": 9, "name": "fig"})
    content["annotations"][0]["category_id"] = 9


def _other_numbering(content):
    for row in content["annotations"]:
        row["image_id"] += 100


def _images(**changes):
    def change(content):
        content["images"][1].update(changes)

    return change


# What is refused: the change, what is said, and whether --on_error=skip would go on.
_REFUSED = {
    "bbox_xyxy": (_corners, r"in \d+ of 27 objects .*corners \[x1, y1, x2, y2\]", False),
    "bbox_normalised": (_fractions, "in 27 of 27 objects .*fractions of the image's", False),
    "corners_without_masks": (_corners_only, "boxes reach out of their image", False),
    "masks_of_others": (_swapped_masks, "27 of 27 objects", False),
    "no_categories": (_no_categories, "no categories", False),
    "two_classes_of_a_name": (_two_figs, r"\[2, 9\] are all called 'fig'", False),
    "duplicate_image": (_images(id=1), "image ids occur more than once", False),
    "images_numbered_otherwise": (_other_numbering, "27 of 27 objects", False),
    "long_file_name": (_images(file_name="p.jpg?sig=" + "0" * 300), "1 of 3 images", True),
    "zero_byte_in_file_name": (_images(file_name="pic\0.jpg"), "1 of 3 images", True),
    "no_file_name": (_images(file_name=None), "1 of 3 images", True),
    "size_of_the_other_side": (_images(width=_HEIGHT, height=_WIDTH), "1 of 3 images", True),
    "negative_box": (_first(bbox=[4, 2, 32, -24]), "1 of 27 objects", True),
    "flat_box": (_first(bbox=[4, 2, 0, 24]), "1 of 27 objects", True),
    "text_box": (_first(bbox=["4", "2", "32", "24"]), "1 of 27 objects", True),
    "infinite_box": (_first(bbox=[float("inf"), 2, 32, 24]), "1 of 27 objects", True),
    "huge_box": (_first(bbox=[10**400, 2, 32, 24]), "1 of 27 objects", True),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_refuses_and_the_evaluator_does_too(folder, capsys, case):
    change, message, can_skip = _REFUSED[case]
    content = _content()
    change(content)
    path = _write(folder, content)
    with pytest.raises(SystemExit, match=message) as caught:
        _convert(folder, path)
    is_seen_late = case == "size_of_the_other_side"  # no box lies outside: the file tells
    assert ("nothing was written" in str(caught.value)) != is_seen_late
    assert ("--on_error=skip" in str(caught.value)) == can_skip
    assert is_seen_late or not (folder / "out").exists()
    if can_skip:
        _convert(folder, path, skip=True)
        assert "left out          1 x" in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit):
            _convert(folder, path, skip=True)
    if not any(word in case for word in ("file_name", "size_of")):  # what only a folder shows
        with pytest.raises(ValueError, match="^" + path):
            ground_truth.from_annotation_file(path)


def test_a_folder_of_other_images_is_refused(folder, capsys):
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(SystemExit, match="none of 3 images can be used"):
        _convert(folder, _write(folder, _content()), skip=True)
    assert f"no file {folder}/images/pic1.jpg" in capsys.readouterr().err


def test_all_crowd_is_said(folder, capsys):
    content = _content()
    _all(iscrowd=1)(content)
    _convert(folder, _write(folder, content))
    said = capsys.readouterr()
    assert "27 crowds" in said.out
    assert "warning: 27 of 27 objects are crowds" in said.err
    assert "nothing to learn from" in said.err
    assert "mrcnn_tf.train" not in said.out  # no next step
    counts = json.loads((folder / "out/x.manifest.json").read_text())["shards"].values()
    assert sum(row["counts"]["crowds"] for row in counts) == 27


@pytest.mark.parametrize("masks", ["rle", "png", None])
def test_boxes_only_is_said(folder, capsys, masks):
    content = _content()
    _all(segmentation=[])(content)
    _convert(folder, _write(folder, content), masks=masks)
    said = capsys.readouterr().err
    assert ("fasterrcnn_r50_fpn" in said) == (masks is not None)
    counts = json.loads((folder / "out/x.manifest.json").read_text())["shards"].values()
    assert sum(row["counts"].get("masks", 0) for row in counts) == 0


def _renumbered():
    content = _content()
    for row in content["annotations"]:
        row["category_id"] = {1: 2, 2: 1, 3: 3}[row["category_id"]]
    content["categories"] = [
        {"id": k + 1, "name": name} for k, name in enumerate(("fig", "date", "hazelnut"))
    ]
    return content


def test_other_ids_in_val_are_matched_by_name(folder, capsys):
    label_map = _convert(folder, _write(folder, _content()), "out/train")
    _convert(folder, _write(folder, _renumbered(), "val.json"), "out/val")
    assert (
        "1 x category ids differ from the label map -> matched by name" in capsys.readouterr().out
    )
    train, val = (
        ground_truth.from_records(str(folder / f"out/{name}-*"), label_map)
        for name in ("train", "val")
    )
    assert train == val
    for path in (folder / "out").glob("val-*.tfrecord"):
        for text in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(text).features.feature
            assert list(feature[schema.CLASS_LABEL].int64_list.value) == [1] * 3 + [2] * 3 + [3] * 3
            assert feature[schema.CLASS_TEXT].bytes_list.value[0] == b"date"


def test_val_may_lack_classes_but_not_have_others(folder, capsys):
    _convert(folder, _write(folder, _content()), "out/train")
    content = _renumbered()
    del content["categories"][2]
    content["annotations"] = [row for row in content["annotations"] if row["category_id"] < 3]
    content["categories"].append({"id": 77, "name": "fruits", "supercategory": "none"})
    _convert(folder, _write(folder, content, "val.json"), "out/val")
    content["annotations"][0]["category_id"] = 77
    with pytest.raises(SystemExit, match=r"has no 'fruits' \(1 objects\); its names are 'date', "):
        _convert(folder, _write(folder, content, "other.json"), "out/other", skip=True)


def test_byte_order_mark_and_letters(folder):
    content = _content()
    content["categories"][0]["name"] = "Dattel ä"
    (folder / "images/pic1.jpg").rename(folder / "images/Bäume.jpg")
    content["images"][0]["file_name"] = "Bäume.jpg"
    path = folder / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content, ensure_ascii=False).encode())
    label_map = _convert(folder, str(path))
    assert label_map.names[0] == "Dattel ä"
    from_records, from_file = _truths(folder, str(path), label_map)
    assert from_records == from_file


def test_blanks_and_brackets_in_folders_and_another_file_system(folder):
    """TensorFlow's file system in memory stands for `gs://`; workers of their own could not share
    it, so the conversion runs in this process."""
    path = _write(folder, _content())
    for prefix in ("my [new] data/a b", "x[1]/val*?"):
        label_map = _convert(folder, path, prefix)
        _convert(folder, path, prefix)  # goes on where it was
        assert len(list((folder / prefix).parent.glob("*.tfrecord"))) == 2
    for k in (1, 2, 3):
        tf.io.gfile.copy(
            str(folder / f"images/pic{k}.jpg"), f"ram://set/images/pic{k}.jpg", overwrite=True
        )
    tf.io.gfile.copy(path, "ram://set/ann.json", overwrite=True)
    job = conversion.Job(
        "ram://set/images", "ram://set/ann.json", "ram://set/x", 2, "rle", 1, False
    )
    first = conversion.convert(job)
    assert conversion.convert(job) == first
    assert first.counts["annotations"] == 27
    ours = ground_truth.from_records("ram://set/x-*", label_map)
    assert ours == ground_truth.from_records(str(folder / "my [new] data/a b-*"), label_map)
    with pytest.raises(SystemExit, match="ram://set/nowhere: not found"):
        create_coco_tfrecord.run(job._replace(image_dir="ram://set/nowhere"))


def test_what_was_odd_reaches_the_person(folder):
    """Noted, repaired, left out and warned of, through the command."""
    content = _content()
    _without("iscrowd")(content)
    _all(segmentation=[])(content)
    _first(area=None)(content)
    path = _write(folder, content)
    script = pathlib.Path(create_coco_tfrecord.__file__)
    command = [sys.executable, str(script), f"--image_dir={folder / 'images'}"]
    command += [f"--object_annotations_file={path}", f"--output_file_prefix={folder / 'out/x'}"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    report = (folder / "out/x.report.txt").read_text("utf-8")
    for line in (
        "noted            27 x annotations without iscrowd, taken as 0",
        "repaired          1 x no area -> computed from the box",
        "left out         27 x empty segmentation -> object kept without a mask",
    ):
        assert line in finished.stdout
        assert line in report
    assert "warning: none of 27 objects has a mask" in finished.stderr
    assert "--experiment=fasterrcnn_r50_fpn" in finished.stdout
    assert "maskrcnn" not in finished.stdout
    assert "repaired: no area: annotation 1 of image 1 (pic1.jpg): area None; it is 768" in report


_HANDED = ["stray_polygon_part", "null_values", "no_bbox", "boxes_only", "all_crowd"]
_HANDED += ["roboflow_same_name", "float_image_ids", "json_bom"]


@pytest.mark.parametrize("case", _HANDED)
def test_handed_inputs_convert_and_are_read_the_same(shared, folder, case):
    source = shared / "data/faults" / case
    (folder / "images").rename(folder / "own")
    (folder / "images").symlink_to(source / "images")
    path = str(source / "ann.json")
    label_map = _convert(folder, path)
    from_records, from_file = _truths(folder, path, label_map)
    assert from_records == from_file
    assert len(from_file) == 27
