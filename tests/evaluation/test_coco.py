"""The evaluator on hand-worked cases, awkward ids, hostile input and recorded numbers."""

import contextlib
import io
import json
import logging

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.data.schema import SOURCE_ID_BYTES
from mrcnn_tf.evaluation import coco, ground_truth
from mrcnn_tf.evaluation.coco import CocoEvaluator

SUMMARY = "ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large"
# Sparse ids, as COCO has them: classes 1, 2, 3 are categories 3, 17, 90.
LABEL_MAP = LabelMap((3, 17, 90), ("cat", "dog", "bird"))


def truth_of(boxes, image_ids=None, categories=None, ids=None, size=(100, 200), include_masks=True):
    """Ground truth with one rectangle (x, y, w, h) per object and its polygon."""
    count = len(boxes)
    image_ids = [7] * count if image_ids is None else image_ids
    categories = [17] * count if categories is None else categories
    ids = range(count) if ids is None else ids
    annotations = [
        {
            "id": i,
            "image_id": image_id,
            "category_id": c,
            "iscrowd": 0,
            "area": w * h,
            "bbox": [x, y, w, h],
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }
        for i, image_id, c, (x, y, w, h) in zip(ids, image_ids, categories, boxes, strict=True)
    ]
    names = zip(LABEL_MAP.ids, LABEL_MAP.names, strict=True)
    dataset = {
        "images": [
            {"id": i, "height": size[0], "width": size[1]} for i in dict.fromkeys(image_ids)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in names],
    }
    return ground_truth.from_coco_dict(dataset, include_masks)


def result(box, score, image_id=7, category=17):
    return {"image_id": image_id, "category_id": category, "bbox": list(box), "score": score}


def source_ids(*texts):
    rows = np.zeros([len(texts), SOURCE_ID_BYTES], np.uint8)
    for row, text in zip(rows, texts, strict=True):
        encoded = text.encode("utf-8")
        row[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    return rows


def batch(image_ids=("7",), boxes=(((10, 20, 40, 60),),), size=(100, 200), scale=1.0, **changes):
    """Arguments of `add`: one detection of class 2 per box (yxyx), full masks."""
    boxes = np.asarray(boxes, np.float32) * scale
    shape = boxes.shape[:2]
    arguments = {
        "source_id": source_ids(*image_ids),
        "image_size_hw": np.tile(np.float32(size) * scale, (shape[0], 1)),
        "original_size_hw": np.tile(np.float32(size), (shape[0], 1)),
        "boxes": boxes,
        "classes": np.full(shape, 2, np.int32),
        "scores": np.linspace(0.9, 0.5, shape[1], dtype=np.float32) * np.ones(shape, np.float32),
        "valid": np.ones(shape, bool),
        "masks": np.ones([*shape, 28, 28], np.float32),
    }
    return {**arguments, **changes}


def summary(numbers, kind="box"):
    return [numbers[f"{kind}_{name}"] for name in SUMMARY.split()]


def test_hand_worked_precision_recall():
    # Two objects; hit, miss, hit in order of score. Precision is 1 up to recall 0.5 (51 of 101
    # points) and 2/3 beyond, at every IoU threshold.
    evaluator = CocoEvaluator(truth_of([(0, 0, 40, 40), (50, 0, 40, 40)]), None, False)
    evaluator.add_coco_results(
        [
            result((0, 0, 40, 40), 0.9),
            result((150, 50, 40, 40), 0.8),
            result((50, 0, 40, 40), 0.7),
        ]
    )
    numbers = evaluator.evaluate()
    expected = (51 + 50 * 2 / 3) / 101
    assert numbers["box_ap"] == pytest.approx(expected, abs=1e-12)
    assert numbers["box_ap_medium"] == pytest.approx(expected, abs=1e-12)
    assert numbers["box_ap_small"] == numbers["box_ap_large"] == -1.0
    assert (numbers["box_ar1"], numbers["box_ar10"], numbers["box_ar100"]) == (0.5, 1.0, 1.0)
    assert numbers["box_ap/dog"] == pytest.approx(expected, abs=1e-12)
    assert numbers["box_ap/cat"] == -1.0
    assert not any(name.startswith("mask") for name in numbers)


def test_overlap_counts_at_the_thresholds_it_reaches():
    evaluator = CocoEvaluator(truth_of([(10, 10, 100, 50)]), None, False)
    evaluator.add_coco_results([result((10, 10, 82, 50), 0.5)])  # IoU 0.82: 7 of 10 thresholds
    numbers = evaluator.evaluate()
    assert numbers["box_ap"] == pytest.approx(0.7, abs=1e-12)
    assert (numbers["box_ap50"], numbers["box_ap75"]) == pytest.approx((1.0, 1.0), abs=1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.37, 6.5])
