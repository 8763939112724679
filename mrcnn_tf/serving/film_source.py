"""Tells films and cameras among what `--input` names.

Needs no package that reads films, and no TensorFlow.
"""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from mrcnn_tf.images import kinds, storage

_HEAD_BYTES = 256
# First bytes of films. What an image may begin with (HEIC and AVIF are MP4 too) was looked at
# before.
_SIGNATURES = (
    rb".{4}(ftyp|moov|mdat|wide|free|skip|pnot)",  # MP4, QuickTime
    rb"\x1a\x45\xdf\xa3",  # Matroska, WebM
    rb"RIFF.{4}AVI ",
    rb"\x47.{187}\x47",  # an MPEG transport stream, in packets of 188 bytes
    rb".{4}\x47.{191}\x47",  # the same from camcorders and Blu-rays
    rb"\0\0\x01[\xb3\xba]",  # MPEG 1 and 2
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # Windows Media
    rb"FLV\x01",
    rb"OggS",
    rb"\x06\x0e\x2b\x34",  # MXF
)
# Names that only films have: such a file counts as one even if its content does not.
_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".mxf", ".ogv", ".vob", ".webm", ".wmv"),
)


class Source(NamedTuple):
    """Where frames come from.

    Attributes:
      name: of the film's file, or "camera0".
      path: what is opened.
      is_camera: it has no end, and no frame of it waits.
    """

    name: str
    path: str
    is_camera: bool


def find(patterns: Sequence[str]) -> Source | None:
    """Return the film or the camera that `--input` names; None if it names no such thing.

    A number is a camera's, unless a file of this name is there.

    Raises:
      ValueError: a film or a camera among several inputs.
    """
    sources = [_source(pattern) for pattern in patterns]
    found = [source for source in sources if source is not None]
    if not found:
        return None
    if len(patterns) > 1:
        raise ValueError(f"{found[0].name}: a film or a camera has to be the only --input of a run")
    return found[0]


def _source(pattern: str) -> Source | None:
    if pattern.lower().endswith(".txt"):  # a list of images, however it begins
        return None
    if storage.is_file(pattern):
        return Source(os.path.basename(pattern), pattern, False) if _is_film(pattern) else None
    if re.fullmatch(r"[0-9]+", pattern) and not storage.is_folder(pattern):
        return Source(f"camera{int(pattern)}", f"/dev/video{int(pattern)}", True)
    return None


def _is_film(path: str) -> bool:
    try:
        head = storage.read(path, _HEAD_BYTES)
    except Exception as error:
        # On other file systems TensorFlow raises errors of its own.
        if not (isinstance(error, OSError | ValueError) or storage.is_remote(path)):
            raise
        head = b""
    if kinds.is_image(head):
        return False
    begins_so = any(re.match(signature, head, re.DOTALL) for signature in _SIGNATURES)
    return begins_so or os.path.splitext(path)[1].lower() in _SUFFIXES
