"""Finds the files of a folder that an annotation file names, as export tools name them.

Label Studio writes the folder of its server before a name and quotes it as in an address, Windows
tools write backslashes, CVAT the folder of its task; macOS takes letters and accents apart, others
write them as one. A name that is no file is tried without these; what is found must be one image's
alone.
"""

import collections
import concurrent.futures
import os
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Literal

import tensorflow as tf

from mrcnn_tf.data.coco_data import CocoData, ImageEntry
from mrcnn_tf.data.findings import Finding, Level
from mrcnn_tf.images import reading

_THREADS = 32  # a file system that is far away answers slowly, but many questions at once

_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")  # letter and accent as one, as two


class ImageFolder:
    """A folder of images, on any file system that TensorFlow reads.

    Args:
      path: of the folder.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lengths: dict[str, int | None] = {}

    def length(self, name: str) -> int | None:
        """Return the length of a file in bytes; None if there is no such file."""
        if name not in self._lengths:
            self._lengths[name] = _length_of_file(os.path.join(self._path, name))
        return self._lengths[name]

    def find(self, file_name: str) -> str | None:
        """Return the name of the file that an annotation file means, relative to the folder."""
        return next(
            (name for name in _candidates(file_name) if self.length(name) is not None), None
        )

    def size_of(self, file_name: str) -> tuple[int, int] | None:
        """Return (height, width) out of an image file's header.

        None where it cannot tell the size that the annotations are of: no such file, no image, or
        one that EXIF turns sideways.
        """
        name = self.find(file_name)
        if name is None:
            return None
        try:
            raw = reading.read_bytes(os.path.join(self._path, name))
            header = reading.read_header(raw)
        except reading.UnusableImageError:
            return None
        return header.stored_hw if header.stored_hw == header.shown_hw else None

    def find_all(self, coco: CocoData) -> dict[str, int]:
        """Leave out the images whose file is absent, and name the others as their files are named.

        Args:
          coco: its `images` and `findings` are changed.

        Returns:
          The lengths of the files, bytes, by name.
        """
        self._look_up([image.file_name for image in coco.images])
        found = {image.source_id: self.find(image.file_name) for image in coco.images}
        owners = collections.Counter(name for name in found.values() if name)
        images = []
        for image in coco.images:
            name = found[image.source_id]
            if name is None or (name != image.file_name and owners[name] > 1):
                finding = _missing(image, self._path)
                num_objects = len(coco.objects.get(image.source_id, ()))
                coco.findings.append(finding._replace(annotations=num_objects))
                continue
            if name != image.file_name:
                value, remedy = f"it is {name!r}", "read from there"
                finding = Finding(
                    Level.REPAIRED, "file of another name", image.where, value, remedy
                )
                coco.findings.append(image.sign(finding))
            images.append(image._replace(file_name=name))
        coco.images = images
        return {image.file_name: self.length(image.file_name) or 0 for image in images}

    def _look_up(self, names: Iterable[str]) -> None:
        """Ask for many files at once where each answer takes its time."""
        if "://" not in self._path:
            return
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self.length, names))


def _candidates(file_name: str) -> Iterator[str]:
    """Yield a file name and what may be left of it, the likeliest first."""
    if not file_name:
        return
    yield file_name
    unquoted = urllib.parse.unquote(file_name)
    for name in dict.fromkeys((file_name, unquoted)):
        parts = name.replace("\\", "/").split("/")
        for k in range(len(parts)):
            rest = "/".join(parts[k:])
            yield from dict.fromkeys((rest, *(unicodedata.normalize(f, rest) for f in _FORMS)))


def _length_of_file(path: str) -> int | None:
    try:
        status = tf.io.gfile.stat(path)
    # A name that is too long, or holds a zero byte, is no file either.
    except (tf.errors.OpError, ValueError, OSError):
        return None
    return None if status.is_directory else int(status.length)


def _missing(image: ImageEntry, folder: str) -> Finding:
    value = f"no file {os.path.join(folder, image.file_name)}"[:300]
    if not image.file_name:
        value = "expected a file_name"
    short = image._replace(file_name=image.file_name[:100]).where
    finding = Finding(Level.LEFT_OUT, "missing file", short, value, "image left out", images=1)
    return image.sign(finding)
