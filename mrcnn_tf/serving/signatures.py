"""A trained network as a SavedModel that answers like a model of the TF Object Detection API.

One signature, `serving_default`, with one input, `input_tensor`, whatever the input type: these
are the names that the Object Detection API's TF2 exporter writes. TensorFlow Serving's REST
interface takes {"b64": "..."} for a string input of any name (only *outputs* need to end in
`_bytes`), so a request is `{"instances": [{"b64": "..."}, ...]}`.

The module holds the variables and the traced functions, not the Keras model: no custom op, no
Python class to revive; it loads where only `tensorflow` is installed.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import label_map as label_map_lib
from mrcnn_tf.data import schema
from mrcnn_tf.images import reading
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.serving import postprocessing, preprocessing, verification

Detect = Callable[[tf.Tensor, tf.Tensor], Detections]
Serve = Callable[[tf.Tensor], dict[str, tf.Tensor]]

INPUT_NAME = "input_tensor"
INPUT_SPECS = {
    "image_bytes": tf.TensorSpec([None], tf.string, INPUT_NAME),
    "image_tensor": tf.TensorSpec([None, None, None, 3], tf.uint8, INPUT_NAME),
    "tf_example": tf.TensorSpec([None], tf.string, INPUT_NAME),
}


class ServingModule(tf.Module):
    """What is written: variables, `__call__`, `description` and the label map.

    Attributes:
      model_variables: the network's variables, in `model.variables`' order.
      description: function without arguments that returns a JSON string [], see `describe`.
      label_map: asset `label_map.json`.
    """

    def __init__(
        self,
        variables: list[tf.Variable],
        serve: Serve,
        input_spec: tf.TensorSpec,
        description: str,
        label_map_path: str,
    ):
        super().__init__()
        # The list, not the model: tracking a tf_keras.Model would write every layer with its
        # traces, and a reader without tf_keras could revive none of them.
        self.model_variables = list(variables)
        self.label_map = tf.saved_model.Asset(label_map_path)
        # Nothing here branches on a tensor in Python; converting the source only takes time.
        self.__call__ = tf.function(serve, input_signature=[input_spec], autograph=False)
        self.description = tf.function(lambda: tf.constant(description), input_signature=[])


def describe(input_type: str, mask_convention: str, label_map: label_map_lib.LabelMap) -> str:
    """Return the JSON text that a loaded SavedModel answers to `description()`.

    Args:
      input_type: a key of `INPUT_SPECS`.
      mask_convention: how `ops/paste.py` puts the masks into the image.
      label_map: the data set's ids and names.
    """
    fields = {"input_type": input_type, "mask_convention": mask_convention}
    return json.dumps(fields | json.loads(label_map.to_json()), ensure_ascii=False)


def build_serve(
    detect: Detect,
    *,
    input_type: str,
    category_ids: tuple[int, ...],
    preprocess: preprocessing.Preprocessor,
) -> Serve:
    """Join preprocessing, network and postprocessing into the function that is served.

    Args:
      detect: the network: float32 [B, H, W, 3] and float32 [B, (height, width)] -> `Detections`.
      input_type: a key of `INPUT_SPECS`.
      category_ids: the data set's own id of class k + 1 at place k.
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
        answer = postprocessing.object_detection_outputs(
            detect(network_input.images, network_input.image_size_hw),
            network_input.image_size_hw,
            network_input.original_size_hw,
            category_ids,
        )
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
    variables: list[tf.Variable],
    detect: Detect,
    export_dir: str,
    *,
    input_type: str,
    label_map: label_map_lib.LabelMap,
    preprocess: preprocessing.Preprocessor,
    mask_convention: str,
) -> verification.Verification:
    """Write the SavedModel, run it once, compare with the Python model, then give it its name.

    It grows in `<export_dir>.incomplete`, so that a server watching the parent folder never loads
    half a model or a wrong one. An earlier export at `export_dir` is replaced.

    Args:
      variables: `model.variables`: every variable that `detect` reads.
      detect: the network, see `build_serve`.
      export_dir: folder, local or on any file system that `tf.io.gfile` knows.
      input_type: a key of `INPUT_SPECS`.
      label_map: the data set's ids and names.
      preprocess: resizes, normalises and pads.
      mask_convention: how masks are to be pasted, told to `predict.py`.

    Returns:
      What the comparison found.

    Raises:
      ValueError: unknown input type.
      FileExistsError: `export_dir` holds something that is not a SavedModel.
      verification.VerificationError: the SavedModel answers differently from the Python model.
    """
    serve = build_serve(
        detect, input_type=input_type, category_ids=label_map.ids, preprocess=preprocess
    )
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
        description = describe(input_type, mask_convention, label_map)
        module = ServingModule(variables, serve, INPUT_SPECS[input_type], description, path)
        signature = module.__call__.get_concrete_function()
        tf.saved_model.save(module, incomplete, signatures={"serving_default": signature})
    found = verification.verify_export(incomplete, variables, serve, input_type)
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
