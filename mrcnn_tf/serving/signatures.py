"""A trained network as a SavedModel that answers like a model of the TF Object Detection API.

The signature that finds objects is `serving_default`, with one input, `input_tensor`, whatever the
input type: these are the names that the Object Detection API's TF2 exporter writes. TensorFlow
Serving's REST interface takes {"b64": "..."} for a string input of any name (only *outputs* need to
end in `_bytes`), so a request is `{"instances": [{"b64": "..."}, ...]}`.

A second signature, `describe`, tells a client what it cannot know: the categories' names and how
masks are pasted (`describe` below has the fields). It has an input of the same name, a string [B]
that does not matter, and one output, `description`, the same JSON text in every row: so it can be
called through every interface, which empty requests cannot.

Beside them stand two functions for whoever has decoded images in Python, as `predictor.py` has:
`prepare` makes network input of one image's pixels, `network` answers a batch of such inputs. What
`serving_default` does with files is the same two, so the network lies in the file once. They are no
signatures: TensorFlow Serving does not show them. With test-time augmentation there are two more,
see `export_views.py`.

The module holds the variables and the traced functions, not the Keras model: no custom op, no
Python class to revive; it loads where only `tensorflow` is installed.
"""

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn_tf.console import whole_file
from mrcnn_tf.data import label_map as label_map_lib
from mrcnn_tf.data import schema
from mrcnn_tf.modeling import prepared
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.serving import (
    each_canvas,
    export_views,
    full_masks,
    postprocessing,
    preprocessing,
    verification,
    warmup,
)

Detect = Callable[[tf.Tensor, tf.Tensor], Detections]
Network = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]
Prepare = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
Serve = Callable[[tf.Tensor], dict[str, tf.Tensor]]

INPUT_NAME = "input_tensor"
INPUT_SPECS = {
    "image_bytes": tf.TensorSpec([None], tf.string, INPUT_NAME),
    "image_tensor": tf.TensorSpec([None, None, None, 3], tf.uint8, INPUT_NAME),
    "tf_example": tf.TensorSpec([None], tf.string, INPUT_NAME),
}
DESCRIBE_SPEC = tf.TensorSpec([None], tf.string, INPUT_NAME)
# Of `prepare` and `network`, see `preprocessing.NetworkInput`.
PIXELS_SPEC = tf.TensorSpec([None, None, 3], tf.uint8, "pixels")
NETWORK_SPECS = (
    tf.TensorSpec([None, None, None, 3], tf.float32, "images"),
    tf.TensorSpec([None, 2], tf.float32, "image_size_hw"),
    tf.TensorSpec([None, 2], tf.int32, "original_size_hw"),
)


class ServingModule(tf.Module):
    """What is written: variables, functions and the label map.

    Attributes:
      prepare: function, see `build_prepare`.
      network: function, see `build_network`.
      model_variables: what `network` reads, see `modeling/prepared.py`.
      description: function without arguments that returns a JSON string [], see `describe`.
      describe: the same as a signature.
      label_map: asset `label_map.json`.
      prepare_views: function, see `export_views.py`; absent without test-time augmentation.
      network_views: likewise.
    """

    def __init__(
        self,
        network: Network,
        preprocess: preprocessing.Preprocessor,
        input_type: str,
        description: str,
        label_map_path: str,
        add_masks: full_masks.AddMasks | None = None,
        views: export_views.Views | None = None,
        category_ids: tuple[int, ...] = (),
    ):
        super().__init__()
        self.label_map = tf.saved_model.Asset(label_map_path)
        # Concrete, because saving traces a `tf.function` again, and all that it calls.
        self.prepare = trace(build_prepare(preprocess), PIXELS_SPEC).get_concrete_function()
        with prepared.once():
            self.network = trace(network, *NETWORK_SPECS).get_concrete_function()
            # The list, not the model: tracking a tf_keras.Model would write every layer with its
            # traces, and a reader without tf_keras could revive none of them. Kernels are there as
            # they are used, not as they trained.
            self.model_variables = list(self.network.variables)
            if views is not None:
                self.prepare_views = trace(views.prepare, PIXELS_SPEC).get_concrete_function()
                traced = trace(views.network(category_ids), *views.specs)
                self.network_views = traced.get_concrete_function()
        serve = build_serve(
            self.network,
            answers=answers_of(self.network),
            input_type=input_type,
            preprocess=preprocess,
            add_masks=add_masks,
        )
        self.__call__ = trace(serve, INPUT_SPECS[input_type]).get_concrete_function()
        self.description = tf.function(lambda: tf.constant(description), input_signature=[])
        self.describe = trace(_build_describe(description), DESCRIBE_SPEC)


