"""federated.py: LVIS's rules by hand, against a slow twin, and against what `lvis` 0.5.3 said."""

import copy

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.analysis import calibration, coco_numbers, error_kinds
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import boundary, federated, ground_truth, scoring
from mrcnn_tf.evaluation.coco import CocoEvaluator

HEIGHT, WIDTH = 100, 120
LIBRARIES = ("hotcoco", "pycocotools")


def rle(box):
    """The run lengths of a box (x, y, w, h) of whole pixels."""
    mask = np.zeros([HEIGHT, WIDTH], np.uint8, order="F")
    x, y, w, h = (int(side) for side in box)
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def random_set(seed, crowds=0.0):
    """Twelve images of seven categories as a federated annotation file has them, and results.

    Of the seventh category there is never an object; scores are often equal.
    """
    rng = np.random.default_rng(seed)
    categories = [
        {"id": k + 1, "name": f"c{k + 1}", "frequency": "rcf"[k % 3], "image_count": 5}
        for k in range(7)
    ]
    images, annotations, results = [], [], []

    def found(image_id, category_id, box):
        results.append(
            {
                "image_id": image_id,
                "category_id": category_id,
                "bbox": [float(side) for side in box],
                "segmentation": rle(box),
                "score": float(np.round(rng.random(), 2)),
            }
        )

    for i in range(1, 13):
        present = rng.choice(6, rng.integers(0, 4), replace=False) + 1
        rest = [c for c in range(1, 8) if c not in present]
        neg = [int(c) for c in rest if rng.random() < 0.4]
        not_exhaustive = [int(c) for c in present if rng.random() < 0.4]
        lists = {"neg_category_ids": neg, "not_exhaustive_category_ids": not_exhaustive}
        images.append({"id": i, "height": HEIGHT, "width": WIDTH, **lists})
        for c in present:
            for _ in range(rng.integers(1, 4)):
                side = int(rng.choice([10, 40, 90]))
                x, y = int(rng.integers(0, WIDTH - side)), int(rng.integers(0, HEIGHT - side))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": i,
                        "category_id": int(c),
                        "bbox": [float(x), float(y), float(side), float(side)],
                        "area": float(side * side),
                        "segmentation": rle([x, y, side, side]),
                        "iscrowd": int(rng.random() < crowds),
                    }
                )
                for _ in range(rng.integers(0, 3)):
                    dx, dy = (int(d) for d in rng.integers(-6, 7, 2))
                    near = [min(max(0, x + dx), WIDTH - side), min(max(0, y + dy), HEIGHT - side)]
                    category_id = int(c) if rng.random() < 0.8 else int(rng.integers(1, 8))
                    found(i, category_id, [*near, side, side])
        for _ in range(rng.integers(0, 8)):
            side = int(rng.choice([10, 40, 90]))
            x, y = int(rng.integers(0, WIDTH - side)), int(rng.integers(0, HEIGHT - side))
            found(i, int(rng.integers(1, 8)), [x, y, side, side])
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return truth, results


def evaluator_of(truth, results, library="hotcoco", **keywords):
    evaluator = CocoEvaluator(
        ground_truth.from_coco_dict(truth), None, cocoeval=library, **keywords
    )
    evaluator.add_coco_results(copy.deepcopy(results))
    return evaluator


# Of `random_set(seed)` and so many detections of an image at most, by lvis.LVISEval 0.5.3, of
# masks without the boxes of the results, as Detectron2 does: AP, AP50, AP75, APs, APm, APl, APr,
# APc, APf, AR, ARs, ARm, ARl. Masks are the boxes here, so both have the same numbers.
BY_LVIS = {
    (2, 300): [
        *(0.25555869872701553, 0.37773063020587766, 0.2748899889988999),
        *(0.006930693069306928, 0.42052805280528055, -1.0),
        *(0.2412541254125412, 0.21466289486091467, 0.3107590759075908),
        *(0.33416005291005285, 0.006666666666666667, 0.5430555555555555, -1.0),
    ],
    (2, 11): [
        *(0.25692833569071194, 0.37773063020587766, 0.27667766776677666),
        *(0.006930693069306928, 0.42052805280528055, -1.0),
        *(0.2412541254125412, 0.21877180575200375, 0.3107590759075908),
        *(0.33416005291005285, 0.006666666666666667, 0.5430555555555555, -1.0),
    ],
    (3, 300): [
        *(0.19246097824068117, 0.2699055619847699, 0.1931844970211307),
        *(0.0, 0.29467612237414215, -1.0),
        *(0.03205670567056706, 0.20843941537010843, 0.33688681368136814),
        *(0.2914285714285715, 0.0, 0.4255555555555555, -1.0),
    ],
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("seed", "cap"), BY_LVIS)
def test_the_numbers_are_those_of_the_package_lvis(library, seed, cap):
    numbers = evaluator_of(*random_set(seed), library, max_detections=cap).evaluate()
    for kind in ("box", "mask"):
        ours = [numbers[f"{kind}_{name}"] for name in federated.names(cap)]
        np.testing.assert_allclose(ours, BY_LVIS[seed, cap], rtol=0, atol=1e-15)


