"""The label map: the one place where a data set's own category ids meet the network's classes."""

import collections
import dataclasses
import json
from typing import Any, NamedTuple

from mrcnn_tf.data.keypoint_set import KeypointSet

_MOST_SHOWN = 40  # letters of a value of a file
# LVIS's letters: rare, common, frequent; a category in at most so many images of training is it.
FREQUENCIES = {"r": 10, "c": 100, "f": 2**63}
_FEDERATED = ("image_count", "frequency")  # of a row, beside class, id and name


def frequency_of(image_count: int) -> str:
    """Return LVIS's letter for a category that is in so many images of training."""
    return next(letter for letter, most in FREQUENCIES.items() if image_count <= most)


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """Category ids and names in contiguous order: entry k is class k + 1; class 0 is background.

    Attributes:
      ids: the data set's own category ids, in the order of the classes.
      names: their names, same order.
      keypoints: of the objects; None for a data set without.
      image_counts: how many images of training each is in, same order; empty, as the next one,
        unless the data set is federated, see `coco_federated.py`.
      frequencies: LVIS's letter of each, one of `FREQUENCIES`.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    keypoints: KeypointSet | None = None
    image_counts: tuple[int, ...] = ()
    frequencies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            raise ValueError(f"label map: {len(self.ids)} ids but {len(self.names)} names")
        if not len(self.image_counts) == len(self.frequencies) in (0, len(self.ids)):
            raise ValueError(
                f"label map: {len(self.ids)} ids but {len(self.image_counts)} image counts and "
                f"{len(self.frequencies)} frequencies"
            )
        if len(set(self.ids)) != len(self.ids):
            twice = sorted({i for i in self.ids if self.ids.count(i) > 1})
            raise ValueError(f"label map: category ids occur more than once: {twice}")

    @property
    def num_classes(self) -> int:
        """Number of classes including background."""
        return len(self.ids) + 1

    def renumbered(self, theirs: "LabelMap", where: str, what: str = "the network") -> "LabelMap":
        """Return these classes with the ids that the same names have in another data set.

        The data sets' own numbers say nothing: two exports of one project may number the same
        names otherwise. Only where names are missing, on either side, is the order taken to be the
        same. A class that the other set does not have keeps its id, or gets a negative one if that
        is taken there.

        Args:
          theirs: the other data set's categories.
          where: its file, for error messages.
          what: whose classes these are, for error messages.

        Raises:
          ValueError: the other set has a category that is not among these, or other keypoints.
        """
        if self.keypoints and theirs.keypoints and self.keypoints.names != theirs.keypoints.names:
            raise ValueError(
                f"{where} has the keypoints {', '.join(theirs.keypoints.names)}, {what} "
                f"{', '.join(self.keypoints.names)}: they must be the same, in this order"
            )
        if theirs.names == self.names:
            return dataclasses.replace(self, ids=theirs.ids)
        if not (self.has_names and theirs.has_names):
            if len(theirs.ids) == len(self.ids):
                return dataclasses.replace(self, ids=theirs.ids)
            raise ValueError(
                f"{where} has {len(theirs.ids)} categories, {what} {len(self.ids)}, and without "
                "names on both sides they cannot be matched"
            )
        matched = match_names(self, theirs)
        if matched.missing:
            listed = ", ".join(map(repr, matched.missing[:5]))
            known = ", ".join(map(repr, self.names[:10])) + (", ..." if self.names[10:] else "")
            raise ValueError(
                f"{where} has categories that {what} does not know: {listed}"
                f"{', ...' if matched.missing[5:] else ''}. Known are {known}. Categories are "
                "matched by name: give them the same names, or leave these out"
            )
        id_of = {ours: their_id for their_id, ours in matched.ids.items()}
        ids = (
            id_of.get(own_id, own_id if own_id not in theirs.ids else -k)
            for k, own_id in enumerate(self.ids, start=1)
        )
        return dataclasses.replace(self, ids=tuple(ids))

    @property
    def has_names(self) -> bool:
        """Whether somebody has named the classes: "class 3" is what they are called without."""
        return any(name != f"class {k}" for k, name in enumerate(self.names, start=1))

    def to_json(self) -> str:
        """Return the file's text: a list of {"class", "id", "name"}, one category a line.

        Of a federated data set the rows have "image_count" and "frequency", too. Where there are
        keypoints, `KeypointSet.as_dict` stands behind them.
        """
        entries: list[dict[str, Any]] = [
            {"class": k + 1, "id": i, "name": n}
            for k, (i, n) in enumerate(zip(self.ids, self.names, strict=True))
        ]
        federated = zip(self.image_counts, self.frequencies, strict=True)
        for entry, (count, letter) in zip(entries, federated, strict=False):
            entry |= {"image_count": count, "frequency": letter}
        rows = [json.dumps(entry, ensure_ascii=False) for entry in entries]
        keypoints = ""
        if self.keypoints:
            content = json.dumps(self.keypoints.as_dict(), ensure_ascii=False)
            keypoints = f',\n"keypoints": {content}'
        return '{"categories": [\n' + ",\n".join(rows) + f"\n]{keypoints}}}\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "label map") -> "LabelMap":
        """Parse `to_json`'s text.

        Args:
          text: the file's text, or its bytes.
          name: the file's path, for error messages.

        Raises:
          ValueError: the text is not a label map, or its classes are not 1..N-1 in order.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: not a label map ({error})") from error
        rows = content.get("categories") if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise ValueError(f"{name}: not a label map (it has no list 'categories')")
        for k, row in enumerate(rows):
            fault = _fault(row, k + 1) or _fault_of_frequencies(row, rows[0])
            if fault:
                raise ValueError(f"{name}: not a label map (categories[{k}]: {fault})")
        ids, names = tuple(row["id"] for row in rows), tuple(row["name"] for row in rows)
        is_federated = any(key in row for row in rows for key in _FEDERATED)
        counts = tuple(row["image_count"] for row in rows) if is_federated else ()
        letters = tuple(row["frequency"] for row in rows) if is_federated else ()
        try:
            keypoints = None
            if "keypoints" in content:
                keypoints = KeypointSet.from_dict(content["keypoints"], len(ids) + 1)
            return cls(ids, names, keypoints, counts, letters)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    @classmethod
    def from_coco_categories(cls, categories: list[dict]) -> "LabelMap":
        """Build from a COCO file's `categories`, without keypoints; classes follow ascending id."""
        ordered = sorted(categories, key=lambda c: int(c["id"]))
        return cls(tuple(int(c["id"]) for c in ordered), tuple(str(c["name"]) for c in ordered))


