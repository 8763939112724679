"""Every way in which an annotation file can be wrong, and that the rest is kept."""

import json
import re

import numpy as np
import pytest

from mrcnn_tf.data import coco_check, coco_json
from mrcnn_tf.data.findings import Level

_SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def _annotation(identifier=1, image_id=1, **changes):
    row = {
        "id": identifier,
        "image_id": image_id,
        "category_id": 3,
        "bbox": [10, 10, 20, 20],
        "area": 400.0,
        "iscrowd": 0,
        "segmentation": [_SQUARE],
    }
    row.update(changes)
    return {key: value for key, value in row.items() if value != "absent"}


def _content(**changes):
    content = {
        "info": None,
        "images": [
            {"id": 1, "file_name": "a.jpg", "height": 40, "width": 50},
            {"id": 2, "file_name": "b.jpg", "height": 30, "width": 60},
        ],
        "annotations": [_annotation()],
        "categories": [{"id": 3, "name": "dog"}, {"id": 90, "name": "Hündchen"}],
    }
    content.update(changes)
    return content


def _read(tmp_path, content, include_masks=True):
    path = tmp_path / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return coco_json.read(str(path), include_masks)


def test_a_good_file_comes_out_typed_and_complete(tmp_path):
    coco = _read(tmp_path, _content())
    assert coco.findings == []
    assert coco.notes == {"categories without objects, kept as classes": 1}
    assert [image.source_id for image in coco.images] == ["1", "2"]
    assert coco.label_map.ids == (3, 90)
    assert coco.label_map.names == ("dog", "Hündchen")
    (entry,) = coco.objects["1"]
    assert "2" not in coco.objects
    assert entry.annotation_id == 1
    assert entry.category_id == 3
    assert entry.bbox == (10.0, 10.0, 20.0, 20.0)
    assert entry.area == 400.0
    assert not entry.is_crowd
    np.testing.assert_array_equal(entry.mask.polygons[0], _SQUARE)
    assert entry.mask.column_runs is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "file of detections"),
        ("3", "found a int"),
        (json.dumps({"images": [], "annotations": []}), "'categories', found nothing"),
        (json.dumps({"images": {}, "annotations": [], "categories": []}), "'images', found a dict"),
        (json.dumps({"images": [1], "annotations": [], "categories": []}), "'images'"),
    ],
)
def test_a_file_that_is_not_coco_is_refused_by_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        _read(tmp_path, content)
    assert "instances.json" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'{"images": [],\n "annotations": [}', r"line 2, column 18, near .*annotations"),
        ('{"images": "ä"}'.encode("latin-1"), "not in UTF-8: byte 12 is 0xe4"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_syntax_errors_name_file_and_place(tmp_path, content, message):
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        coco_json.read(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_of_json(tmp_path, encoding):
    path = tmp_path / "instances.json"
    path.write_bytes(json.dumps(_content(), ensure_ascii=False).encode(encoding))
    assert coco_json.read(str(path)).label_map.names == ("dog", "Hündchen")


@pytest.mark.parametrize(
    ("changes", "kind", "value"),
    [
        ({"category_id": 4}, "unknown category", "4"),
        ({"category_id": "absent"}, "unknown category", "None"),
        ({"category_id": True}, "unknown category", "True"),
        ({"category_id": [3]}, "unknown category", "[3]"),
        ({"bbox": [10, 10, 0, 25]}, "box without area", "[10, 10, 0, 25]"),
        ({"bbox": [10, 10, 5, -1]}, "box without area", "-1"),
        ({"bbox": [50, 10, 5, 5]}, "box outside the image", "50 x 40"),
        ({"bbox": [10, -6, 5, 5], "segmentation": []}, "box outside the image", "-6"),
        ({"bbox": [49.99999999, 10, 5, 5]}, "box outside the image", "49.99999999"),
        ({"bbox": [1, 2, 3]}, "malformed box", "[1, 2, 3]"),
        ({"bbox": []}, "malformed box", "[]"),
        ({"bbox": {"x": 1}}, "malformed box", "{'x': 1}"),
        ({"bbox": [1, 2, 3, float("nan")]}, "malformed box", "nan"),
        ({"bbox": [1, 2, 3, "4"]}, "malformed box", "'4'"),
        ({"bbox": [1, 2, 3, None]}, "malformed box", "None"),
        ({"bbox": [1, 2, "1" * 5000, 4]}, "malformed box", "inf"),
        ({"bbox": [1, 2, -(10**400), 4]}, "malformed box", "-1000000... (402 digits)"),
        ({"bbox": "absent", "segmentation": []}, "no bbox", "no mask"),
        ({"bbox": None, "segmentation": [[-9, -9, -5, -9, -5, -5]]}, "no bbox", "no pixel"),
        ({"bbox": [10, 10, 30, 30]}, "box contradicts its mask", "corners [x1, y1, x2, y2]"),
        ({"bbox": [20, 20, 20, 20]}, "box contradicts its mask", "centres"),
        ({"bbox": [20, 25, 40, 50]}, "box contradicts its mask", "percentages"),
        ({"bbox": [30, 30, 9, 9]}, "box contradicts its mask", "[10.0, 10.0, 30.0, 30.0]"),
        ({"bbox": [0.2, 0.25, 0.4, 0.5]}, "box within one pixel", "fractions"),
        (
            {"segmentation": [[0.2, 0.25, 0.6, 0.25, 0.6, 0.75, 0.2, 0.75]]},
            "box contra",
            "masks in",
        ),
    ],
)
def test_a_bad_annotation_is_named_and_left_out(tmp_path, changes, kind, value):
    rows = [_annotation(8, **changes), _annotation(9)]
    content = json.dumps(_content(annotations=rows))
    content = re.sub('"(1{5000})"', r"\1", content)  # a number that Python itself does not write
    coco = _read(tmp_path, content)
    (finding,) = coco.findings
    assert finding.level == Level.LEFT_OUT
    assert finding.kind.startswith(kind)
    assert (finding.remedy, finding.objects) == ("object left out", 1)
    assert finding.where == "annotation 8 of image 1 (a.jpg)"
    assert value in finding.value
    assert [entry.annotation_id for entry in coco.objects["1"]] == [9]


@pytest.mark.parametrize(
    ("segmentation", "kind", "value"),
    [
        ("absent", "no segmentation", "there is none"),
        (None, "no segmentation", "there is none"),
        ([], "empty segmentation", "[]"),
        ("x", "malformed segmentation", "'x'"),
        ([_SQUARE, [1, 2, 3, 4, 5, 6, 7]], "malformed polygon", "7"),
        ([[1, 2, "3", 4, 5, 6]], "malformed polygon", "'3'"),
        ([[1, 2, float("nan"), 4, 5, 6]], "malformed polygon", "nan"),
        ([[5, 5, 20, 20]], "polygon of less than three points", "20"),
        ([[]], "polygon of less than three points", "[]"),
        ([None], "polygon of less than three points", "None"),
        ([[0, 0, 1e9, 0, 1, 1]], "polygon far outside the image", "1000000000"),
        ({"size": [50, 40], "counts": [2000]}, "run lengths of another size", "[40, 50]"),
        ({"size": [40, 50], "counts": [1999]}, "malformed run lengths", "1999"),
        ({"size": [40, 50], "counts": [2001, -1]}, "malformed run lengths", "-1"),
        ({"size": [40, 50], "counts": [2**62, 2**62, 2**62, 2**62, 2000]}, "malformed run", "461"),
        ({"size": [40, 50], "counts": [1e300]}, "malformed run lengths", "1e+300"),
        ({"size": [40, 50], "counts": [1.5]}, "malformed run lengths", "1.5"),
        ({"size": [40, 50], "counts": "PPP"}, "malformed run lengths", "PPP"),
        ({"size": [40, 50]}, "malformed run lengths", "None"),
        ({"size": None, "counts": [2000]}, "run lengths of another size", "None"),
    ],
)
def test_an_object_whose_mask_cannot_be_used_keeps_its_box(tmp_path, segmentation, kind, value):
    rows = [_annotation(8, segmentation=segmentation)]
    coco = _read(tmp_path, _content(annotations=rows))
    (finding,) = coco.findings
    assert finding.kind.startswith(kind)
    assert value in finding.value
    assert (finding.level, finding.objects) == (Level.LEFT_OUT, 0)
    (entry,) = coco.objects["1"]
    assert entry.mask is None
    assert entry.bbox == (10.0, 10.0, 20.0, 20.0)
    assert "none of 1 objects has a mask" in coco.warnings[0]
    assert "fasterrcnn_r50_fpn" in coco.warnings[0]


_TRIANGLE = [10, 10, 30, 10, 10, 30]


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ([_SQUARE, [100.0, 75.0]], "stray part of a polygon"),
        ([[10, 10, 12, 10], _SQUARE], "stray part of a polygon"),
        ([_SQUARE, []], "stray part of a polygon"),
        ([None, _SQUARE, [1, 2, 3, 4, 5]], "stray part of a polygon"),
        (_SQUARE, "unusual form of segmentation"),
        ([[10, 10], [30, 10], [30, 30], [10, 30]], "unusual form of segmentation"),
        ([[[10, 10], [30, 10], [30, 30], [10, 30]]], "unusual form of segmentation"),
    ],
)
def test_an_outline_among_other_things_is_used(tmp_path, segmentation, kind):
    coco = _read(tmp_path, _content(annotations=[_annotation(segmentation=segmentation)]))
    (finding,) = coco.findings
    assert (finding.level, finding.kind, finding.objects) == (Level.REPAIRED, kind, 0)
    (entry,) = coco.objects["1"]
    (polygon,) = entry.mask.polygons
    np.testing.assert_array_equal(polygon, _SQUARE)


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({"area": None}, "no area", 400.0),
        ({"area": "absent"}, "no area", 400.0),
        ({"area": -1}, "area that is no number", 400.0),
        ({"area": "12"}, "area that is no number", 400.0),
        ({"area": float("inf")}, "area that is no number", 400.0),
        ({"area": 10**400}, "area that is no number", 400.0),
        ({"area": None, "segmentation": None, "bbox": [10, 10, 5, 6]}, "no area", 30.0),
    ],
)
def test_an_area_is_derived_from_the_mask_or_else_the_box(tmp_path, changes, kind, expected):
    for include_masks in (True, False):
        coco = _read(tmp_path, _content(annotations=[_annotation(**changes)]), include_masks)
        assert coco.findings[-1].kind.startswith(kind)
        assert coco.findings[-1].level == Level.REPAIRED
        assert coco.objects["1"][0].area == expected