def test_batches_are_mapped_back_to_the_stored_image(scale):
    truth = truth_of([(20, 10, 40, 30)])
    evaluator = CocoEvaluator(truth, LABEL_MAP)
    evaluator.add(**batch(scale=scale))
    numbers = evaluator.evaluate()
    assert numbers["box_ap"] == pytest.approx(1.0)
    assert numbers["mask_ap"] == pytest.approx(1.0)
    (found,) = evaluator.results()
    assert found["category_id"] == 17
    assert found["image_id"] == 7
    np.testing.assert_allclose(found["bbox"], [20, 10, 40, 30], atol=1e-4)
    assert found["score"] == pytest.approx(0.9)
    # Full probabilities fill the box: 40 x 30 pixels.
    assert coco_mask.area(found["segmentation"]) == 1200


def test_fillers_and_invalid_rows_are_skipped():
    evaluator = CocoEvaluator(truth_of([(20, 10, 40, 30)]), LABEL_MAP)
    boxes = [[(10, 20, 40, 60), (0, 0, 90, 90)], [(0, 0, 50, 50), (0, 0, 50, 50)]]
    arguments = batch(("7", ""), boxes)
    arguments["valid"][0, 1] = False
    arguments["boxes"][0, 1] = np.nan  # whatever lies in a padded row
    evaluator.add(**arguments)
    assert len(evaluator.results()) == 1
    assert evaluator.evaluate()["box_ap"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 1), ("katze ü", "b/c.jpg"), (2**62 + 1, 2**62 + 3), (0, "zero")]
)
def test_awkward_ids(first, second):
    truth = truth_of([(20, 10, 40, 30)] * 2, [first, second], ids=[0, 2**63 - 1])
    evaluator = CocoEvaluator(truth, LABEL_MAP)
    same = [[(10, 20, 40, 60)]] * 2
    evaluator.add(**batch((str(second), str(first)), same))
    numbers = evaluator.evaluate()
    assert numbers["box_ap"] == numbers["mask_ap"] == pytest.approx(1.0)
    assert [r["image_id"] for r in evaluator.results()] == [second, first]
    again = CocoEvaluator(truth, None)
    again.add_coco_results(json.loads(json.dumps(evaluator.results())))
    assert again.evaluate() == numbers


def test_repeated_annotation_ids_are_two_objects():
    truth = truth_of([(0, 0, 40, 40), (50, 0, 40, 40)], ids=[5, 5])
    evaluator = CocoEvaluator(truth, None, False)
    evaluator.add_coco_results([result((0, 0, 40, 40), 0.9)])
    assert evaluator.evaluate()["box_ar100"] == 0.5


def test_annotation_id_zero_is_missed_only_when_pycocotools_is_reproduced():
    truth = truth_of([(0, 0, 40, 40), (50, 0, 40, 40)], ids=[0, 1])
    found = [result((0, 0, 40, 40), 0.9), result((50, 0, 40, 40), 0.8)]
    recall = {}
    for as_pycocotools in (False, True):
        evaluator = CocoEvaluator(truth, None, False, as_pycocotools=as_pycocotools)
        evaluator.add_coco_results(found)
        recall[as_pycocotools] = evaluator.evaluate()["box_ar100"]
    assert recall == {False: 1.0, True: 0.5}


