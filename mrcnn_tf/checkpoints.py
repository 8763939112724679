"""Checkpoints: the newest of a folder, what lies beside it, reading it, what does not fit and why.

A checkpoint of a run holds `model`, `optimizer`, `global_step` and `images_per_step`, the batch in
which that step counts. Where weights are averaged, `model` holds the averages and `trained` the
weights that training goes on with. One of converted weights holds `model` alone. Paths may be of
any file system that `tf.io.gfile` knows.
"""

import functools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import trackable_object_graph_pb2

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap

_UNREADABLE = (tf.errors.OpError, RuntimeError, IndexError)  # what TensorFlow makes of damage
LIST = "checkpoint"  # TensorFlow's list of a folder's checkpoints
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # behind the name of a variable in a checkpoint
_STEP, _IMAGES_PER_STEP = "global_step" + VALUE, "images_per_step" + VALUE
_LOSS_SCALE = "optimizer/loss_scale/current_loss_scale" + VALUE


class Position(NamedTuple):
    """Where in its schedule a run stands.

    Attributes:
      step: steps taken, counted in batches of `images_per_step`.
      images_per_step: None in a checkpoint that does not say.
    """

    step: int
    images_per_step: int | None


def check_path(path: str) -> None:
    """Refuse a path that TensorFlow would take for a pattern, and find no checkpoint under.

    Raises:
      ValueError: it would.
    """
    for letter in "[]*?\\":
        if letter in path:
            raise ValueError(
                f"{path!r}: TensorFlow cannot read checkpoints from a folder with {letter!r} in "
                "its name. Rename it, or take another"
            )


class Newest(NamedTuple):
    """The newest checkpoint of a folder of which every byte is there.

    Attributes:
      checkpoint: None if the folder has none.
      damaged: {checkpoint: what is wrong with it}, those that are newer.
      is_listed: whether TensorFlow's list of the folder's checkpoints could be read.
    """

    checkpoint: str | None
    damaged: dict[str, str]
    is_listed: bool

    def lines(self) -> list[str]:
        """Say what is damaged, and what is taken instead; nothing where nothing is."""
        others = [*self.damaged][1:] + [self.checkpoint or ""]
        lines = [
            f"{path} is damaged ({why}): "
            + (f"taking the one before, {other}" if other else "and there is none before it")
            for (path, why), other in zip(self.damaged.items(), others, strict=False)
        ]
        if self.checkpoint and not self.is_listed:
            folder = os.path.dirname(self.checkpoint)
            lines.append(
                f"{os.path.join(folder, LIST)}, which says which checkpoint is the newest, is "
                f"lost: taking the highest number that is whole, {self.checkpoint}"
            )
        return lines


def find_newest(folder: str) -> Newest:
    """Find the newest checkpoint of a folder that is whole; those that are looked at are read.

    TensorFlow keeps a list of a folder's checkpoints in the file `checkpoint`. Those that it does
    not name are older by their number, or were being written when a process was killed: TensorFlow
    removes the folder `NAME_temp` last.
    """
    check_path(folder)
    damaged: dict[str, str] = {}
    listed = listed_in(folder)
    if not tf.io.gfile.isdir(folder):
        return Newest(None, damaged, is_listed=False)
    there = set(tf.io.gfile.listdir(folder))
    names = (re.fullmatch(r"(.*-(\d+))\.index", name) for name in there)
    numbered = sorted(((int(name[2]), name[1]) for name in names if name), reverse=True)
    for name in dict.fromkeys([*listed, *(name for _, name in numbered)]):
        path = os.path.join(folder, name)
        why = damage(path)
        if not why:
            return Newest(path, damaged, bool(listed))
        if name in listed or not there & {f"{name}_temp", f"{name}_temp/"}:
            damaged[path] = why
    return Newest(None, damaged, bool(listed))


def listed_in(folder: str) -> list[str]:
    """Return the names in a folder's list of checkpoints, the newest first; [] if it is lost."""
    try:
        state = tf.train.get_checkpoint_state(folder)
    except ValueError:  # cut to nothing, or no text
        return []
    if state is None:
        return []
    paths = (state.model_checkpoint_path, *reversed(state.all_model_checkpoint_paths))
    return [*dict.fromkeys(map(os.path.basename, paths))]


