"""YOLO's label files: a line an object, `class x1 y1 x2 y2 ...`, fractions of the image's size.

    export/data.yaml                  names: a list, or {0: name, ...}
    export/train/images/a.jpg         Roboflow; CVAT and Ultralytics write images/train/a.jpg
    export/train/labels/a.txt                                   and labels/train/a.txt

A line of five numbers is a box (class, centre, size): an object without a mask. An image without a
label file, or with an empty one, has no objects. Label Studio writes classes.txt instead of
data.yaml, one name a line.

Source: Ultralytics' dataset formats "detect" and "segment", and what the three tools export.
"""

import os
import pathlib
from typing import Any

import numpy as np

from mrcnn_tf.data import coco_values
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.images import reading

from .collected import Collected
from .image_files import AmbiguousError, ImageFiles

NAMES_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt")
_LABELS, _IMAGES = "labels", "images"  # folders beside each other
_NUM_BOX = 4  # numbers behind the class
# Of the image's size. Outlines drawn by hand reach over the edge; pixels begin at tens.
_FARTHEST = 2.0


def find_names_file(annotations: str) -> str | None:
    """Return the file with the class names: in the folder, up to two above it, or below it."""
    path = pathlib.Path(annotations)
    if path.is_file():
        return annotations
    for folder in (path, *list(path.resolve().parents)[:2]):
        for name in NAMES_FILES:
            if (folder / name).is_file():
                return str(folder / name)
    below = [p for name in NAMES_FILES for p in sorted(path.glob(f"*/{name}"))]
    if len(below) > 1:
        files = ", ".join(str(p) for p in below[:3])
        raise ValueError(f"{annotations}: several files of class names: {files}. Name one of them")
    return str(below[0]) if below else None


def read(images: str, annotations: str) -> tuple[Collected, list[str]]:
    """Read a YOLO data set.

    Args:
      images: folder of the images; if it is a part of the data set (`train/images`), only that
        part's labels are read.
      annotations: folder of the data set, or its data.yaml.

    Returns:
      What was found, and the class names in their order.

    Raises:
      ValueError: there are no class names, label files or images.
    """
    names_file = find_names_file(annotations)
    if names_file is None:
        raise ValueError(f"{annotations}: no data.yaml and no classes.txt, so no class names")
    collected = Collected()
    names = _read_names(names_file, collected)
    is_file = os.path.isfile(annotations)
    root = pathlib.Path(os.path.dirname(annotations) or "." if is_file else annotations)
    files = ImageFiles(images)
    labels = _match(_label_files(root, images, collected), files, collected)
    for name in files.names:
        path = labels.get(name)
        if path is None:
            collected.notes["images without a label file, taken as having no objects"] += 1
        _read_image(name, path, files, names, collected)
    num_bare = collected.notes["images without a label file, taken as having no objects"]
    if num_bare:
        collected.warnings.append(
            f"{num_bare:,} of {len(files.names):,} images have no label file: they are taken as "
            "pictures without objects. Move those away that nobody has annotated"
        )
    return collected, names


def _read_names(path: str, collected: Collected) -> list[str]:
    """Return the class names in the order of their numbers."""
    raw = pathlib.Path(path).read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not in UTF-8: byte {error.start}") from error
    if path.endswith(".txt"):
        names: Any = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        names = _names_of_yaml(text, path, collected)
    if isinstance(names, dict):
        numbers = [coco_values.integer(key) for key in names]
        if sorted(n for n in numbers if n is not None) != list(range(len(names))):
            raise ValueError(
                f"{path}: names: expected the numbers 0..{len(names) - 1}, found "
                f"{coco_values.short(list(names))}"
            )
        names = [names[key] for key in sorted(names, key=lambda key: int(key))]
    if not isinstance(names, list) or not names:
        raise ValueError(
            f"{path}: names: expected a list of class names or a mapping from number to name, "
            f"found {coco_values.short(names)}"
        )
    names = [str(n) if isinstance(n, int | float) else coco_values.text(n) for n in names]
    for k, name in enumerate(names):
        if not name or not name.strip():
            raise ValueError(f"{path}: names[{k}]: {coco_values.short(name)} is no name")
        if names.index(name) < k:
            first = names.index(name)
            collected.refuse("classes share a name", path, f"{first} and {k} are both {name!r}")
    return names


def _names_of_yaml(text: str, path: str, collected: Collected) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ValueError(f"{path}: to read it takes PyYAML: pip install pyyaml") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "names" not in content:
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: no entry 'names' with the class names (found {found})")
    if "kpt_shape" in content:
        value = "kpt_shape: its lines hold key points, not outlines. Export as segmentation"
        collected.refuse("a data set of poses", path, value)
    names, number = content["names"], content.get("nc")
    if number is not None and isinstance(names, list | dict) and number != len(names):
        collected.repaired("number of classes", path, f"nc {number}", f"{len(names)} names read")
    return names


