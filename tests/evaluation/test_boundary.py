"""Boundary IoU against pixels one by one, and boundary AP on cases worked by hand."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import boundary, ground_truth
from mrcnn_tf.evaluation.coco import CocoEvaluator

LABEL_MAP = LabelMap((1, 2), ("cat", "dog"))


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def eroded_twin(mask, steps):
    """Pixel by pixel: a pixel stays if no pixel outside is within `steps`, diagonals included."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for i in range(height):
        for j in range(width):
            near = [
                0 <= k < height and 0 <= m < width and mask[k, m]
                for k in range(i - steps, i + steps + 1)
                for m in range(j - steps, j + steps + 1)
            ]
            found[i, j] = all(near)
    return found


def boundary_twin(mask):
    distance = max(int(round(0.02 * np.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))), 1)
    return mask & ~eroded_twin(mask, distance)


def iou_twin(a, b, is_crowd=False):
    """The smaller of mask IoU and boundary IoU."""

    def iou(one, other):
        union = one.sum() if is_crowd else (one | other).sum()
        return (one & other).sum() / union if union else 0.0

    return iou(a, b) if is_crowd else min(iou(a, b), iou(boundary_twin(a), boundary_twin(b)))


def masks(rng, count, shape):
    """Blobs: what random pixels leave after smoothing, some at the image's border."""
    found = []
    for _ in range(count):
        noise = np.pad(rng.random(shape), 3, mode="edge")
        smooth = sum(noise[i : i + shape[0], j : j + shape[1]] for i in range(7) for j in range(7))
        found.append(smooth / 49 > 0.5)
    return found


@pytest.mark.parametrize("shape", [(40, 60), (7, 9), (90, 120)])
def test_boundaries_are_those_of_a_slow_twin(shape):
    rng = np.random.default_rng(1)
    given = [*masks(rng, 4, shape), np.ones(shape, bool), np.zeros(shape, bool)]
    for mask in given:
        found = coco_mask.decode(boundary.boundary(encode(mask))).astype(bool)
        np.testing.assert_array_equal(found, boundary_twin(mask))


def test_erosion_by_hand():
    mask = np.ones([5, 7], bool)
    mask[4, 6] = False
    want = np.zeros([5, 7], bool)
    want[1:4, 1:6] = True
    want[3, 5] = False
    np.testing.assert_array_equal(boundary.eroded(mask, 1), want)
    want = np.zeros([5, 7], bool)
    want[2, 2:5] = True
    want[2, 4] = False
    np.testing.assert_array_equal(boundary.eroded(mask, 2), want)


@pytest.mark.parametrize(
    ("size", "want"), [((480, 640), 16), ((30, 40), 1), ((5, 5), 1), ((800, 1333), 31)]
)
def test_distance(size, want):
    assert boundary.distance(*size) == want


