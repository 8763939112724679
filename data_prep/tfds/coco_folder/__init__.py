"""Any COCO folder as a TFDS data set; importing this makes `coco_folder` known to TFDS."""

from .coco_folder_dataset_builder import Builder as CocoFolder

__all__ = ["CocoFolder"]
