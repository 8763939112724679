"""Whether sets of record files are whole: names say how many there are, the manifest how long.

A set is PREFIX-00000-of-00004.tfrecord up to 00003; the converter's PREFIX.manifest.json lists
every file that it completed, with its length. A part of a set may be read on purpose, by a pattern
that means no other part; what a pattern means and does not find is missing.
"""

import concurrent.futures
import contextlib
import fnmatch
import json
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import tensorflow as tf

_NAME = re.compile(r"(?P<prefix>.*)-(?P<index>\d+)-of-(?P<count>\d+)(?P<ending>[^/]*)")
_MOST_FILES = 2**20  # of a set; a name that says more is not one of ours
_AT_ONCE = 32  # files that are looked at, which is slow on other file systems only
_MOST_NAMED = 5
_OF_TFDS = "dataset_info.json"  # lies beside record files of TensorFlow Datasets


class SetOfFiles(NamedTuple):
    """What the files of one set have in common.

    Attributes:
      folder: they lie in.
      prefix: of their names.
      num_files: how many there are, as each says.
      ending: of their names, ".tfrecord".
      digits: of the index, and of how many.
    """

    folder: str
    prefix: str
    num_files: int
    ending: str
    digits: tuple[int, int]

    def name(self, index: int) -> str:
        """The file name of a shard."""
        return f"{self.prefix}-{index:0{self.digits[0]}d}{self.of}"

    @property
    def of(self) -> str:
        """What all names end in."""
        return f"-of-{self.num_files:0{self.digits[1]}d}{self.ending}"

    def path(self, index: int) -> str:
        """The path of a shard."""
        return os.path.join(self.folder, self.name(index))

    @property
    def manifest(self) -> str:
        """Where the converter lists what it completed."""
        return manifest_of(os.path.join(self.folder, self.prefix))


