"""Average recall: hand-worked, against pycocotools without shortcuts, awkward and hostile input."""

import contextlib
import io
import json
import logging

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_tf.data.schema import SOURCE_ID_BYTES
from mrcnn_tf.evaluation import ground_truth
from mrcnn_tf.evaluation.proposals import CAPS, ProposalEvaluator


def truth_of(objects, sizes=None):
    """Ground truth of (image id, (x, y, w, h), crowd) triples; all images 100 x 200 (h x w)."""
    ids = list(sizes or dict.fromkeys(image_id for image_id, *_ in objects))
    dataset = {
        "images": [{"id": i, "height": 100, "width": 200} for i in ids],
        "categories": [{"id": 17, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {
                "id": k,
                "image_id": image_id,
                "category_id": (17, 3)[k % 2],
                "iscrowd": int(crowd),
                "area": box[2] * box[3],
                "bbox": list(box),
            }
            for k, (image_id, box, crowd) in enumerate(objects)
        ],
    }
    return ground_truth.from_coco_dict(dataset, include_masks=False)


def batch(per_image, count, scale=1.0):
    """Arguments of `add` of {image id: xywh boxes, best first}, padded to `count`."""
    rows = len(per_image)
    source_id = np.zeros([rows, SOURCE_ID_BYTES], np.uint8)
    boxes = np.full([rows, count, 4], np.nan, np.float32)  # whatever lies in padded rows
    valid = np.zeros([rows, count], bool)
    for b, (image_id, found) in enumerate(per_image.items()):
        text = str(image_id).encode()
        source_id[b, : len(text)] = np.frombuffer(text, np.uint8)
        x, y, w, h = np.asarray(found, np.float64).reshape(-1, 4).T
        boxes[b, : len(found)] = np.stack([y, x, y + h, x + w], axis=1) * scale
        valid[b, : len(found)] = True
    return {
        "source_id": source_id,
        "image_size_hw": np.tile(np.float32([100, 200]) * scale, [rows, 1]),
        "original_size_hw": np.tile(np.float32([100, 200]), [rows, 1]),
        "boxes": boxes,
        "scores": np.where(valid, np.linspace(3, -3, count), -np.inf).astype(np.float32),
        "valid": valid,
    }


def test_hand_worked_average_recall():
    # A small object (20 x 20) is found at IoU 1 by the 101st proposal; a medium one (40 x 40) by
    # the first, at IoU 33 / 40 = 0.825, so at 7 thresholds, .50 to .80; a large one not at all.
    objects = [(7, (0, 0, 20, 20), 0), (7, (50, 0, 40, 40), 0), (7, (100, 0, 100, 100), 0)]
    evaluator = ProposalEvaluator(truth_of(objects))
    found = [(50, 0, 33, 40)] + [(30, 60, 10, 10)] * 99 + [(0, 0, 20, 20)]
    evaluator.add(**batch({7: found}, count=1000))
    numbers = evaluator.evaluate()
    assert numbers["ar_100"] == pytest.approx(0.7 / 3)
    assert numbers["ar_300"] == numbers["ar_1000"] == pytest.approx(1.7 / 3)
    assert [numbers[f"ar_small_{cap}"] for cap in CAPS] == [0.0, 1.0, 1.0]
    assert [numbers[f"ar_medium_{cap}"] for cap in CAPS] == pytest.approx([0.7, 0.7, 0.7])
    assert [numbers[f"ar_large_{cap}"] for cap in CAPS] == [0.0, 0.0, 0.0]
    assert len(numbers) == 12
    assert evaluator.table().splitlines()[:4] == [
        "proposals       AR     AR s     AR m     AR l",
        "      100    0.233    0.000    0.700    0.000",
        "      300    0.567    1.000    0.700    0.000",
        "     1000    0.567    1.000    0.700    0.000",
    ]
    assert evaluator.table().splitlines()[4] == "1 images, 3 objects, 101 proposals"


def random_case(seed):
    """Objects of all sizes, some twice, some crowds; proposals around them and anywhere."""
    rng = np.random.default_rng(seed)
    objects, found = [], {}
    for image_id in (5, 3, 11, 8):
        count = int(rng.integers(0, 9)) if image_id != 8 else 0
        wh = np.round(np.exp(rng.uniform(np.log(5), np.log(99), [count, 2])), 1)
        xy = rng.uniform(0, 1, [count, 2]) * (np.array([200, 100]) - wh)
        boxes = np.concatenate([xy, wh], axis=1)
        boxes = np.concatenate([boxes, boxes[:1]])  # the same box in another category
        objects += [(image_id, tuple(b), rng.random() < 0.2) for b in boxes.tolist()]
        near = boxes[rng.integers(0, max(count, 1), 80)] if len(boxes) else np.zeros([0, 4])
        near = near + rng.normal(0, 0.25, near.shape) * np.tile(near[:, 2:], 2)
        away = np.concatenate([rng.uniform(0, 100, [370, 2]), rng.uniform(1, 90, [370, 2])], 1)
        both = rng.permutation(np.concatenate([near, away]))
        top_left = np.clip(both[:, :2], 0, [199, 99])
        bottom_right = np.clip(both[:, :2] + both[:, 2:], top_left + 0.5, [200, 100])
        found[image_id] = np.float32(np.concatenate([top_left, bottom_right - top_left], axis=1))
    return objects, found


@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_those_of_pycocotools_on_all_proposals(seed):
    objects, found = random_case(seed)
    sizes = [5, 3, 11, 8, 9]  # 9 has neither objects nor proposals
    evaluator = ProposalEvaluator(truth_of(objects, sizes))
    for image_id, rows in found.items():
        evaluator.add(**batch({image_id: rows}, count=600))
    evaluator.add(**batch({9: []}, count=600))
    numbers = evaluator.evaluate()

    truth = truth_of(objects, sizes)
    for k, annotation in enumerate(truth["annotations"]):
        annotation["id"] = k + 1
    rows = []
    for image_id, boxes in found.items():
        arguments = batch({image_id: boxes}, count=600)
        for (y1, x1, y2, x2), score in zip(
            arguments["boxes"][0][: len(boxes)].astype(float), arguments["scores"][0], strict=False
        ):
            bbox = [x1, y1, x2 - x1, y2 - y1]
            rows.append(
                {"image_id": image_id, "category_id": 3, "bbox": bbox, "score": float(score)}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(CAPS)
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"]  # [IoU, 1, area, cap]
    assert 0.1 < numbers["ar_100"] < numbers["ar_300"] < numbers["ar_1000"] < 1
    for a, size in enumerate(("", "_small", "_medium", "_large")):
        for m, cap in enumerate(CAPS):
            want = recall[:, 0, a, m].mean()
            assert numbers[f"ar{size}_{cap}"] == pytest.approx(want, abs=1e-12), (size, cap)


def test_neither_batches_nor_the_networks_scale_matter():
    objects, found = random_case(1)
    numbers = []
    for scale in (1.0, 4.0):  # exact in float32
        evaluator = ProposalEvaluator(truth_of(objects, found))
        if scale == 1.0:
            evaluator.add(**batch(found, 450))
        else:
            for image_id in reversed(found):
                evaluator.add(**batch({image_id: found[image_id], "": []}, 450, scale))
        assert evaluator.num_added == evaluator.num_images == 4
        numbers.append(evaluator.evaluate())
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)


def test_parts_of_two_processes_score_as_one():
    objects, found = random_case(2)
    together, chief, other = (ProposalEvaluator(truth_of(objects, found)) for _ in range(3))
    for number, (image_id, boxes) in enumerate(found.items()):
        image = batch({image_id: boxes}, 450)
        together.add(**image)
        (chief if number % 2 else other).add(**image)
    (part,) = json.loads(json.dumps(list(other.parts())))
    chief.add_part(part)
    assert chief.evaluate() == together.evaluate()
    assert chief.table() == together.table()
    with pytest.raises(ValueError, match="was added before"):
        chief.add_part(part)


def test_scores_decide_the_order():
    evaluator = ProposalEvaluator(truth_of([(7, (0, 0, 20, 20), 0)]))
    arguments = batch({7: [(0, 0, 20, 20)] + [(60, 60, 9, 9)] * 100}, count=101)
    arguments["scores"] = arguments["scores"][:, ::-1]
    evaluator.add(**arguments)
    numbers = evaluator.evaluate()
    assert (numbers["ar_100"], numbers["ar_300"]) == (0.0, 1.0)


def test_a_crowd_is_no_object_to_find():
    evaluator = ProposalEvaluator(truth_of([(7, (0, 0, 90, 90), 1), (7, (100, 0, 50, 50), 0)]))
    evaluator.add(**batch({7: [(100, 0, 50, 50)]}, count=5))
    assert evaluator.evaluate()["ar_100"] == 1.0
    assert "1 objects + 1 crowd regions" in evaluator.table()


def test_fewer_proposals_than_a_cap_are_mentioned():
    evaluator = ProposalEvaluator(truth_of([(7, (0, 0, 20, 20), 0)]))
    evaluator.add(**batch({7: [(0, 0, 20, 20)]}, count=300))
    assert "At most 300 proposals per image: AR@1000 is AR@300.\n" in evaluator.table()
    evaluator.reset()
    evaluator.add(**batch({7: [(0, 0, 20, 20)]}, count=20))
    assert "20 proposals per image: AR@100, AR@300, AR@1000 are AR@20.\n" in evaluator.table()


def test_nothing_found_and_nothing_to_find(caplog):
    evaluator = ProposalEvaluator(truth_of([(7, (0, 0, 20, 20), 0)]))
    with caplog.at_level(logging.WARNING):
        assert evaluator.evaluate()["ar_1000"] == 0.0
    assert "1 of 1 images have no proposals" in caplog.text
    assert "1 images without any added" in evaluator.table()
    evaluator = ProposalEvaluator(truth_of([], [7]))
    evaluator.add(**batch({7: [(0, 0, 20, 20)]}, count=5))
    assert set(evaluator.evaluate().values()) == {-1.0}
    assert " - " in evaluator.table()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.full([1, 5], np.nan)}, "image 7: a proposal's box or score is not finite"),
        ({"original_size_hw": np.float32([[200, 100]])}, "200 x 100 .* 100 x 200 in the ground"),
        ({"source_id": np.full([1, SOURCE_ID_BYTES], 56, np.uint8)}, "is not in the ground truth"),
    ],
)
def test_wrong_batches_are_refused(change, message):
    evaluator = ProposalEvaluator(truth_of([(7, (0, 0, 20, 20), 0)]))
    with pytest.raises(ValueError, match=message):
        evaluator.add(**(batch({7: [(0, 0, 20, 20)]}, count=5) | change))


def test_an_image_is_added_once():
    evaluator = ProposalEvaluator(truth_of([(7, (0, 0, 20, 20), 0)]))
    evaluator.add(**batch({7: []}, count=5))
    with pytest.raises(ValueError, match="image '7' was added before"):
        evaluator.add(**batch({7: []}, count=5))