@pytest.mark.parametrize(
    ("value", "is_crowd"),
    [(None, False), ("0", False), ("1", True), (2, False), (-1, False), ([1], False)],
)
def test_an_odd_crowd_flag_is_repaired(tmp_path, value, is_crowd):
    rows = [_annotation(1, iscrowd=value), _annotation(2)]
    coco = _read(tmp_path, _content(annotations=rows))
    (finding,) = coco.findings
    assert finding.level == Level.REPAIRED
    assert finding.remedy == f"taken as {int(is_crowd)}"
    assert coco.objects["1"][0].is_crowd == is_crowd


@pytest.mark.parametrize("bbox", [None, "absent"])
def test_an_absent_box_is_that_of_the_mask(tmp_path, bbox):
    for include_masks in (True, False):
        coco = _read(tmp_path, _content(annotations=[_annotation(bbox=bbox)]), include_masks)
        (finding,) = coco.findings
        assert (finding.level, finding.kind) == (Level.REPAIRED, "no bbox")
        assert coco.objects["1"][0].bbox == (10.0, 10.0, 20.0, 20.0)


def test_a_box_around_hidden_parts_too_is_no_contradiction(tmp_path):
    coco = _read(tmp_path, _content(annotations=[_annotation(bbox=[5, 5, 44, 34])]))
    assert coco.findings == []


