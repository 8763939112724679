"""What a reader of a format collects on its way to COCO JSON: images, objects, and what was odd."""

import collections
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.data import coco_masks
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.findings import Finding, Level

Box = tuple[float, float, float, float]  # x, y, width, height; pixels


class Collected:
    """A data set in the making.

    Attributes:
      findings: what was repaired, left out or refused.
      notes: how often what harmless thing was met.
      warnings: what the user should look at; nothing is wrong for sure.
      num_images: of the data set, with those left out.
      num_objects: likewise.
      embedded: images that lie in annotation files alone: their content by the names to give them.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.notes: collections.Counter[str] = collections.Counter()
        self.warnings: list[str] = []
        self.num_images = self.num_objects = 0
        self.embedded: dict[str, bytes] = {}
        self._images: list[ImageEntry] = []
        self._objects: list[tuple[ImageEntry, str, dict[str, Any]]] = []

    def add_image(self, file_name: str, size_hw: tuple[int, int]) -> ImageEntry:
        """Add an image that can be used; `num_images` counts it."""
        self.num_images += 1
        image = ImageEntry(len(self._images) + 1, file_name, *size_hw)
        self._images.append(image)
        return image

    def add_object(
        self,
        image: ImageEntry,
        category: str,
        where: str,
        segmentation: Any = None,
        box: Box | None = None,
    ) -> None:
        """Add an object, or leave it or its mask out; `num_objects` counts it.

        Args:
          image: it is in.
          category: its name.
          where: file and line, for findings.
          segmentation: polygons or run lengths as COCO has them; None if there is no mask.
          box: taken where no mask can be used.
        """
        self.num_objects += 1
        row: dict[str, Any] = {"iscrowd": 0}
        if segmentation is not None:
            try:
                row |= _of_mask(segmentation, image)
                if row.pop("repair"):
                    self.repaired("stray part of a polygon", where, "", "this part left out")
            except coco_masks.BadMaskError as error:
                box = box or _box_around(segmentation)
                row = {"iscrowd": 0}
                if _seen(box, image):
                    remedy = "object kept without a mask"
                    self._add(Level.LEFT_OUT, error.kind, where, error.value, remedy)
                else:
                    self._leave_out(error.kind, where, error.value, objects=1)
                    return
        if "bbox" not in row:
            if box is None or not _seen(box, image):
                value = f"box {box} in an image of {image.width} x {image.height}"
                self._leave_out("box without area in the image", where, value, objects=1)
                return
            row |= {"bbox": list(box), "area": box[2] * box[3]}
        self._objects.append((image, category, row))

    def repaired(self, kind: str, where: str, value: str, remedy: str) -> None:
        """Take down what was wrong and followed from the rest."""
        self._add(Level.REPAIRED, kind, where, value, remedy)

    def refuse(self, kind: str, where: str, value: str) -> None:
        """Take down why the data set cannot be used."""
        self._add(Level.REFUSED, kind, where, value, "")

    def lose_object(self, kind: str, where: str, value: str) -> None:
        """Leave an object out, and count it."""
        self.num_objects += 1
        self._leave_out(kind, where, value, objects=1)

    def lose_image(self, kind: str, where: str, value: str, objects: int = 0) -> None:
        """Leave an image out with all of its objects, and count them."""
        self.num_images += 1
        self.num_objects += objects
        self._leave_out(kind, where, value, objects, images=1)

    def to_json(self, names: list[str]) -> dict[str, Any]:
        """Return COCO's JSON; category ids count from 1 in the order of `names`."""
        ids = {name: k + 1 for k, name in enumerate(names)}
        return {
            "images": [
                {"id": i.image_id, "file_name": i.file_name, "height": i.height, "width": i.width}
                for i in self._images
            ],
            "annotations": [
                {"id": k + 1, "image_id": image.image_id, "category_id": ids[category], **row}
                for k, (image, category, row) in enumerate(self._objects)
            ],
            "categories": [{"id": k, "name": name} for name, k in ids.items()],
        }

    @property
    def categories(self) -> set[str]:
        """Names of all objects' categories."""
        return {category for _, category, _ in self._objects}

    def _leave_out(
        self, kind: str, where: str, value: str, objects: int = 0, images: int = 0
    ) -> None:
        remedy = "image left out" if images else "object left out"
        finding = Finding(Level.LEFT_OUT, kind, where, value, remedy, objects, images)
        self.findings.append(finding)

    def _add(self, level: Level, kind: str, where: str, value: str, remedy: str) -> None:
        self.findings.append(Finding(level, kind, where, value, remedy))


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Return COCO's compressed run lengths of a mask, bool [h, w], as JSON takes them."""
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": runs["counts"].decode("ascii")}


def to_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the mask, bool [h, w], of a segmentation that can be used."""
    mask, _ = coco_masks.read(segmentation, height, width)
    return coco_mask.decode(mask.to_rle(height, width)).astype(bool)


def _of_mask(segmentation: Any, image: ImageEntry) -> dict[str, Any]:
    """Return segmentation, box and area of a mask, and what was repaired."""
    mask, repair = coco_masks.read(segmentation, image.height, image.width)
    runs = mask.to_rle(image.height, image.width)
    area = int(coco_mask.area(runs))
    if not area:
        raise coco_masks.BadMaskError("mask covers no pixel", f"in {image.width} x {image.height}")
    if mask.polygons is not None:
        segmentation = [polygon.tolist() for polygon in mask.polygons]
    box = coco_mask.toBbox(runs).tolist()
    return {"segmentation": segmentation, "bbox": box, "area": area, "repair": repair}


def _box_around(segmentation: Any) -> Box | None:
    """Return the rectangle around polygons; None for run lengths and what is no polygon."""
    if isinstance(segmentation, dict):
        return None
    points = np.concatenate([np.reshape(p, [-1, 2]) for p in segmentation if len(p) % 2 == 0])
    if not points.size:
        return None
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2 - x1, y2 - y1


def _seen(box: Box | None, image: ImageEntry) -> bool:
    """Whether a box has area within the image."""
    if box is None:
        return False
    x, y, w, h = box
    return (
        min(x + w, image.width) - max(x, 0) > 1e-3 and min(y + h, image.height) - max(y, 0) > 1e-3
    )
