"""What comes out of reading a COCO annotation file."""

import dataclasses
from typing import NamedTuple

from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.findings import Finding
from mrcnn_tf.data.label_map import LabelMap


class ImageEntry(NamedTuple):
    """One image.

    Attributes:
      image_id: as the file has it, whole numbers as int.
      file_name: path within the image folder; "" if the file gives none.
      height: pixels.
      width: pixels.
      neg_category_ids: categories of which it is known that the image has none; None, here and
        below, where the file says nothing of the kind, see `coco_federated.py`.
      not_exhaustive_category_ids: categories of which not all objects are annotated.
    """

    image_id: int | str
    file_name: str
    height: int
    width: int
    neg_category_ids: tuple[int, ...] | None = None
    not_exhaustive_category_ids: tuple[int, ...] | None = None

    @property
    def source_id(self) -> str:
        """The id as text, by which images are found."""
        return str(self.image_id)

    @property
    def where(self) -> str:
        """The image's name in messages."""
        return f"image {self.image_id} ({self.file_name or 'no file name'})"

    def sign(self, finding: Finding) -> Finding:
        """Return a finding as one of this image's."""
        return finding._replace(image_id=self.image_id, file_name=self.file_name)


@dataclasses.dataclass
class CocoData:
    """A checked annotation file.

    Attributes:
      name: the file's path, for messages.
      images: in the order of the file.
      objects: by source id, in the order of the file; images without objects have no entry.
      label_map: the categories that are classes.
      num_images: of the file, with those left out.
      num_objects: likewise.
      findings: everything that was left out or repaired, in the order of the file.
      notes: how often what harmless thing was met.
      warnings: sentences on what the file as a whole cannot be used for.
      sha256: hex digest of the file; "" if it was none.
    """

    name: str
    images: list[ImageEntry]
    objects: dict[str, list[ObjectEntry]]
    label_map: LabelMap
    num_images: int
    num_objects: int
    findings: list[Finding]
    notes: dict[str, int]
    warnings: list[str]
    sha256: str = ""


def warnings_of(objects: dict[str, list[ObjectEntry]], include_masks: bool) -> list[str]:
    """Return what the file as a whole cannot teach."""
    entries = [entry for of_image in objects.values() for entry in of_image]
    if not entries:
        return ["there is no object in the file: nothing to learn from but background"]
    warnings = []
    num_crowds = sum(entry.is_crowd for entry in entries)
    if 2 * num_crowds > len(entries):
        warnings.append(
            f"{num_crowds:,} of {len(entries):,} objects are crowds (iscrowd 1), from which "
            "nothing is learnt and on which nothing is scored"
            + (": there is nothing to learn from" if num_crowds == len(entries) else "")
            + ". Some exporters write iscrowd 1 for every mask in run lengths: then set it to 0"
        )
    num_masks = sum(entry.mask is not None for entry in entries)
    if include_masks and not num_masks:
        warnings.append(
            f"none of {len(entries):,} objects has a mask: a Mask R-CNN cannot learn from them. "
            "Train a Faster R-CNN experiment, fasterrcnn_r50_fpn for one"
        )
    elif include_masks and 100 * (len(entries) - num_masks) > len(entries):
        warnings.append(
            f"{len(entries) - num_masks:,} of {len(entries):,} objects have no mask that can be "
            "used: they teach their box only, and count as missed where masks are scored"
        )
    return warnings