def truth_of(objects, shape, image_id=5):
    """Ground truth of (mask, category, is a crowd)."""
    annotations = []
    for k, (mask, category, is_crowd) in enumerate(objects):
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(cols[0]), int(rows[0])
        annotations.append(
            {
                "id": k + 1,
                "image_id": image_id,
                "category_id": category,
                "iscrowd": int(is_crowd),
                "area": int(mask.sum()),
                "bbox": [x, y, int(cols[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                "segmentation": _plain(encode(mask)),
            }
        )
    return ground_truth.from_coco_dict(
        {
            "images": [{"id": image_id, "height": shape[0], "width": shape[1]}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        },
        True,
    )


def _plain(mask):
    return {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}


def results_of(found, image_id=5):
    return [
        {
            "image_id": image_id,
            "category_id": category,
            "score": score,
            "segmentation": _plain(encode(mask)),
        }
        for mask, category, score in found
    ]


def evaluate(objects, found, shape, **arguments):
    evaluator = CocoEvaluator(
        truth_of(objects, shape), LABEL_MAP, include_boundaries=True, **arguments
    )
    evaluator.add_coco_results(results_of(found))
    return evaluator.evaluate(), evaluator


def rectangle(shape, y1, x1, y2, x2):
    mask = np.zeros(shape, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_boundary_ap_by_hand():
    """A square of 60 in an image of 150 x 200 (distance 5), found a pixel too large on each side.

    Mask IoU 60^2 / 62^2 = 0.937: right at nine of ten thresholds. Boundaries are 60^2 - 50^2 = 1100
    and 62^2 - 52^2 = 1140 pixels and share what lies between 52 and 60: 60^2 - 52^2 = 896 of 1344,
    0.667: right up to 0.65, at four thresholds.
    """
    shape = (150, 200)
    objects = [(rectangle(shape, 20, 30, 80, 90), 1, False)]
    found = [(rectangle(shape, 19, 29, 81, 91), 1, 0.9)]
    numbers, evaluator = evaluate(objects, found, shape)
    assert numbers["mask_ap"] == pytest.approx(0.9)
    assert numbers["boundary_ap"] == pytest.approx(0.4)
    assert numbers["boundary_ap50"] == pytest.approx(1.0)
    assert numbers["boundary_ap75"] == 0.0
    assert numbers["boundary_ap/cat"] == pytest.approx(0.4)
    assert numbers["boundary_ar100"] == pytest.approx(0.4)
    assert numbers["boundary_ap/dog"] == -1
    text = evaluator.table()
    assert "mask AP  boundary AP" in text
    assert "boundary  0.400" in text
    assert evaluator.kinds == ("box", "mask")


def test_perfect_masks_score_one_and_empty_ones_nothing():
    shape = (60, 80)
    rng = np.random.default_rng(4)
    things = masks(rng, 3, shape)
    objects = [(mask, 1 + k % 2, False) for k, mask in enumerate(things)]
    found = [(mask, 1 + k % 2, 0.5) for k, mask in enumerate(things)]
    numbers, _ = evaluate(objects, found, shape)
    assert numbers["boundary_ap"] == pytest.approx(1.0)
    numbers, _ = evaluate(objects, [], shape)
    assert numbers["boundary_ap"] == 0.0


def test_ious_are_those_of_a_slow_twin_and_crowds_keep_mask_iou():
    shape = (60, 80)
    rng = np.random.default_rng(7)
    things, found = masks(rng, 4, shape), masks(rng, 5, shape)
    found[0] = things[0].copy()
    found[0][20:23] = False
    crowds = [False, True, False, False]
    objects = [(mask, 1, crowd) for mask, crowd in zip(things, crowds, strict=True)]
    evaluator = CocoEvaluator(truth_of(objects, shape), LABEL_MAP)
    scores = [0.5, 0.9, 0.7, 0.7, 0.1]
    evaluator.add_coco_results(
        results_of([(mask, 1, s) for mask, s in zip(found, scores, strict=True)])
    )
    rows = evaluator.rows("mask")
    # `scoring` has no table of IoUs: ask the class itself.
    truth, answers = boundary.COCO(), boundary.COCO()
    for dataset, annotations in ((truth, rows.annotations), (answers, rows.detections)):
        dataset.dataset = {
            "images": rows.images,
            "categories": [{"id": i} for i in rows.category_ids],
            "annotations": annotations,
        }
        dataset.createIndex()
    run = boundary.BoundaryEval(truth, answers, "segm")
    run.evaluate()
    order = [1, 2, 3, 0, 4]
    want = [
        [
            iou_twin(found[d], things[g], crowds[g])
            for g in [row["id"] - 1 for row in rows.annotations]
        ]
        for d in order
    ]
    np.testing.assert_allclose(run.ious[0, 1], want, atol=1e-9)
    assert 0 < np.max(want) < 1


def test_boundaries_need_masks():
    truth = truth_of([(rectangle((20, 20), 2, 2, 9, 9), 1, False)], (20, 20))
    evaluator = CocoEvaluator(truth, LABEL_MAP, include_masks=False, include_boundaries=True)
    evaluator.add_coco_results(
        [{"image_id": 5, "category_id": 1, "score": 1.0, "bbox": [2, 2, 7, 7]}]
    )
    assert not [name for name in evaluator.evaluate() if name.startswith("boundary")]
