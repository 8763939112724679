"""Finds the images that files, folders and patterns name, by their content."""

import glob
import os
from collections.abc import Sequence
from typing import NamedTuple

from mrcnn_tf.images import kinds, storage


class Found(NamedTuple):
    """What was found.

    Attributes:
      images: (name relative to the folder or to the pattern's fixed part, with forward slashes;
        path) of each, sorted by name.
      others: likewise, of the files that lie between them and are no images.
    """

    images: list[tuple[str, str]]
    others: list[tuple[str, str]]


def find_images(patterns: Sequence[str], written: Sequence[str] = ()) -> Found:
    """Find images.

    What is an image is told by a file's first bytes; a file that is called as images are counts as
    one whatever it holds, so that a broken one is met when it is read, and so does one whose bytes
    cannot be looked at. A file that is named itself counts in any case.

    Args:
      patterns: each a file; a folder, searched with its sub-folders but without hidden files; a
        glob, in which `**` crosses folders (on this machine); or a list, a .txt with a path per
        line, relative to the list's folder. What exists is taken literally, so brackets in a name
        do no harm.
      written: files and folders that are left out: those that the caller writes.

    Raises:
      FileNotFoundError: nothing matches one of the patterns, or there is no image.
      ValueError: two images have the same name.
    """
    skipped = [_normal(path) for path in written]
    images: dict[str, str] = {}
    others: set[tuple[str, str]] = set()  # two of one name are two
    for pattern in patterns:
        found_any = False
        for name, path, is_named in _files_of(pattern):
            if any((_normal(path) + "/").startswith(folder + "/") for folder in skipped):
                continue
            found_any = True
            if not (is_named or kinds.is_image_name(name) or _may_be_image(path)):
                others.add((name, path))
            elif images.setdefault(name, path) != path and _normal(images[name]) != _normal(path):
                raise ValueError(
                    f"two images are called {name}: {images[name]} and {path}. Give the folder "
                    "above both as the input"
                )
        if not found_any:
            raise FileNotFoundError(f"{pattern}: there is no such file, or nothing in it")
    if not images:
        more = f", only {', '.join(name for name, _ in sorted(others)[:3])}" if others else ""
        raise FileNotFoundError(f"{' '.join(patterns)}: there are no images{more}")
    return Found(sorted(images.items()), sorted(others))


def _files_of(pattern: str) -> list[tuple[str, str, bool]]:
    """List (name, path, whether the user named this very file) of what a pattern stands for."""
    if pattern.lower().endswith(".txt") and storage.is_file(pattern):
        return _files_of_list(pattern)
    if storage.is_file(pattern):
        return [(os.path.basename(pattern), pattern, True)]
    if storage.is_folder(pattern):
        return [(_relative(p, pattern), p, False) for p in storage.files_below(pattern)]
    fixed, rest = _split(pattern)
    paths = storage.matching(os.path.join(glob.escape(fixed), rest) if fixed else rest)
    return [(_relative(p, fixed), p, False) for p in paths]


def _files_of_list(path: str) -> list[tuple[str, str, bool]]:
    """List (name, path, True) of the images that a text file names.

    Names are relative to the deepest folder that holds all of them.

    Raises:
      FileNotFoundError: a line names no file.
      ValueError: the file is no text.
    """
    try:
        lines = storage.read(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: a list of images has to be text in UTF-8: {error}") from error
    paths = []
    for number, line in enumerate(lines, start=1):
        if not (name := line.strip()):
            continue
        image = storage.absolute(os.path.join(os.path.dirname(path), name))
        if not storage.is_file(image):
            raise FileNotFoundError(f"{path}, line {number}: {name}: there is no such file")
        paths.append(image)
    above = os.path.commonprefix([os.path.dirname(image) + "/" for image in paths])
    return [(_relative(image, above[: above.rfind("/") + 1]), image, True) for image in paths]


def _split(pattern: str) -> tuple[str, str]:
    """Split a pattern into the longest folder that is there as it is written, and the rest."""
    head, rest = os.path.split(pattern)
    while head and not storage.is_folder(head):
        above, last = os.path.split(head)
        if above == head:  # the root, or a bare "gs://"
            return head, rest
        head, rest = above, os.path.join(last, rest)
    return head, rest


def _may_be_image(path: str) -> bool:
    """Whether a file begins as an image does, or cannot be read, which reading it will tell."""
    try:
        return kinds.is_image(storage.read(path, kinds.HEAD_BYTES))
    except Exception as error:
        # On other file systems TensorFlow raises errors of its own.
        if isinstance(error, OSError | ValueError) or storage.is_remote(path):
            return True
        raise


def _relative(path: str, folder: str) -> str:
    name = path[len(folder) :] if path.startswith(folder) else path
    return name.replace(os.sep, "/").lstrip("/")


def _normal(path: str) -> str:
    return path.rstrip("/") if storage.is_remote(path) else os.path.realpath(path)
