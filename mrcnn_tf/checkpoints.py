"""Checkpoints: the newest of a folder, what lies beside it, reading it, what does not fit and why.

A checkpoint of a run holds `model`, `optimizer`, `global_step` and `images_per_step`, the batch in
which that step counts. One of converted weights holds `model` alone. Paths may be of any file
system that `tf.io.gfile` knows.
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import trackable_object_graph_pb2

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap

_UNREADABLE = (tf.errors.OpError, RuntimeError, IndexError)  # what TensorFlow makes of damage
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


def find_newest(folder: str) -> str | None:
    """Return the newest checkpoint of a folder, None if it has none.

    TensorFlow keeps a list of a folder's checkpoints in the file `checkpoint`. Where that did not
    come along or names what is gone, the highest number counts.
    """
    check_path(folder)
    listed = tf.train.latest_checkpoint(folder)
    if listed:
        return listed
    if not tf.io.gfile.isdir(folder):
        return None
    names = (re.fullmatch(r"(.*-(\d+))\.index", name) for name in tf.io.gfile.listdir(folder))
    numbered = [(int(name[2]), name[1]) for name in names if name]
    return os.path.join(folder, max(numbered)[1]) if numbered else None


def newest(path: str) -> str:
    """Return the checkpoint that a path means.

    Args:
      path: a checkpoint, or a folder whose newest is taken.

    Raises:
      ValueError: there is none, or it could not be read.
    """
    check_path(path)
    found = find_newest(path) if _is_folder(path) else path.removesuffix(".index")
    if not found or not tf.io.gfile.exists(found + ".index"):
        raise ValueError(f"no checkpoint: {path!r}")
    return found


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
            with tf.io.gfile.GFile(path) as file:
                return LabelMap.from_json(file.read(), path)
    return None


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
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader(checkpoint).get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
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
