"""What scores a network: ground truth and classes of the validation set, put together once.

It is made before training starts: whatever would end the first evaluation is said then.
"""

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import coco, ground_truth
from mrcnn_tf.evaluation import proposals as proposal_evaluation
from mrcnn_tf.experiment import label_maps, sources
from mrcnn_tf.experiment.experiment import Task

Evaluator = coco.CocoEvaluator | proposal_evaluation.ProposalEvaluator
Truth = dict[str, list[dict]]


def build(config: Task, label_map: LabelMap) -> tuple[Evaluator, Truth]:
    """Read the ground truth; what the network detects decides how it is scored.

    Args:
      config: the task.
      label_map: the network's classes; those of the ground truth are matched by name.

    Returns:
      The evaluator, and the ground truth as `evaluation/ground_truth.py` describes it.

    Raises:
      ValueError: the ground truth contradicts itself, has no masks where masks are to be scored, or
        has a category that the network does not know.
      FileNotFoundError: there is none.
    """
    has_masks = config.model.system == "mask_rcnn"
    if config.annotation_file:
        path = config.annotation_file
        truth = ground_truth.from_annotation_file(path, has_masks)
        truth["categories"] = _categories_to_score(truth, label_map)
        theirs = LabelMap.from_coco_categories(truth["categories"])
        label_map = label_map.renumbered(theirs, path, "the network")
        # How frequent a category is was counted in training.
        letters = dict(zip(label_map.ids, label_map.frequencies, strict=False))
        for category in truth["categories"]:
            if category["id"] in letters:
                category["frequency"] = letters[category["id"]]
    else:
        label_map = label_maps.of_records(config, config.validation_data, label_map)
        patterns = sources.patterns(config.validation_data)
        truth = ground_truth.from_records(patterns, label_map, has_masks)
    if config.model.system == "rpn":
        return proposal_evaluation.ProposalEvaluator(truth, config.cocoeval), truth
    evaluator = coco.CocoEvaluator(
        truth,
        label_map,
        include_masks=has_masks,
        max_detections=max(100, config.model.max_instances),
        mask_paste=config.model.detection.mask_paste,
        cocoeval=config.cocoeval,
        include_boundaries=config.boundary_ap,
        include_keypoints=config.model.keypoint_head.num_keypoints > 0,
    )
    return evaluator, truth


def _categories_to_score(truth: Truth, label_map: LabelMap) -> list[dict]:
    """Leave out what only the list of categories knows: one without objects that is no class.

    Exporters add such ones, the name of the project for one, even under the name of a class.
    """
    if not label_map.has_names:
        return truth["categories"]
    has_objects = {annotation["category_id"] for annotation in truth["annotations"]}
    kept = [category for category in truth["categories"] if category["id"] in has_objects]
    names = {category["name"] for category in kept}
    for category in truth["categories"]:
        if category["name"] in label_map.names and category["name"] not in names:
            kept.append(category)
            names.add(category["name"])
    return sorted(kept, key=lambda category: category["id"])
