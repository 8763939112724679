"""The classes that released weights know, as label maps: COCO's in both numberings."""

import re

from mrcnn_tf.data.keypoint_set import COCO_PERSON, KeypointSet
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.weights.recognize import Recognized

# COCO's 80 categories have ids between 1 and 90: ten were annotated too rarely and left out.
COCO = {
    1: "person",
    2: "bicycle",
    3: "car",
    4: "motorcycle",
    5: "airplane",
    6: "bus",
    7: "train",
    8: "truck",
    9: "boat",
    10: "traffic light",
    11: "fire hydrant",
    13: "stop sign",
    14: "parking meter",
    15: "bench",
    16: "bird",
    17: "cat",
    18: "dog",
    19: "horse",
    20: "sheep",
    21: "cow",
    22: "elephant",
    23: "bear",
    24: "zebra",
    25: "giraffe",
    27: "backpack",
    28: "umbrella",
    31: "handbag",
    32: "tie",
    33: "suitcase",
    34: "frisbee",
    35: "skis",
    36: "snowboard",
    37: "sports ball",
    38: "kite",
    39: "baseball bat",
    40: "baseball glove",
    41: "skateboard",
    42: "surfboard",
    43: "tennis racket",
    44: "bottle",
    46: "wine glass",
    47: "cup",
    48: "fork",
    49: "knife",
    50: "spoon",
    51: "bowl",
    52: "banana",
    53: "apple",
    54: "sandwich",
    55: "orange",
    56: "broccoli",
    57: "carrot",
    58: "hot dog",
    59: "pizza",
    60: "donut",
    61: "cake",
    62: "chair",
    63: "couch",
    64: "potted plant",
    65: "bed",
    67: "dining table",
    70: "toilet",
    72: "tv",
    73: "laptop",
    74: "mouse",
    75: "remote",
    76: "keyboard",
    77: "cell phone",
    78: "microwave",
    79: "oven",
    80: "toaster",
    81: "sink",
    82: "refrigerator",
    84: "book",
    85: "clock",
    86: "vase",
    87: "scissors",
    88: "teddy bear",
    89: "hair drier",
    90: "toothbrush",
}


def is_named(name: str) -> bool:
    """Whether a class has a name of its own, not just a number."""
    return not re.fullmatch(r"class \d+|N/A", name)


def label_map(recognized: Recognized) -> LabelMap | None:
    """The label map of a file's classes.

    A Detectron2 file with 80 classes is taken to know COCO's, in the order of their ids. A
    torchvision file with 91 outputs numbers them by their ids, so ten outputs, "N/A", were never
    trained: they are kept, because they take part in the softmax.

    One class with 17 keypoints is taken to be COCO's person.

    Returns:
      None if there is no classifier; numbered classes, and keypoints, if they are not COCO's.
    """
    if not recognized.num_classes:
        return None
    if recognized.num_keypoints:
        return _with_keypoints(recognized)
    if recognized.project == "detectron2" and recognized.num_classes == 81:
        return LabelMap(tuple(COCO), tuple(COCO.values()))
    ids = tuple(range(1, recognized.num_classes))
    if recognized.project == "torchvision" and recognized.num_classes == 91:
        return LabelMap(ids, tuple(COCO.get(i, "N/A") for i in ids))
    return LabelMap(ids, tuple(f"class {i}" for i in ids))


def _with_keypoints(recognized: Recognized) -> LabelMap:
    ids = tuple(range(1, recognized.num_classes))
    if len(ids) == 1 and recognized.num_keypoints == len(COCO_PERSON.names):
        return LabelMap(ids, (COCO[1],), COCO_PERSON)
    names = tuple(f"keypoint {k}" for k in range(1, recognized.num_keypoints + 1))
    return LabelMap(ids, tuple(f"class {i}" for i in ids), KeypointSet(names, (), ids))
