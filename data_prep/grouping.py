"""Which images belong together, so that one may not be learnt from and another be scored on.

    copies            Roboflow's `NAME_jpg.rf.HASH.jpg`: augmented copies of one photo, whatever
                      flips and turns did to them
    same name         a.jpg and a.png of one folder
    near-duplicates   within `near_duplicates.MAX_DISTANCE` bits: copies, frames of a burst
    frames            neighbours in a numbered series (clip_0007, clip_0008) within `_FRAME_BITS`

A name alone makes no group of frames: IMG_0007 and IMG_0008 are two photos like any other.
"""

import collections
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mrcnn_tf.images import near_duplicates

_ROBOFLOW = re.compile(r"\.rf\.[^./]+$")
_NUMBERED = re.compile(r"(.*?)(\d+)$")
# Bits. Two photos of `benchmarks/near_duplicates.py` that differ are this near in 1 of 380 pairs,
# and the name has to say that they follow each other; a camera that moved by 4 % of the picture
# is within 21 bits in 19 of 20.
_FRAME_BITS = 20


class Group(NamedTuple):
    """Images that stay together.

    Attributes:
      members: places in the list of images, sorted.
      why: what joined them, of the words above; empty for an image alone.
    """

    members: list[int]
    why: list[str]


def group(names: Sequence[str], hashes: Sequence[int | None]) -> list[Group]:
    """Group images by name and by what they show.

    Args:
      names: file names with folders, forward slashes.
      hashes: of the images, see `near_duplicates.hash_of`; None for those that cannot be read.

    Returns:
      The groups, sorted by their first member's name; each image is in one.
    """
    links = [
        *(("copies", places) for places in _by_name(names, _copies_of)),
        *(("same name", places) for places in _by_name(names, _without_ending)),
        *(("near-duplicates", places) for places in _alike(hashes)),
        *(("frames", places) for places in _frames(names, hashes)),
    ]
    parent = list(range(len(names)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for _, places in links:
        for place in places[1:]:
            parent[root(place)] = root(places[0])
    members: dict[int, list[int]] = collections.defaultdict(list)
    for place in range(len(names)):
        members[root(place)].append(place)
    why: dict[int, dict[str, None]] = collections.defaultdict(dict)
    for word, places in links:
        why[root(places[0])][word] = None
    groups = [Group(places, list(why[first])) for first, places in members.items()]
    return sorted(groups, key=lambda one: min(names[place] for place in one.members))


def _by_name(names: Sequence[str], key_of: Callable[[str], str | None]) -> list[list[int]]:
    """List the places of names of one key, where there are several; a key of None is nobody's."""
    places: dict[str, list[int]] = collections.defaultdict(list)
    for place, name in enumerate(names):
        key = key_of(name)
        if key is not None:
            places[key].append(place)
    return [several for several in places.values() if len(several) > 1]


def _copies_of(name: str) -> str | None:
    """Return the photo's name of one of Roboflow's copies, which may lie in any part's folder."""
    stem = pathlib.PurePosixPath(name).stem
    original = _ROBOFLOW.sub("", stem)
    return None if original == stem else original


def _without_ending(name: str) -> str:
    return str(pathlib.PurePosixPath(name).with_suffix("")) if name else ""


def _alike(hashes: Sequence[int | None]) -> list[list[int]]:
    known = [place for place, bits in enumerate(hashes) if bits is not None]
    found = near_duplicates.groups([hashes[place] or 0 for place in known])
    return [[known[k] for k in members] for members in found if len(members) > 1]


def _frames(names: Sequence[str], hashes: Sequence[int | None]) -> list[list[int]]:
    """List pairs of neighbours in a numbered series that look alike."""
    series: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    for place, name in enumerate(names):
        match = _NUMBERED.match(_ROBOFLOW.sub("", _without_ending(name)).removesuffix("_jpg"))
        if match and hashes[place] is not None:
            series[match[1]].append((int(match[2]), place))
    pairs = []
    for numbered in series.values():
        numbered.sort()
        for (_, a), (_, b) in zip(numbered, numbered[1:], strict=False):
            if ((hashes[a] or 0) ^ (hashes[b] or 0)).bit_count() <= _FRAME_BITS:
                pairs.append([a, b])
    return pairs