def test_mask_scores_sort_detections_by_mask_area():
    # A wrong detection whose box is large (100 x 100) but whose mask is small (10 x 10), beside
    # a found large object: it counts against the large ones only by its box's area.
    truth = truth_of([(0, 0, 100, 100)], ids=[1], size=(300, 300))
    found = [
        result((0, 0, 100, 100), 0.5) | {"segmentation": [[0, 0, 100, 0, 100, 100, 0, 100]]},
        result((150, 150, 100, 100), 0.9)
        | {"segmentation": [[150, 150, 160, 150, 160, 160, 150, 160]]},
    ]
    large = {}
    for as_pycocotools in (False, True):
        evaluator = CocoEvaluator(truth, None, as_pycocotools=as_pycocotools)
        evaluator.add_coco_results(found)
        large[as_pycocotools] = evaluator.evaluate()["mask_ap_large"]
    assert large == {False: pytest.approx(1.0), True: pytest.approx(0.5)}


def test_masks_are_ranked_by_their_own_scores():
    """A right one and a wrong one, whose boxes and masks are ranked the other way round."""
    truth = truth_of([(10, 20, 30, 40)])
    evaluator = CocoEvaluator(truth, LABEL_MAP)
    boxes = [[[20, 10, 60, 40], [20, 110, 60, 140]]]
    ranked = batch(boxes=boxes, mask_scores=np.array([[0.2, 0.4]], np.float32))
    evaluator.add(**ranked)
    numbers = evaluator.evaluate()
    assert numbers["box_ap"] == pytest.approx(1.0)
    assert numbers["mask_ap"] == pytest.approx(0.5)
    assert evaluator.has_mask_scores
    shown = evaluator.rows("mask", by_mask_score=False).detections
    assert [row["score"] for row in shown] == pytest.approx([0.9, 0.5])
    # Through a file, and what another process is told.
    rows = json.loads(json.dumps(evaluator.results()))
    assert [row["mask_score"] for row in rows] == pytest.approx([0.2, 0.4])
    again = CocoEvaluator(truth, LABEL_MAP)
    again.add_coco_results(rows)
    assert again.evaluate() == numbers
    parts = json.loads(json.dumps(list(evaluator.parts())))
    third = CocoEvaluator(truth, LABEL_MAP)
    for part in parts:
        third.add_part(part)
    assert third.evaluate() == numbers
    evaluator.reset()
    evaluator.add(**batch(boxes=boxes))
    assert evaluator.evaluate()["mask_ap"] == pytest.approx(1.0)
    assert not evaluator.has_mask_scores
    evaluator.reset()
    with pytest.raises(ValueError, match="score is not finite"):
        evaluator.add(**ranked | {"mask_scores": np.array([[0.2, np.nan]])})


def test_no_detections_score_zero(caplog):
    evaluator = CocoEvaluator(truth_of([(0, 0, 40, 40)]), LABEL_MAP)
    with caplog.at_level(logging.WARNING):
        numbers = evaluator.evaluate()
    assert "1 of 1 images" in caplog.text
    assert numbers["box_ap"] == numbers["mask_ap"] == numbers["mask_ar100"] == 0.0
    assert "1 images without any detections added" in evaluator.table()
    evaluator.add(**batch(valid=np.zeros([1, 1], bool)))
    assert evaluator.evaluate()["mask_ap"] == 0.0
    assert "without any" not in evaluator.table()


def test_no_ground_truth_objects():
    truth = truth_of([(0, 0, 40, 40)])
    evaluator = CocoEvaluator({**truth, "annotations": []}, LABEL_MAP)
    evaluator.add(**batch())
    assert set(summary(evaluator.evaluate(), "mask")) == {-1.0}
    assert " - " in evaluator.table()