def damage(checkpoint: str) -> str:
    """Read a checkpoint; say what is wrong with its files, "" if nothing is.

    Every tensor carries a checksum, and so does every block of the index that finds them.
    """
    if not tf.io.gfile.exists(checkpoint + ".index"):
        return f"{os.path.basename(checkpoint)}.index is not there"
    try:
        opened = reader(checkpoint)
        for name in opened.get_variable_to_shape_map():
            opened.get_tensor(name)
    except ValueError as error:
        return str(error.__cause__ or error)
    except _UNREADABLE as error:
        return getattr(error, "message", str(error))
    return ""


def newest(path: str) -> str:
    """Return the checkpoint that a path means.

    Args:
      path: a checkpoint, or a folder whose newest is taken; if that is damaged, the one before,
        which is said.

    Raises:
      ValueError: there is none, or it could not be read.
    """
    check_path(path)
    if not _is_folder(path):
        found = path.removesuffix(".index")
        if not tf.io.gfile.exists(found + ".index"):
            raise ValueError(f"no checkpoint: {path!r}")
        return found
    newest_whole = find_newest(path)
    if not newest_whole.checkpoint and newest_whole.damaged:
        raise ValueError("\n".join(newest_whole.lines()))
    if not newest_whole.checkpoint:
        raise ValueError(f"no checkpoint: {path!r}")
    for line in newest_whole.lines():
        _say_once(line)
    return newest_whole.checkpoint


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def _is_folder(path: str) -> bool:
    return tf.io.gfile.isdir(path) and not tf.io.gfile.exists(path + ".index")


def position(checkpoint: str) -> Position:
    """Read where the run stood that wrote a checkpoint; step 0 for converted weights."""
    opened = reader(checkpoint)
    step, images = (
        int(opened.get_tensor(key)) if opened.has_tensor(key) else None
        for key in (_STEP, _IMAGES_PER_STEP)
    )
    return Position(step or 0, images)


def label_map_of(checkpoint: str) -> LabelMap | None:
    """Return the label map that training or conversion left beside a checkpoint, if there is one.

    Args:
      checkpoint: a checkpoint or a run's folder.
    """
    folder = checkpoint if _is_folder(checkpoint) else os.path.dirname(checkpoint)
    for candidate in (folder, os.path.dirname(folder)):  # best/ckpt-1 lies one folder down
        path = os.path.join(candidate, schema.LABEL_MAP_FILE)
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path, "rb") as file:
                return LabelMap.from_json(file.read(), path)
    return None


def holds(checkpoint: str, name: str) -> bool:
    """Whether a checkpoint has an object of this name, beside `model`."""
    return any(child.local_name == name for child in _graph(checkpoint).nodes[0].children)


