"""Ground truth for scoring, from an annotation file or from our records, in one form.

Both functions return a COCO-style dict:

    images:      [{"id", "height", "width"}]
    annotations: [{"id", "image_id", "category_id", "iscrowd", "area",
                   "bbox": [x, y, width, height], "segmentation": compressed RLE}]
    categories:  [{"id", "name"}]

Boxes and areas are float64 pixels of the stored image, exactly as annotated. Image ids are ints
or text, category ids are the data set's own. `segmentation` is there only with `include_masks`;
an object without any mask pixel has an empty one, which nothing can match: COCO's rule.
"""

import glob
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from mrcnn_tf import layout
from mrcnn_tf.data import rle, schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.ops.paste import crop_to_rle


def from_annotation_file(path: str, include_masks: bool = True) -> dict[str, list[dict]]:
    """Read a COCO instances file.

    Args:
      path: the JSON file.
      include_masks: whether masks will be scored; without it no segmentation is looked at.

    Returns:
      The ground truth as the head of this module describes it.

    Raises:
      ValueError: the file contradicts itself; the message names file, annotation and value.
    """
    with open(path, encoding="utf-8") as file:
        return from_coco_dict(json.load(file), include_masks, name=path)


def from_coco_dict(
    dataset: dict[str, Any], include_masks: bool = True, name: str = "annotations"
) -> dict[str, list[dict]]:
    """Bring a parsed COCO instances file into the form above; `dataset` is left as it is.

    Missing `iscrowd` is 0, missing `area` is the mask's (without mask the box's), missing `bbox`
    is the mask's.

    Args:
      dataset: images, annotations and categories; everything else is ignored.
      include_masks: whether to keep masks.
      name: the file's path, for error messages.

    Returns:
      The ground truth as the head of this module describes it.

    Raises:
      ValueError: an annotation of an unknown image or category, or without a usable box or size.
    """
    images = {str(image["id"]): _image(image, name) for image in dataset["images"]}
    if len(images) != len(dataset["images"]):
        raise ValueError(f"{name}: image ids occur more than once")
    category_ids = {category["id"]: int(category["id"]) for category in dataset["categories"]}
    annotations = []
    for annotation in dataset["annotations"]:
        where = f"{name}: annotation {annotation.get('id')!r}"
        image = images.get(str(annotation.get("image_id")))
        if image is None:
            raise ValueError(f"{where}: no image has the id {annotation.get('image_id')!r}")
        if annotation.get("category_id") not in category_ids:
            raise ValueError(f"{where}: no category has the id {annotation.get('category_id')!r}")
        kept = _annotation(annotation, image, include_masks, where)
        annotations.append({**kept, "category_id": category_ids[annotation["category_id"]]})
    return {
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [
            {"id": category_ids[c["id"]], "name": str(c["name"])} for c in dataset["categories"]
        ],
    }


def _image(image: dict, name: str) -> dict:
    """Return one image in our form."""
    for side in ("height", "width"):
        if side not in image:
            raise ValueError(f"{name}: image {image['id']!r} has no {side}")
    return {"id": image["id"], "height": int(image["height"]), "width": int(image["width"])}


def _annotation(annotation: dict, image: dict, include_masks: bool, where: str) -> dict:
    """Return one annotation in our form; see `from_coco_dict`."""
    box, area = annotation.get("bbox"), annotation.get("area")
    mask = None
    if include_masks or box is None:
        segmentation = annotation.get("segmentation")
        mask = segmentation_to_rle(segmentation, image["height"], image["width"], where)
        if box is None:
            box = coco_mask.toBbox(mask).tolist()
        if area is None and segmentation:
            area = float(coco_mask.area(mask))
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ValueError(f"{where}: bbox must be four finite numbers, not {box}")
    kept = {
        "id": annotation.get("id"),
        "image_id": image["id"],
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "area": float(box[2] * box[3] if area is None else area),
        "bbox": [float(value) for value in box],
    }
    if include_masks:
        kept["segmentation"] = mask
    return kept


def segmentation_to_rle(segmentation: Any, height: int, width: int, where: str) -> dict:
    """Return COCO's `segmentation` value as one compressed RLE of the image.

    Args:
      segmentation: polygons [[x, y, ...], ...], an RLE (compressed or not), or nothing.
      height: of the image, pixels.
      width: of the image, pixels.
      where: what is converted, for error messages.

    Returns:
      {"size": [height, width], "counts": bytes}; empty if there is no segmentation.

    Raises:
      ValueError: an RLE of another size, or something that is no segmentation.

    Source: `COCO.annToRLE` of pycocotools, which fails on an empty list and accepts any size.
    """
    if not segmentation:
        return coco_mask.encode(np.zeros([height, width], np.uint8, order="F"))
    if isinstance(segmentation, dict) and list(segmentation["size"]) != [height, width]:
        raise ValueError(
            f"{where}: mask of size {segmentation['size']} in an image of [{height}, {width}]"
        )
    try:
        if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
            mask = segmentation
        else:
            mask = coco_mask.frPyObjects(segmentation, height, width)
    except Exception as error:  # pycocotools raises bare Exceptions
        raise ValueError(f"{where}: not a segmentation ({error})") from error
    return coco_mask.merge(mask) if isinstance(mask, list) else mask