def test_other_caps_than_100_have_an_ap():
    boxes = [(x, y, 9, 9) for x in range(0, 150, 10) for y in range(0, 100, 10)]  # 150 objects
    truth = truth_of(boxes, include_masks=False)
    numbers = {}
    for cap in (100, 200):
        evaluator = CocoEvaluator(truth, None, False, max_detections=cap)
        evaluator.add_coco_results([result(b, 1 - k / 1000) for k, b in enumerate(boxes)])
        numbers[cap] = evaluator.evaluate()
    assert numbers[100]["box_ar100"] == pytest.approx(100 / 150)
    assert numbers[200]["box_ar200"] == 1.0
    assert numbers[200]["box_ap"] == pytest.approx(1.0)
    assert numbers[200]["box_ap_small"] == pytest.approx(1.0)


def test_reset_forgets():
    evaluator = CocoEvaluator(truth_of([(20, 10, 40, 30)]), LABEL_MAP)
    evaluator.add(**batch())
    evaluator.reset()
    assert evaluator.evaluate()["box_ap"] == 0.0
    evaluator.add(**batch())
    assert evaluator.evaluate()["box_ap"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_ids": ("8",)}, "image '8' is not in the ground truth, whose 1 images are 7"),
        ({"size": (200, 100)}, "200 x 100 .* 100 x 200 in the ground truth"),
        ({"scores": np.full([1, 1], np.nan)}, "image 7: .* not finite"),
        ({"classes": np.full([1, 1], 4)}, r"image 7: class 4 is not in 1\.\.3"),
        ({"classes": np.full([1, 1], 0)}, r"image 7: class 0 is not in 1\.\.3"),
        ({"masks": None}, "masks are to be scored"),
    ],
)
def test_wrong_batches_are_refused(changes, message):
    evaluator = CocoEvaluator(truth_of([(20, 10, 40, 30)]), LABEL_MAP)
    with pytest.raises(ValueError, match=message):
        evaluator.add(**batch(**changes))


def test_an_image_is_added_once():
    evaluator = CocoEvaluator(truth_of([(20, 10, 40, 30)]), LABEL_MAP)
    evaluator.add(**batch())
    with pytest.raises(ValueError, match="image '7' was added before"):
        evaluator.add(**batch())
    with pytest.raises(ValueError, match="image '7' was added before"):
        evaluator.add_coco_results([result((0, 0, 4, 4), 0.5)])


def test_parts_of_two_processes_score_as_one(monkeypatch):
    """What they exchange is text; scores and boxes of two images keep every bit."""
    rng = np.random.default_rng(3)
    boxes = [(20, 10, 40, 30), (5, 5, 50, 60), (80, 20, 30.3, 40), (100, 1, 90, 90)]
    truth = truth_of(boxes, image_ids=["a", "a", 2**60, "c"])
    noise = rng.normal(0, 3, [3, 5, 4]).astype(np.float32)
    found = np.float32([[10, 20, 40, 60], [5, 5, 65, 55], [20, 80, 60, 110], [1, 100, 91, 190]])
    images = [
        batch((name,), found[None, [0, 1, 2, 3, 0]] + noise[k : k + 1])
        for k, name in enumerate(("c", str(2**60), "a"))
    ]
    together = CocoEvaluator(truth, LABEL_MAP)
    for image in images:
        together.add(**image)
    chief, other = CocoEvaluator(truth, LABEL_MAP), CocoEvaluator(truth, LABEL_MAP)
    chief.add(**images[0])
    chief.evaluate()  # which is not what is scored in the end
    for image in images[1:]:
        other.add(**image)
    monkeypatch.setattr(coco, "_RESULTS_OF_A_PART", 3)
    parts = json.loads(json.dumps(list(other.parts())))
    assert [len(part["results"]) for part in parts] == [0, 3, 3, 3, 1]
    for part in parts:
        chief.add_part(part)
    assert chief.evaluate() == together.evaluate()
    assert 0 < chief.evaluate()["mask_ap"] < 1
    assert chief.table() == together.table()
    assert chief.results() == together.results()
    with pytest.raises(ValueError, match=r"image '\w+' was added before"):
        chief.add_part(parts[0])