def _graph(checkpoint: str) -> trackable_object_graph_pb2.TrackableObjectGraph:
    """Return the graph of objects that was saved, the first of which is the checkpoint."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader(checkpoint).get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    return graph


def load(model: tf_keras.Model, path: str, parts: Sequence[str] = ()) -> str:
    """Load a model's weights from a checkpoint.

    Args:
      model: its variables exist.
      path: a checkpoint, or a folder whose newest is taken.
      parts: the attributes of the model to load, "backbone" for one; the others stay as they are.
        Empty for all of it.

    Returns:
      The checkpoint that was read.

    Raises:
      ValueError: there is no checkpoint, or a variable of these parts is not in it or has another
        shape there.
    """
    found = newest(path)
    wanted = model
    if parts:
        named = {part: getattr(model, part) for part in parts}
        wanted = tf.train.Checkpoint(**{k: v for k, v in named.items() if v is not None})
    try:
        status = tf.train.Checkpoint(model=wanted).read(found)
        status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:  # something is missing, or has another shape
        what = f"{', '.join(parts)} of this model" if parts else "this model"
        wrong = differences(model, found)
        begins = tuple(parts) or ("",)
        lines = [f"  {name}: {why}" for name, why in wrong.items() if name.startswith(begins)]
        more = [f"  and {len(lines) - 10} more"] if len(lines) > 10 else []
        text = "\n".join([f"{found} does not fit {what}:", *lines[:10], *more])
        raise ValueError(text) from error
    except _UNREADABLE as error:
        raise ValueError(f"{found} cannot be read as a checkpoint: {error}") from error
    return found


def restore(run: tf.train.Checkpoint, model: tf_keras.Model, path: str) -> None:
    """Put a run back where it was when it wrote a checkpoint.

    Args:
      run: of `model`, `optimizer`, `global_step` and `images_per_step`.
      model: the model in it, to say what does not fit.
      path: a checkpoint.

    Raises:
      ValueError: something of the run is not in the checkpoint, or has another shape there.
    """
    load(model, path)
    children = dict(tf.train.TrackableView.children(run))
    if not reader(path).has_tensor(_IMAGES_PER_STEP):
        children.pop("images_per_step")
    children.pop("save_counter", None)
    is_scaled = getattr(children.get("optimizer"), "dynamic", False)
    if is_scaled and not reader(path).has_tensor(_LOSS_SCALE):
        raise ValueError(
            f"{path} holds no loss scale, which training in float16 needs: its run was in another "
            "type. Go on in float32 or bfloat16 (runtime.mixed_precision_dtype); to start in "
            "float16 from its weights, take another --model_dir and set task.init_checkpoint to "
            "this checkpoint"
        )
    try:
        status = tf.train.Checkpoint(**children).read(path)
        status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold the state of this optimizer ({str(error).splitlines()[0]}). "
            "Going on needs the optimizer that the run began with; to start from its weights with "
            "another, take another --model_dir and set task.init_checkpoint to this checkpoint"
        ) from error


class Match(NamedTuple):
    """A variable of a model and its counterpart in a checkpoint.

    Attributes:
      path: names of the attributes from the model to the variable.
      variable: ours.
      key: its name in the checkpoint, None if there is none.
    """

    path: tuple[str, ...]
    variable: tf.Variable
    key: str | None


def match(model: tf_keras.Model, checkpoint: str) -> Iterator[Match]:
    """Walk over a model and a checkpoint's own graph of objects, hand in hand.

    That is how TensorFlow itself restores: a variable's key depends on what else was saved.

    Args:
      model: its variables exist.
      checkpoint: one that exists.
    """
    graph = _graph(checkpoint)
    children = [
        {child.local_name: child.node_id for child in node.children} for node in graph.nodes
    ]
    missing = {id(variable): variable for variable in model.variables}
    start: tuple[tuple[str, ...], Any, int | None] = ((), model, children[0].get("model"))
    waiting, unpaired, seen = [start], list[Any](), set[int]()
    while waiting or unpaired:
        # Breadth first. What two layers share may hang on one of them only in the checkpoint, so
        # ways on which it has nothing come last.
        path, thing, node = (waiting or unpaired).pop(0)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if missing.pop(id(thing), None) is not None:
            attributes = graph.nodes[node].attributes if node is not None else ()
            keys = [a.checkpoint_key for a in attributes if a.name == "VARIABLE_VALUE"]
            yield Match(path, thing, keys[0] if keys else None)
            continue
        for name, child in tf.train.TrackableView.children(thing).items():
            below = children[node].get(name) if node is not None else None
            (unpaired if below is None else waiting).append(((*path, name), child, below))
    assert not missing, [variable.name for variable in missing.values()]


def differences(model: tf_keras.Model, checkpoint: str) -> dict[str, str]:
    """Say which variables of a model a checkpoint has not, or in another shape.

    Args:
      model: its variables exist.
      checkpoint: one that exists.

    Returns:
      {path of a variable, "rpn/head/convs/0/kernel" for one: what is wrong}.
    """
    shapes = reader(checkpoint).get_variable_to_shape_map()
    found = {}
    for path, variable, key in match(model, checkpoint):
        name, shape = "/".join(path), tuple(variable.shape)
        if key is None:
            found[name] = "not in the checkpoint"
        elif tuple(shapes[key]) != shape:
            found[name] = f"{tuple(shapes[key])} in the checkpoint, {shape} here"
    return found


def reader(checkpoint: str) -> Any:
    """Open a checkpoint, to read single tensors by their names.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        # Not `tf.train.load_checkpoint`, which on file systems without real folders takes the
        # beginning of a file's name for one.
        return tf.compat.v1.train.NewCheckpointReader(checkpoint)
    except (*_UNREADABLE, ValueError) as error:
        raise ValueError(f"{checkpoint} cannot be read as a checkpoint: {error}") from error