def _label_files(root: pathlib.Path, images: str, collected: Collected) -> list[pathlib.Path]:
    """List the label files that go with the images."""
    root = root.resolve()
    paths = sorted(p for p in root.rglob("*.txt") if p.is_file() and p.name not in NAMES_FILES)
    paths = [p for p in paths if _LABELS in (root.name, *p.relative_to(root).parts)]
    part = pathlib.Path(images).resolve()
    if part.is_relative_to(root) and part != root:
        ours = [name for name in part.relative_to(root).parts if name != _IMAGES]
        inside = [p for p in paths if _without(p.relative_to(root), _LABELS)[: len(ours)] == ours]
        if len(inside) < len(paths):
            what = f"label files of other folders than {images}"
            collected.notes[what] = len(paths) - len(inside)
        paths = inside
    if not paths:
        raise ValueError(f"{root}: no label files (labels/*.txt) for the images of {images}")
    return paths


def _match(
    paths: list[pathlib.Path], files: ImageFiles, collected: Collected
) -> dict[str, pathlib.Path]:
    """Find the image of each label file."""
    labels: dict[str, pathlib.Path] = {}
    for path in paths:
        try:
            name = files.find(_without(path.with_suffix(""), _LABELS), _IMAGES)
        except AmbiguousError as error:
            collected.lose_image("label file of several images", str(path), str(error))
            continue
        if name is None:
            value = f"no image {path.stem}.* in {files.folder}"
            collected.lose_image("label file without image", str(path), value, _num_lines(path))
        elif name in labels:
            value = f"{labels[name]} and {path} both name {name}"
            collected.refuse("two label files of one image", name, value)
        else:
            labels[name] = path
    return labels


def _without(path: pathlib.PurePath, folder: str) -> list[str]:
    return [part for part in path.parts if part != folder]


def _num_lines(path: pathlib.Path) -> int:
    return sum(bool(line.strip()) for line in path.read_bytes().splitlines())


def _read_image(
    name: str,
    path: pathlib.Path | None,
    files: ImageFiles,
    names: list[str],
    collected: Collected,
) -> None:
    """Read the label file of an image."""
    num_lines = _num_lines(path) if path else 0
    try:
        header = files.header(name)
        text = path.read_bytes().decode("utf-8-sig") if path else ""
    except reading.UnusableImageError as error:
        collected.lose_image(error.kind, f"image {name}", str(error), num_lines)
        return
    except UnicodeDecodeError as error:
        value = f"byte {error.start} is {error.object[error.start]:#x}"
        collected.lose_image("label file not in UTF-8", str(path), value, num_lines)
        return
    image = collected.add_image(name, header.shown_hw)
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path} line {number}"
        if not line.strip():
            continue
        if line.strip() in seen:
            collected.repaired("line twice in a file", where, line.strip()[:80], "read once")
            continue
        seen.add(line.strip())
        _read_line(line, image, where, names, collected)


def _read_line(
    line: str, image: ImageEntry, where: str, names: list[str], collected: Collected
) -> None:
    """Read the line of an object."""
    words = line.split()
    fault = _fault(words, names)
    if fault:
        kind, value = fault
        collected.lose_object(kind, where, value)
        return
    category = names[int(float(words[0]))]
    values = np.array([float(word) for word in words[1:]])
    if len(values) in (_NUM_BOX, _NUM_BOX + 1):
        if len(values) > _NUM_BOX:
            collected.notes["boxes with a score behind them, which is not read"] += 1
        collected.notes["boxes without a mask"] += 1
        scale = np.array([image.width, image.height] * 2)
        x, y, w, h = (values[:_NUM_BOX] * scale).tolist()
        collected.add_object(image, category, where, box=(x - w / 2, y - h / 2, w, h))
        return
    if values.min() < 0 or values.max() > 1:
        collected.notes["outlines that reach out of their image, cut off there"] += 1
    points = values.reshape(-1, 2) * (image.width, image.height)
    collected.add_object(image, category, where, [points.ravel().tolist()])


def _fault(words: list[str], names: list[str]) -> tuple[str, str] | None:
    """Return what is wrong with a line, (kind, value); None if it can be read."""
    line = coco_values.short(" ".join(words))
    numbers = [_number(word) for word in words]
    if None in numbers:
        word = words[numbers.index(None)]
        return "not a number", f"{word[:40]!r} in {line}"
    number, *values = (n for n in numbers if n is not None)
    if not number.is_integer() or not 0 <= number < len(names):
        return "unknown class", f"{words[0][:40]}; expected 0..{len(names) - 1}"
    if len(values) < _NUM_BOX or (len(values) > _NUM_BOX + 1 and len(values) % 2):
        value = f"{len(values)} numbers behind the class: {line}; expected 4, or pairs"
        return "malformed line", value
    if max(map(abs, values[: _NUM_BOX if len(values) == _NUM_BOX + 1 else None])) > _FARTHEST:
        value = f"{line}: expected fractions of the image's size, 0..1; these look like pixels"
        return "coordinates are no fractions", value
    return None


def _number(word: str) -> float | None:
    try:
        return coco_values.number(float(word))
    except ValueError:
        return None
