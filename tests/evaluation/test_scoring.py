"""hotcoco against pycocotools, bit for bit: recorded results; random sets with all that is odd."""

import copy
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.evaluation import ground_truth, scoring
from mrcnn_tf.evaluation.coco import CocoEvaluator
from mrcnn_tf.evaluation.proposals import CAPS

HEIGHT, WIDTH = 60, 80
AREAS = [0.0, 32.0**2, np.nextafter(32.0**2, 0), 96.0**2, 1e10, np.nextafter(1e10, 2e10)]


def of_both(*args, **keywords):
    """What `scoring.score` makes of the same input with pycocotools and with hotcoco."""
    return [
        scoring.score(*copy.deepcopy(args), **keywords, cocoeval=scoring.library(name))
        for name in ("pycocotools", "hotcoco")
    ]


def ellipse(box):
    """RLE of the ellipse in a box (x, y, w, h); empty if no pixel's centre lies in it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    left, top, w, h = box
    inside = ((x - left - w / 2) / w) ** 2 + ((y - top - h / 2) / h) ** 2 <= 0.25
    return coco_mask.encode(np.asfortranarray(inside, np.uint8))


def random_set(seed):
    """Images, category ids, annotations and detections as `scoring.score` takes them.

    Crowds, areas on and beside the limits, categories and images without objects or detections,
    more than 100 detections of a category in an image, the same box several times, equal scores,
    categories that are not scored, masks without a pixel.
    """
    rng = np.random.default_rng(seed)
    num_images, num_categories = rng.integers(1, 6, 2)
    images = [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(num_images)]

    def row(rows, image, category, box, **values):
        rows.append(
            {
                "id": len(rows) + 1,
                "image_id": image,
                "category_id": category,
                "iscrowd": 0,
                "bbox": [float(side) for side in box],
                "area": float(rng.choice([box[2] * box[3], rng.choice(AREAS)], p=[0.7, 0.3])),
                "segmentation": ellipse(box),
                **values,
            }
        )

    def any_box():
        size = np.exp(rng.uniform(-1, np.log([WIDTH, HEIGHT])))
        box = np.concatenate([rng.uniform(0, [WIDTH, HEIGHT] - size), size])
        return np.maximum(np.round(box), 1) if rng.random() < 0.5 else box

    annotations, detections = [], []
    for image in range(num_images):
        boxes = [any_box() for _ in range(rng.integers(0, 9))]
        for box in boxes:
            crowd = int(rng.random() < 0.2)
            row(annotations, image, int(rng.integers(1, num_categories + 1)), box, iscrowd=crowd)
        for _ in range(rng.choice([0, 3, 30, 130])):
            near = boxes[rng.integers(len(boxes))] if boxes and rng.random() < 0.7 else any_box()
            box = near + rng.normal(0, rng.choice([0, 0.5, 3]), 4)
            box[2:] = np.maximum(box[2:], 0.5)
            score = rng.random() if seed % 2 else round(rng.random(), 1)
            category = 1 if rng.random() < 0.8 else int(rng.integers(1, num_categories + 3))
            row(detections, image, category, box, score=float(score))
    return images, list(range(1, num_categories + 2)), annotations, detections


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(30))
def test_random_sets_get_the_same_numbers(seed, iou_type):
    case = random_set(seed)
    for cap in (11, 100, 300):
        want, got = of_both(*case, iou_type, cap)
        assert got == want
        assert list(got.summary) == list(want.summary)


def test_the_random_sets_are_not_trivial():
    """Something is found, something is not, and a cap leaves something out."""
    few, many = (
        [of_both(*random_set(seed), "segm", cap)[1].summary for seed in range(30)]
        for cap in (11, 300)
    )
    assert sum(0.05 < summary["ap"] < 0.95 for summary in many) > 10
    assert any(summary["ap"] == -1.0 for summary in many)
    assert any(summary["ap_small"] > 0 and summary["ap_large"] > 0 for summary in many)
    assert sum(a["ap"] != b["ap"] for a, b in zip(few, many, strict=True)) > 10


@pytest.mark.parametrize("empty", ["annotations", "detections", "both"])
def test_nothing_to_find_and_nothing_found(empty):
    images, category_ids, annotations, detections = random_set(1)
    annotations = annotations if empty == "detections" else []
    detections = detections if empty == "annotations" else []
    want, got = of_both(images, category_ids, annotations, detections, "segm", 100)
    assert got == want


def recorded(shared):
    path = shared / "data" / "conformance" / "pycocotools_expected_stats.json"
    return path.parent, json.loads(path.read_text())["runs"]


def test_recorded_results_get_the_same_numbers(shared):
    """All numbers of every conformance case, those of the categories too."""
    folder, runs = recorded(shared)
    assert len(runs) == 11
    for name, run in runs.items():
        has_masks = run["iouType"] == "segm"
        truth = ground_truth.from_annotation_file(str(folder / run["gt"]), has_masks)
        found = json.loads((folder / run["dt"]).read_text())
        found = found["annotations"] if isinstance(found, dict) else found
        numbers = []
        for library in ("pycocotools", "hotcoco"):
            evaluator = CocoEvaluator(truth, None, has_masks, cocoeval=library)
            evaluator.add_coco_results(found)
            numbers.append(evaluator.evaluate())
        assert numbers[0] == numbers[1], name
        assert max(numbers[0].values()) > 0.1


@pytest.mark.parametrize("seed", range(10))
def test_average_recalls_are_the_same(seed):
    images, _, annotations, detections = random_set(seed)
    rank = dict.fromkeys(range(len(images)), -1)
    for detection in detections:
        rank[detection["image_id"]] += 1
        detection["rank"] = rank[detection["image_id"]]
    caps = (3, 20, *CAPS)
    want, got = (
        scoring.average_recalls(
            *copy.deepcopy((images, annotations, detections)), caps, scoring.library(name)
        )
        for name in ("pycocotools", "hotcoco")
    )
    assert got == want


def test_an_unknown_library_is_refused():
    with pytest.raises(ValueError, match="unknown COCOeval 'coco'; known: hotcoco, pycocotools"):
        scoring.library("coco")
