"""What a best checkpoint can be chosen by is what an evaluation returns, of every kind of network.

Left out are only the categories of which an evaluation has nothing to say: those with -1.
"""

import types

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation.coco import CocoEvaluator
from mrcnn_tf.evaluation.proposals import ProposalEvaluator
from mrcnn_tf.experiment.experiment import Trainer
from mrcnn_tf.training import preflight

SIDE = 20
CORNERS = ["left", "right"]
# Of `tree` there is nothing, of `crowd` only a crowd region; `arrow` has keypoints, `blank` could
# have some, `ring` cannot. Two categories are called `twin`.
CATEGORIES = [
    {"id": 9, "name": "arrow", "keypoints": CORNERS},
    {"id": 2, "name": "blank", "keypoints": CORNERS},
    {"id": 4, "name": "ring"},
    {"id": 7, "name": "tree"},
    {"id": 5, "name": "crowd"},
    {"id": 6, "name": "twin"},
    {"id": 8, "name": "twin"},
]
LETTERS = dict(zip((9, 2, 4, 7, 5, 6, 8), "rcfrcfr", strict=True))


def truth_of(is_federated):
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []} if is_federated else {}
    annotations = []
    for k, category_id in enumerate((9, 2, 4, 5, 6, 8)):
        mask = np.zeros([SIDE * 8, SIDE], np.uint8, order="F")
        mask[k * SIDE : (k + 1) * SIDE - 4] = 1
        encoded = coco_mask.encode(mask)
        annotations.append(
            {
                "id": k + 1,
                "image_id": 1,
                "category_id": category_id,
                "iscrowd": int(category_id == 5),
                "area": float(mask.sum()),
                "bbox": [0.0, k * SIDE, SIDE, SIDE - 4.0],
                "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
            }
        )
        if category_id in (9, 2):
            points = [3, k * SIDE + 3, 2, 9, k * SIDE + 9, 2] if category_id == 9 else [0] * 6
            annotations[-1] |= {"keypoints": points, "num_keypoints": 2 * (category_id == 9)}
    letters = [{"frequency": LETTERS[c["id"]], "image_count": 1} for c in CATEGORIES]
    categories = [
        c | (more if is_federated else {}) for c, more in zip(CATEGORIES, letters, strict=True)
    ]
    images = [{"id": 1, "height": SIDE * 8, "width": SIDE} | lists]
    return {"images": images, "categories": categories, "annotations": annotations}


def everything_found(truth, with_keypoints):
    """Each object once."""
    return [
        {key: row[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
        | {"score": 0.5}
        | ({"keypoints": row["keypoints"]} if with_keypoints and "keypoints" in row else {})
        for row in truth["annotations"]
        if not row["iscrowd"]
    ]


KINDS = {
    "boxes": ({"include_masks": False}, False),
    "masks": ({}, False),
    "300 of an image": ({"max_detections": 300}, False),
    "boundaries": ({"include_boundaries": True}, False),
    "keypoints": ({"include_keypoints": True}, False),
    "keypoints without masks": ({"include_keypoints": True, "include_masks": False}, False),
    "everything": ({"include_keypoints": True, "include_boundaries": True}, False),
    "LVIS's rules": ({"max_detections": 300}, True),
    "LVIS's rules, boundaries": ({"include_boundaries": True}, True),
}


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_of_an_evaluation(kind, library):
    settings, is_federated = KINDS[kind]
    truth = truth_of(is_federated)
    evaluator = CocoEvaluator(truth, None, cocoeval=library, **settings)
    evaluator.add_coco_results(everything_found(truth, "include_keypoints" in settings))
    numbers = evaluator.evaluate()
    told = [name for name, value in numbers.items() if "/" not in name or value >= 0]
    assert list(evaluator.metric_names) == told
    of_boxes = [name for name in told if name.startswith("box_ap/")]
    # In the order of their ids.
    assert of_boxes == [f"box_ap/{n}" for n in ("blank", "ring", "twin (6)", "twin (8)", "arrow")]
    assert ("keypoint_ap/arrow" in told) == ("include_keypoints" in settings)
    assert "keypoint_ap/blank" not in told
    assert all(numbers[name] == pytest.approx(1.0) for name in told if "/" in name)


def test_names_of_proposals_are_those_of_an_evaluation():
    evaluator = ProposalEvaluator(truth_of(False))
    assert list(evaluator.metric_names) == list(evaluator.evaluate())
    assert evaluator.metric_names[0] == "ar_100"
    assert "ar_small_1000" in evaluator.metric_names


def check(metric, comparison="higher", **settings):
    """What a run looks at before its first step."""
    evaluator = CocoEvaluator(truth_of(False), None, **settings)
    names = tuple(category["name"] for category in CATEGORIES)
    task = types.SimpleNamespace(
        evaluator=evaluator,
        loss_names=("class_loss",),
        label_map=LabelMap(tuple(range(1, 8)), names),
        task_config=types.SimpleNamespace(validation_loss=True),
    )
    trainer = Trainer(best_checkpoint_eval_metric=metric, best_checkpoint_metric_comp=comparison)
    preflight.check_best(task, trainer)


@pytest.mark.parametrize(
    "metric", ["keypoint_ap/arrow", "keypoint_ar75", "mask_ap/ring", "box_ap/twin (8)"]
)
def test_the_best_may_be_chosen_by(metric):
    check(metric, include_keypoints=True)


def test_the_best_may_be_chosen_by_a_loss():
    check("class_loss", "lower")


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("mask_ap/tree", "has no object of 'tree' to score"),
        ("mask_ap/crowd", "has no object of 'crowd' to score"),
        ("keypoint_ap/blank", "has no keypoint of an object of 'blank' to score"),
        ("keypoint_ap/ring", "has no keypoint of an object of 'ring' to score"),
        ("mask_ap60", "is nothing that this network is scored by. Nearest are mask_ap"),
        ("mask_ap75/ring", "is nothing that this network is scored by"),
        ("boundary_ap/ring", "is nothing that this network is scored by"),
    ],
)
def test_the_best_is_not_chosen_by(metric, why):
    with pytest.raises(ValueError, match=f"^trainer.best_checkpoint_eval_metric: .*{why}"):
        check(metric, include_keypoints=True)
