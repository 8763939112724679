"""One image and its objects as an example of a TFDS data set: which features it has.

The features are those of TFDS's own COCO data set, with what it leaves out: masks, the data set's
own category ids, and boxes and areas to the last bit. `mrcnn_tf/data/columns.py` reads them.
"""

import dataclasses
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.findings import Finding, Level
from mrcnn_tf.images import reading, record_image, storage

from .. import manifest, record, worker_files


def features() -> tfds.features.FeaturesDict:
    """Return the features of an example; the classes get their names when annotations are read.

    Masks are run lengths of each object's own rectangle, not full images: the same pixels in some
    hundred bytes, which are read as bits without a picture of the image's size per object.
    """
    docs = tfds.features.Documentation
    exact = {"dtype": np.float64, "encoding": "bytes"}  # else TFDS stores float32
    mask = {
        "crop": tfds.features.Tensor(
            shape=(4,),
            dtype=np.int64,
            doc="(y, x, height, width) of the smallest rectangle around the mask, pixels; all 0 "
            "without a mask.",
        ),
        "runs": tfds.features.Sequence(
            np.int64,
            doc="Run lengths of the rectangle, row by row, alternately outside and inside the "
            "mask, outside first.",
        ),
    }
    objects = {
        "id": tfds.features.Scalar(np.int64, doc="Id of the annotation; 0 without one."),
        "bbox": tfds.features.BBoxFeature(
            doc=docs(desc="Clipped to the image, by its size.", value_range="[0, 1]")
        ),
        "coco_bbox": tfds.features.Tensor(
            shape=(4,),
            doc="(x, y, width, height) as annotated, pixels; perhaps beyond the image.",
            **exact,
        ),
        "area": tfds.features.Tensor(shape=(), doc="As annotated, pixels.", **exact),
        "label": tfds.features.ClassLabel(doc="0 is the first category, not background."),
        "category_id": tfds.features.Scalar(np.int64, doc="The data set's own."),
        "is_crowd": tfds.features.Scalar(np.bool_, doc="The region holds several objects."),
        "mask": mask,
        "keypoints": tfds.features.Sequence(
            np.float32,
            doc="x, y (COCO's, by the image's size) and visibility of each keypoint that the data "
            "set has; none in one without.",
        ),
    }
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(doc="The file's own bytes, JPEG or PNG."),
            "image/filename": tfds.features.Text(doc="Path in the image folder."),
            "image/id": tfds.features.Text(doc="The data set's own id, as text."),
            "image/height": tfds.features.Scalar(np.int64, doc="Pixels."),
            "image/width": tfds.features.Scalar(np.int64, doc="Pixels."),
            "objects": tfds.features.Sequence(objects),
        }
    )


def build(
    image: ImageEntry,
    encoded: bytes,
    objects: list[ObjectEntry],
    labels: Mapping[int, int],
    num_keypoints: int = 0,
) -> dict[str, Any]:
    """Return the example of an image, as `features` describes it.

    Args:
      image: id, file and size.
      encoded: the file.
      objects: its annotations, in the order of the file.
      labels: of each of the data set's own category ids.
      num_keypoints: of each object; 0 in a data set without.
    """
    boxes = record.normalised_boxes(image, objects)
    nothing = np.zeros([num_keypoints, 3])
    by_size = np.array([image.width, image.height, 1.0])
    rows = []
    for entry, box in zip(objects, boxes, strict=True):
        crop = record.crop_of(entry, image)
        points = (nothing if entry.keypoints is None else entry.keypoints) / by_size
        rows.append(
            {
                "id": entry.annotation_id or 0,
                "bbox": box,
                "coco_bbox": np.array(entry.bbox, np.float64),
                "area": np.array(entry.area, np.float64),
                "label": labels[entry.category_id],
                "category_id": entry.category_id,
                "is_crowd": entry.is_crowd,
                "mask": {"crop": np.array(crop.crop, np.int64), "runs": crop.runs},
                "keypoints": points.astype(np.float32).ravel(),
            }
        )
    return {
        "image": encoded,
        "image/filename": image.file_name,
        "image/id": image.source_id,
        "image/height": image.height,
        "image/width": image.width,
        "objects": rows,
    }


@dataclasses.dataclass
class Shard:
    """Makes the examples of one file when it is called.

    Attributes:
      image_dir: folder that the file names are relative to.
      images: those of the file, with their objects.
      labels: see `build`.
      exif: whether the annotations refer to upright images or to stored pixels.
      left_out: filled with what turns out to be unusable.
      num_keypoints: see `build`.
    """

    image_dir: str
    images: list[tuple[ImageEntry, list[ObjectEntry]]]
    labels: Mapping[int, int]
    exif: record_image.ExifRule
    left_out: list[Finding]
    num_keypoints: int = 0

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (image id, example)."""
        for image, objects in self.images:
            path = os.path.join(self.image_dir, image.file_name)
            try:
                loaded = record_image.load(path, image.height, image.width, self.exif)
            except reading.UnusableImageError as error:
                finding = Finding(
                    Level.LEFT_OUT, error.kind, image.where, str(error), "image left out", images=1
                )
                self.left_out.append(image.sign(finding._replace(annotations=len(objects))))
                continue
            yield (
                image.source_id,
                build(image, loaded.encoded, objects, self.labels, self.num_keypoints),
            )


@dataclasses.dataclass(frozen=True)
class StoredShard:
    """A `Shard` that a worker on another machine reads from a file, and so small enough to send.

    The file is read with pickle, as what Beam itself sends is: who may write where the data set is
    built may run code on the workers.

    Attributes:
      path: of the file; what was left out is written beside it.
    """

    path: str

    @classmethod
    def store(cls, shard: Shard, path: str) -> "StoredShard":
        """Write a shard to a file."""
        worker_files.write(path, pickle.dumps(shard))
        return cls(path)

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (image id, example)."""
        shard: Shard = pickle.loads(storage.read(self.path))
        yield from shard()
        worker_files.write(self._findings, json.dumps(shard.left_out).encode())

    def left_out(self) -> list[Finding]:
        """Return what turned out to be unusable, once the worker has ended.

        Raises:
          ValueError: it has not ended, or its list is damaged.
        """
        try:
            return manifest.findings_of(json.loads(storage.read(self._findings)))
        except (ValueError, TypeError, RecursionError, OSError, tf.errors.OpError) as error:
            raise ValueError(
                f"{self._findings}: no list of what a worker left out ({error}): build once more"
            ) from error

    @property
    def _findings(self) -> str:
        return f"{self.path}.left_out"
