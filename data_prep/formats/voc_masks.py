"""Pascal VOC's masks: a picture of the objects and one of the classes for each image.

    SegmentationObject/a.png     a colour an object; black is background
    SegmentationClass/a.png      a colour a class
    JPEGImages/a.jpg             or anywhere in the folder of images
    labelmap.txt                 CVAT ("Segmentation mask 1.1"): `name:r,g,b:parts:actions`
    class_names.txt              labelme2voc: names in the order of their numbers, background first

Palette pictures (VOC, labelme2voc) and pictures in colours (CVAT) are both read. An object's class
is that of its pixels. The border that VOC draws around objects (number 255, light brown) belongs
to nobody. Without a file of names the classes are VOC's own 20. Images without a picture of objects
are not used.

Source: the VOC2012 development kit, section 3 (segmentation), and its colour map; what CVAT and
labelme write.
"""

import collections
import os
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from mrcnn_tf.images import reading

from . import collected as collecting
from .collected import Collected
from .image_files import AmbiguousError, ImageFiles, fits

OBJECTS, CLASSES = "SegmentationObject", "SegmentationClass"
_OTHER_PICTURES = (
    OBJECTS, CLASSES, f"{OBJECTS}Visualization", f"{CLASSES}Visualization", "SegmentationObjectPNG",
    "SegmentationClassPNG",
)  # fmt: skip
_BACKGROUND, _VOID, _UNKNOWN = 0, 255, -1  # numbers of classes; 255 objects are too many for VOC
_VOID_COLOUR = (224, 224, 192)  # that of number 255
_COLOURS = 256  # VOC has so many
_LEAST_SHARE = 0.9  # of an object's pixels: the class of fewer is not its class
_VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


class _Classes(NamedTuple):
    """Which class a pixel is of.

    Attributes:
      names: of the numbers 1, 2, ...
      numbers: of colours (24 bits), where colours count; else numbers are those of the pictures.
    """

    names: tuple[str, ...]
    numbers: dict[int, int] | None


def find_root(annotations: str) -> str | None:
    """Return the folder that holds SegmentationObject: this one, above, or below it."""
    path = pathlib.Path(annotations)
    for folder in (path, path.parent):
        if (folder / OBJECTS).is_dir():
            return str(folder)
    below = sorted(p.parent for p in path.rglob(OBJECTS) if p.is_dir())
    if len(below) > 1:
        folders = ", ".join(str(p) for p in below[:3])
        raise ValueError(f"{annotations}: several folders with {OBJECTS}: {folders}. Name one")
    return str(below[0]) if below else None


def read(images: str, root: str) -> tuple[Collected, list[str]]:
    """Read Pascal VOC masks.

    Args:
      images: folder of the images.
      root: the folder that holds SegmentationObject.

    Returns:
      What was found, and the class names in their order.

    Raises:
      ValueError: there are no images or masks, or the file of names cannot be read.
    """
    collected = Collected()
    classes = _read_classes(pathlib.Path(root), collected)
    skipped = [os.path.join(root, folder) for folder in _OTHER_PICTURES]
    files = ImageFiles(images, skipped)
    folder = pathlib.Path(root, OBJECTS).resolve()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".png")
    others = sum(path.is_file() for path in folder.rglob("*")) - len(paths)
    if others:
        collected.notes[f"files in {OBJECTS} that are no PNG, not read"] = others
    if not paths:
        raise ValueError(f"{folder}: there are no PNG files")
    owners: dict[str, str] = {}
    for path in paths:
        _read_image(path, path.relative_to(folder), root, files, owners, classes, collected)
    unused = len(set(files.names) - owners.keys())
    if unused:
        collected.notes["images without a picture of objects, not annotated and not used"] = unused
    names = list(classes.names)
    if classes.names == _VOC_NAMES:
        names = [name for name in names if name in collected.categories]
    return collected, names


def _read_classes(root: pathlib.Path, collected: Collected) -> _Classes:
    """Read the file of names, whichever there is."""
    path = root / "labelmap.txt"
    if path.is_file():
        return _read_label_map(path)
    path = root / "class_names.txt"
    if path.is_file():
        _, *names = [line.strip() for line in _lines(path)] or [""]
        if not names or not all(names) or len(set(names)) < len(names):
            raise ValueError(f"{path}: expected a name a line, each once, background first")
        return _Classes(tuple(names), None)
    collected.warnings.append(
        f"{root} has no labelmap.txt and no class_names.txt: classes are named as those of Pascal "
        "VOC, by number"
    )
    return _Classes(_VOC_NAMES, None)


