"""A COCO folder and its annotations, read and checked as the converter does, cut into shards."""

import json
import os
from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.data import coco_json, findings, record_sets, schema
from mrcnn_tf.data.coco_data import CocoData
from mrcnn_tf.data.findings import Finding, Level
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.images import record_image
from mrcnn_tf.images.image_folder import ImageFolder

from .. import categories, manifest
from . import examples


class Annotated(NamedTuple):
    """One split's images and objects.

    Attributes:
      image_dir: folder that the file names are relative to.
      coco: what the annotation file says; images whose file is absent are left out.
      label_map: of the data set.
      exif: whether the annotations refer to upright images or to stored pixels.
      num_bytes: of all image files.
      skip: whether any number of images and objects may be left out.
      left_out: the images that turned out to be unusable; filled while examples are made.
    """

    image_dir: str
    coco: CocoData
    label_map: LabelMap
    exif: record_image.ExifRule
    num_bytes: int
    skip: bool
    left_out: list[Finding]

    def check(self) -> None:
        """Refuse a split of which too much cannot be used.

        Raises:
          findings.RefusedError: it is refused.
        """
        findings.check(
            [*self.coco.findings, *self.left_out],
            num_objects=self.coco.num_objects,
            num_images=self.coco.num_images,
            skip=self.skip,
            name=self.coco.name,
        )

    def shards(self, count: int) -> list[examples.Shard]:
        """Distribute the images over so many files, every count-th one into the same."""
        labels = {category_id: k for k, category_id in enumerate(self.label_map.ids)}
        pairs = [(i, self.coco.objects.get(i.source_id, [])) for i in self.coco.images]
        keypoints = self.label_map.keypoints
        num_keypoints = len(keypoints.names) if keypoints else 0
        return [
            examples.Shard(
                self.image_dir, pairs[k::count], labels, self.exif, self.left_out, num_keypoints
            )
            for k in range(count)
        ]

    def write_manifest(self, shards: list[str]) -> None:
        """Note beside the files how long they are, as the converter does.

        A file that is cut off later is refused before it is read.

        Args:
          shards: all files of the split.
        """
        found = record_sets.set_of(shards[0])
        assert found is not None, shards[0]
        sizes = {
            os.path.basename(path): {"num_bytes": int(tf.io.gfile.stat(path).length)}
            for path in shards
        }
        made_from = {"annotations_sha256": self.coco.sha256}
        content = {"made_from": made_from, "shards": sizes}
        manifest.write_text(found[0].manifest, json.dumps(content, indent=1, ensure_ascii=False))


def read(image_dir: str, annotations: str, folder: str, exif: str, skip: bool) -> Annotated:
    """Read and check one split.

    Args:
      image_dir: folder of the images.
      annotations: COCO JSON.
      folder: of the data set that is being built; the first split's label map is left there, and
        the others' categories are matched to it by name.
      exif: one of `record_image.EXIF_CHOICES`.
      skip: leave out what cannot be used, however much it is.

    Raises:
      ValueError: no such input, or it is refused; the message says why.
    """
    if not tf.io.gfile.isdir(image_dir):
        raise ValueError(f"{image_dir}: there is no such folder of images")
    if not tf.io.gfile.exists(annotations):
        raise ValueError(f"{annotations}: there is no such annotation file")
    images = ImageFolder(image_dir)
    coco = coco_json.read(annotations, size_of=images.size_of)
    lengths = images.find_all(coco)
    path = os.path.join(folder, schema.LABEL_MAP_FILE)
    label_map = categories.match(coco, path)
    if not tf.io.gfile.exists(path):
        manifest.write_text(path, label_map.to_json())
    rule = record_image.ExifRule(exif)
    if exif == "auto":
        rule = record_image.survey(
            (os.path.join(image_dir, i.file_name), i.height, i.width) for i in coco.images
        )
    if not coco.num_images:
        value = "the list 'images' is empty"
        coco.findings.append(Finding(Level.REFUSED, "no image", annotations, value, ""))
    found = Annotated(image_dir, coco, label_map, rule, sum(lengths.values()), skip, [])
    found.check()
    return found
