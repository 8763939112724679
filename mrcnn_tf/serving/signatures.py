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
signatures: TensorFlow Serving does not show them.

The module holds the variables and the traced functions, not the Keras model: no custom op, no
Python class to revive; it loads where only `tensorflow` is installed.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import label_map as label_map_lib
from mrcnn_tf.data import schema
from mrcnn_tf.images import reading
from mrcnn_tf.modeling import prepared
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.serving import postprocessing, preprocessing, verification, warmup

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
    """

    def __init__(
        self,
        network: Network,
        preprocess: preprocessing.Preprocessor,
        input_type: str,
        description: str,
        label_map_path: str,
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
        serve = build_serve(self.network, input_type=input_type, preprocess=preprocess)
        self.__call__ = trace(serve, INPUT_SPECS[input_type]).get_concrete_function()
        self.description = tf.function(lambda: tf.constant(description), input_signature=[])
        self.describe = trace(_build_describe(description), DESCRIBE_SPEC)


def describe(
    input_type: str,
    mask_convention: str,
    label_map: label_map_lib.LabelMap,
    score_threshold: float | None = None,
) -> str:
    """Return the JSON text that a loaded SavedModel answers to `description()`.

    Args:
      input_type: a key of `INPUT_SPECS`.
      mask_convention: how `ops/paste.py` puts the masks into the image.
      label_map: the data set's ids and names.
      score_threshold: from which score on a detection should be believed, if a report suggests it.
    """
    fields: dict[str, Any] = {"input_type": input_type, "mask_convention": mask_convention}
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
    network: Network, *, input_type: str, preprocess: preprocessing.Preprocessor
) -> Serve:
    """Put preprocessing before the network: the function that is served.

    Args:
      network: what `build_network` returned.
      input_type: a key of `INPUT_SPECS`.
      preprocess: resizes, normalises and pads.

    Returns:
      A function from a batch of that input type to the outputs of
      `postprocessing.object_detection_outputs`.

    Raises:
      ValueError: unknown input type.
    """
    if input_type not in INPUT_SPECS:
        raise ValueError(f"input_type: {input_type!r} is not one of {sorted(INPUT_SPECS)}")
    to_network_input = {
        "image_bytes": preprocess.from_image_bytes,
        "image_tensor": preprocess.from_image_tensor,
        "tf_example": preprocess.from_tf_example,
    }[input_type]

    def serve(input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        # Resizing stays on the CPU, where training does it: other kernels round differently.
        with tf.device("CPU:0"):
            count = tf.shape(input_tensor)[0]
            # Neither a canvas nor a network exists for no image, so a request of length 0 goes
            # through with one black pixel, whose row is then cut off.
            request = tf.cond(count > 0, lambda: input_tensor, lambda: _black_pixel(input_type))
            network_input = to_network_input(request)
        answer = network(*network_input)
        return {name: value[:count] for name, value in answer.items()}

    return serve


def _black_pixel(input_type: str) -> tf.Tensor:
    """Return a request of one image of one pixel."""
    pixel = np.zeros([1, 1, 1, 3], np.uint8)
    if input_type == "image_tensor":
        return tf.constant(pixel)
    encoded = reading.encode(pixel[0])
    if input_type == "tf_example":
        encoded = preprocessing.encode_example(encoded)
    return tf.constant([encoded])


def export_saved_model(
    detect: Detect,
    export_dir: str,
    *,
    input_type: str,
    label_map: label_map_lib.LabelMap,
    preprocess: preprocessing.Preprocessor,
    mask_convention: str,
    score_threshold: float | None = None,
) -> verification.Verification:
    """Write the SavedModel, run it once, compare with the Python model, then give it its name.

    It grows in `<export_dir>.incomplete`, so that a server watching the parent folder never loads
    half a model or a wrong one. An earlier export at `export_dir` is replaced.

    Args:
      detect: the network, see `build_network`.
      export_dir: folder, local or on any file system that `tf.io.gfile` knows.
      input_type: a key of `INPUT_SPECS`.
      label_map: the data set's ids and names.
      preprocess: resizes, normalises and pads.
      mask_convention: how masks are to be pasted, told to `predict.py`.
      score_threshold: that a report suggests, told to `predict.py`.

    Returns:
      What the comparison found.

    Raises:
      ValueError: unknown input type.
      FileExistsError: `export_dir` holds something that is not a SavedModel.
      verification.VerificationError: the SavedModel answers differently from the Python model.
    """
    network = build_network(detect, label_map.ids)
    serve = build_serve(network, input_type=input_type, preprocess=preprocess)
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
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, schema.LABEL_MAP_FILE)
        with open(path, "w", encoding="utf-8") as file:
            file.write(label_map.to_json())
        description = describe(input_type, mask_convention, label_map, score_threshold)
        module = ServingModule(network, preprocess, input_type, description, path)
        signatures = {"serving_default": module.__call__, "describe": module.describe}
        tf.saved_model.save(module, incomplete, signatures=signatures)
    found = verification.verify_export(incomplete, module.model_variables, serve, input_type)
    warmup.write(incomplete, warmup.requests("serving_default", INPUT_NAME, input_type))
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
