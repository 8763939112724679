"""Ground truth for scoring, from an annotation file or from our records, in one form.

Both functions return a COCO-style dict:

    images:      [{"id", "height", "width"}]
    annotations: [{"id", "image_id", "category_id", "iscrowd", "area",
                   "bbox": [x, y, width, height], "segmentation": compressed RLE}]
    categories:  [{"id", "name"}]

and, in a data set with keypoints, "keypoints": [x, y, visibility, ...] and "num_keypoints" of each
annotation, "keypoints": [name, ...] of each category that has them; in a federated one,
"neg_category_ids" and "not_exhaustive_category_ids" of each image and "frequency" of each category,
see `federated.py`.

Boxes and areas are float64 pixels of the stored image, exactly as annotated; keypoints of records
to a thousandth of a pixel. Image ids are ints or text, category ids are the data set's own.
`segmentation` is there only with `include_masks`; an object without any mask pixel has an empty
one, which nothing can match: COCO's rule.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from mrcnn_tf.data import coco_check, coco_json, findings, record_files, rle, schema
from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.coco_data import CocoData, ImageEntry
from mrcnn_tf.data.coco_masks import Mask
from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.ops.coco_rle import crop_to_rle

_LOGGER = logging.getLogger(__name__)
_LARGEST_SIDE, _MOST_PIXELS = 100_000, 2**29  # of an image; no decoder here reads larger ones


def from_annotation_file(path: str, include_masks: bool = True) -> dict[str, list[dict]]:
    """Read a COCO instances file, by the rules by which it is converted.

    Args:
      path: the JSON file.
      include_masks: whether masks will be scored.

    Returns:
      The ground truth as the head of this module describes it.

    Raises:
      ValueError: the file is none, or too much of it cannot be used; the message names file,
        annotation and value.
    """
    return _from_data(coco_json.read(path, include_masks), include_masks)


def from_coco_dict(
    dataset: dict[str, Any], include_masks: bool = True, name: str = "annotations"
) -> dict[str, list[dict]]:
    """Bring a parsed COCO instances file into the form above; `dataset` is left as it is.

    Args:
      dataset: images, annotations and categories; everything else is ignored.
      include_masks: whether to keep masks.
      name: the file's path, for error messages.

    Returns:
      The ground truth as the head of this module describes it.

    Raises:
      ValueError: see `from_annotation_file`.
    """
    return _from_data(coco_check.check(dataset, include_masks, name), include_masks)


def _from_data(data: CocoData, include_masks: bool) -> dict[str, list[dict]]:
    """Bring what the reader of COCO files found into the form above."""
    try:
        findings.check(
            data.findings,
            num_objects=data.num_objects,
            num_images=data.num_images,
            skip=False,
            name=data.name,
        )
    except findings.RefusedError as error:
        if not error.can_skip:
            raise
        raise ValueError(
            f"{error}. Mend the file, or score against the records that were made of it (leave "
            "task.annotation_file empty)"
        ) from error
    for kind in findings.count_kinds(data.findings):
        first = kind.first
        _LOGGER.warning("%s: %d x %s, the first: %s", data.name, kind.num, first.kind, first)
    for warning in data.warnings:
        _LOGGER.warning("%s: %s", data.name, warning)
    return {
        "images": [_image(image) for image in data.images],
        "annotations": [
            _annotation(entry, image, include_masks, data.label_map.keypoints)
            for image in data.images
            for entry in data.objects.get(image.source_id, ())
        ],
        "categories": _categories(data.label_map),
    }


def _categories(label_map: LabelMap) -> list[dict]:
    """Return the categories in our form."""
    keypoints = label_map.keypoints
    rows: list[dict] = []
    for k, (i, name) in enumerate(zip(label_map.ids, label_map.names, strict=True), start=1):
        rows.append({"id": i, "name": name})
        if keypoints and k in keypoints.classes:
            rows[-1]["keypoints"] = list(keypoints.names)
    for row, letter in zip(rows, label_map.frequencies, strict=False):
        row["frequency"] = letter
    return rows


def _image(entry: ImageEntry) -> dict[str, Any]:
    """Return one image in our form."""
    image: dict[str, Any] = {"id": entry.image_id, "height": entry.height, "width": entry.width}
    if entry.neg_category_ids is not None:
        image["neg_category_ids"] = list(entry.neg_category_ids)
        image["not_exhaustive_category_ids"] = list(entry.not_exhaustive_category_ids or ())
    return image


def _of_keypoints(keypoints: np.ndarray) -> dict[str, Any]:
    """Return what an annotation says of its keypoints, float64 [K, (x, y, visibility)]."""
    num_keypoints = int((keypoints[:, 2] > 0).sum())
    return {"keypoints": keypoints.ravel().tolist(), "num_keypoints": num_keypoints}


def _annotation(
    entry: ObjectEntry, image: ImageEntry, include_masks: bool, keypoints: KeypointSet | None
) -> dict[str, Any]:
    """Return one annotation in our form."""
    annotation: dict[str, Any] = {
        "id": entry.annotation_id,
        "image_id": image.image_id,
        "category_id": entry.category_id,
        "iscrowd": int(entry.is_crowd),
        "area": entry.area,
        "bbox": list(entry.bbox),
    }
    if include_masks:
        mask = entry.mask or Mask(None, np.array([image.height * image.width]))
        annotation["segmentation"] = mask.to_rle(image.height, image.width)
    if keypoints:
        nothing = np.zeros([len(keypoints.names), 3])
        annotation |= _of_keypoints(nothing if entry.keypoints is None else entry.keypoints)
    return annotation


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
    file_pattern: str | Sequence[str], label_map: LabelMap, include_masks: bool = True
) -> dict[str, list[dict]]:
    """Read the ground truth out of the records that the network is evaluated on.

    Records of Model Garden's converter are read too: without the float64 columns boxes and areas
    have float32 precision, and masks come from PNGs. A source id that is a whole number in
    decimal notation becomes an int, as it was in the annotation file.

    Args:
      file_pattern: glob pattern or patterns of the TFRecord files.
      label_map: the records' label map; its categories are those scored.
      include_masks: whether to read masks.

    Returns:
      The ground truth as the head of this module describes it.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: an image occurs twice, a category is not in the label map, or a record is damaged
        or none of these.
    """
    paths = record_files.find(file_pattern)
    images: dict[int | str, dict] = {}
    annotations: list[dict] = []
    known = set(label_map.ids)
    for example in record_files.examples(paths):
        try:
            record = _Record(example.features)
            image = record.image() | record.lists(known)
            of_image = list(record.annotations(image, include_masks))
            if label_map.keypoints:
                of_objects = record.keypoints(image, len(of_image), label_map.keypoints)
                for annotation, keypoints in zip(of_image, of_objects, strict=True):
                    annotation |= _of_keypoints(keypoints)
        except (ValueError, OverflowError, tf.errors.OpError) as error:
            text = getattr(error, "message", str(error))
            name = example.source_id.decode("utf-8", "replace")
            raise ValueError(f"{example.where}, of image {name!r}: {text}") from error
        if image["id"] in images:
            raise ValueError(f"{file_pattern}: image {image['id']!r} occurs more than once")
        images[image["id"]] = image
        for annotation in of_image:
            if annotation["category_id"] not in known:
                raise ValueError(
                    f"{file_pattern}: image {image['id']!r} has an object of category "
                    f"{annotation['category_id']}, which is not in the label map: {label_map.ids}"
                )
            annotations.append(annotation)
    return {
        "images": list(images.values()),
        "annotations": annotations,
        "categories": _categories(label_map),
    }


class _Record:
    """One record, its columns by our names; what it says is checked before it is used.

    Raises:
      ValueError: (by each method) columns that do not fit together.
    """

    def __init__(self, features: Mapping[str, tf.train.Feature]) -> None:
        self._features = features

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
        sides = [self._ints(key) for key in (schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH)]
        if not all(len(side) == 1 and 0 < side[0] <= _LARGEST_SIDE for side in sides):
            raise ValueError(f"height and width {sides}, expected one of each, 1..{_LARGEST_SIDE}")
        (height,), (width,) = sides
        if height * width > _MOST_PIXELS:
            raise ValueError(f"{width} x {height} pixels, expected at most {_MOST_PIXELS:,}")
        return {"id": int(text) if is_int else text, "height": height, "width": width}

    def lists(self, known: Set[int]) -> dict[str, list[int]]:
        """Return the image's lists of categories, if it is one of a federated data set."""
        lists = {
            "neg_category_ids": schema.NEG_CATEGORY_IDS,
            "not_exhaustive_category_ids": schema.NOT_EXHAUSTIVE_CATEGORY_IDS,
        }
        if not any(column in self._features for column in lists.values()):
            return {}
        read = {key: self._ints(column) for key, column in lists.items()}
        for key, ids in read.items():
            unknown = [i for i in ids if i not in known]
            if unknown:
                raise ValueError(f"{key} has {unknown[0]}, which is not in the label map")
        return read

    def annotations(self, image: dict, include_masks: bool) -> Iterator[dict]:
        """Yield the objects of `image`, in the record's order."""
        labels = self._ints(schema.CLASS_LABEL)
        ids: list = self._ints(schema.OBJECT_ID) or [None] * len(labels)
        crowds = self._ints(schema.IS_CROWD) or [0] * len(labels)
        masks = list(self._masks(image)) if include_masks else [None] * len(labels)
        rows = self._boxes_and_areas(image)
        for what, values in (("ids", ids), ("crowds", crowds), ("masks", masks), ("boxes", rows)):
            if len(values) != len(labels):
                raise ValueError(f"{len(labels)} objects but {len(values)} {what}")
        if not np.isfinite(rows).all():
            raise ValueError("a box or an area that is no number")
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

    def keypoints(self, image: dict, num_objects: int, keypoints: KeypointSet) -> np.ndarray:
        """Return float64 [n, K, (x, y, visibility)] of the image's objects, as COCO counts pixels.

        All 0 if the record has no keypoints: it may come from a data set without.
        """
        x, y = self._floats(schema.KEYPOINT_X), self._floats(schema.KEYPOINT_Y)
        visibility = np.asarray(self._ints(schema.KEYPOINT_VISIBILITY), np.float64)
        shape = num_objects, len(keypoints.names), 3
        if not (x.size or y.size or visibility.size):
            return np.zeros(shape)
        if not x.size == y.size == visibility.size == shape[0] * shape[1]:
            raise ValueError(
                f"{x.size}, {y.size}, {visibility.size} numbers of keypoints (x, y, visibility); "
                f"{shape[0]} objects with {shape[1]} each need {shape[0] * shape[1]}"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("a keypoint that is no number")
        if not np.isin(visibility, (0, 1, 2)).all():
            raise ValueError("a keypoint's visibility that is not 0, 1 or 2")
        # Columns are float32 fractions: rounded, whole pixels are whole again.
        pixels = np.stack([x * image["width"], y * image["height"]]).round(3)
        return np.stack([*pixels, visibility], axis=-1).reshape(shape)

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
            if inside.shape != (height, width):
                raise ValueError(f"a mask of {inside.shape[1]} x {inside.shape[0]} pixels")
            yield coco_mask.encode(np.asfortranarray(inside, np.uint8))
        counts, all_runs = self._ints(schema.MASK_NUM_RUNS), self._ints(schema.MASK_RUNS)
        crops = self._ints(schema.MASK_CROP)
        if len(crops) != 4 * len(counts) or min(counts, default=0) < 0:
            raise ValueError(f"{len(counts)} masks but {len(crops)} numbers of their rectangles")
        if sum(counts) != len(all_runs):
            raise ValueError(f"{len(all_runs)} run lengths, {sum(counts)} were counted")
        start = 0
        for k, count in enumerate(counts):
            (y, x, *size), runs = crops[4 * k : 4 * k + 4], all_runs[start : start + count]
            start += count
            # In Python's numbers, which do not overflow; and before any memory is taken.
            inside = min(y, x, *size) >= 0 and y + size[0] <= height and x + size[1] <= width
            if not inside or min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
                raise ValueError(f"mask {k} does not fit its rectangle or the image")
            pixels = rle.pixels_from_runs(np.asarray(runs, np.int64)).reshape(size)
            yield crop_to_rle(pixels, y, x, height, width)