def _slow_ap(truth, results, category_id, iou_threshold, cap=300):
    """AP of boxes of one category at one threshold, in loops, by LVIS's rules; -1 for none."""
    rows, num_objects = [], 0
    for image in truth["images"]:
        objects = [
            a["bbox"]
            for a in truth["annotations"]
            if (a["image_id"], a["category_id"]) == (image["id"], category_id)
        ]
        num_objects += len(objects)
        of_image = [r for r in results if r["image_id"] == image["id"]]
        of_image.sort(key=lambda r: -r["score"])
        if not objects and category_id not in image["neg_category_ids"]:
            continue
        taken = set()
        for r in of_image[:cap]:
            if r["category_id"] != category_id:
                continue
            best, match = iou_threshold, None
            for k, box in enumerate(objects):
                overlap = coco_mask.iou([r["bbox"]], [box], [0])[0, 0]
                if k not in taken and overlap >= best:
                    best, match = overlap, k
            if match is not None:
                taken.add(match)
            if match is not None or category_id not in image["not_exhaustive_category_ids"]:
                rows.append((r["score"], match is not None))
    if not num_objects:
        return -1.0
    rows.sort(key=lambda row: -row[0])
    right = np.cumsum([hit for _, hit in rows])
    precision = right / np.arange(1, len(rows) + 1)
    reached = [
        max((p for p, n in zip(precision, right, strict=True) if n / num_objects >= t), default=0.0)
        for t in np.linspace(0, 1, 101)
    ]
    return float(np.mean(reached))


@pytest.mark.parametrize("seed", range(20, 26))
def test_against_a_slow_twin(seed):
    truth, results = random_set(seed)
    cap = 11 + seed % 3
    numbers = evaluator_of(truth, results, include_masks=False, max_detections=cap).evaluate()
    at_50 = [_slow_ap(truth, results, k, 0.5, cap) for k in range(1, 8)]
    measured = [ap for ap in at_50 if ap >= 0]
    np.testing.assert_allclose(numbers["box_ap50"], np.mean(measured), atol=1e-12)
    for name, first in (("rare", 0), ("common", 1), ("frequent", 2)):
        aps = [
            _slow_ap(truth, results, k + 1, threshold, cap)
            for k in range(first, 7, 3)
            for threshold in np.linspace(0.5, 0.95, 10)
        ]
        aps = [ap for ap in aps if ap >= 0] or [-1.0]
        np.testing.assert_allclose(numbers[f"box_ap_{name}"], np.mean(aps), atol=1e-12)


@pytest.mark.parametrize("seed", range(40, 46))
def test_both_libraries_agree(seed):
    """With crowds, too, which LVIS does not have: COCO's rule for them."""
    truth, results = random_set(seed, crowds=0.3)
    first, second = (evaluator_of(truth, results, name).evaluate() for name in LIBRARIES)
    assert first == second


BOX, AWAY = [10, 10, 30, 30], [60, 60, 30, 30]


def by_hand(neg, not_exhaustive, category_id=1):
    """AP of a right detection of category 1 and of a better one of `category_id` far away."""
    image = {"id": 7, "height": HEIGHT, "width": WIDTH}
    image |= {"neg_category_ids": neg, "not_exhaustive_category_ids": not_exhaustive}
    annotation = {"id": 1, "image_id": 7, "category_id": 1, "bbox": BOX, "area": 900, "iscrowd": 0}
    other = annotation | {"id": 2, "image_id": 8, "category_id": 2}
    truth = {
        "images": [image, image | {"id": 8, "neg_category_ids": []}],
        "annotations": [
            annotation | {"segmentation": rle(BOX)},
            other | {"segmentation": rle(BOX)},
        ],
        "categories": [{"id": k, "name": f"c{k}", "frequency": "rf"[k - 1]} for k in (1, 2)],
    }

    def result(image_id, category_id, box, score):
        row = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
        return row | {"segmentation": rle(box)}

    found = [
        result(7, 1, BOX, 0.5),
        result(7, category_id, AWAY, 0.9),
        result(8, 2, BOX, 0.5),
    ]
    return [evaluator_of(truth, found, name).evaluate() for name in LIBRARIES]


@pytest.mark.parametrize(
    ("neg", "not_exhaustive", "category_id", "of_first", "of_second"),
    [
        ([], [], 1, 0.5, 1.0),  # a wrong one before the right one
        ([], [1], 1, 1.0, 1.0),  # perhaps it is right, but not annotated
        ([], [], 2, 1.0, 1.0),  # nobody looked for the second category in the first image
        ([2], [], 2, 1.0, 0.5),  # somebody did: it is not there
        ([2], [2], 2, 1.0, 1.0),
    ],
)
def test_rules_by_hand(neg, not_exhaustive, category_id, of_first, of_second):
    for numbers in by_hand(neg, not_exhaustive, category_id):
        for kind in ("box", "mask"):
            assert numbers[f"{kind}_ap_rare"] == pytest.approx(of_first)
            assert numbers[f"{kind}_ap/c2"] == pytest.approx(of_second)
            assert numbers[f"{kind}_ap_frequent"] == pytest.approx(of_second)
            assert numbers[f"{kind}_ap_common"] == -1.0
            assert f"{kind}_ar1" not in numbers


