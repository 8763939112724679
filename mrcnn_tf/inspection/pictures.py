"""Small pictures of photos with their objects drawn in, for the page."""

import collections

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.inspection.data_set import DataSet, clipped_box
from mrcnn_tf.inspection.photos import SMALL_EDGE, Photo
from mrcnn_tf.pages.page import Picture
from mrcnn_tf.pages.thumbnails import data_uri, small_drawing

MOST_COLORS = 12  # classes that have a colour of their own
_MOST_NAMES = 4  # classes that a caption lists


def picture(data_set: DataSet, photo: Photo, caption: str = "") -> Picture:
    """Return a photo with the outlines of its objects, coloured by class."""
    image, entries = photo.image, data_set.objects_of(photo.image)
    pixels = photo.pixels()
    small_hw = pixels.shape[:2]
    drawing = small_drawing(
        pixels,
        np.array([clipped_box(entry, image) for entry in entries]).reshape(-1, 4)
        * np.tile(np.array(small_hw) / (image.height, image.width), 2),
        [_small_mask(entry, image, small_hw) for entry in entries],
        color_ids=[class_place(data_set, entry.category_id) for entry in entries],
        is_crowd=[entry.is_crowd for entry in entries],
        long_edge=SMALL_EDGE,
    )
    uri = data_uri(drawing)
    text = f"{image.file_name} (image {image.image_id}): {caption or _contents(data_set, entries)}"
    return Picture(uri, text, f"{image.file_name}, {len(entries):,} objects outlined")


def _contents(data_set: DataSet, entries: list[ObjectEntry]) -> str:
    """Return what is in a photo: "3 cat, 1 dog"."""
    names = data_set.class_names
    counts = collections.Counter(names[entry.category_id] for entry in entries)
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.most_common(_MOST_NAMES))
    return (listed or "no object") + (", ..." if len(counts) > _MOST_NAMES else "")


def class_place(data_set: DataSet, category_id: int) -> int:
    """Return the place of a class among all, which picks its colour."""
    assert data_set.coco
    return data_set.coco.label_map.ids.index(category_id)


def _small_mask(
    entry: ObjectEntry, image: ImageEntry, small_hw: tuple[int, int]
) -> np.ndarray | None:
    """Return an object's mask in the small picture, bool [h, w]; polygons are made small first."""
    if not entry.mask:
        return None
    height, width = small_hw
    if entry.mask.polygons is None:
        full = coco_mask.decode(entry.mask.to_rle(image.height, image.width))
        rows = ((np.arange(height) + 0.5) * image.height / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * image.width / width).astype(np.int64)
        return full[rows][:, columns].astype(bool)
    scale_xy = np.array([width / image.width, height / image.height])
    polygons = [(p.reshape(-1, 2) * scale_xy).ravel().tolist() for p in entry.mask.polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))) > 0
