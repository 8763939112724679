"""Builds one record: a tf.train.Example with the keys of `mrcnn_tf/data/schema.py`."""

import collections
import hashlib
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.data import rle, schema
from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.images.record_image import EncodedImage

_NO_CROP = rle.CropRuns((0, 0, 0, 0), np.zeros(0, np.int64))


def build_example(
    image: ImageEntry,
    encoded_image: EncodedImage,
    objects: list[ObjectEntry],
    category_names: dict[int, str],
    mask_format: str | None,
    counts: collections.Counter[str],
    keypoints: KeypointSet | None = None,
) -> bytes:
    """Build one record.

    Args:
      image: id, file and size.
      encoded_image: the image.
      objects: its annotations, in the order of the file.
      category_names: by the data set's own category id.
      mask_format: "rle", "png", or None for records without masks.
      counts: what happened is counted here.
      keypoints: what the data set has; None for records without keypoints.

    Returns:
      The serialized tf.train.Example: the same bytes for the same input.
    """
    feature = _image_features(image, encoded_image)
    crops = None
    if mask_format:
        crops = [crop_of(entry, image) for entry in objects]
        num_masks = sum(entry.mask is not None for entry in objects)
        counts["masks"] += sum(crop.runs.size > 0 for crop in crops)
        counts["objects without a mask"] += len(objects) - num_masks
        counts["masks without a pixel"] += num_masks - sum(crop.runs.size > 0 for crop in crops)
    feature.update(_object_features(image, objects, category_names))
    if crops is not None and mask_format == "rle":
        feature.update(_run_length_features(crops))
    elif crops is not None:
        feature[schema.MASK_PNG] = _bytes([_png(c, image.height, image.width) for c in crops])
    if keypoints:
        feature.update(_keypoint_features(image, objects, keypoints))
        numbers = [_num_keypoints(entry) for entry in objects]
        counts["objects with keypoints"] += sum(number > 0 for number in numbers)
        counts["keypoints"] += sum(numbers)
    counts["images"] += 1
    counts["images without objects"] += not objects
    counts["annotations"] += len(objects)
    counts["crowds"] += sum(entry.is_crowd for entry in objects)
    counts["boxes clipped"] += sum(_is_clipped(entry, image) for entry in objects)
    if encoded_image.change:
        counts[f"images {encoded_image.change}"] += 1
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def crop_of(entry: ObjectEntry, image: ImageEntry) -> rle.CropRuns:
    """Rasterise one object as COCO.annToMask does, but to its crop only."""
    return entry.mask.to_crop(image.height, image.width) if entry.mask else _NO_CROP


def normalised_boxes(image: ImageEntry, objects: list[ObjectEntry]) -> np.ndarray:
    """Return boxes float64 [n, (y1, x1, y2, x2)], clipped to the image and divided by its size."""
    boxes = np.array([entry.bbox for entry in objects], np.float64).reshape(-1, 4)
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]  # each [n, (x, y)]
    sides = np.array([image.width, image.height], np.float64)
    start, end = np.clip(start, 0, sides) / sides, np.clip(end, 0, sides) / sides
    return np.concatenate([start[:, ::-1], end[:, ::-1]], axis=1)


def _is_clipped(entry: ObjectEntry, image: ImageEntry) -> bool:
    x, y, width, height = entry.bbox
    return x < 0 or y < 0 or x + width > image.width or y + height > image.height


def _image_features(image: ImageEntry, encoded_image: EncodedImage) -> dict[str, tf.train.Feature]:
    encoded = encoded_image.encoded
    lists = {
        schema.NEG_CATEGORY_IDS: image.neg_category_ids,
        schema.NOT_EXHAUSTIVE_CATEGORY_IDS: image.not_exhaustive_category_ids,
    }
    federated = {key: _integers(list(ids)) for key, ids in lists.items() if ids is not None}
    return federated | {
        schema.IMAGE_ENCODED: _bytes([encoded]),
        schema.IMAGE_FORMAT: _bytes([encoded_image.image_format.encode()]),
        schema.IMAGE_FILENAME: _bytes([image.file_name.encode()]),
        schema.IMAGE_SOURCE_ID: _bytes([image.source_id.encode()]),
        schema.IMAGE_KEY_SHA256: _bytes([hashlib.sha256(encoded).hexdigest().encode()]),
        schema.IMAGE_HEIGHT: _integers([image.height]),
        schema.IMAGE_WIDTH: _integers([image.width]),
    }


def _object_features(
    image: ImageEntry,
    objects: list[ObjectEntry],
    category_names: dict[int, str],
) -> dict[str, tf.train.Feature]:
    boxes = normalised_boxes(image, objects)
    areas = [entry.area for entry in objects]
    scoring = np.array([(*entry.bbox, entry.area) for entry in objects], np.float64)
    labels = [entry.category_id for entry in objects]
    return {
        schema.BBOX_YMIN: _floats(boxes[:, 0].tolist()),
        schema.BBOX_XMIN: _floats(boxes[:, 1].tolist()),
        schema.BBOX_YMAX: _floats(boxes[:, 2].tolist()),
        schema.BBOX_XMAX: _floats(boxes[:, 3].tolist()),
        schema.CLASS_LABEL: _integers(labels),
        schema.CLASS_TEXT: _bytes([category_names[label].encode() for label in labels]),
        schema.IS_CROWD: _integers([int(entry.is_crowd) for entry in objects]),
        schema.AREA: _floats(areas),
        schema.OBJECT_ID: _integers([int(entry.annotation_id or 0) for entry in objects]),
        schema.BBOX_AREA_FLOAT64: _bytes([scoring.astype("<f8").tobytes()]),
    }


def _run_length_features(crops: list[rle.CropRuns]) -> dict[str, tf.train.Feature]:
    return {
        schema.MASK_CROP: _integers([side for crop in crops for side in crop.crop]),
        schema.MASK_NUM_RUNS: _integers([crop.runs.size for crop in crops]),
        schema.MASK_RUNS: _integers([run for crop in crops for run in crop.runs.tolist()]),
    }


def _keypoint_features(
    image: ImageEntry, objects: list[ObjectEntry], keypoints: KeypointSet
) -> dict[str, tf.train.Feature]:
    nothing = np.zeros([len(keypoints.names), 3])
    of_objects = [nothing if e.keypoints is None else e.keypoints for e in objects]
    rows = np.array(of_objects).reshape(-1, 3)  # [n * K, (x, y, visibility)]
    names = [name.encode() for name in keypoints.names]
    return {
        schema.KEYPOINT_X: _floats((rows[:, 0] / image.width).tolist()),
        schema.KEYPOINT_Y: _floats((rows[:, 1] / image.height).tolist()),
        schema.KEYPOINT_VISIBILITY: _integers(rows[:, 2].astype(int).tolist()),
        schema.KEYPOINT_TEXT: _bytes(names * len(objects)),
        schema.KEYPOINT_NUM: _integers([_num_keypoints(entry) for entry in objects]),
    }


def _num_keypoints(entry: ObjectEntry) -> int:
    return 0 if entry.keypoints is None else int((entry.keypoints[:, 2] > 0).sum())


def _png(crop: rle.CropRuns, height: int, width: int) -> bytes:
    """Return the full-image mask as PNG with pixels 0 and 1, as Model Garden writes it."""
    mask = rle.crop_to_full_mask(crop, height, width).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def _bytes(values: list[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _floats(values: list[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _integers(values: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