_BOXES = [(30, 5, 10, 6), (22, 20, 12, 15), (35, 28, 14, 8), (4, 25, 12, 11), (26, 10, 9, 20)]
_WRITTEN_AS = {
    "corners [x1, y1, x2, y2]": lambda x, y, w, h: [x, y, x + w, y + h],
    "centres": lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
    "y before x [y, x, height, width]": lambda x, y, w, h: [y, x, h, w],
    "corners, y before x": lambda x, y, w, h: [y, x, y + h, x + w],
    "percentages": lambda x, y, w, h: [2 * x, 2.5 * y, 2 * w, 2.5 * h],
    "fractions of the image's width and height": lambda x, y, w, h: [
        x / 50, y / 40, w / 50, h / 40
    ],
}  # fmt: skip


@pytest.mark.parametrize("reading", _WRITTEN_AS)
def test_boxes_that_are_not_cocos_are_refused_and_their_reading_is_named(tmp_path, reading):
    rows = []
    for k, (x, y, w, h) in enumerate(_BOXES):
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        bbox = _WRITTEN_AS[reading](x, y, w, h)
        rows.append(_annotation(k, bbox=bbox, segmentation=[polygon]))
    for include_masks in (True, False):  # the evidence is in the file either way
        coco = _read(tmp_path, _content(annotations=rows), include_masks)
        refused = [finding for finding in coco.findings if finding.level == Level.REFUSED]
        assert refused[0].kind == "boxes are not COCO's"
        assert f"seem to be {reading}" in refused[0].value
        assert " of 5 objects" in refused[0].value