def set_of(path: str) -> tuple[SetOfFiles, int] | None:
    """Return the set that a file is one of and its index, None if its name says no such thing."""
    folder, name = os.path.split(path)
    match = _NAME.fullmatch(name)
    if not match or not 0 < int(match["count"]) <= _MOST_FILES:
        return None
    digits = len(match["index"]), len(match["count"])
    index, count = int(match["index"]), int(match["count"])
    return SetOfFiles(folder, match["prefix"], count, match["ending"], digits), index


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern means a file name; brackets in it may also be meant literally."""
    literal = pattern.replace("[", "[[]")
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, literal)


def check(files_of: dict[str, list[str]]) -> None:
    """Refuse sets of which a pattern means files that are absent, cut off or not completed.

    Args:
      files_of: {pattern: the files that it matches}.

    Raises:
      ValueError: names the files, and what would help.
    """
    files = dict.fromkeys(path for paths in files_of.values() for path in paths)
    for pattern, paths in files_of.items():
        sets = list(dict.fromkeys(found[0] for found in map(set_of, paths) if found))
        _check_counts(pattern, sets)
        for one in sets:
            absent = [
                one.name(k)
                for k in range(one.num_files)
                if one.path(k) not in files and matches(one.name(k), os.path.basename(pattern))
            ]
            if absent:
                raise ValueError(
                    f"{len(absent):,} of the {one.num_files:,} record files that {pattern!r} means "
                    f"are missing: {_listed(absent)}, in {one.folder or '.'!r}. {_advice(one)}"
                )
    _check_lengths(list(files))


def lengths(one: SetOfFiles) -> dict[str, int] | None:
    """Return {file name: bytes} of the files that a set's manifest lists, None if it has none.

    Raises:
      ValueError: it is no manifest.
    """
    contents = read_manifests(os.path.join(one.folder, one.prefix))
    if not contents:
        return None
    rows = [row for content in contents.values() for row in content["shards"].items()]
    return {name: row["num_bytes"] for name, row in rows}


def manifest_of(prefix: str, part: tuple[int, int] | None = None) -> str:
    """Return the path of a set's manifest, or of that of the shards from `part[0]` up to `part[1]`.

    What is converted in parts has one for each until the last part makes the set's of them.
    """
    return (
        f"{prefix}.part-{part[0]:05d}-{part[1]:05d}.manifest.json"
        if part
        else (f"{prefix}.manifest.json")
    )


def read_manifests(prefix: str) -> dict[str, dict[str, Any]]:
    """Read the manifest of a set, and those of its parts if there are any.

    Returns:
      {path: as `read_manifest` returns it}, the set's last.

    Raises:
      ValueError: one is no manifest.
    """
    folder, name = os.path.split(prefix)
    if not tf.io.gfile.isdir(folder or "."):
        return {}
    of_part = re.compile(re.escape(name) + r"\.part-\d+-\d+\.manifest\.json")
    names = sorted(
        entry for entry in tf.io.gfile.listdir(folder or ".") if of_part.fullmatch(entry)
    )
    contents = {}
    # The set's last: parts go once it is there, so what is gone by now is in it.
    for path in (*(os.path.join(folder, part) for part in names), manifest_of(prefix)):
        if tf.io.gfile.exists(path):
            with contextlib.suppress(FileNotFoundError):
                contents[path] = read_manifest(path)
    return contents


def read_manifest(path: str) -> dict[str, Any]:
    """Read a manifest of the converter.

    Returns:
      {"made_from": {setting: value}, "shards": {file name: {"num_bytes": int, ...}}}.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is none, or a damaged one; says where.
    """
    advice = "Without it, records are only told by their names: remove it, or convert again"
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a manifest of the converter ({error}). {advice}") from error
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(path) from error
    except tf.errors.OpError as error:
        raise ValueError(f"{path}: cannot be read ({error.message})") from error

    def refuse(what: str) -> ValueError:
        return ValueError(f"{path}: not a manifest of the converter ({what}). {advice}")

    for key in ("made_from", "shards"):
        if not isinstance(content, dict) or not isinstance(content.get(key), dict):
            raise refuse(f"it has no object {key!r}")
    for name, row in content["shards"].items():
        size = row.get("num_bytes") if isinstance(row, dict) else None
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise refuse(f"shard {name!r} has the num_bytes {size!r}")
    return content


def _check_counts(pattern: str, sets: list[SetOfFiles]) -> None:
    """Refuse two sets of one name: every image would be there twice."""
    counts: dict[tuple[str, str, str], SetOfFiles] = {}
    for one in sets:
        other = counts.setdefault((one.folder, one.prefix, one.ending), one)
        if other.num_files != one.num_files:
            raise ValueError(
                f"{pattern!r} means two sets of record files, {other.name(0)} with its like and "
                f"{one.name(0)} with its like, in {one.folder or '.'!r}: remove one of them, or "
                f"mean the other by a pattern that ends in {one.of!r}"
            )


def _check_lengths(files: list[str]) -> None:
    """Hold files of sets against their manifest; without one, they must not be empty."""
    sets: dict[SetOfFiles, list[str]] = {}
    for path in files:
        found = set_of(path)
        if found:
            sets.setdefault(found[0], []).append(path)
    for one, paths in sets.items():
        expected = lengths(one)
        bad = []
        for path, size in zip(paths, _sizes(paths), strict=True):
            name = os.path.basename(path)
            if expected is None:
                if not size and any(_sizes(paths)):
                    bad.append(f"{name} is empty")
            elif name not in expected:
                bad.append(f"{name} is not in it")
            elif size != expected[name]:
                bad.append(f"{name} has {size:,} bytes instead of {expected[name]:,}")
        if bad:
            what = f"do not fit {one.manifest}" if expected is not None else "hold no record"
            raise ValueError(
                f"{len(bad):,} of {len(paths):,} record files {what}: {_listed(bad)}. "
                + _advice(one)
            )


def _advice(one: SetOfFiles) -> str:
    if tf.io.gfile.exists(os.path.join(one.folder, _OF_TFDS)):
        return "Build this data set of TFDS again, with --overwrite"
    return (
        "The command that converted this set writes what is missing or not as it wrote it, and "
        "only that. To read a part of it on purpose, list the files in input_path"
    )


def _sizes(paths: Iterable[str]) -> list[int]:
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return [int(stat.length) for stat in pool.map(tf.io.gfile.stat, paths)]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
