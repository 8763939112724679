"""labelme's files: one JSON an image, with `shapes` and `imagePath`.

A shape is an object, or a part of one: shapes of one label and one `group_id` are one object, as
labelme itself has it. Coordinates are continuous, in pixels of the upright image, pixel i from i to
i + 1, as COCO's are. Images without a JSON file have not been annotated, and are not used.

    polygon, oriented_rectangle   its points
    rectangle                     two opposite corners (four where other tools write them)
    circle                        the centre, and a point of the circle
    mask                          two corners, and the pixels between them, both included, as PNG
    point, line, linestrip        no area: left out

Source: the JSON that labelme 4 to 6 writes, and its `shape_to_mask`. Differs: outlines are filled
as COCO fills them; labelme's own pictures have the pixels under the outline too.
"""

import base64
import binascii
import io
import math
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from mrcnn_tf.data import coco_json, coco_values
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.images import reading

from . import collected as collecting
from .collected import Collected
from .image_files import AmbiguousError, ImageFiles, fits

_NO_OBJECT = ("_background_", "__ignore__")  # labels that mean none, in labelme's own scripts
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_SAGITTA = 0.02  # pixels between a circle and the polygon that stands for it
_MAX_CORNERS = 10_000


class BadShapeError(ValueError):
    """A shape cannot be used: a few words that say of which kind the fault is, and the value."""

    def __init__(self, kind: str, value: str) -> None:
        super().__init__(f"{kind}: {value}")
        self.kind, self.value = kind, value


def read(images: str, paths: list[str]) -> tuple[Collected, list[str]]:
    """Read labelme's JSON files.

    Args:
      images: folder of the images. Those that are only in the JSON files (`imageData`) are to be
        written there, see `Collected.embedded`.
      paths: the JSON files.

    Returns:
      What was found, and the labels, sorted.
    """
    collected = Collected()
    try:
        files: ImageFiles | None = ImageFiles(images)
    except ValueError:  # no image: they may all be embedded
        files = None
    owners: dict[str, str] = {}
    for path in sorted(paths):
        content = _parse(path, collected)
        if content is not None:
            _read_image(path, content, images, files, owners, collected)
    unused = len(files.names) - len(owners.keys() & set(files.names)) if files else 0
    if unused:
        collected.notes["images without a JSON file, not annotated and not used"] = unused
    names = sorted(collected.categories)
    alike = {name.casefold() for name in names}
    if len(alike) < len(names):
        double = [n for n in names if sum(n.casefold() == m.casefold() for m in names) > 1]
        collected.warnings.append(
            f"labels that differ in capital letters only are different classes: {', '.join(double)}"
        )
    return collected, names


def _parse(path: str, collected: Collected) -> dict[str, Any] | None:
    """Return the content of a JSON file; None if it is not one of labelme's."""
    try:
        text, _ = coco_json.read_text(path)
        content = coco_json.parse(text, path)
    except ValueError as error:
        collected.lose_image("not a JSON file", path, str(error).removeprefix(f"{path}: "))
        return None
    if not isinstance(content, dict) or not {"shapes", "imagePath", "imageData"} & content.keys():
        collected.notes[f"JSON file that is not labelme's, not read: {path}"] += 1
        return None
    if not isinstance(content.get("shapes"), list):
        found = coco_values.short(content.get("shapes"))
        collected.lose_image("no list of shapes", path, f"shapes {found}")
        return None
    return content


def _read_image(
    path: str,
    content: dict[str, Any],
    images: str,
    files: ImageFiles | None,
    owners: dict[str, str],
    collected: Collected,
) -> None:
    """Read one JSON file."""
    shapes = content["shapes"]
    try:
        name, raw = _find(path, content, images, files, collected)
        header = reading.read_header(raw)
    except (AmbiguousError, FileNotFoundError) as error:
        collected.lose_image("missing file", path, str(error), len(shapes))
        return
    except reading.UnusableImageError as error:
        collected.lose_image(error.kind, path, str(error), len(shapes))
        return
    if owners.setdefault(name, path) != path:
        value = f"{owners[name]} and {path} both annotate it"
        collected.refuse("two JSON files of one image", f"image {name}", value)
        return
    stated = [coco_values.integer(content.get(key)) for key in ("imageHeight", "imageWidth")]
    size_hw = header.shown_hw
    if stated[0] and stated[1]:
        size_hw = (stated[0], stated[1])
    elif stated != [None, None]:
        value = f"imageHeight {stated[0]}, imageWidth {stated[1]}"
        collected.repaired("no image size", path, value, "taken from the image file")
    if not fits(header, size_hw):
        h, w = header.shown_hw
        value = f"{size_hw[1]} x {size_hw[0]} in {path}, {w} x {h} in the file"
        kind = "size differs from the file's (width x height)"
        collected.lose_image(kind, f"image {name}", value, len(shapes))
        return
    image = collected.add_image(name, size_hw)
    _read_shapes(path, shapes, image, collected)


