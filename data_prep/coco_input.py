"""Reads a COCO annotation file and checks everything that can be checked without the images.

Whatever passes comes out typed and complete, so that the code behind needs no second look; what
does not is a `Problem`. Nothing here opens an image.
"""

import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap

from . import coco_objects
from .coco_objects import ObjectEntry
from .problems import BadInputError, Problem


class ImageEntry(NamedTuple):
    """One image: its id as text, its path within the image folder, its size in pixels."""

    source_id: str
    file_name: str
    height: int
    width: int

    @property
    def where(self) -> str:
        """The image's name in messages."""
        return f"image {self.source_id} ({self.file_name})"


class CocoInput(NamedTuple):
    """A checked annotation file.

    Attributes:
      images: in the order of the file.
      objects: by source id; images without objects have no entry.
      label_map: all categories of the file.
      sha256: hex digest of the file.
      problems: everything that was left out or mended, in the order of the file.
    """

    images: list[ImageEntry]
    objects: dict[str, list[ObjectEntry]]
    label_map: LabelMap
    sha256: str
    problems: list[Problem]


def read(path: pathlib.Path, include_masks: bool) -> CocoInput:
    """Read and check a COCO annotation file.

    Memory: polygons become float64 arrays while the file is being parsed, and each annotation's
    dict is dropped as soon as it is checked.

    Args:
      path: the JSON file.
      include_masks: whether segmentations are wanted; if not, they are not looked at.

    Raises:
      ValueError: the file is no COCO file at all.
    """
    text = path.read_bytes()
    sha256 = hashlib.sha256(text).hexdigest()
    try:
        content = json.loads(text, object_hook=_compact if include_masks else _drop_segmentation)
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    del text
    _check_is_coco(content, path)
    problems: list[Problem] = []
    label_map = _check_categories(content.pop("categories"), problems)
    images = _check_images(content.pop("images"), problems)
    objects = _check_annotations(
        content.pop("annotations"), images, set(label_map.ids), include_masks, problems
    )
    return CocoInput(list(images.values()), objects, label_map, sha256, problems)


