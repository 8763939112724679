"""Image files as people have them: found by file, folder or glob, read upright as RGB."""

import glob
import io
import itertools
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# What is looked at in a folder; a file named on the command line may be called anything.
IMAGE_SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])
# Formats whose stored bytes go to the network; TensorFlow and Pillow agree on their pixels.
# MPO is a JPEG with more images behind it, as telephones write it.
_PASSED_ON = frozenset({"GIF", "JPEG", "MPO", "PNG"})
_EXIF_ORIENTATION = 0x0112


class ImageFile(NamedTuple):
    """One image, upright.

    Attributes:
      name: path relative to the input folder, with forward slashes.
      encoded: file content for the network.
      pixels: uint8 [h, w, 3], RGB.
      turned: an EXIF orientation was applied.
    """

    name: str
    encoded: bytes
    pixels: np.ndarray
    turned: bool


def find_images(pattern: str, drawn_dir: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
    """List the images that a file, folder or glob names.

    Args:
      pattern: a file; a folder, searched with its sub-folders; or a glob, in which `**` crosses
        folders. What exists is taken literally, so brackets in a name do no harm.
      drawn_dir: skipped, so that a second run does not find the first one's drawings.

    Returns:
      (name relative to the folder, or to the glob's fixed part; path), sorted by name.

    Raises:
      FileNotFoundError: nothing matches.
    """
    path = pathlib.Path(pattern)
    if path.is_file():
        return [(path.name, path)]
    if path.is_dir():
        root, paths = path, list(path.rglob("*"))
    else:
        root = pathlib.Path(*itertools.takewhile(lambda p: not glob.has_magic(p), path.parts))
        paths = [pathlib.Path(p) for p in glob.glob(pattern, recursive=True)]
    found = [
        (p.relative_to(root).as_posix(), p)
        for p in paths
        if p.suffix.lower() in IMAGE_SUFFIXES
        and p.is_file()
        and drawn_dir.resolve() not in p.resolve().parents
    ]
    if not found:
        known = " ".join(sorted(IMAGE_SUFFIXES))
        raise FileNotFoundError(f"--input={pattern}: no such file, and no images ({known})")
    return sorted(found)


def read_image(name: str, path: pathlib.Path) -> ImageFile:
    """Read an image and turn it upright.

    Args:
      name: what to call it.
      path: its file.

    Raises:
      ValueError: the file is not an image.
      Exception: whatever Pillow raises on a broken one.
    """
    encoded = path.read_bytes()
    try:
        opened = Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError as error:  # its text names a buffer in memory
        raise ValueError("not an image, or of an unknown kind") from error
    with opened as image:
        turned = image.getexif().get(_EXIF_ORIENTATION) in range(2, 9)
        passed_on = image.format in _PASSED_ON and not turned
        upright = ImageOps.exif_transpose(image) if turned else image
        if upright.mode.startswith("I"):  # 16 bits: keep the upper eight, as TensorFlow does
            upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
        rgb = upright.convert("RGB")
    if not passed_on:
        buffer = io.BytesIO()
        rgb.save(buffer, "BMP")  # lossless, and written at the speed of a copy
        encoded = buffer.getvalue()
    return ImageFile(name, encoded, np.asarray(rgb), turned)