def _fault(row: Any, number: int) -> str:
    """Say what is wrong with a row of the file; "" if nothing is."""
    if not isinstance(row, dict):
        return f"{str(row)[:_MOST_SHOWN]!r} is no object"
    expected = {"class": int, "id": int, "name": str}
    for key, kind in expected.items():
        value = row.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"{key} {str(value)[:_MOST_SHOWN]!r}, expected {kind.__name__}"
    if row["class"] != number:
        return f"class {str(row['class'])[:_MOST_SHOWN]}, expected {number}: they are in order"
    if not -(2**63) <= row["id"] < 2**63:
        return f"id {str(row['id'])[:_MOST_SHOWN]}, expected 64 bits"
    return ""


def _fault_of_frequencies(row: dict[str, Any], first: dict[str, Any]) -> str:
    """Say what is wrong with a row's federated numbers, which all rows have or none."""
    there, first_there = ([key for key in _FEDERATED if key in r] for r in (row, first))
    if not there and not first_there:
        return ""
    if not first_there:
        return f"{there[0]}, which categories[0] does not have: all have it, or none"
    count, letter = row.get("image_count"), row.get("frequency")
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 2**63:
        return f"image_count {str(count)[:_MOST_SHOWN]!r}, expected a number of images"
    if not isinstance(letter, str) or letter not in FREQUENCIES:
        return f"frequency {str(letter)[:_MOST_SHOWN]!r}, expected one of {', '.join(FREQUENCIES)}"
    return ""


class NameMatch(NamedTuple):
    """How the categories of two label maps belong together: by name, never by number.

    Attributes:
      ids: {id in the other one: id in this one} of the names that both have.
      missing: names that only the other one has.
      unused: names that only this one has.
    """

    ids: dict[int, int]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def is_renumbered(self) -> bool:
        """Whether a name has another id in the other one."""
        return any(theirs != ours for theirs, ours in self.ids.items())


def match_names(ours: LabelMap, theirs: LabelMap) -> NameMatch:
    """Match two label maps by name; a name that occurs twice, by name and id.

    Args:
      ours: of the network, or of the records that it learnt from.
      theirs: of the data that it is to be scored on.
    """

    def by_name(label_map: LabelMap) -> dict[str | tuple[str, int], int]:
        names = collections.Counter(label_map.names)
        pairs = zip(label_map.ids, label_map.names, strict=True)
        return {(n if names[n] == 1 else (n, i)): i for i, n in pairs}

    our_ids, their_ids = by_name(ours), by_name(theirs)

    def names_only_in(one: dict, other: dict) -> tuple[str, ...]:
        return tuple(key if isinstance(key, str) else key[0] for key in one if key not in other)

    return NameMatch(
        {i: our_ids[key] for key, i in their_ids.items() if key in our_ids},
        names_only_in(their_ids, our_ids),
        names_only_in(our_ids, their_ids),
    )