def _find(
    path: str,
    content: dict[str, Any],
    images: str,
    files: ImageFiles | None,
    collected: Collected,
) -> tuple[str, bytes]:
    """Find the image of a JSON file: its name within the folder of images, and its content.

    Raises:
      FileNotFoundError: there is none.
      AmbiguousError: several fit.
      reading.UnusableImageError: it cannot be read.
    """
    stated = coco_values.text(content.get("imagePath")) or ""
    folder = pathlib.Path(path).resolve().parent
    meant = pathlib.PureWindowsPath(stated)
    there = pathlib.Path(os.path.normpath(folder.joinpath(*meant.parts[bool(meant.anchor) :])))
    own = folder / pathlib.Path(path).stem
    keys = [there.with_suffix("").parts] if stated else []
    for key in (*keys, own.parts):
        name = files.find(key) if files else None
        if name is None:
            continue
        if pathlib.PurePosixPath(name).name != there.name:
            value, remedy = f"imagePath {stated!r}; it is {name!r}", "read from there"
            collected.repaired("file of another name", path, value, remedy)
        return name, reading.read_bytes(os.path.join(images, name))
    return _embedded(path, content.get("imageData"), stated, images, collected)


def _embedded(
    path: str, encoded: Any, stated: str, images: str, collected: Collected
) -> tuple[str, bytes]:
    """Take an image out of a JSON file."""
    if not isinstance(encoded, str):
        value = f"no image {coco_values.short(stated)} in {images}, and none in the JSON file"
        raise FileNotFoundError(f"{value} (imageData)")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise FileNotFoundError(f"imageData of {stated!r} is not base64: {error}") from error
    kind = reading.read_header(raw).kind
    name = f"{pathlib.Path(path).stem}.{'jpg' if kind in ('JPEG', 'MPO') else kind.lower()}"
    if name in collected.embedded or os.path.exists(os.path.join(images, name)):
        raise FileNotFoundError(f"no image {stated!r} in {images}, and {name} is another's name")
    collected.embedded[name] = raw
    value, remedy = f"no image {stated!r} in {images}", f"written there from imageData as {name}"
    collected.repaired("image in the JSON file alone", path, value, remedy)
    return name, raw


def _read_shapes(path: str, shapes: list[Any], image: ImageEntry, collected: Collected) -> None:
    """Read the shapes of an image; those of a group become one object."""
    objects: dict[tuple[str, Any], list[Any]] = {}  # segmentations by label and group
    labels_of: dict[Any, set[str]] = {}
    for k, shape in enumerate(shapes):
        where = f"{path} shapes[{k}]"
        if not isinstance(shape, dict):
            collected.lose_object("malformed shape", where, coco_values.short(shape))
            continue
        label = (coco_values.text(shape.get("label")) or "").strip()
        if label in _NO_OBJECT:
            collected.notes[f"shapes labelled {label}, which are no objects"] += 1
            continue
        try:
            if not label:
                value = f"label {coco_values.short(shape.get('label'))}"
                raise BadShapeError("shape without a label", value)
            segmentation = _segmentation(shape, image)
        except BadShapeError as error:
            collected.lose_object(error.kind, where, error.value)
            continue
        group = shape.get("group_id")
        key = (where, None) if group is None else ("", str(group))
        objects.setdefault((label, key), []).append(segmentation)
        if group is not None:
            labels_of.setdefault(str(group), set()).add(label)
    if any(len(labels) > 1 for labels in labels_of.values()):
        collected.notes["groups of several labels, an object of each"] += 1
    for (label, (where, group)), parts in objects.items():
        place = where or f"{path} group_id {group}"
        collected.add_object(image, label, place, _join(parts, place, image, collected))


