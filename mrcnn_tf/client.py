"""The Python API to a served export: pictures in, detections out, without TensorFlow.

    from mrcnn_tf.client import Client

    for detection in Client("localhost:8500", model_name="shapes")(["photo.jpg"])[0]:
        print(detection.category, detection.score, detection.box)

Needs NumPy, Pillow, pycocotools, grpcio and protobuf; nothing here or behind it imports TensorFlow,
which decodes the pictures on the server. `mrcnn_tf.predict --server=...` is the same for whole
folders, with drawings.
"""

import io
import os
from collections.abc import Iterable

import numpy as np
from PIL import Image

from mrcnn_tf.images import pillow_reader
from mrcnn_tf.remote import server as servers
from mrcnn_tf.remote.failures import ServerError
from mrcnn_tf.remote.served_model import ServedModel
from mrcnn_tf.results.detection import ImageDetections
from mrcnn_tf.serving import answers

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

Picture = str | os.PathLike | bytes | np.ndarray


class Client:
    """Calls a network that a TensorFlow Serving holds; may be called from several threads.

    Attributes:
      suggested_score_threshold: from which score on a detection should be believed; None if no
        report said so when the network was exported.
    """

    def __init__(
        self,
        server: str,
        model_name: str = servers.DEFAULT_MODEL_NAME,
        protocol: str = "grpc",
        deadline_s: float = servers.DEFAULT_DEADLINE_S,
    ):
        """Connect, and ask the network what it is.

        Args:
          server: "host:port".
          model_name: as the server has it.
          protocol: "grpc" or "rest", whichever the port speaks.
          deadline_s: seconds that one picture may take, retries included.

        Raises:
          ValueError: no address or protocol.
          ServerError: the server is not there, has no such model, or it is not from
            `mrcnn_tf.export`.
        """
        where = servers.Server(server, protocol, model_name, deadline_s)
        self._served = ServedModel(where)
        self.suggested_score_threshold = self._served.suggested_score_threshold

    def __call__(self, images: Iterable[Picture]) -> list[ImageDetections]:
        """Detect objects, one request per picture.

        Args:
          images: paths of image files or the files' bytes, turned upright as their EXIF orientation
            says; or uint8 [h, w, 3] RGB arrays, taken as they are.

        Returns:
          Per picture its detections, best first, boxes and masks in pixels of the upright picture.

        Raises:
          ValueError: there is no list, or a picture in it cannot be used; names it.
          ServerError: the server did not answer for a picture; names it.
        """
        if isinstance(images, str | bytes | os.PathLike | np.ndarray):
            raise ValueError("expected a list of images: put the one image into [ ]")
        return [self._detect(image, number) for number, image in enumerate(images)]

    def close(self) -> None:
        """Close the connection."""
        self._served.close()

    def _detect(self, image: Picture, number: int) -> ImageDetections:
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"
        try:
            if isinstance(image, str | os.PathLike):
                with open(image, "rb") as file:
                    image = file.read()
            answer = self._served.call(self._request(image))
            served = self._served
            return answers.read_detections(
                answer,
                0,
                served.category_names,
                served.mask_convention,
                answers.keypoints_of(served.description),
            )
        except ServerError as error:
            raise error.about(name) from error
        except OSError as error:
            raise ValueError(f"{name}: {error.strerror or error}") from error
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _request(self, image: bytes | np.ndarray) -> list[bytes] | np.ndarray:
        """Make the request of one picture: as the file that it is, or its pixels."""
        if self._served.input_type == "image_tensor":
            return _pixels(image)[np.newaxis]
        if isinstance(image, bytes) and image.startswith((_JPEG, _PNG)):
            return [image]
        buffer = io.BytesIO()
        Image.fromarray(_pixels(image)).save(buffer, "PNG", compress_level=1)
        return [buffer.getvalue()]


def _pixels(image: bytes | np.ndarray) -> np.ndarray:
    """Return the upright picture: uint8 [h, w, 3], RGB.

    Raises:
      ValueError: it is none.
    """
    if isinstance(image, bytes):
        return pillow_reader.read(image)[0]
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image is a path, bytes or an array, not {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"an image as an array must be uint8 [height, width, 3], RGB, not {image.dtype} "
            f"{list(image.shape)}"
        )
    return image
