"""A served export in the place of a SavedModel: the three steps of a `predictor.Predictor`."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mrcnn_tf.images import reading
from mrcnn_tf.remote.served_model import ServedModel
from mrcnn_tf.remote.server import Server
from mrcnn_tf.results.detection import ImageDetections
from mrcnn_tf.serving import answers, predictor


class RemotePredictor:
    """Sends images to a server and puts the masks that it answers into them.

    An image goes out as the file that it was read from, if the server decodes that to the same
    pixels; else as PNG.

    Attributes:
      category_names: see `predictor.Predictor`, as the other.
      suggested_score_threshold: likewise.
      keypoints: likewise.
    """

    def __init__(self, server: Server):
        """Connect.

        Raises:
          ServerError, ValueError: see `ServedModel`.
        """
        self._served = ServedModel(server)
        self.category_names = self._served.category_names
        self.suggested_score_threshold = self._served.suggested_score_threshold
        self.keypoints = answers.keypoints_of(self._served.description)

    def prepare(self, image: reading.UprightImage) -> predictor.Prepared:
        """Make the request of one image."""
        # The server chooses the canvas, from the size.
        size_hw = image.pixels.shape[:2]
        if self._served.input_type == "image_tensor":
            return predictor.Prepared(size_hw, image.pixels)
        return predictor.Prepared(size_hw, image.stored or _png(image.pixels))

    def call(self, batch: Sequence[predictor.Prepared]) -> answers.Answer:
        """Send images of one `canvas_hw`.

        Raises:
          ServerError: no answer, or a refusal.
        """
        requests = [image.request for image in batch]
        is_pixels = self._served.input_type == "image_tensor"
        return self._served.call(np.stack(requests) if is_pixels else requests)

    def read(self, answer: answers.Answer, row: int) -> ImageDetections:
        """Read one image's rows of an answer and paste its masks; the best detection first.

        Raises:
          answers.RefusedPictureError: the server could not use this image.
        """
        return answers.read_detections(
            answer,
            row,
            self._served.category_names,
            self._served.mask_convention,
            self.keypoints,
        )


def _png(pixels: np.ndarray) -> bytes:
    """Encode uint8 [h, w, 3], RGB: without loss, and smaller on the wire than BMP."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
