"""Keypoints scored: by hand, as pycocotools' own command does, hotcoco bit for bit."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_tf.data import schema
from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import keypoint_scoring
from mrcnn_tf.evaluation.coco import CocoEvaluator

SIDES = ("left", "right")
PERSON = (
    "nose",
    *(f"{side}_{part}" for part in ("eye", "ear", "shoulder", "elbow", "wrist") for side in SIDES),
    *(f"{side}_{part}" for part in ("hip", "knee", "ankle") for side in SIDES),
)
TWO = ("head", "foot")


def truth_of(annotations, names=TWO, size=400):
    man = {"id": 3, "name": "man", "keypoints": list(names)}
    return {
        "images": [{"id": i, "height": size, "width": size} for i in (5, 9)],
        "categories": [{"id": 1, "name": "tree"}, man],
        "annotations": [
            {"id": k, "image_id": 5, "category_id": 3, "iscrowd": 0, **a}
            for k, a in enumerate(annotations)
        ],
    }  # fmt: skip


def annotation(keypoints, area=10_000.0, **values):
    count = sum(v > 0 for v in keypoints[2::3])
    box = [50.0, 50.0, 100.0, 100.0]
    return {"bbox": box, "area": area, "keypoints": keypoints, "num_keypoints": count, **values}


def result(keypoints, score=0.9, **values):
    row = {"image_id": 5, "category_id": 3, "bbox": [50, 50, 100, 100], "score": score}
    return row | {"keypoints": keypoints} | values


def score(truth, results, **settings):
    evaluator = CocoEvaluator(truth, None, False, include_keypoints=True, **settings)
    evaluator.add_coco_results(results)
    return evaluator.evaluate(), evaluator


@pytest.mark.parametrize("library", ["pycocotools", "hotcoco"])
def test_by_hand(library):
    """sigma 0.05, area 100^2: 10 pixels off are exp(-1/2) = 0.607, above 0.5, 0.55 and 0.6."""
    truth = truth_of([annotation([60, 60, 2, 100, 100, 1])])
    near = [result([70, 60, 0.5, 100, 110, 0.1])]
    numbers, evaluator = score(truth, near, cocoeval=library)
    assert numbers["keypoint_ap"] == pytest.approx(0.3)
    assert numbers["keypoint_ap50"] == pytest.approx(1.0)
    assert numbers["keypoint_ap75"] == 0.0
    assert numbers["keypoint_ar"] == pytest.approx(0.3)
    assert numbers["keypoint_ap_large"] == pytest.approx(0.3)
    assert numbers["keypoint_ap_medium"] == -1.0
    assert numbers["keypoint_ap/man"] == pytest.approx(0.3)
    assert "keypoint_ap/tree" not in numbers
    assert numbers["box_ap"] == pytest.approx(1.0)
    assert [n for n in numbers if n.startswith("keypoint_") and "/" not in n] == [
        f"keypoint_{name}" for name in keypoint_scoring.SUMMARY
    ]
    table = evaluator.table()
    assert "man" in table
    assert "keypoint  0.300" in table
    # A keypoint that is not annotated does not count; nor an object without any.
    truth = truth_of([annotation([60, 60, 2, 0, 0, 0]), annotation([0] * 6)])
    numbers, _ = score(truth, [result([60, 60, 1, 399, 399, 1])], cocoeval=library)
    assert numbers["keypoint_ap"] == pytest.approx(1.0)


def test_coordinates_are_those_of_the_stored_image_and_of_cocos_pixels():
    """A network input of 200 x 100 from an image of 400 x 400; its pixel 10.5 is COCO's 20.5."""
    truth = truth_of([annotation([60, 60, 2, 100, 100, 1])])
    keypoints = KeypointSet(TWO, (), (2,))
    label_map = LabelMap((1, 3), ("tree", "man"), keypoints)
    evaluator = CocoEvaluator(truth, label_map, False, include_keypoints=True)
    source_id = np.zeros([1, schema.SOURCE_ID_BYTES], np.uint8)
    source_id[0, 0] = ord("5")
    evaluator.add(
        source_id=source_id,
        image_size_hw=np.array([[200.0, 100.0]]),
        original_size_hw=np.array([[400.0, 400.0]]),
        boxes=np.array([[[25.0, 12.5, 75.0, 37.5], [25.0, 12.5, 75.0, 37.5], [0, 0, 0, 0]]]),
        classes=np.array([[2, 1, 0]]),
        scores=np.array([[0.9, 0.8, 0.0]]),
        valid=np.array([[True, True, False]]),
        keypoints=np.array([[[[30.25, 15.125, 0.5], [50.25, 25.125, 0.25]]] * 3]),
    )
    first, second = evaluator.results()
    assert first["keypoints"] == [60.0, 60.0, 0.5, 100.0, 100.0, 0.25]
    assert "keypoints" not in second  # trees have none
    assert evaluator.evaluate()["keypoint_ap"] == pytest.approx(1.0)
    again = CocoEvaluator(truth, label_map, False, include_keypoints=True)
    for part in evaluator.parts():
        again.add_part(json.loads(json.dumps(part)))
    assert again.evaluate() == evaluator.evaluate()


