"""The images of a folder, found by parts of their paths, as annotation files name them."""

import collections
import os
import pathlib
from collections.abc import Sequence

from mrcnn_tf.images import finding, reading


class AmbiguousError(ValueError):
    """A name fits several images equally well."""


class ImageFiles:
    """The images of a folder and its sub-folders.

    Args:
      folder: on this machine.
      skipped: folders whose images are none of the data set's: masks, for one.

    Attributes:
      names: paths relative to the folder, with forward slashes; sorted.

    Raises:
      ValueError: there is none.
    """

    def __init__(self, folder: str, skipped: Sequence[str] = ()) -> None:
        self.folder = folder
        try:
            found = finding.find_images([folder], skipped)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
        self.names = [name for name, _ in found.images]
        self._of_stem: dict[str, list[str]] = collections.defaultdict(list)
        for name in self.names:
            self._of_stem[pathlib.PurePosixPath(name).stem].append(name)

    def find(self, key: Sequence[str], ignored: str = "") -> str | None:
        """Return the image that shares the longest end of its path with `key`.

        Args:
          key: the parts of a path, the last one a file name without its ending.
          ignored: a part that images have and `key` has not: "images".

        Returns:
          Its name; None if no image has this stem.

        Raises:
          AmbiguousError: several images fit equally.
        """
        best: list[str] = []
        most = 0
        for name in self._of_stem.get(key[-1], ()):
            shared = _shared_end(self.parts(name, ignored), key)
            if shared >= most:
                best = [name] if shared > most else [*best, name]
                most = shared
        if len(best) > 1:
            raise AmbiguousError(f"{' and '.join(best[:3])} fit equally well")
        return best[0] if best else None

    def parts(self, name: str, ignored: str = "") -> list[str]:
        """Return the parts of an image's whole path, the last one without its ending."""
        path = pathlib.Path(os.path.realpath(self.folder), name).with_suffix("")
        return [part for part in path.parts if part != ignored]

    def header(self, name: str) -> reading.Header:
        """Return what a file says of itself.

        Raises:
          reading.UnusableImageError: it is no image that can be read.
        """
        return reading.read_header(reading.read_bytes(os.path.join(self.folder, name)))


def fits(header: reading.Header, size_hw: tuple[int, int]) -> bool:
    """Whether annotations of this size are of the image, upright or as it is stored."""
    return size_hw in (header.stored_hw, header.shown_hw)


def _shared_end(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many parts two paths share at their ends."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    return next((k for k, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