def from_records(
    file_pattern: str, label_map: LabelMap, include_masks: bool = True
) -> dict[str, list[dict]]:
    """Read the ground truth out of the records that the network is evaluated on.

    Records of Model Garden's converter are read too: without the float64 columns boxes and areas
    have float32 precision, and masks come from PNGs. A source id that is a whole number in
    decimal notation becomes an int, as it was in the annotation file.

    Args:
      file_pattern: glob pattern of the TFRecord files.
      label_map: the records' label map; its categories are those scored.
      include_masks: whether to read masks.

    Returns:
      The ground truth as the head of this module describes it.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: an image occurs twice, or a category is not in the label map.
    """
    paths = sorted(glob.glob(file_pattern))
    if not paths:
        converter = " ".join(layout.data_prep_command("create_coco_tfrecord"))
        raise FileNotFoundError(f"no records match {file_pattern!r}; python {converter} makes them")
    images: dict[int | str, dict] = {}
    annotations: list[dict] = []
    for serialized in tf.data.TFRecordDataset(paths).as_numpy_iterator():
        record = _Record(serialized)
        image = record.image()
        if image["id"] in images:
            raise ValueError(f"{file_pattern}: image {image['id']!r} occurs more than once")
        images[image["id"]] = image
        for annotation in record.annotations(image, include_masks):
            if annotation["category_id"] not in label_map.ids:
                raise ValueError(
                    f"{file_pattern}: image {image['id']!r} has an object of category "
                    f"{annotation['category_id']}, which is not in the label map: {label_map.ids}"
                )
            annotations.append(annotation)
    categories = zip(label_map.ids, label_map.names, strict=True)
    return {
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in categories],
    }


class _Record:
    """One serialized tf.train.Example with the columns of `schema.py`."""

    def __init__(self, serialized: bytes) -> None:
        self._features = tf.train.Example.FromString(serialized).features.feature

    def _ints(self, key: str) -> list[int]:
        return list(self._features[key].int64_list.value) if key in self._features else []

    def _floats(self, key: str) -> np.ndarray:
        values = self._features[key].float_list.value if key in self._features else []
        return np.asarray(values, np.float64)

    def _bytes(self, key: str) -> list[bytes]:
        return list(self._features[key].bytes_list.value) if key in self._features else []

    def image(self) -> dict:
        """Return {"id", "height", "width"}."""
        text = self._bytes(schema.IMAGE_SOURCE_ID)[0].decode("utf-8")
        is_int = text.removeprefix("-").isdecimal() and str(int(text)) == text
        (height,), (width,) = self._ints(schema.IMAGE_HEIGHT), self._ints(schema.IMAGE_WIDTH)
        return {"id": int(text) if is_int else text, "height": height, "width": width}

    def annotations(self, image: dict, include_masks: bool) -> Iterator[dict]:
        """Yield the objects of `image`, in the record's order."""
        labels = self._ints(schema.CLASS_LABEL)
        ids: list = self._ints(schema.OBJECT_ID) or [None] * len(labels)
        crowds = self._ints(schema.IS_CROWD) or [0] * len(labels)
        masks = list(self._masks(image)) if include_masks else [None] * len(labels)
        if len(masks) != len(labels):
            raise ValueError(
                f"image {image['id']!r} has {len(labels)} objects but {len(masks)} masks"
            )
        rows = self._boxes_and_areas(image)
        for k, (label, row, mask) in enumerate(zip(labels, rows, masks, strict=True)):
            annotation = {
                "id": ids[k],
                "image_id": image["id"],
                "category_id": label,
                "iscrowd": crowds[k],
                "area": row[4],
                "bbox": row[:4],
            }
            yield {**annotation, "segmentation": mask} if include_masks else annotation

    def _boxes_and_areas(self, image: dict) -> list[list[float]]:
        """Return one (x, y, width, height, area) per object, in pixels."""
        exact = self._bytes(schema.BBOX_AREA_FLOAT64)
        if exact:
            return np.frombuffer(exact[0], "<f8").reshape(-1, 5).tolist()
        y1, y2 = (self._floats(k) * image["height"] for k in (schema.BBOX_YMIN, schema.BBOX_YMAX))
        x1, x2 = (self._floats(k) * image["width"] for k in (schema.BBOX_XMIN, schema.BBOX_XMAX))
        area = self._floats(schema.AREA)
        if not area.size:
            area = (y2 - y1) * (x2 - x1)
        return np.stack([x1, y1, x2 - x1, y2 - y1, area], axis=-1).tolist()

    def _masks(self, image: dict) -> Iterator[dict]:
        """Yield one compressed RLE per object."""
        height, width = image["height"], image["width"]
        for png in self._bytes(schema.MASK_PNG):
            inside = tf.io.decode_png(png, channels=1).numpy()[:, :, 0] != 0
            yield coco_mask.encode(np.asfortranarray(inside, np.uint8))
        ends = np.cumsum(self._ints(schema.MASK_NUM_RUNS), dtype=np.int64)
        runs = np.split(np.asarray(self._ints(schema.MASK_RUNS), np.int64), ends[:-1])
        crops = np.asarray(self._ints(schema.MASK_CROP), np.int64).reshape(-1, 4)
        for (y, x, *size), crop_runs in zip(crops, runs, strict=False):
            pixels = rle.pixels_from_runs(crop_runs).reshape(size)
            yield crop_to_rle(pixels, y, x, height, width)