def random_persons(seed):
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in (5, 9):
        for _ in range(rng.integers(1, 7)):
            corner, size = rng.uniform(0, 200, 2), np.exp(rng.uniform(2, 5, 2))
            points = np.zeros([17, 3])
            points[:, :2] = np.round(corner + rng.random([17, 2]) * size)
            points[:, 2] = rng.integers(0, 3, 17) * (rng.random() < 0.85)
            points[points[:, 2] == 0] = 0
            area = float(size.prod() * rng.uniform(0.3, 1))
            row = annotation(points.ravel().tolist(), area, image_id=image)
            crowd = int(rng.random() < 0.15)
            annotations.append(row | {"bbox": [*corner.tolist(), *size.tolist()], "iscrowd": crowd})
            for _ in range(rng.choice([0, 1, 12])):
                off = points + rng.normal(0, size.max() * rng.choice([0.01, 0.05, 0.2]), [17, 3])
                value = round(rng.random(), 1) if seed % 2 else rng.random()
                results.append(result(off.ravel().tolist(), float(value), image_id=image))
    return truth_of(annotations, PERSON), results


@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_pycocotools_own_way_with_files(seed):
    """`COCO.loadRes`, `COCOeval(..., "keypoints")`, `summarize`; hotcoco's are the same bits."""
    truth, results = random_persons(seed)
    of_both = [score(truth, results, cocoeval=n)[0] for n in ("pycocotools", "hotcoco")]
    assert of_both[0] == of_both[1]
    truth = copy.deepcopy(truth)
    truth["info"] = {}
    for k, row in enumerate(truth["annotations"]):
        row["id"] = k + 1  # pycocotools takes 0 for no match
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO()
        theirs.dataset = truth
        theirs.createIndex()
        found = theirs.loadRes([{k: v for k, v in r.items() if k != "bbox"} for r in results])
        evaluation = COCOeval(theirs, found, "keypoints")
        evaluation.params.catIds = [3]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = [of_both[0][f"keypoint_{name}"] for name in keypoint_scoring.SUMMARY]
    np.testing.assert_allclose(ours, evaluation.stats, rtol=1e-12)
    assert KeypointSet(PERSON).sigmas() == pytest.approx(evaluation.params.kpt_oks_sigmas)
    if seed == 0:
        assert 0.05 < ours[0] < 0.95


def test_what_cannot_be_scored_is_refused():
    truth = truth_of([annotation([60, 60, 2, 100, 100, 1])])
    with pytest.raises(ValueError, match="image 5: keypoints are to be scored: 6 finite numbers"):
        score(truth, [result([1, 2, 3])])
    for category in truth["categories"]:
        category.pop("keypoints", None)
    with pytest.raises(ValueError, match="no category of the data has some"):
        score(truth, [])
    label_map = LabelMap((1, 3), ("tree", "man"), KeypointSet(TWO[::-1], (), (2,)))
    truth = truth_of([annotation([60, 60, 2, 100, 100, 1])])
    with pytest.raises(
        ValueError, match="keypoints are foot, head, those of the ground truth head"
    ):
        CocoEvaluator(truth, label_map, False, include_keypoints=True)