def _read_label_map(path: pathlib.Path) -> _Classes:
    """Read CVAT's labelmap.txt."""
    names: list[str] = []
    numbers = {0: _BACKGROUND}
    for k, line in enumerate(_lines(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        values = rest.partition(":")[0].split(",")
        if len(values) != 3 or not all(v.strip().isdecimal() and int(v) < 256 for v in values):
            value = line.strip()[:80]
            raise ValueError(f"{path} line {k}: {value!r}: expected name:red,green,blue:parts:acts")
        colour = _code(tuple(int(v) for v in values))
        if name == "background":
            numbers[colour] = _BACKGROUND
            continue
        if colour in numbers or not name or name in names:
            raise ValueError(f"{path} line {k}: {line.strip()!r}: name or colour is another's")
        names.append(name)
        numbers[colour] = len(names)
    if not names:
        raise ValueError(f"{path}: no class but the background")
    return _Classes(tuple(names), numbers)


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not in UTF-8: byte {error.start}") from error


def _read_image(
    path: pathlib.Path,
    relative: pathlib.Path,
    root: str,
    files: ImageFiles,
    owners: dict[str, str],
    classes: _Classes,
    collected: Collected,
) -> None:
    """Read the two pictures of an image."""
    try:
        name = files.find(relative.with_suffix("").parts)
        if name is None:
            value = f"no image {relative.with_suffix('')}.* in {files.folder}"
            raise FileNotFoundError(value)
        header = files.header(name)
        objects = _load(path)
        numbers = _class_numbers(_load(pathlib.Path(root, CLASSES, relative)), classes)
    except (AmbiguousError, FileNotFoundError) as error:
        collected.lose_image("missing file", str(path), str(error))
        return
    except (reading.UnusableImageError, ValueError) as error:
        collected.lose_image("undecodable file", str(path), str(error))
        return
    if owners.setdefault(name, str(path)) != str(path):
        collected.refuse("two masks of one image", f"image {name}", f"{owners[name]} and {path}")
        return
    size_hw = (objects.shape[0], objects.shape[1])
    if not fits(header, size_hw) or numbers.shape != size_hw:
        h, w = header.shown_hw
        value = f"image {w} x {h}, objects {size_hw[1]} x {size_hw[0]}, classes "
        value += f"{numbers.shape[1]} x {numbers.shape[0]}"
        collected.lose_image("size differs from the image's (width x height)", str(path), value)
        return
    image = collected.add_image(name, size_hw)
    ids = _object_ids(objects)
    if (ids == _VOID).any():
        collected.notes["images with a border around objects, which is background"] += 1
    for identifier in np.unique(ids):
        if identifier in (_BACKGROUND, _VOID):
            continue
        mask = ids == identifier
        where = f"{path} object {_told(identifier, objects)}"
        category = _class_of(numbers[mask], classes, where, collected)
        if category:
            collected.add_object(image, category, where, collecting.run_lengths(mask))
    _note_loose_pixels(ids, numbers, classes, str(path), collected)


def _load(path: pathlib.Path) -> np.ndarray:
    """Return a picture: colours uint8 [h, w, 3], or numbers [h, w].

    A palette picture keeps its colours in its numbers' upper bits: `number << 24 | colour`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with Image.open(path) as picture:
            picture.load()
            if picture.mode == "P":
                index = np.asarray(picture).astype(np.int64)
                palette = np.zeros((256, 3), np.int64)
                given = np.array(picture.getpalette("RGB") or [], np.int64).reshape(-1, 3)
                palette[: len(given)] = given
                return index << 24 | _code_of(palette)[index]
            if picture.mode in ("1", "L", "I", "I;16", "I;16B"):
                return np.asarray(picture).astype(np.int64) << 24 | _NO_COLOUR
            return np.asarray(picture.convert("RGB"))
    except Exception as error:  # Pillow raises almost anything on broken files
        raise ValueError(f"{path}: {reading.reason(error)}") from error


_NO_COLOUR = 0x010203  # of a picture in shades of gray, whose numbers count


def _object_ids(picture: np.ndarray) -> np.ndarray:
    """Return a number per object, int64 [h, w]: 0 background, 255 border.

    Of pictures in colours, VOC's numbers, so that objects keep their order; 256 and the colour
    where it is none of VOC's.
    """
    if picture.ndim == 2:
        ids = picture >> 24
        if ids.max() > _VOID:  # 16 bits, of which 255 is as good as any
            ids[ids == _VOID] = ids.max() + 1
        return ids
    codes, inverse = np.unique(_code_of(picture.astype(np.int64)), return_inverse=True)
    numbers = {_code(colour): number for number, colour in enumerate(_voc_colours())}
    ids = np.array([numbers.get(int(code), _COLOURS + int(code)) for code in codes], np.int64)
    return ids[inverse].reshape(picture.shape[:2])


def _class_numbers(picture: np.ndarray, classes: _Classes) -> np.ndarray:
    """Return the number of each pixel's class, int64 [h, w]; -1 is none that has a name."""
    if picture.ndim == 2:
        codes = picture & 0xFFFFFF
        is_numbered = classes.numbers is None or (codes == _NO_COLOUR).all()
    else:
        codes, is_numbered = _code_of(picture.astype(np.int64)), False
    if is_numbered:
        numbers = picture >> 24
    else:
        known = classes.numbers or {_code(c): k for k, c in enumerate(_voc_colours())}
        known = {**known, _code(_VOID_COLOUR): _VOID}
        values, inverse = np.unique(codes, return_inverse=True)
        table = np.array([known.get(int(v), _UNKNOWN) for v in values], np.int64)
        numbers = table[inverse].reshape(codes.shape)
    is_known = (numbers <= len(classes.names)) | (numbers == _VOID)
    return np.where(is_known, numbers, _UNKNOWN)


def _class_of(
    numbers: np.ndarray, classes: _Classes, where: str, collected: Collected
) -> str | None:
    """Return the name of an object's class; None if it has none, which is taken down."""
    counts = collections.Counter(numbers[numbers != _VOID].tolist())
    if not counts:
        counts[_BACKGROUND] = len(numbers)
    number, most = counts.most_common(1)[0]
    told = {_BACKGROUND: "background", _UNKNOWN: "a colour without a name"}
    parts = ", ".join(
        f"{told.get(n) or classes.names[n - 1]} ({c} pixels)" for n, c in counts.most_common(3)
    )
    if number in told:
        collected.lose_object("object without a class", where, f"{CLASSES} has {parts} there")
        return None
    if most < _LEAST_SHARE * counts.total():
        collected.lose_object("object of several classes", where, parts)
        return None
    if len(counts) > 1:
        collected.repaired("object of several classes", where, parts, "the largest taken")
    return classes.names[number - 1]


def _note_loose_pixels(
    ids: np.ndarray, numbers: np.ndarray, classes: _Classes, where: str, collected: Collected
) -> None:
    """Take down classes that are drawn where no object is."""
    loose = (ids == _BACKGROUND) & (numbers > _BACKGROUND) & (numbers != _VOID)
    inside = set(np.unique(numbers[ids != _BACKGROUND]).tolist())
    for number, count in collections.Counter(numbers[loose].tolist()).items():
        name = classes.names[number - 1]
        if number in inside:
            collected.notes["images with pixels of a class that are no object's"] += 1
        else:
            value = f"{name}: {count} pixels in {CLASSES}, none in {OBJECTS}"
            collected.lose_object("class without an object", where, value)


def _told(identifier: int, picture: np.ndarray) -> str:
    """Return what an object is called in messages: its number or its colour."""
    if picture.ndim == 2:
        return str(identifier)
    if identifier < _COLOURS:
        return str(_voc_colours()[identifier])
    code = int(identifier) - _COLOURS
    return f"({code >> 16}, {code >> 8 & 255}, {code & 255})"


def _code(colour: tuple[int, ...]) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _code_of(colours: np.ndarray) -> np.ndarray:
    """Return colours as 24 bits: int64 [..., 3] -> [...]."""
    return colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]


def _voc_colours() -> list[tuple[int, int, int]]:
    """Return VOC's colour map: bit 3 k + c of a number is bit 7 - k of channel c."""
    return [
        (
            sum((n >> 3 * k & 1) << 7 - k for k in range(3)),
            sum((n >> 3 * k + 1 & 1) << 7 - k for k in range(3)),
            sum((n >> 3 * k + 2 & 1) << 7 - k for k in range(3)),
        )
        for n in range(256)
    ]
