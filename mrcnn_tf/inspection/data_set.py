"""One data set as the doctor sees it: annotations, photos, and its objects as a table.

Shape letters: `n` objects of the set.
"""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.data import coco_json, preprocess
from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.coco_data import CocoData, ImageEntry
from mrcnn_tf.data.findings import Finding
from mrcnn_tf.images import finding as finding_images
from mrcnn_tf.images import record_image, storage
from mrcnn_tf.images.image_folder import ImageFolder
from mrcnn_tf.inspection import photos
from mrcnn_tf.inspection.network import Network
from mrcnn_tf.inspection.photos import Photo

NAMES = {"train": "training", "val": "validation"}


@dataclasses.dataclass
class Objects:
    """The objects of all usable images.

    Attributes:
      image: int [n], place of the image in `DataSet.photos`.
      category_id: int [n], the data set's own.
      boxes: float [n, (y1, x1, y2, x2)], pixels of the image, clipped to it.
      is_crowd: bool [n].
      network_boxes: float [n, 4], pixels of the network input.
      network_hw: int [n, (height, width)], the resized image of each object.
    """

    image: np.ndarray
    category_id: np.ndarray
    boxes: np.ndarray
    is_crowd: np.ndarray
    network_boxes: np.ndarray
    network_hw: np.ndarray

    @property
    def network_sides(self) -> np.ndarray:
        """Square root of each box's area, pixels of the network input, float [n]."""
        return np.sqrt(np.prod(self.network_boxes[:, 2:] - self.network_boxes[:, :2], axis=1))


@dataclasses.dataclass
class DataSet:
    """What was read.

    Attributes:
      key: "train" or "val".
      images_dir: folder of the images.
      annotations: the COCO file.
      coco: what is in it; None if it is no COCO file.
      unreadable: why it is none.
      photos: the images that can be used, in the order of the file.
      findings: what the reader of annotations found, and the images that cannot be used.
      unlisted: files in the folder that are images and not in the annotations.
    """

    key: str
    images_dir: str
    annotations: str
    coco: CocoData | None
    unreadable: str = ""
    photos: list[Photo] = dataclasses.field(default_factory=list)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    unlisted: list[str] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """What people call it."""
        return NAMES[self.key]

    @property
    def class_names(self) -> dict[int, str]:
        """Names of the classes, by the data set's own id."""
        if not self.coco:
            return {}
        return dict(zip(self.coco.label_map.ids, self.coco.label_map.names, strict=True))

    def objects_of(self, image: ImageEntry) -> list[ObjectEntry]:
        """Return the objects of an image."""
        return self.coco.objects.get(image.source_id, []) if self.coco else []

    def entries(self) -> Iterator[tuple[int, ImageEntry, ObjectEntry]]:
        """Yield the objects of all usable images: the image's place, the image, the object."""
        for place, photo in enumerate(self.photos):
            for entry in self.objects_of(photo.image):
                yield place, photo.image, entry

    def table(self, network: Network) -> Objects:
        """Return the objects, and where they lie in the network's input."""
        rows = list(self.entries())
        boxes = np.array([clipped_box(entry, image) for _, image, entry in rows])
        boxes = boxes.reshape(-1, 4)
        sizes = np.array([(image.height, image.width) for _, image, _ in rows], np.int32)
        sizes = sizes.reshape(-1, 2)
        network_hw = preprocess.resized_size_hw(
            tf.constant(sizes), tf.constant(network.short_edge), network.long_edge, network.resize
        ).numpy()
        scale = network_hw / sizes
        return Objects(
            image=np.array([place for place, _, _ in rows], np.int64),
            category_id=np.array([entry.category_id for _, _, entry in rows], np.int64),
            boxes=boxes,
            is_crowd=np.array([entry.is_crowd for _, _, entry in rows], bool),
            network_boxes=boxes * np.tile(scale, 2),
            network_hw=network_hw,
        )


def clipped_box(entry: ObjectEntry, image: ImageEntry) -> tuple[float, float, float, float]:
    """Return (y1, x1, y2, x2) of an object, pixels, within its image."""
    x, y, width, height = entry.bbox
    return (
        min(max(y, 0.0), image.height), min(max(x, 0.0), image.width),
        min(max(y + height, 0.0), image.height), min(max(x + width, 0.0), image.width),
    )  # fmt: skip


def read(key: str, images_dir: str, annotations: str, threads: int) -> DataSet:
    """Read annotations and open all images.

    Args:
      key: "train" or "val".
      images_dir: folder of the images.
      annotations: the COCO file.
      threads: how many images are open at a time.
    """
    print(f"reading {annotations}", flush=True)
    folder = ImageFolder(images_dir)
    try:
        coco = coco_json.read(annotations, size_of=folder.size_of)
    except ValueError as error:
        text = str(error).removeprefix(f"{annotations}: ")
        return DataSet(key, images_dir, annotations, None, unreadable=text)
    folder.find_all(coco)
    paths = [(os.path.join(images_dir, i.file_name), i.height, i.width) for i in coco.images]
    progress = ProgressBar(f"looking at {NAMES[key]} images", len(paths), "images")
    exif = record_image.survey(paths)
    data_set = DataSet(key, images_dir, annotations, coco, findings=list(coco.findings))
    for looked in photos.look_at(coco.images, images_dir, exif, threads, progress.add):
        if isinstance(looked, Photo):
            data_set.photos.append(looked)
        else:
            data_set.findings.append(looked)
    progress.close()
    data_set.unlisted = _unlisted(images_dir, coco)
    return data_set


def _unlisted(images_dir: str, coco: CocoData) -> list[str]:
    """Return the images of a folder on this machine that the annotations do not name."""
    if storage.is_remote(images_dir):
        return []
    listed = {image.file_name for image in coco.images}
    listed |= {finding.file_name for finding in coco.findings}
    try:
        found = finding_images.find_images([images_dir])
    except (FileNotFoundError, ValueError):
        return []
    return [name for name, _ in found.images if name not in listed]
