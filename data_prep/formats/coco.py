"""COCO's own files: one is passed on as it is, several become one.

Roboflow writes a file beside the images of each part (`train/_annotations.coco.json`), with names
relative to it; CVAT writes annotations/instances_default.json, Label Studio result.json. What is
odd in them, `mrcnn_tf/data/coco_json.py` repairs wherever they are read.
"""

import json
import pathlib
from typing import Any

from mrcnn_tf.data import coco_json, coco_values
from mrcnn_tf.images.image_folder import ImageFolder

_LISTS = ("images", "annotations", "categories")


def read(images: str, paths: list[str]) -> str:
    """Read COCO files.

    Args:
      images: folder of the images.
      paths: of the files.

    Returns:
      The text of one file, with `file_name` relative to the folder of images as far as it can be
      found; that of a single file is unchanged where its names are so already.

    Raises:
      ValueError: a file is none of COCO's, or several have unlike categories.
    """
    folder = ImageFolder(images)
    merged: dict[str, Any] | None = None
    for path in sorted(paths):
        text, _ = coco_json.read_text(path)
        coco_json.parse(text, path)  # names file and place of what is wrong
        content = json.loads(text)
        changed = _place_images(content, path, images, folder)
        if len(paths) == 1:
            return json.dumps(content) if changed else text
        _check(content, path)
        if merged is None:
            merged = {"images": [], "annotations": [], "categories": content["categories"]}
        elif _named(content) != _named(merged):
            raise ValueError(
                f"{path}: other categories than in {sorted(paths)[0]}: {_named(content)} and "
                f"{_named(merged)}. Convert them one by one"
            )
        _append(content, merged)
    return json.dumps(merged)


def _place_images(content: Any, path: str, images: str, folder: ImageFolder) -> bool:
    """Name images relative to the folder of images instead of to the annotation file."""
    here, root = pathlib.Path(path).resolve().parent, pathlib.Path(images).resolve()
    rows = content.get("images") if isinstance(content, dict) else None
    if here == root or not here.is_relative_to(root) or not isinstance(rows, list):
        return False
    prefix, changed = here.relative_to(root).as_posix(), False
    for row in rows:
        name = coco_values.text(row.get("file_name")) if isinstance(row, dict) else None
        if name and folder.length(f"{prefix}/{name}") is not None:
            row["file_name"] = f"{prefix}/{name}"
            changed = True
    return changed


def _check(content: Any, path: str) -> None:
    for key in _LISTS:
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{path}: not a COCO annotation file: no list of objects {key!r}")


def _named(content: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Return (id, name) of all categories."""
    return [(row.get("id"), row.get("name")) for row in content["categories"]]


def _append(content: dict[str, Any], merged: dict[str, Any]) -> None:
    """Add the images and annotations of a file, numbered on.

    An annotation of an unknown image keeps that id as a text, so that it is met as such.
    """
    ids: dict[str, int] = {}
    earlier = {row.get("file_name") for row in merged["images"]} - {None}
    for row in content["images"]:
        if row.get("file_name") in earlier:
            raise ValueError(
                f"{row['file_name']!r} is also in an earlier file: parts of one export have photos "
                "of their own. Name the one file that is meant"
            )
        number = len(merged["images"]) + 1
        if ids.setdefault(str(row.get("id")), number) != number:
            raise ValueError(f"two images have the id {row.get('id')!r}: {row.get('file_name')!r}")
        merged["images"].append({**row, "id": number})
    for row in content["annotations"]:
        image_id = ids.get(str(row.get("image_id")), f"unknown {row.get('image_id')!r}")
        number = len(merged["annotations"]) + 1
        merged["annotations"].append({**row, "id": number, "image_id": image_id})
