"""Every way in which an annotation file can be wrong, and that the rest is kept."""

import json

import numpy as np
import pytest

from data_prep import coco_input

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
    return coco_input.read(path, include_masks)


def test_a_good_file_comes_out_typed_and_complete(tmp_path):
    coco = _read(tmp_path, _content())
    assert coco.problems == []
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
    np.testing.assert_array_equal(entry.polygons[0], _SQUARE)
    assert entry.column_runs is None


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
    ("changes", "kind", "value"),
    [
        ({"image_id": 77}, "unknown image", "77"),
        ({"category_id": 4}, "unknown category", "4"),
        ({"category_id": "absent"}, "unknown category", "None"),
        ({"category_id": True}, "unknown category", "True"),
        ({"bbox": [10, 10, 0, 25]}, "box without area", "[10, 10, 0, 25]"),
        ({"bbox": [10, 10, 5, -1]}, "box without area", "-1"),
        ({"bbox": [50, 10, 5, 5]}, "box outside the image", "50 x 40"),
        ({"bbox": [10, -6, 5, 5]}, "box outside the image", "-6"),
        ({"bbox": "absent"}, "malformed box", "None"),
        ({"bbox": [1, 2, 3]}, "malformed box", "[1, 2, 3]"),
        ({"bbox": [1, 2, 3, float("nan")]}, "malformed box", "nan"),
        ({"bbox": [1, 2, 3, "4"]}, "malformed box", "'4'"),
        ({"iscrowd": 2}, "malformed iscrowd", "2"),
        ({"area": -1}, "malformed area", "-1"),
        ({"area": float("inf")}, "malformed area", "inf"),
        ({"segmentation": "absent"}, "no segmentation", "--noinclude_masks"),
        ({"segmentation": []}, "empty segmentation", "[]"),
        ({"segmentation": "x"}, "malformed segmentation", "'x'"),
        ({"segmentation": _SQUARE}, "malformed polygon", "10"),
        ({"segmentation": [_SQUARE, [1, 2, 3, 4, 5, 6, 7]]}, "malformed polygon", "7"),
        ({"segmentation": [[1, 2, "3", 4, 5, 6]]}, "malformed polygon", "'3'"),
        ({"segmentation": [[1, 2, float("nan"), 4, 5, 6]]}, "malformed polygon", "nan"),
        ({"segmentation": [[[1, 2], [3, 4], [5, 6]]]}, "malformed polygon", "[[1, 2]"),
        ({"segmentation": [[5, 5, 20, 20]]}, "polygon of less than three points", "20"),
        ({"segmentation": [[]]}, "polygon of less than three points", "[]"),
        ({"segmentation": [[0, 0, 1e9, 0, 1, 1]]}, "polygon far outside the image", "1000000000"),
        (
            {"segmentation": {"size": [50, 40], "counts": [2000]}},
            "run lengths of another size",
            "[40, 50]",
        ),
        ({"segmentation": {"size": [40, 50], "counts": [1999]}}, "malformed run lengths", "1999"),
        ({"segmentation": {"size": [40, 50], "counts": [2001, -1]}}, "malformed run lengths", ""),
        ({"segmentation": {"size": [40, 50], "counts": [1.5]}}, "malformed run lengths", "1.5"),
        ({"segmentation": {"size": [40, 50], "counts": "PPP"}}, "malformed run lengths", "PPP"),
        ({"segmentation": {"size": [40, 50]}}, "malformed run lengths", "None"),
    ],
)
def test_a_bad_annotation_is_named_and_left_out(tmp_path, changes, kind, value):
    rows = [_annotation(8, **changes), _annotation(9)]
    coco = _read(tmp_path, _content(annotations=rows))
    (problem,) = coco.problems
    assert problem.kind == kind
    assert problem.remedy == "annotation left out"
    assert "annotation 8" in problem.where
    if kind != "unknown image":
        assert "image 1 (a.jpg)" in problem.where
    assert value in problem.value
    assert [entry.annotation_id for entry in coco.objects["1"]] == [9]


