"""AP of a file beside that of its network: the same records, pictures and rules for both."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mrcnn_tf.data import record_files, schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.edge import device, image_run
from mrcnn_tf.evaluation import coco, ground_truth
from mrcnn_tf.images import reading

Answer = Callable[[np.ndarray, np.ndarray], device.Outputs]


def average_precision(
    answer: Answer, records: str, input_hw: tuple[int, int], description: dict[str, Any]
) -> dict[str, float]:
    """Score what is found in the pictures of records, in the frame of the pictures.

    Args:
      answer: as `device.Network.run`.
      records: pattern of TFRecord files.
      input_hw: (H, W).
      description: of the file, see `device.Network`.

    Returns:
      `box_ap` and, of a network with masks, `mask_ap`, in [0, 1].

    Raises:
      FileNotFoundError: there are no such records.
      ValueError: a picture cannot be used; names it.
    """
    rows = description["categories"]
    label_map = LabelMap(tuple(row["id"] for row in rows), tuple(row["name"] for row in rows))
    blank = answer(np.zeros([1, *input_hw, 3], np.uint8), np.array(input_hw, np.int32))
    truth = ground_truth.from_records(records, label_map, "masks" in blank)
    evaluator = coco.CocoEvaluator(truth, label_map, "masks" in blank)
    for example in record_files.examples(record_files.find(records)):
        name = example.source_id.decode("utf-8")
        encoded = b"".join(example.features[schema.IMAGE_ENCODED].bytes_list.value)
        try:
            pixels = reading.decode(encoded)[1]
        except reading.UnusableImageError as error:
            raise ValueError(f"{records}: image {name}: {error}") from error
        image, size_hw = device.fit(pixels, input_hw, description["resize"])
        found = device.to_picture(answer(image, size_hw), size_hw, pixels.shape[:2], description)
        detections = image_run.detections_of(found, pixels.shape[:2])
        evaluator.add_coco_results([one.to_coco(name) for one in detections])
    numbers = evaluator.evaluate()
    return {kind: numbers[kind] for kind in ("box_ap", "mask_ap") if kind in numbers}
