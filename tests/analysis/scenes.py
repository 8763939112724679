"""Small ground truths and results, written out as boxes."""

import numpy as np

from mrcnn_tf.evaluation import ground_truth
from mrcnn_tf.evaluation.coco import CocoEvaluator

SIDE = 100  # pixels of each image


def evaluator(objects, detections, names=("cat", "dog"), num_images=1, include_masks=False):
    """An evaluator with boxes (or masks that fill them) added.

    Args:
      objects: [(image id, category id, [x, y, w, h])], a fourth entry "crowd" for crowds.
      detections: [(image id, category id, [x, y, w, h], score)].
      names: of categories 1, 2, ...
      num_images: ids 1, 2, ...
      include_masks: polygons instead of boxes count.
    """
    dataset = {
        "images": [
            {"id": i + 1, "width": SIDE, "height": SIDE, "file_name": f"{i + 1}.png"}
            for i in range(num_images)
        ],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
        "annotations": [
            {
                "id": k + 1,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(bool(crowd)),
                **({"segmentation": polygon(box)} if include_masks else {}),
            }
            for k, (image, category, box, *crowd) in enumerate(objects)
        ],
    }
    truth = ground_truth.from_coco_dict(dataset, include_masks)
    made = CocoEvaluator(truth, None, include_masks=include_masks)
    made.add_coco_results(
        [
            {
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "score": score,
                **({"segmentation": polygon(box)} if include_masks else {}),
            }
            for image, category, box, score in detections
        ]
    )
    return made


def polygon(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def rows(objects, detections, **options):
    return evaluator(objects, detections, **options).rows("box")


def random_scene(seed, num_images=20, num_categories=3):
    """Objects and detections: some right, some shifted, of a wrong category, twice, on nothing."""
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for i in range(1, num_images + 1):
        for _ in range(rng.integers(0, 6)):
            c = int(rng.integers(1, num_categories + 1))
            b = [*rng.integers(0, 70, 2).tolist(), *rng.integers(8, 30, 2).tolist()]
            objects.append((i, c, b))
            for _ in range(rng.integers(0, 4)):
                jitter = rng.normal(0, rng.choice([0.5, 3, 8]), 4)
                box = [float(round(v + e, 2)) for v, e in zip(b, jitter, strict=True)]
                box[2:] = max(box[2], 2.0), max(box[3], 2.0)
                category = c if rng.random() < 0.75 else int(rng.integers(1, num_categories + 1))
                detections.append((i, category, box, float(round(rng.random(), 6))))
        for _ in range(rng.integers(0, 3)):
            category = int(rng.integers(1, num_categories + 1))
            sides = [*map(float, rng.integers(0, 70, 2)), *map(float, rng.integers(8, 30, 2))]
            detections.append((i, category, sides, float(round(rng.random(), 6))))
    return objects, detections