def describe(
    input_type: str,
    mask_convention: str,
    label_map: label_map_lib.LabelMap,
    score_threshold: float | None = None,
    max_image_pixels: int = preprocessing.MAX_IMAGE_PIXELS,
    added_masks: str | None = None,
) -> str:
    """Return the JSON text that a loaded SavedModel answers to `description()`.

    Args:
      input_type: a key of `INPUT_SPECS`.
      mask_convention: how `ops/paste.py` puts the masks into the image.
      label_map: the data set's ids and names.
      score_threshold: from which score on a detection should be believed, if a report suggests it.
      max_image_pixels: larger files are not decoded.
      added_masks: a key of `full_masks.KINDS`, or None.
    """
    fields: dict[str, Any] = {
        "input_type": input_type,
        "mask_convention": mask_convention,
        "max_image_pixels": max_image_pixels,
    }
    if added_masks is not None:
        fields["added_masks"] = added_masks
    if score_threshold is not None:
        fields["suggested_score_threshold"] = score_threshold
    return json.dumps(fields | json.loads(label_map.to_json()), ensure_ascii=False)


def _build_describe(description: str) -> Serve:
    def describe(input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.device("CPU:0"):
            return {"description": tf.fill(tf.shape(input_tensor), description)}

    return describe


def trace(function: Callable, *specs: tf.TensorSpec) -> Any:
    """Return the function as a graph that takes any sizes."""
    # Nothing here branches on a tensor in Python; converting the source only takes time.
    return tf.function(function, input_signature=specs, autograph=False)


def build_prepare(preprocess: preprocessing.Preprocessor) -> Prepare:
    """Return the function from one decoded image to network input.

    Args:
      preprocess: resizes, normalises and pads.

    Returns:
      A function from uint8 [h, w, 3] to `Preprocessor.from_pixels`' three tensors.
    """

    def prepare(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.device("CPU:0"):  # as in `build_serve`
            return tuple(preprocess.from_pixels(pixels))

    return prepare


def build_network(detect: Detect, category_ids: tuple[int, ...]) -> Network:
    """Join network and postprocessing.

    Args:
      detect: the network: float32 [B, H, W, 3] and float32 [B, (height, width)] -> `Detections`.
      category_ids: the data set's own id of class k + 1 at place k.

    Returns:
      A function from the three tensors of a `preprocessing.NetworkInput` to the outputs of
      `postprocessing.object_detection_outputs`.
    """

    def network(
        images: tf.Tensor, image_size_hw: tf.Tensor, original_size_hw: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return postprocessing.object_detection_outputs(
            detect(images, image_size_hw), image_size_hw, original_size_hw, category_ids
        )

    return network


def build_serve(
    network: Network,
    *,
    answers: Mapping[str, tf.TensorSpec],
    input_type: str,
    preprocess: preprocessing.Preprocessor,
    add_masks: full_masks.AddMasks | None = None,
) -> Serve:
    """Put preprocessing before the network: the function that is served.

    Args:
      network: what `build_network` returned.
      answers: specs of its outputs, see `answers_of`.
      input_type: a key of `INPUT_SPECS`.
      preprocess: resizes, normalises and pads.
      add_masks: what `full_masks.build` returned, if masks in the image's frame are wanted.

    Returns:
      A function from a batch of that input type, of any length, to the outputs of
      `each_canvas.answer` and of `add_masks`.

    """
    look = {
        "image_bytes": preprocess.look_at_image_bytes,
        "image_tensor": preprocess.look_at_image_tensor,
        "tf_example": preprocess.look_at_tf_example,
    }[input_type]

    def serve(input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        # Resizing stays on the CPU, where training does it: other kernels round differently.
        with tf.device("CPU:0"):
            request = look(input_tensor)
        answer = each_canvas.answer(network, answers, preprocess, request)
        return answer if add_masks is None else answer | add_masks(answer)

    return serve


def answers_of(network: Any) -> dict[str, tf.TensorSpec]:
    """Return the specs of a traced network's outputs, [None, ...] each."""
    specs = {
        name: tf.TensorSpec(v.shape, v.dtype) for name, v in network.structured_outputs.items()
    }
    for name, spec in specs.items():  # or rows of several canvases would not fit together
        assert spec.shape[1:].is_fully_defined(), f"{name}: {spec.shape}"
    return specs


def export_saved_model(
    detect: Detect,
    export_dir: str,
    *,
    input_type: str,
    label_map: label_map_lib.LabelMap,
    preprocess: preprocessing.Preprocessor,
    mask_convention: str,
    score_threshold: float | None = None,
    added_masks: str | None = None,
    views: export_views.Views | None = None,
) -> verification.Verification:
    """Write the SavedModel, run it once, compare with the Python model, then give it its name.

    It grows in `<export_dir>.incomplete`, so that a server watching the parent folder never loads
    half a model or a wrong one, and is removed if that fails. An earlier export at `export_dir` is
    replaced, and stays if its replacement fails.

    Args:
      detect: the network, see `build_network`.
      export_dir: folder, local or on any file system that `tf.io.gfile` knows.
      input_type: a key of `INPUT_SPECS`.
      label_map: the data set's ids and names.
      preprocess: resizes, normalises and pads.
      mask_convention: how masks are to be pasted, told to `predict.py`.
      score_threshold: that a report suggests, told to `predict.py`.
      added_masks: a key of `full_masks.KINDS`: clients get masks in the image's frame too.
      views: test-time augmentation, for who asks for it; None for none.

    Returns:
      What the comparison found.

    Raises:
      ValueError: unknown input type, or masks of a network that has none.
      FileExistsError: `export_dir` holds something that is not a SavedModel.
      tf.errors.OpError: there is no room, or the folder cannot be written.
      verification.VerificationError: the SavedModel answers differently from the Python model.
    """
    if input_type not in INPUT_SPECS:
        raise ValueError(f"input_type: {input_type!r} is not one of {sorted(INPUT_SPECS)}")
    network = build_network(detect, label_map.ids)
    add_masks = None if added_masks is None else full_masks.build(added_masks, mask_convention)
    export_dir = export_dir.rstrip("/")
    _refuse_foreign_folder(export_dir)
    rounded = [i for i in label_map.ids if int(np.float32(i)) != i]
    if rounded:
        logging.warning(
            "category ids %s do not fit into float32: read detection_class_ids instead of "
            "detection_classes",
            rounded,
        )

    incomplete = export_dir + ".incomplete"
    if tf.io.gfile.exists(incomplete):
        tf.io.gfile.rmtree(incomplete)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, schema.LABEL_MAP_FILE)
            whole_file.write(path, label_map.to_json())
            description = describe(
                input_type,
                mask_convention,
                label_map,
                score_threshold,
                preprocess.max_image_pixels,
                added_masks,
            )
            module = ServingModule(
                network, preprocess, input_type, description, path, add_masks, views, label_map.ids
            )
            signatures = {"serving_default": module.__call__, "describe": module.describe}
            tf.saved_model.save(module, incomplete, signatures=signatures)
        serve = build_serve(
            network,
            answers=answers_of(module.network),
            input_type=input_type,
            preprocess=preprocess,
            add_masks=add_masks,
        )
        found = verification.verify_export(incomplete, module.model_variables, serve, input_type)
        if views is not None:
            views.verify(incomplete, label_map.ids)
        warm_up = warmup.requests(
            "serving_default", INPUT_NAME, input_type, preprocess.max_image_pixels
        )
        warmup.write(incomplete, warm_up)
    except BaseException:  # it may be the disk that is full
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.rmtree(incomplete)
        raise
    if tf.io.gfile.exists(export_dir):
        tf.io.gfile.rmtree(export_dir)
    tf.io.gfile.rename(incomplete, export_dir)
    return found


def _refuse_foreign_folder(export_dir: str) -> None:
    """Raise FileExistsError unless `export_dir` is absent, empty or an earlier export."""
    if not tf.io.gfile.exists(export_dir):
        return
    if not tf.io.gfile.isdir(export_dir):
        raise FileExistsError(f"{export_dir} is a file; name a folder")
    names = tf.io.gfile.listdir(export_dir)
    if names and "saved_model.pb" not in names:
        raise FileExistsError(
            f"{export_dir} holds files but no SavedModel ({', '.join(sorted(names)[:3])}, ...); "
            "name another folder, or empty it"
        )