def test_corners_are_found_without_masks_too(tmp_path):
    rows = [
        _annotation(k, bbox=_WRITTEN_AS["corners [x1, y1, x2, y2]"](*box), segmentation=[])
        for k, box in enumerate(_BOXES)
    ]
    coco = _read(tmp_path, _content(annotations=rows), include_masks=False)
    (finding,) = coco.findings
    assert finding.level == Level.REFUSED
    assert "5 boxes reach out of their image" in finding.value
    rows = [_annotation(k, bbox=list(box), segmentation=[]) for k, box in enumerate(_BOXES)]
    assert _read(tmp_path, _content(annotations=rows), include_masks=False).findings == []


def test_annotations_of_an_image_that_is_not_listed_make_one_line(tmp_path):
    rows = [_annotation(k, image_id=77) for k in range(15)] + [_annotation(20)]
    coco = _read(tmp_path, _content(annotations=rows))
    (finding,) = coco.findings
    assert (finding.kind, finding.objects) == ("unknown image", 15)
    assert "15 annotations" in finding.where
    assert "77" in finding.value


def test_without_masks_the_segmentation_does_not_matter(tmp_path):
    rows = [_annotation(1, segmentation="absent"), _annotation(2, segmentation=[[1]])]
    coco = _read(tmp_path, _content(annotations=rows), include_masks=False)
    assert coco.findings == coco.warnings == []
    assert [entry.mask for entry in coco.objects["1"]] == [None, None]


def test_what_may_be_missing_or_odd_is_taken(tmp_path):
    rows = [
        _annotation(0, iscrowd="absent"),
        _annotation(2**62, image_id="1", category_id="90"),
        _annotation("12", bbox=[-5, 30.5, 100, 20], segmentation=[[-5, 31, 90, 31, 90, 40]]),
        _annotation(
            13,
            bbox=[0, 0, 1, 40],
            segmentation={"size": [40, 50], "counts": [0, 40, 1960]},
            iscrowd=1,
        ),
        _annotation(14.0, image_id=1.0, category_id=3.0, iscrowd=0.0),
    ]
    coco = _read(tmp_path, _content(annotations=rows))
    assert coco.findings == []
    assert coco.notes == {"annotations without iscrowd, taken as 0": 1}
    first, second, third, fourth, fifth = coco.objects["1"]
    assert (first.annotation_id, first.is_crowd) == (0, False)
    assert (second.annotation_id, second.category_id) == (2**62, 90)
    assert (third.annotation_id, third.bbox) == (12, (-5.0, 30.5, 100.0, 20.0))
    assert fourth.is_crowd
    assert fourth.mask.column_runs.tolist() == [0, 40, 1960]
    assert (fifth.annotation_id, fifth.category_id) == (14, 3)


