"""Start from a checkpoint that was trained on other classes: load what fits, say what did not."""

import dataclasses
from typing import TypeGuard

import numpy as np
import tf_keras

from mrcnn_tf import checkpoints
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.weights import classes

# What a layer's last axis counts: values per class, and whether background has some.
_PER_CLASS: dict[tuple[str, ...], tuple[int, bool]] = {
    ("class_logits", "kernel"): (1, True),
    ("class_logits", "bias"): (1, True),
    ("box_deltas", "kernel"): (4, False),
    ("box_deltas", "bias"): (4, False),
    ("mask_ious", "kernel"): (1, False),
    ("mask_ious", "bias"): (1, False),
}
# Layers of PointRend whose inputs or cells are of all classes at once.
_MIXES_CLASSES = frozenset({"point_head", "mask_logits"})


def _per_class(match: checkpoints.Match, model: tf_keras.Model) -> tuple[int, bool] | None:
    """What a variable's last axis counts, None for what does not depend on the classes."""
    if "box_deltas" in match.path and model.roi_heads.box_head.class_agnostic:
        return None
    if match.path[-1] in ("predictor_kernel", "predictor_bias"):
        return model.roi_heads.mask_head.per_class
    return _PER_CLASS.get(match.path[-2:])


@dataclasses.dataclass
class _Tally:
    """What became of each variable.

    Attributes:
      loaded: names of those that were loaded whole.
      carried: names of those that got some classes' values.
      initial: {name: why it keeps what it was initialised with}.
    """

    loaded: list[str] = dataclasses.field(default_factory=list)
    carried: list[str] = dataclasses.field(default_factory=list)
    initial: dict[str, str] = dataclasses.field(default_factory=dict)

    def listing(self) -> str:
        """The layers that keep their initial values, a line per reason."""
        lines = []
        for why in dict.fromkeys(self.initial.values()):
            names = [name for name, reason in self.initial.items() if reason == why]
            layers = dict.fromkeys(name.rsplit("/", 1)[0] for name in names)
            lines.append(f"initialised afresh ({why}): {', '.join(layers)}")
        return "\n".join(lines)


def load_what_fits(
    model: tf_keras.Model,
    checkpoint: str,
    model_label_map: LabelMap,
    checkpoint_label_map: LabelMap | None,
) -> str:
    """Load the weights of a checkpoint as far as they go.

    1. What does not depend on the classes is loaded where it has the same shape.
    2. If both know the same classes in the same order, the last layers are loaded too.
    3. Else, in the last layers, the values of classes whose names occur in both are carried over,
       and background's with them; all others keep what they were initialised with, and so do the
       layers of a PointRend that mix classes.

    Args:
      model: its variables exist and are initialised.
      checkpoint: of a run or a conversion, or a folder, whose newest is taken. It may lack whole
        parts of the model: the heads, or all but the backbone.
      model_label_map: the classes that will be trained.
      checkpoint_label_map: those of the checkpoint; if it is None or does not name them, they are
        taken to be the same where they are as many.

    Returns:
      A report: what was loaded, carried over, and left as it was initialised.

    Raises:
      ValueError: there is no such checkpoint, it has another backbone, or nothing of it fits.
        Nothing has been assigned then.
    """
    prefix = checkpoints.newest(checkpoint)
    reader = checkpoints.reader(prefix)
    pairs = _same_names(model_label_map, checkpoint_label_map)
    tally, values = _Tally(), []
    for match in checkpoints.match(model, prefix):
        name, shape = "/".join(match.path), tuple(match.variable.shape)
        value = reader.get_tensor(match.key) if match.key else None
        if value is None:
            tally.initial[name] = "not in the checkpoint"
        elif pairs is not None and _MIXES_CLASSES & set(match.path):
            tally.initial[name] = "other classes"
        elif pairs is not None and (per_class := _per_class(match, model)):
            value = _carried_over(match, value, pairs, *per_class)
            if value is None:
                tally.initial[name] = "other classes"
            else:
                tally.carried.append(name)
        elif value.shape == shape:
            tally.loaded.append(name)
        else:
            tally.initial[name] = f"{value.shape} in the checkpoint, {shape} here"
        if name not in tally.initial:
            values.append((match.variable, value))
    _check(tally, prefix)
    for variable, value in values:
        variable.assign(value)
    names = [model_label_map.names[ours] for ours, _ in pairs or ()]
    return _report(prefix, tally, names, len(model_label_map.names))


def _same_names(ours: LabelMap, theirs: LabelMap | None) -> list[tuple[int, int]] | None:
    """Pair the classes of the same name: (index here, index in the checkpoint), from 0.

    Returns:
      None if both know the same classes, or nobody knows what the checkpoint's are called.
    """
    if not _is_named(theirs) or theirs.names == ours.names:
        return None
    index = {name.lower(): i for i, name in enumerate(theirs.names) if classes.is_named(name)}
    return [(i, index[name.lower()]) for i, name in enumerate(ours.names) if name.lower() in index]


def _is_named(label_map: LabelMap | None) -> TypeGuard[LabelMap]:
    return label_map is not None and any(map(classes.is_named, label_map.names))


def _carried_over(
    match: checkpoints.Match,
    value: np.ndarray,
    pairs: list[tuple[int, int]],
    width: int,
    has_background: bool,
) -> np.ndarray | None:
    """Return our variable's value with the paired classes' columns from the checkpoint.

    Args:
      match: the variable.
      value: in the checkpoint.
      pairs: of `_same_names`.
      width: columns per class.
      has_background: background has some, too.

    Returns:
      None if there are none, or the layers differ in more than their classes.
    """
    if not pairs or value.shape[:-1] != tuple(match.variable.shape[:-1]):
        return None
    columns = [(ours + has_background, theirs + has_background) for ours, theirs in pairs]
    if has_background:
        columns.append((0, 0))
    if (max(theirs for _, theirs in columns) + 1) * width > value.shape[-1]:
        return None  # that label map is not this checkpoint's
    merged = match.variable.numpy()
    for ours, theirs in columns:
        merged[..., ours * width : (ours + 1) * width] = value[
            ..., theirs * width : (theirs + 1) * width
        ]
    return merged


def _check(tally: _Tally, prefix: str) -> None:
    """Refuse a checkpoint of another network: half a backbone is worth nothing."""
    if not tally.loaded:
        raise ValueError(f"{prefix}: nothing of it fits this model\n{tally.listing()}")
    of_backbone = [name for name in tally.initial if name.startswith("backbone/")]
    if of_backbone:
        raise ValueError(
            f"{prefix} has another backbone than this model: {len(of_backbone)} of its tensors do "
            f"not fit, {of_backbone[0]} for one ({tally.initial[of_backbone[0]]})"
        )


def _report(prefix: str, tally: _Tally, names: list[str], num_names: int) -> str:
    lines = [f"{prefix}: {len(tally.loaded)} tensors loaded"]
    if tally.carried:
        lines.append(
            f"{len(tally.carried)} tensors of the last layers: {len(names)} classes carried over "
            f"({', '.join(names)}) with background, {num_names - len(names)} initialised afresh"
        )
    return "\n".join(filter(None, [*lines, tally.listing()]))
