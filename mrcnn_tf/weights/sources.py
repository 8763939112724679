"""Where in a file the weights are, and in which of several places.

Programs wrap state dicts in dicts (`{"model": ..., "optimizer": ...}`), and their names in prefixes
(`module.`, `model.`). A running average of the weights may lie beside them or instead of them. The
weights are where names of a known backbone are, whatever the way there is called.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn_tf.weights.pickle_values import Record, printable

# The first residual block, as each project calls it; what comes before is a prefix.
_BLOCKS = (
    r"backbone\.body\.layer1\.0\.conv1\.weight",
    r"layer1\.0\.conv1\.weight",
    r"backbone\.(bottom_up\.)?res2\.0\.conv1\.weight",
    r"res2\.0\.conv1\.weight",
    r"res2_0_branch2a_w",
)
_BLOCK = re.compile(f"(.*?)({'|'.join(_BLOCKS)})")
# Modules that programs put around a module or a part of it; they say nothing.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# State of training, which may be made of tensors, too.
_NOT_WEIGHTS = re.compile(r"(?i)optim|sched|scaler|rng|loops|callbacks|hyper_param")
_AVERAGED = {"ema", "swa", "avg", "average", "averaged", "averager", "shadow", "teacher"}
_DEEPEST = 3
_MOST_LISTED = 8
TOP = "top"


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights of one network.

    Attributes:
      path: keys of the dicts around them.
      name: path and prefix, "model_ema" for one; "top" if there are none.
      tensors: {name without prefixes: tensor or array}.
      prefixes: what names have lost.
      averaged: whether it is a running average.
      left_out: names beside them that belong to no network, or hold no numbers.
    """

    path: tuple[str, ...]
    name: str
    tensors: dict[str, Any]
    prefixes: tuple[str, ...]
    averaged: bool
    left_out: tuple[str, ...]


def choose(content: Mapping[str, Any], wanted: str = "") -> tuple[dict[str, Any], list[str]]:
    """Take the weights out of what was read from a file.

    Args:
      content: nested dicts.
      wanted: name of the source to take, if there are several; without it an average is taken
        only if there is nothing else.

    Returns:
      {name: tensor or array}, and sentences on what was taken and what was not.

    Raises:
      ValueError: there are no tensors, no source of the wanted name, or several with nothing to
        choose by; all are named.
    """
    sources = find(content)
    if not sources:
        raise ValueError("holds no tensors")
    names = [source.name for source in sources]
    plain = [source for source in sources if not source.averaged]
    if wanted:
        fitting = [source for source in sources if source.name == wanted]
        if not fitting:
            raise ValueError(f"has no weights {wanted!r}; it has {', '.join(map(repr, names))}")
    else:
        fitting = plain or sources
    if len(fitting) > 1:
        raise ValueError(
            f"has the weights of several networks, {', '.join(map(repr, names))}: say which by "
            f"--weights={names[0]}"
        )
    chosen = fitting[0]
    notes = _notes(content, chosen, [source for source in sources if source is not chosen])
    tensors = dict(chosen.tensors)
    if chosen.averaged and plain:
        tensors, note = _with_buffers(tensors, plain[0])
        notes += note
    return tensors, notes


def find(content: Mapping[str, Any]) -> list[Source]:
    """Find all weights of a known backbone, or else the largest dict of tensors there is."""
    candidates = list(_dicts_of_tensors(content))
    found = [source for path, given in candidates for source in _networks(path, given)]
    if found or not candidates:
        return found
    path, given = max(candidates, key=lambda candidate: len(candidate[1]))
    names, prefixes = _unwrapped(given)
    tensors = {name: given[old] for name, old in names.items() if _is_tensor(given[old])}
    left_out = tuple(name for name in names if name not in tensors)
    return [Source(path, ".".join(path) or TOP, tensors, prefixes, False, left_out)]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) or hasattr(value, "array")