def test_bad_annotation_ids_are_replaced(tmp_path):
    rows = [_annotation(5), _annotation(5), _annotation("absent"), _annotation("x")]
    coco = _read(tmp_path, _content(annotations=rows))
    assert [entry.annotation_id for entry in coco.objects["1"]] == [5, 6, 7, 8]
    assert coco.findings == []
    assert coco.notes["annotations with another's id, numbered anew"] == 1
    assert coco.notes["annotations without a whole number as id, numbered anew"] == 2


@pytest.mark.parametrize(
    ("image", "kind", "value"),
    [
        ({"id": 7, "file_name": "c", "height": 0, "width": 1}, "malformed image size", "height 0"),
        ({"id": 7, "file_name": "c", "width": 1}, "malformed image size", "height None"),
        ({"id": 7, "file_name": "c", "height": "x", "width": 1}, "malformed image size", "'x'"),
        ({"id": 7, "file_name": "c", "height": 1e9, "width": 1}, "malformed image size", "1000000"),
        ({"file_name": "c.jpg", "height": 1, "width": 1}, "malformed image id", "number"),
        ({"id": 1.5, "file_name": "c.jpg", "height": 1, "width": 1}, "malformed image id", "num"),
        ({"id": "x" * 129, "file_name": "c", "height": 1, "width": 1}, "malformed image id", "128"),
        ({"id": "", "file_name": "c.jpg", "height": 1, "width": 1}, "malformed image id", "bytes"),
    ],
)
def test_a_bad_image_is_one_finding_with_all_its_annotations(tmp_path, image, kind, value):
    content = _content()
    content["images"].append(image)
    content["annotations"] += [_annotation(k, image_id=image.get("id")) for k in range(10, 25)]
    coco = _read(tmp_path, content)
    (finding,) = coco.findings
    assert finding.kind == kind
    assert value in finding.value
    assert (finding.remedy, finding.images, finding.objects) == ("image left out", 1, 0)
    assert len(coco.images) == 2


@pytest.mark.parametrize("identifier", [1, "1", 1.0])
def test_one_image_per_id(tmp_path, identifier):
    content = _content()
    content["images"].append({"id": identifier, "file_name": "c.jpg", "height": 9, "width": 9})
    (finding,) = _read(tmp_path, content).findings
    assert finding.level == Level.REFUSED
    assert finding.kind == "image ids occur more than once"
    assert "images[2]" in finding.where


def test_a_size_that_the_file_does_not_give_is_asked_for(tmp_path):
    content = _content()
    content["images"][0] |= {"height": None, "width": 0}
    coco = coco_check.check(content, True, "x.json", {"a.jpg": (40, 50)}.get)
    assert (coco.images[0].height, coco.images[0].width) == (40, 50)
    (finding,) = coco.findings
    assert (finding.level, finding.kind) == (Level.REPAIRED, "no image size")


def test_odd_annotations_of_an_image_of_another_size_have_one_cause(tmp_path):
    """Width and height swapped: what lies outside is no fault of the boxes."""
    rows = [_annotation(1), _annotation(2, bbox=[10, 41, 5, 5], segmentation=[]), _annotation(3)]
    content = _content(annotations=rows)
    coco = coco_check.check(content, True, "x.json", {"a.jpg": (50, 40)}.get)
    (finding,) = coco.findings
    assert finding.kind == "size differs from the file's (width x height)"
    assert (finding.where, finding.images, finding.objects) == ("image 1 (a.jpg)", 1, 0)
    assert coco.objects == {}


def _categories(tmp_path, categories, used=(3,)):
    rows = [_annotation(k, category_id=i) for k, i in enumerate(used)]
    coco = _read(tmp_path, _content(categories=categories, annotations=rows))
    pairs = dict(zip(coco.label_map.ids, coco.label_map.names, strict=True))
    return pairs, [(finding.level, finding.kind) for finding in coco.findings], coco.notes