def test_the_best_of_an_image_count_whatever_they_are():
    rows = scoring.Rows(
        images=[{"id": k, "neg_category_ids": [1, 2]} for k in range(2)],
        category_ids=[1, 2],
        annotations=[],
        detections=[
            {"id": k + 1, "image_id": k % 2, "category_id": 1 + k // 6, "score": score}
            for k, score in enumerate([0.1, 0.2, 0.3, 0.9, 0.5, 0.9, 0.5, 0.9, 0.5, 0.1, 0.5, 0.9])
        ],
        iou_type="bbox",
        max_detections=3,
    )
    kept = federated.those_that_count(rows).detections
    # Image 0 (odd ids): 0.5 four times, of which the first three; image 1: 0.9 four times.
    assert [row["id"] for row in kept] == [4, 5, 6, 7, 8, 9]


def test_images_without_lists_know_what_they_have():
    truth, results = random_set(2)
    for image in truth["images"][1:]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    emptied = copy.deepcopy(truth)
    for image in emptied["images"][1:]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    one, other = (evaluator_of(t, results).evaluate() for t in (truth, emptied))
    assert one == other
    for image in truth["images"]:
        image.pop("neg_category_ids", None)
        image.pop("not_exhaustive_category_ids", None)
    plain = evaluator_of(truth, results).evaluate()
    assert "box_ar1" in plain
    assert "box_ap_rare" not in plain


def test_boundaries_follow_the_rules_too():
    truth, results = random_set(5)
    numbers = evaluator_of(truth, results, include_boundaries=True).evaluate()
    evaluator = evaluator_of(truth, results)
    rows = evaluator.rows("mask")
    slow = scoring.Library(scoring.library("pycocotools").COCO, boundary.BoundaryEval)
    without = scoring.score(*rows, slow).summary["ap"]  # not_exhaustive is not read
    assert 0 <= without < numbers["boundary_ap"] <= numbers["mask_ap"]


def test_table_names_and_unknown_frequencies():
    truth, results = random_set(2)
    for category in truth["categories"]:
        del category["frequency"], category["image_count"]
    del truth["categories"][6]  # without objects
    results = [row for row in results if row["category_id"] != 7]
    evaluator = evaluator_of(truth, results)
    numbers = evaluator.evaluate()
    # Counted in these images, so few that all are rare.
    assert numbers["box_ap_rare"] == numbers["box_ap"]
    assert "AP r   AP c   AP f  AR100" in evaluator.table()
    assert evaluator.metric_names == tuple(numbers)  # the one without objects is left out
    counted = {"image_counts": (3, 2000), "frequencies": ("r", "f")}
    label_map = LabelMap((1, 2), ("a", "b"), **counted)
    assert LabelMap.from_json(label_map.to_json()) == label_map


def test_a_thousand_categories_are_not_listed():
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    annotation = {"image_id": 1, "bbox": BOX, "area": 900, "segmentation": rle(BOX), "iscrowd": 0}
    truth = {
        "images": [{"id": 1, "height": HEIGHT, "width": WIDTH} | lists],
        "annotations": [annotation | {"id": k, "category_id": k} for k in range(1, 202)],
        "categories": [{"id": k, "name": f"category {k}"} for k in range(1, 210)],
    }
    found = {"image_id": 1, "bbox": BOX, "segmentation": rle(BOX), "score": 0.5}
    table = evaluator_of(truth, [found | {"category_id": 7}]).table()
    assert "category 7" not in table
    assert "(201 categories, too many to list: see metrics.jsonl)" in table
    assert "(8 categories without objects are not listed)" in table


@pytest.mark.parametrize("seed", range(2, 5))
def test_the_reports_analyses_follow_the_rules_too(seed):
    truth, results = random_set(seed)
    evaluator = evaluator_of(truth, results, max_detections=11)
    numbers = evaluator.evaluate()
    not_exhaustive = {
        (k, category_id)
        for k, image in enumerate(truth["images"])
        for category_id in image["not_exhaustive_category_ids"]
    }
    num_ignored = 0
    for kind in ("box", "mask"):
        rows = evaluator.rows(kind)
        computed = coco_numbers.compute(rows, resamples=2)
        for measure in ("ap", "ap50", "ap75"):
            expected = numbers[f"{kind}_{measure}"]
            assert computed.get(measure).value == pytest.approx(expected, abs=1e-12)
        found = computed.matches
        errors = error_kinds.analyse(rows, found)
        assert errors.ap50 == pytest.approx(numbers[f"{kind}_ap50"], abs=1e-12)
        places = list(zip(found.image.tolist(), found.category.tolist(), strict=True))
        assert not {places[error.index] for error in errors.wrong} & not_exhaustive
        ignored = {places[k] for k in np.flatnonzero(found.is_ignored[0])}
        assert ignored <= not_exhaustive
        num_ignored += len(ignored)
        counted = ~found.is_ignored[0]
        bins = calibration.calibration(rows).bins
        assert sum(b.count for b in bins) == counted.sum()
    assert num_ignored