def test_wrong_results_are_refused():
    evaluator = CocoEvaluator(truth_of([(20, 10, 40, 30)]), LABEL_MAP)
    with pytest.raises(ValueError, match="no segmentation"):
        evaluator.add_coco_results([result((0, 0, 4, 4), 0.5)])
    evaluator.reset()
    wrong = coco_mask.encode(np.ones([5, 5], np.uint8, order="F"))
    with pytest.raises(ValueError, match=r"size \[5, 5\] in an image of \[100, 200\]"):
        evaluator.add_coco_results([result((0, 0, 4, 4), 0.5) | {"segmentation": wrong}])


def test_table_names_every_category_with_objects():
    truth = truth_of([(20, 10, 40, 30), (100, 10, 40, 30)], categories=[17, 3])
    evaluator = CocoEvaluator(truth, LABEL_MAP)
    evaluator.add(**batch())
    lines = evaluator.table().splitlines()
    assert lines[0].split() == ["category", "box", "AP", "mask", "AP", "objects"]
    assert lines[1].split() == ["cat", "0.000", "0.000", "1"]
    assert lines[2].split() == ["dog", "1.000", "1.000", "1"]
    assert lines[3].split() == ["all", "0.500", "0.500", "2"]
    assert "(1 categories without objects" in lines[4]
    assert max(map(len, lines)) <= 90


def test_categories_that_share_a_name_stay_apart():
    truth = truth_of([(20, 10, 40, 30)])
    truth["categories"] = [{"id": 17, "name": "Tumor"}, {"id": 18, "name": "Tumor"}]
    numbers = CocoEvaluator(truth, None, False).evaluate()
    assert numbers["box_ap/Tumor (17)"] == 0.0
    assert numbers["box_ap/Tumor (18)"] == -1.0


def test_label_map_that_lacks_a_category_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        CocoEvaluator(truth_of([(0, 0, 9, 9)]), LabelMap((3, 17), ("cat", "dog")))
    assert "lacks categories [90]" in caplog.text


def _recorded_runs():
    return [
        f"{name}_{kind}"
        for name in ("cocoapi_fake100", "real_valid", "real_test", "faster_coco_eval")
        for kind in ("bbox", "segm")
    ] + ["detectron2_tiny_bbox", "detectron2_tiny_segm", "sahi_bbox"]


def _score_recorded(folder, run, as_pycocotools):
    kind, include_masks = ("mask", True) if run["iouType"] == "segm" else ("box", False)
    truth = ground_truth.from_annotation_file(str(folder / run["gt"]), include_masks)
    found = json.loads((folder / run["dt"]).read_text())
    found = found["annotations"] if isinstance(found, dict) else found
    evaluator = CocoEvaluator(truth, None, include_masks, as_pycocotools=as_pycocotools)
    evaluator.add_coco_results(found)
    return summary(evaluator.evaluate(), kind)


@pytest.mark.parametrize("name", _recorded_runs())
def test_recorded_numbers_of_pycocotools(shared, name):
    """All recorded runs at full precision; the recordings are pycocotools' own output."""
    folder = shared / "data" / "conformance"
    recorded = json.loads((folder / "pycocotools_expected_stats.json").read_text())["runs"]
    assert set(recorded) == set(_recorded_runs())
    numbers = _score_recorded(folder, recorded[name], as_pycocotools=True)
    np.testing.assert_allclose(numbers, recorded[name]["stats"], rtol=0, atol=1e-12)
    if name.startswith(("detectron2", "sahi")):  # no annotation id 0, no box beside a mask
        ours = _score_recorded(folder, recorded[name], as_pycocotools=False)
        np.testing.assert_allclose(ours, recorded[name]["stats"], rtol=0, atol=1e-12)