@pytest.mark.parametrize("root", [0, 4])
def test_a_category_without_objects_that_shares_a_name_is_no_class(tmp_path, root):
    rows = [
        {"id": root, "name": "dog", "supercategory": "none"},
        {"id": 3, "name": "dog", "supercategory": "dog"},
    ]
    names, found, _ = _categories(tmp_path, rows)
    assert names == {3: "dog"}
    assert found == [(Level.NOTED, "category that is no class")]


def test_categories_that_are_refused(tmp_path):
    twice = [{"id": 3, "name": "dog"}, {"id": 4, "name": "dog"}]
    assert _categories(tmp_path, twice, (3, 4))[1] == [(Level.REFUSED, "categories share a name")]
    same_id = [{"id": 3, "name": "dog"}, {"id": 3, "name": "cat"}]
    assert _categories(tmp_path, same_id)[1] == [(Level.REFUSED, "duplicate category id")]
    nameless = [{"id": 3, "name": None}]
    assert _categories(tmp_path, nameless)[1][0] == (Level.REFUSED, "malformed category")
    assert _categories(tmp_path, [], ())[1] == [(Level.REFUSED, "no categories")]


def test_categories_that_are_taken(tmp_path):
    rows = [{"id": 3.0, "name": "dog"}, {"id": "3", "name": "dog"}, {"id": 0, "name": "cat"}, {}]
    names, found, notes = _categories(tmp_path, rows)
    assert names == {0: "cat", 3: "dog"}
    assert found == [(Level.LEFT_OUT, "malformed category")]
    assert notes == {
        "categories listed twice": 1,
        "categories without objects, kept as classes": 1,
    }


@pytest.mark.parametrize(
    ("num_crowds", "text"),
    [(4, "there is nothing to learn from"), (3, "3 of 4 objects are crowds")],
)
def test_a_file_of_crowds_is_warned_of(tmp_path, num_crowds, text):
    rows = [_annotation(k, iscrowd=int(k < num_crowds)) for k in range(4)]
    (warning,) = _read(tmp_path, _content(annotations=rows)).warnings
    assert text in warning
    assert "iscrowd" in warning


def test_a_file_without_objects_is_warned_of(tmp_path):
    (warning,) = _read(tmp_path, _content(annotations=[])).warnings
    assert "nothing to learn from" in warning


def test_parsed_content_is_left_as_it_is():
    content = _content()
    before = json.dumps(content)
    coco_check.check(content, True, "x.json")
    assert json.dumps(content) == before


def test_label_map_of_a_file_with_a_root_category(tmp_path):
    content = _content(categories=[{"id": 0, "name": "dog"}, {"id": 3, "name": "dog"}])
    path = tmp_path / "instances.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert coco_json.read_label_map(str(path)).ids == (3,)
    path.write_text(json.dumps(_content(categories=[])))
    with pytest.raises(ValueError, match=r"instances.json: no categories"):
        coco_json.read_label_map(str(path))


def test_half_characters_are_named_and_reach_no_file(tmp_path):
    """JSON can hold one half of a surrogate pair, UTF-8 cannot."""
    content = _content()
    content["images"].append({"id": "\ud800", "file_name": "c.jpg", "height": 9, "width": 9})
    content["images"][1]["file_name"] = "\udfff.jpg"
    content["categories"][1]["name"] = "\ud800"
    coco = _read(tmp_path, content)
    assert [(finding.kind, finding.level) for finding in coco.findings] == [
        ("malformed category", Level.LEFT_OUT),
        ("malformed image id", Level.LEFT_OUT),
    ]
    assert "id 90, name '\\ud800'" in str(coco.findings[0])
    assert "image '\\ud800' ('c.jpg', images[2])" in str(coco.findings[1])
    assert [image.file_name for image in coco.images] == ["a.jpg", ""]


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("row", [None, [1], "x"])
def test_the_element_that_is_no_object_is_named(tmp_path, key, row):
    content = _content()
    content[key].append(row)
    place = f"{row!r} as {key}[{len(content[key]) - 1}]"
    with pytest.raises(ValueError, match=re.escape(f"under '{key}', found {place}")):
        _read(tmp_path, content)