def _join(parts: list[Any], where: str, image: ImageEntry, collected: Collected) -> Any:
    """Return the segmentation of an object of several shapes."""
    if all(isinstance(part, list) for part in parts):
        return [polygon for part in parts for polygon in part]
    if len(parts) == 1:
        return parts[0]
    mask = np.zeros((image.height, image.width), bool)
    for part in parts:
        try:
            mask |= collecting.to_mask(part, image.height, image.width)
        except ValueError as error:
            collected.repaired("unusable part of a group", where, str(error), "this part left out")
    return collecting.run_lengths(mask)


def _segmentation(shape: dict[str, Any], image: ImageEntry) -> Any:
    """Return the segmentation of a shape: polygons or run lengths.

    Raises:
      BadShapeError: it has none.
    """
    kind = shape.get("shape_type") or "polygon"
    if kind in _WITHOUT_AREA:
        raise BadShapeError("shape without area", f"shape_type {kind!r}")
    points = _points(shape.get("points"))
    if kind == "mask":
        return _mask(shape.get("mask"), points, image)
    if kind == "circle":
        return [_circle(points)]
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points.tolist()
        return [[x1, y1, x2, y1, x2, y2, x1, y2]]
    if kind in ("polygon", "rectangle", "oriented_rectangle", "rotation"):
        return [points.ravel().tolist()]
    raise BadShapeError("unknown shape", f"shape_type {coco_values.short(kind)}")


def _points(points: Any) -> np.ndarray:
    """Return points as float64 [n, (x, y)]."""
    rows = points if isinstance(points, list) else []
    values = [
        [coco_values.number(v) for v in row] if isinstance(row, list | tuple) else []
        for row in rows
    ]
    if not values or any(len(row) != 2 or None in row for row in values):
        value = f"points {coco_values.short(points)}; expected [[x, y], ...]"
        raise BadShapeError("malformed points", value)
    return np.array(values, np.float64)


def _circle(points: np.ndarray) -> list[float]:
    """Return a polygon that differs from a circle by less than a visible amount."""
    if len(points) != 2:
        value = f"{len(points)} points; expected the centre and a point of the circle"
        raise BadShapeError("malformed circle", value)
    radius = math.dist(points[0], points[1])
    num_corners = min(
        max(16, math.ceil(math.pi * math.sqrt(radius / (2 * _SAGITTA)))), _MAX_CORNERS
    )
    angles = np.arange(num_corners) * 2 * math.pi / num_corners
    corners = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return corners.ravel().tolist()


def _mask(encoded: Any, points: np.ndarray, image: ImageEntry) -> dict[str, Any]:
    """Return the run lengths of a shape that is given by its pixels."""
    (x1, y1), *others = points.astype(int).tolist()
    if len(others) != 1 or not isinstance(encoded, str):
        raise BadShapeError("malformed mask", "expected two corners and a PNG in base64")
    x2, y2 = others[0]
    size = (x2 - x1 + 1, y2 - y1 + 1)
    try:
        content = io.BytesIO(base64.b64decode(encoded, validate=True))
        with Image.open(content, formats=["PNG"]) as png:  # no drawing that a program would make
            if png.size != size:
                value = f"{png.size[0]} x {png.size[1]} pixels between corners of {size[0]} x "
                raise BadShapeError("mask of another size", f"{value}{size[1]} (width x height)")
            pixels = np.asarray(png).reshape(size[1], size[0], -1).any(axis=2)
    except BadShapeError:
        raise
    except Exception as error:  # Pillow raises almost anything on broken files
        raise BadShapeError("malformed mask", f"{error}"[:80]) from error
    if x1 < 0 or y1 < 0 or x2 >= image.width or y2 >= image.height:
        value = f"corners ({x1}, {y1}), ({x2}, {y2}) in {image.width} x {image.height}"
        raise BadShapeError("mask reaches out of the image", value)
    mask = np.zeros((image.height, image.width), bool)
    mask[y1 : y2 + 1, x1 : x2 + 1] = pixels
    return collecting.run_lengths(mask)
