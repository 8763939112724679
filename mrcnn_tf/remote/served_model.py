"""An export of ours behind a server: what it takes, what it knows of itself, one call."""

import json
from typing import Any

import numpy as np

from mrcnn_tf.remote import messages, over_grpc, over_rest, retries
from mrcnn_tf.remote.failures import ServerError
from mrcnn_tf.remote.server import PROTOCOLS, Server

_SIGNATURE, _DESCRIBE, _INPUT = "serving_default", "describe", "input_tensor"
_IMAGE_FEATURE = "image/encoded"


class ServedModel:
    """Calls an export of ours through a server; may be called from several threads.

    Attributes:
      description: all that the model says of itself, see `serving/signatures.py`.
      input_type: "image_bytes", "image_tensor" or "tf_example": what it was exported for.
      category_names: name by the data set's own id.
      mask_convention: see `ops/paste.py`.
      suggested_score_threshold: from which score on a detection should be believed; None if no
        report said so when it was exported.
    """

    def __init__(self, server: Server):
        """Connect, and ask the model what it is.

        Raises:
          ValueError: no address or protocol.
          ServerError: the server is not there, has no such model, or it is not ours.
        """
        host, colon, port = server.address.rpartition(":")
        # gRPC takes 99999 for 34463, its remainder by 65536.
        is_port = port.isdecimal() and 0 < int(port) < 65536
        if not (host and colon and is_port) or "/" in host:
            raise ValueError(f"{server.address!r} is no server: give HOST:PORT")
        if server.protocol not in PROTOCOLS:
            raise ValueError(f"protocol: {server.protocol!r} is not one of {list(PROTOCOLS)}")
        self._server = server
        self._connection: over_grpc.Grpc | over_rest.Rest = (
            over_grpc.Grpc(server.address, server.model_name)
            if server.protocol == "grpc"
            else over_rest.Rest(server.address, server.model_name)
        )
        self._retries = retries.Retries(server.deadline_s)
        self._read_description()

    def call(self, pictures: messages.Pictures) -> dict[str, np.ndarray]:
        """Send one request.

        Args:
          pictures: for "image_bytes" and "tf_example" the files' bytes, of JPEG, PNG, GIF or BMP;
            for "image_tensor" uint8 [B, h, w, 3], RGB.

        Returns:
          The outputs of the signature, see `serving/postprocessing.py`.

        Raises:
          ValueError: no pictures: over REST there is no such request.
          ServerError: no answer in time, or a refusal; names the server.
        """
        if not len(pictures):
            raise ValueError("a request of no picture")
        if self.input_type == "tf_example":
            pictures = [messages.encode_example(_IMAGE_FEATURE, bytes(one)) for one in pictures]
        return self._ask(_SIGNATURE, pictures)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, signature: str, pictures: messages.Pictures) -> dict[str, np.ndarray]:
        def attempt(timeout_s: float) -> dict[str, np.ndarray]:
            return self._connection.predict(signature, _INPUT, pictures, timeout_s)

        try:
            return self._retries.call(attempt)
        except ServerError as error:
            raise error.about(str(self._server)) from error

    def _read_description(self) -> None:
        try:
            (answer,) = self._ask(_DESCRIBE, [b""]).values()
        except ServerError as error:
            self.close()
            raise ServerError(
                f"{error}{self._advice(error)}", error.is_temporary, error.is_timeout
            ) from error
        description = json.loads(answer[0])
        self.description: dict[str, Any] = description
        self.input_type: str = description["input_type"]
        self.category_names: dict[int, str] = {
            row["id"]: row["name"] for row in description["categories"]
        }
        self.mask_convention: str = description["mask_convention"]
        self.suggested_score_threshold: float | None = description.get("suggested_score_threshold")

    def _advice(self, error: ServerError) -> str:
        """Say what to do about a model that does not describe itself."""
        if error.is_temporary:
            return (
                f"\nIs a TensorFlow Serving running there, and is this its {self._server.protocol} "
                "port? Usual ones are 8500 for grpc and 8501 for rest"
            )
        if "ervable not found" in str(error):
            return (
                f"\nThe server has no model named {self._server.model_name!r}, or has not loaded "
                "it yet; --model_name names another (models.config on the server has the names)"
            )
        if _DESCRIBE in str(error):
            return (
                "\nIt is not from mrcnn_tf.export, or was exported before exports described "
                "themselves to clients: export it again"
            )
        return ""