def test_without_masks_the_segmentation_does_not_matter(tmp_path):
    rows = [_annotation(1, segmentation="absent"), _annotation(2, segmentation=[[1]])]
    coco = _read(tmp_path, _content(annotations=rows), include_masks=False)
    assert coco.problems == []
    assert len(coco.objects["1"]) == 2


def test_what_may_be_missing_or_odd_is_taken(tmp_path):
    rows = [
        _annotation(0, iscrowd="absent", area="absent"),
        _annotation(2**62, image_id="1", category_id="90"),
        _annotation("12", bbox=[-5, 30.5, 100, 20]),
        _annotation(13, segmentation={"size": [40, 50], "counts": [0, 40, 1960]}, iscrowd=1),
    ]
    coco = _read(tmp_path, _content(annotations=rows))
    assert coco.problems == []
    first, second, third, fourth = coco.objects["1"]
    assert (first.annotation_id, first.area, first.is_crowd) == (0, None, False)
    assert (second.annotation_id, second.category_id) == (2**62, 90)
    assert (third.annotation_id, third.bbox) == (12, (-5.0, 30.5, 100.0, 20.0))
    assert fourth.is_crowd
    assert fourth.column_runs.tolist() == [0, 40, 1960]


def test_bad_annotation_ids_are_replaced(tmp_path):
    rows = [_annotation(5), _annotation(5), _annotation("absent"), _annotation("x")]
    coco = _read(tmp_path, _content(annotations=rows))
    assert [entry.annotation_id for entry in coco.objects["1"]] == [5, 6, 7, 8]
    assert [problem.kind for problem in coco.problems] == [
        "duplicate annotation id",
        "malformed annotation id",
        "malformed annotation id",
    ]


@pytest.mark.parametrize(
    ("image", "kind", "value"),
    [
        ({"id": 1, "file_name": "c.jpg", "height": 1, "width": 1}, "duplicate image id", "'a.jpg'"),
        ({"id": "1", "file_name": "c.jpg", "height": 1, "width": 1}, "duplicate image id", "1"),
        ({"id": 7, "height": 1, "width": 1}, "malformed image", "file_name"),
        ({"id": 7, "file_name": "c.jpg", "height": 0, "width": 1}, "malformed image", "height 0"),
        ({"id": 7, "file_name": "c.jpg", "width": 1}, "malformed image", "height None"),
        ({"file_name": "c.jpg", "height": 1, "width": 1}, "malformed image id", "number"),
        (
            {"id": "x" * 129, "file_name": "c.jpg", "height": 1, "width": 1},
            "malformed image id",
            "128 bytes",
        ),
        ({"id": "", "file_name": "c.jpg", "height": 1, "width": 1}, "malformed image id", "bytes"),
    ],
)
def test_a_bad_image_is_named_and_left_out(tmp_path, image, kind, value):
    content = _content()
    content["images"].append(image)
    coco = _read(tmp_path, content)
    (problem,) = coco.problems
    assert problem.kind == kind
    assert value in problem.value
    assert problem.remedy == "image left out"
    assert len(coco.images) == 2


def test_bad_categories(tmp_path):
    categories = [
        {"id": 3, "name": "dog"},
        {"id": 3, "name": "cat"},
        {"id": 4, "name": "dog"},
        {"id": "x", "name": "bird"},
        {"id": 6},
    ]
    coco = _read(tmp_path, _content(categories=categories))
    assert coco.label_map.ids == (3, 4)
    assert coco.label_map.names == ("dog", "dog (4)")
    assert [problem.kind for problem in coco.problems] == [
        "duplicate category id",
        "duplicate category name",
        "malformed category",
        "malformed category",
    ]


def test_absent_files_are_named(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"123")
    coco, sizes = coco_input.find_files(_read(tmp_path, _content()), tmp_path)
    assert [image.file_name for image in coco.images] == ["b.jpg"]
    assert sizes == {"b.jpg": 3}
    (problem,) = coco.problems
    assert str(problem) == f"missing file: image 1 (a.jpg): no file {tmp_path / 'a.jpg'}"
