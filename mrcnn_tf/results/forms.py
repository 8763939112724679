"""The forms by the names that `--results` takes."""

from mrcnn_tf.results import crops, labelme, voc_masks, yolo
from mrcnn_tf.results.found import Form

COCO = "coco"  # one file for all images, see `coco.py`
OF_IMAGES: dict[str, type[Form]] = {
    "labelme": labelme.Labelme,
    "yolo": yolo.Yolo,
    "masks": voc_masks.VocMasks,
    "crops": crops.Crops,
}
NAMES = (COCO, *OF_IMAGES)
