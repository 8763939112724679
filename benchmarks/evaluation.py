"""COCO evaluation, from what a network puts out to the 24 numbers (CPU).

python benchmarks/evaluation.py [--images 5000] [--cocoeval pycocotools] [--report]

Images of 480 x 640 with 8 objects each, 80 categories; 100 detections per image, all near objects,
half of them of the right category, with masks of 28 x 28. Adding them (pasting, encoding) and
scoring are timed apart, one after the other and on one thread: in an evaluation the network goes on
while detections are added. With --report, what a report calculates beyond that is timed too.
Prints one JSON line.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import scene  # noqa: E402
import timing  # noqa: E402
from pycocotools import mask as coco_mask  # noqa: E402

from mrcnn_tf.data import schema  # noqa: E402
from mrcnn_tf.data.label_map import LabelMap  # noqa: E402
from mrcnn_tf.evaluation import coco, ground_truth  # noqa: E402
from mrcnn_tf.reporting import scored as report_scored  # noqa: E402

HEIGHT, WIDTH, OBJECTS, DETECTIONS, CATEGORIES, MASK_SIZE = 480, 640, 8, 100, 80, 28
SIZE = np.float32([[HEIGHT, WIDTH]])


def truth_of(boxes: np.ndarray, classes: np.ndarray) -> dict[str, list[dict]]:
    """Ground truth of boxes [images, OBJECTS, 4]: an ellipse in each."""
    annotations: list[dict] = []
    for image, (of_image, categories) in enumerate(zip(boxes, classes, strict=True), 1):
        pixels = scene.masks(of_image, HEIGHT, WIDTH)
        rles = coco_mask.encode(np.asfortranarray(pixels.transpose(1, 2, 0)))
        for (y1, x1, y2, x2), category, rle in zip(
            of_image.tolist(), categories.tolist(), rles, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "iscrowd": 0,
                    "area": float(coco_mask.area(rle)),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": rle,
                }
            )
    return ground_truth.from_coco_dict(
        {
            "images": [
                {"id": i, "height": HEIGHT, "width": WIDTH} for i in range(1, len(boxes) + 1)
            ],
            "categories": [{"id": i, "name": str(i)} for i in range(1, CATEGORIES + 1)],
            "annotations": annotations,
        }
    )


def detections_near(
    boxes: np.ndarray, classes: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """What a network finds in an image with these objects, as `CocoEvaluator.add` takes it."""
    near = rng.integers(0, OBJECTS, DETECTIONS)
    found = np.clip(boxes[near] + rng.normal(0, 4, [DETECTIONS, 4]), 0, [HEIGHT, WIDTH] * 2)
    found[:, :2] = np.minimum(found[:, :2], found[:, 2:] - 1)
    anything = rng.integers(1, CATEGORIES + 1, DETECTIONS)
    drawn = np.where(rng.random(DETECTIONS) < 0.5, classes[near], anything)
    return {
        "boxes": found[np.newaxis].astype(np.float32),
        "classes": drawn[np.newaxis],
        "scores": rng.random([1, DETECTIONS]).astype(np.float32),
        "valid": np.ones([1, DETECTIONS], bool),
    }


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--cocoeval", choices=["hotcoco", "pycocotools"], default="hotcoco")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    boxes = np.stack([scene.boxes(HEIGHT, WIDTH, OBJECTS, seed=i) for i in range(args.images)])
    classes = rng.integers(1, CATEGORIES + 1, boxes.shape[:2])
    found = [detections_near(*of_image, rng) for of_image in zip(boxes, classes, strict=True)]
    y, x = np.mgrid[:MASK_SIZE, :MASK_SIZE] / ((MASK_SIZE - 1) / 2) - 1
    disc = (1 / (1 + np.exp(6 * (y**2 + x**2 - 0.9)))).astype(np.float32)
    masks = np.tile(disc, [1, DETECTIONS, 1, 1])
    names = tuple(str(i) for i in range(1, CATEGORIES + 1))
    evaluator = coco.CocoEvaluator(
        truth_of(boxes, classes),
        LabelMap(tuple(range(1, CATEGORIES + 1)), names),
        cocoeval=args.cocoeval,
    )
    start = time.perf_counter()
    for image, of_image in enumerate(found, 1):
        source_id = np.zeros([1, schema.SOURCE_ID_BYTES], np.uint8)
        text = str(image).encode()
        source_id[0, : len(text)] = np.frombuffer(text, np.uint8)
        evaluator.add(
            source_id=source_id, image_size_hw=SIZE, original_size_hw=SIZE, masks=masks, **of_image
        )
    added = time.perf_counter()
    numbers = evaluator.evaluate()
    scored = time.perf_counter()
    if args.report:
        report_scored.score(evaluator)
    reported = time.perf_counter()
    timing.print_line(
        benchmark="evaluation",
        images=args.images,
        detections=DETECTIONS,
        cocoeval=args.cocoeval,
        seconds={
            "add": round(added - start, 3),
            "evaluate": round(scored - added, 3),
            "whole": round(scored - start, 3),
            **({"report": round(reported - scored, 3)} if args.report else {}),
        },
        box_ap=numbers["box_ap"],
        mask_ap=numbers["mask_ap"],
        peak_mib=timing.peak_memory_mib(),
    )


if __name__ == "__main__":
    main()