def _pycocotools(dataset, found, iou_type):
    """Score with pycocotools alone, as its own demo does."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("part", ["valid", "test"])
def test_our_rules_are_pycocotools_on_repaired_files(shared, part):
    """Numbering annotations from 1 and dropping the boxes is all that sets ours apart."""
    folder = shared / "data" / "conformance" / "real_maskrcnn_predictions"
    run = {"gt": f"gt_{part}.json", "dt": f"dt_{part}.json", "iouType": "segm"}
    dataset = json.loads((folder / run["gt"]).read_text())
    found = json.loads((folder / run["dt"]).read_text())
    for k, annotation in enumerate(dataset["annotations"]):
        annotation["id"] = k + 1
    for row in found:
        del row["bbox"]
    numbers = _score_recorded(folder, run, as_pycocotools=False)
    np.testing.assert_allclose(numbers, _pycocotools(dataset, found, "segm"), rtol=0, atol=1e-12)


def test_ground_truth_as_detections_scores_one(shared):
    path = shared / "data" / "coco_small" / "annotations" / "instances_val2017.json"
    truth = ground_truth.from_annotation_file(str(path))
    found = [{**a, "score": 0.5} for a in truth["annotations"] if not a["iscrowd"]]
    evaluator = CocoEvaluator(truth, None)
    evaluator.add_coco_results(found)
    numbers = evaluator.evaluate()
    for kind in ("box", "mask"):
        aps = summary(numbers, kind)[:6]
        np.testing.assert_allclose(aps, 1.0, atol=1e-9)


def test_jittered_batches_equal_pycocotools(shared):
    """Network-frame batches of many images against pycocotools fed with the same detections."""
    path = shared / "data" / "coco_small" / "annotations" / "instances_val2017.json"
    dataset = json.loads(path.read_text())
    truth = ground_truth.from_annotation_file(str(path))
    label_map = LabelMap.from_coco_categories(dataset["categories"])
    class_of = {category_id: k + 1 for k, category_id in enumerate(label_map.ids)}
    rng = np.random.default_rng(3)
    evaluator = CocoEvaluator(truth, label_map)
    # All images are scored, a third of them with detections.
    for image in truth["images"][::3]:
        objects = [a for a in truth["annotations"] if a["image_id"] == image["id"]][:20]
        x, y, w, h = np.array([a["bbox"] for a in objects]).reshape(-1, 4).T
        boxes = np.stack([y, x, y + h, x + w], axis=-1)
        boxes += rng.normal(scale=0.07, size=boxes.shape) * np.stack([h, w, h, w], axis=-1)
        size = np.array([image["height"], image["width"]])
        resized = np.round(size * 1.37)
        count = len(objects)
        evaluator.add(
            source_id=source_ids(str(image["id"])),
            image_size_hw=resized[None],
            original_size_hw=size[None],
            boxes=(boxes * np.tile(resized / size, 2))[None].astype(np.float32),
            classes=np.array([[class_of[a["category_id"]] for a in objects]]).reshape(1, count),
            scores=np.round(rng.random([1, count]), 1),  # ties on purpose
            valid=np.ones([1, count], bool),
            masks=rng.random([1, count, 7, 7]) + 0.2,
        )
    numbers = evaluator.evaluate()
    assert 0.05 < numbers["box_ap"] < 0.9
    found = evaluator.results()
    without_boxes = [{k: v for k, v in row.items() if k != "bbox"} for row in found]
    dataset = json.loads(path.read_text())
    stats = _pycocotools(dataset, found, "bbox"), _pycocotools(dataset, without_boxes, "segm")
    np.testing.assert_allclose(summary(numbers, "box"), stats[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(summary(numbers, "mask"), stats[1], rtol=0, atol=1e-12)