def find_files(coco: CocoInput, image_dir: pathlib.Path) -> tuple[CocoInput, dict[str, int]]:
    """Leave out images whose file is absent.

    Returns:
      The rest, with a problem for each absent file; and the sizes of the others, bytes, by name.
    """
    sizes: dict[str, int] = {}
    images, problems = [], list(coco.problems)
    for image in coco.images:
        path = image_dir / image.file_name
        if path.is_file():
            images.append(image)
            sizes[image.file_name] = path.stat().st_size
        else:
            value = f"no file {path}"
            problems.append(Problem("missing file", image.where, value, "image left out"))
    return coco._replace(images=images, problems=problems), sizes


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Turn well-formed polygons and run lengths into arrays, while parsing."""
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list):
        entry["segmentation"] = [coco_objects.to_array(polygon) for polygon in segmentation]
    if isinstance(entry.get("counts"), list):
        entry["counts"] = coco_objects.to_array(entry["counts"])
    return entry


def _drop_segmentation(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def _check_is_coco(content: Any, path: pathlib.Path) -> None:
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: not a COCO annotation file: expected an object with the lists 'images', "
            f"'annotations' and 'categories', found a {type(content).__name__}"
            + (" (a file of detections?)" if isinstance(content, list) else "")
        )
    for key in ("images", "annotations", "categories"):
        rows = content.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            found = "nothing" if rows is None else f"a {type(rows).__name__}"
            raise ValueError(
                f"{path}: not a COCO annotation file: expected a list of objects under {key!r}, "
                f"found {found} (keys of the file: {sorted(content)})"
            )


def _check_categories(rows: list[dict[str, Any]], problems: list[Problem]) -> LabelMap:
    kept: dict[int, str] = {}
    for k, row in enumerate(rows):
        where = f"categories[{k}]"
        identifier = coco_objects.parse_integer(row.get("id"))
        name = row.get("name")
        if identifier is None or not isinstance(name, str) or not name.strip():
            value = f"id {row.get('id')!r}, name {name!r}; expected an integer and a text"
            problems.append(Problem("malformed category", where, value, "category left out"))
        elif identifier in kept:
            value = f"id {identifier} of {name!r} is that of {kept[identifier]!r} already"
            problems.append(Problem("duplicate category id", where, value, "category left out"))
        elif name in kept.values():
            value = f"name {name!r} of id {identifier} belongs to another category already"
            problems.append(Problem("duplicate category name", where, value, "id appended to name"))
            kept[identifier] = f"{name} ({identifier})"
        else:
            kept[identifier] = name
    return LabelMap.from_coco_categories([{"id": i, "name": n} for i, n in kept.items()])


def _check_images(rows: list[dict[str, Any]], problems: list[Problem]) -> dict[str, ImageEntry]:
    kept: dict[str, ImageEntry] = {}
    for k, row in enumerate(rows):
        where = f"image {row.get('id')!r} ({row.get('file_name')!r}, images[{k}])"
        identifier, file_name = row.get("id"), row.get("file_name")
        height, width = (coco_objects.parse_integer(row.get(key)) for key in ("height", "width"))
        if isinstance(identifier, bool) or not isinstance(identifier, int | str):
            fault = ("malformed image id", "expected a number or a text")
        elif not 1 <= len(str(identifier).encode()) <= schema.SOURCE_ID_BYTES:
            fault = ("malformed image id", f"expected 1..{schema.SOURCE_ID_BYTES} bytes of text")
        elif str(identifier) in kept:
            other = kept[str(identifier)].file_name
            fault = ("duplicate image id", f"id {identifier} is that of {other!r} already")
        elif not isinstance(file_name, str) or not file_name:
            fault = ("malformed image", "expected a file_name")
        elif height is None or width is None or height < 1 or width < 1:
            value = f"height {row.get('height')!r}, width {row.get('width')!r}"
            fault = ("malformed image", f"{value}; expected positive integers")
        else:
            kept[str(identifier)] = ImageEntry(str(identifier), file_name, height, width)
            continue
        problems.append(Problem(fault[0], where, fault[1], "image left out"))
    return kept


def _check_annotations(
    rows: list[dict[str, Any]],
    images: dict[str, ImageEntry],
    category_ids: set[int],
    include_masks: bool,
    problems: list[Problem],
) -> dict[str, list[ObjectEntry]]:
    """Check all annotations and sort them by image; empties `rows`."""
    objects: dict[str, list[ObjectEntry]] = {}
    new_ids = _unused_ids(rows)
    seen: set[int] = set()
    rows.reverse()
    while rows:
        row = rows.pop()
        where = f"annotation {row.get('id')!r} of image {row.get('image_id')!r}"
        image = images.get(str(row.get("image_id")))
        if image is None:
            value = f"no image has the id {row.get('image_id')!r}"
            problems.append(Problem("unknown image", where, value, "annotation left out"))
            continue
        where = f"annotation {row.get('id')!r} of {image.where}"
        try:
            entry = coco_objects.check(row, image.height, image.width, category_ids, include_masks)
        except BadInputError as fault:
            problems.append(Problem(fault.kind, where, fault.value, "annotation left out"))
            continue
        identifier = entry.annotation_id
        if identifier is None or identifier in seen:
            new_id = next(new_ids)
            kind = "malformed annotation id" if identifier is None else "duplicate annotation id"
            problems.append(Problem(kind, where, f"id {row.get('id')!r}", "got an id of its own"))
            entry = entry._replace(annotation_id=new_id)
        seen.add(int(entry.annotation_id or 0))
        objects.setdefault(image.source_id, []).append(entry)
    return objects


def _unused_ids(rows: list[dict[str, Any]]) -> Iterator[int]:
    """Return an iterator that counts up from the largest annotation id of the file."""
    largest = max((coco_objects.parse_integer(row.get("id")) or 0 for row in rows), default=0)
    return itertools.count(largest + 1)