def _dicts_of_tensors(
    content: Mapping[str, Any],
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Walk over the dicts in a file that have tensors among their values, breadth first."""
    waiting: collections.deque[tuple[tuple[str, ...], Mapping[str, Any]]]
    waiting, seen = collections.deque([((), content)]), {id(content)}
    while waiting:
        path, given = waiting.popleft()
        named = {key: value for key, value in given.items() if isinstance(key, str)}
        if any(map(_is_tensor, named.values())):
            yield path, named
        for key, value in named.items():
            if not isinstance(value, Mapping) or id(value) in seen or len(path) == _DEEPEST:
                continue
            if not _NOT_WEIGHTS.search(key):
                seen.add(id(value))
                waiting.append(((*path, key), value))


def _networks(path: tuple[str, ...], given: Mapping[str, Any]) -> Iterator[Source]:
    """The networks whose names stand in one dict, each with a prefix of its own."""
    names, wrappers = _unwrapped(given)
    matches = [_BLOCK.fullmatch(name) for name in names]
    prefixes = list(dict.fromkeys(match[1] for match in matches if match))
    for prefix in prefixes:
        others = tuple(other for other in prefixes if other != prefix)
        tensors, left_out = {}, []
        for name, old in names.items():
            if name.startswith(prefix) and not (others and not prefix and name.startswith(others)):
                if _is_tensor(given[old]):
                    tensors[name.removeprefix(prefix)] = given[old]
                    continue
            elif name.startswith(others):
                continue
            left_out.append(old)
        averaged = tensors.pop("n_averaged", None) is not None or "n_averaged" in left_out
        label = ".".join([*path, *filter(None, [prefix.rstrip(".")])]) or TOP
        yield Source(
            path,
            label,
            tensors,
            (*wrappers, *filter(None, [prefix])),
            averaged or bool(_AVERAGED.intersection(_words(label))),
            tuple(name for name in left_out if name != "n_averaged"),
        )


def _unwrapped(given: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Remove what says nothing from names: {new: old}, and what was removed.

    Raises:
      ValueError: two names become one.
    """
    names: dict[str, str] = {}
    removed: dict[str, None] = {}
    for old in given:
        parts = old.split(".")
        new = ".".join(part for part in parts if part not in _WRAPPERS)
        removed |= {f"{part}.": None for part in parts if part in _WRAPPERS}
        if new in names:
            raise ValueError(f"has both {printable(names[new])!r} and {printable(old)!r}")
        names[new] = old
    return names, tuple(removed)


def _words(label: str) -> set[str]:
    """`modelTeacher.state_dict_ema` -> model, teacher, state, dict, ema."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", label)}


def _with_buffers(tensors: dict[str, Any], plain: Source) -> tuple[dict[str, Any], list[str]]:
    """Add what an average of the trained weights alone lacks: the norms' statistics."""
    lacking = [
        name
        for name in plain.tensors
        if name not in tensors and name.endswith((".running_mean", ".running_var"))
    ]
    if not lacking:
        return tensors, []
    added = {name: plain.tensors[name] for name in lacking}
    note = f"{len(lacking)} statistics of norms, which the average lacks, are those of {plain.name}"
    return tensors | added, [note]


def _notes(content: Mapping[str, Any], chosen: Source, others: Sequence[Source]) -> list[str]:
    notes = []
    if chosen.name != TOP or chosen.averaged:
        kind = "the running average" if chosen.averaged else "the weights"
        notes.append(f"{kind} in {chosen.name!r} taken")
    for other in others:
        kind = "a running average" if other.averaged else "weights"
        notes.append(f"{kind} in {other.name!r} not taken; --weights={other.name} takes them")
    if chosen.prefixes:
        notes.append(f"names are read without {', '.join(map(repr, chosen.prefixes))}")
    left_out = list(chosen.left_out)
    if chosen.path:
        used = {source.path[:1] for source in (chosen, *others)}
        left_out += [_described(key, content[key]) for key in content if (key,) not in used]
    if left_out:
        notes.append(f"beside the weights, not read: {_listed(left_out)}")
    return notes


def _described(key: Any, value: Any) -> str:
    what = f" ({value.what})" if isinstance(value, Record) else ""
    return printable(key) + what


def _listed(names: Sequence[str]) -> str:
    some = ", ".join(map(printable, names[:_MOST_LISTED]))
    return some + (f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else "")
