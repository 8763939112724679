"""A SavedModel of ours, called on images. Needs tensorflow, numpy, pycocotools and Pillow."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.console import start_tensorflow
from mrcnn_tf.images import reading
from mrcnn_tf.results.detection import ImageDetections
from mrcnn_tf.serving import preprocessing, views
from mrcnn_tf.serving.answers import Answer, keypoints_of, read_detections


class Prepared(NamedTuple):
    """An image, ready for a call of the network.

    Attributes:
      canvas_hw: (height, width) that the network will see, of each size if it sees several. Images
        of one canvas share a call without one of them enlarging the others. None: it is chosen
        inside the graph.
      request: what `_FromPixels`, `_FromViews` or `_FromFiles` made of it.
    """

    canvas_hw: tuple[int, ...] | None
    request: Any


class _FromPixels:
    """The functions `prepare` and `network` of an export, see `signatures.py`."""

    def __init__(self, model: Any):
        self._model = model

    def prepare(self, image: reading.UprightImage) -> Prepared:
        given = preprocessing.NetworkInput(*self._model.prepare(tf.constant(image.pixels)))
        return Prepared(tuple(given.images.shape[:2]), given)

    def call(self, requests: Sequence[preprocessing.NetworkInput]) -> dict[str, tf.Tensor]:
        return self._model.network(*preprocessing.stack(requests))


class _FromViews:
    """The functions `prepare_views` and `network_views` of an export, see `export_views.py`."""

    def __init__(self, model: Any):
        self._model = model

    def prepare(self, image: reading.UprightImage) -> Prepared:
        given = self._model.prepare_views(tf.constant(image.pixels))
        return Prepared(views.canvases_hw(given), given)

    def call(self, requests: Sequence[tuple[tf.Tensor, ...]]) -> dict[str, tf.Tensor]:
        return self._model.network_views(*views.stack(requests))


class _FromFiles:
    """The one signature of an export of release 0.1.0, which decodes once more."""

    def __init__(self, model: Any, input_type: str):
        self._signature = model.signatures["serving_default"]
        self._input_type = input_type

    def prepare(self, image: reading.UprightImage) -> Prepared:
        if self._input_type == "image_tensor":  # takes one size a call
            return Prepared(image.pixels.shape[:2], image.pixels)
        if self._input_type == "tf_example":
            return Prepared(None, preprocessing.encode_example(image.encoded))
        return Prepared(None, image.encoded)

    def call(self, requests: Sequence[np.ndarray | bytes]) -> dict[str, tf.Tensor]:
        is_pixels = self._input_type == "image_tensor"
        request = np.stack(requests) if is_pixels else tf.constant(requests, tf.string)
        return self._signature(input_tensor=tf.convert_to_tensor(request))


class Predictor:
    """Calls a SavedModel of ours and puts its masks into the images.

    `prepare`, `call` and `read` are the three steps, which a caller may overlap; they may be
    called from several threads.

    Attributes:
      input_type: "image_bytes", "image_tensor" or "tf_example": what it was exported for.
      category_names: name by the data set's own id.
      suggested_score_threshold: from which score on a detection should be believed, by the report
        that was there when it was exported; None without one.
      keypoints: of the objects; None if the data set has none.
    """

    def __init__(self, saved_model: str, tta: bool = False):
        """Load it.

        Args:
          saved_model: the folder that `python -m mrcnn_tf.export` wrote.
          tta: look at each image as `task.tta` of the exported experiment says.

        Raises:
          FileNotFoundError: the folder holds no SavedModel.
          ValueError: it was not written by `mrcnn_tf.export`, or not with test-time augmentation.
        """
        if not tf.saved_model.contains_saved_model(saved_model):
            raise FileNotFoundError(f"{saved_model} holds no SavedModel; {_advice(saved_model)}")
        with start_tensorflow.without_garbage_collection():
            # Kept: it owns the functions' variables.
            self._model = tf.saved_model.load(saved_model)
        if not hasattr(self._model, "description"):
            raise ValueError(f"{saved_model}: this SavedModel is not from mrcnn_tf.export")
        description = json.loads(self._model.description().numpy())
        self.input_type = description["input_type"]
        self.category_names = {row["id"]: row["name"] for row in description["categories"]}
        self.suggested_score_threshold: float | None = description.get("suggested_score_threshold")
        self.keypoints = keypoints_of(description)
        self._mask_convention = description["mask_convention"]
        self._steps: _FromPixels | _FromViews | _FromFiles
        if tta:
            if not hasattr(self._model, "network_views"):
                raise ValueError(
                    f"{saved_model} was exported without test-time augmentation: export it with "
                    "--params_override=task.tta.short_edges=[...]"
                )
            self._steps = _FromViews(self._model)
        elif hasattr(self._model, "network"):
            self._steps = _FromPixels(self._model)
        else:
            self._steps = _FromFiles(self._model, self.input_type)

    def prepare(self, image: reading.UprightImage) -> Prepared:
        """Resize and normalise one image.

        Raises:
          tf.errors.OpError: memory is short.
        """
        return self._steps.prepare(image)

    def call(self, batch: Sequence[Prepared]) -> Answer:
        """Run the network.

        Args:
          batch: images of one `canvas_hw`.

        Returns:
          See `postprocessing.object_detection_outputs`.

        Raises:
          tf.errors.OpError: memory is short, or TensorFlow cannot decode an image that an export
            of release 0.1.0 decodes itself.
        """
        outputs = self._steps.call([image.request for image in batch])
        return {name: value.numpy() for name, value in outputs.items()}

    def read(self, answer: Answer, row: int) -> ImageDetections:
        """Read one image's rows of an answer and paste its masks; the best detection first."""
        return read_detections(
            answer, row, self.category_names, self._mask_convention, self.keypoints
        )

    def __call__(
        self, images: Sequence[reading.UprightImage | np.ndarray]
    ) -> list[ImageDetections]:
        """Detect objects in images of any sizes, one call for all that share a canvas.

        Args:
          images: as `reading.read` returns them, or upright pixels: uint8 [h, w, 3], RGB.

        Returns:
          Per image its detections, best first.

        Raises:
          tf.errors.OpError: see `call`.
        """
        upright = [
            reading.UprightImage(image, None, turned=False)
            if isinstance(image, np.ndarray)
            else image
            for image in images
        ]
        return detect([self.prepare(image) for image in upright], self.call, self.read)


def detect(
    prepared: Sequence[Prepared],
    call: Callable[[Sequence[Prepared]], Answer],
    read: Callable[[Answer, int], ImageDetections],
) -> list[ImageDetections]:
    """Call a network once for all images that share a canvas; return each image's detections."""
    found: dict[int, ImageDetections] = {}
    for canvas_hw in dict.fromkeys(image.canvas_hw for image in prepared):
        rows = [k for k, image in enumerate(prepared) if image.canvas_hw == canvas_hw]
        answer = call([prepared[k] for k in rows])
        found.update((k, read(answer, row)) for row, k in enumerate(rows))
    return [found[k] for k in range(len(prepared))]


def _advice(path: str) -> str:
    """What may have been meant by a path without a SavedModel."""
    if path.endswith((".tflite", ".onnx")):
        return f"that is --model={path}"
    if tf.io.gfile.isdir(path):
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(path)]
        versions = sorted((name for name in names if name.isdecimal()), key=int)
        if versions:
            return f"its newest version is {os.path.join(path, versions[-1])}"
    return "write one with python -m mrcnn_tf.export"
