"""TensorFlow Serving's `Predict` over HTTP: `POST /v1/models/NAME:predict`, in JSON.

Strings go there as `{"b64": ...}`. The server writes so many digits that every float32 comes back
as it was, a decimal point into every float and none into an integer.
"""

import base64
import http.client
import json
import socket
import time
import urllib.parse
from typing import Any

import numpy as np

from mrcnn_tf.remote.failures import ServerError, first_line
from mrcnn_tf.remote.messages import Pictures

_TEMPORARY = {
    http.client.CONFLICT,  # ABORTED
    http.client.TOO_MANY_REQUESTS,  # RESOURCE_EXHAUSTED
    http.client.BAD_GATEWAY,  # of a proxy in between
    http.client.SERVICE_UNAVAILABLE,  # UNAVAILABLE
}
_CHUNK = 2**20


class Rest:
    """The door that `tensorflow_model_server --rest_api_port` opens; for any threads."""

    def __init__(self, server: str, model_name: str):
        """Prepare; nothing is sent yet.

        Args:
          server: "host:port".
          model_name: as the server has it.
        """
        self._server = server
        self._path = f"/v1/models/{urllib.parse.quote(model_name, safe='')}:predict"

    def predict(
        self, signature: str, input_name: str, pictures: Pictures, timeout_s: float
    ) -> dict[str, np.ndarray]:
        """Send one request; see `messages.predict_request`.

        Returns:
          The outputs; strings are bytes, dtype object.

        Raises:
          ServerError: no answer in time, or a refusal.
        """
        end = time.monotonic() + timeout_s
        if isinstance(pictures, np.ndarray):
            instances: list[Any] = pictures.tolist()
        else:
            instances = [{"b64": base64.b64encode(one).decode("ascii")} for one in pictures]
        body = json.dumps(
            {"signature_name": signature, "instances": [{input_name: one} for one in instances]}
        )
        try:
            status, answer = self._post(body.encode("ascii"), end)
        except TimeoutError as error:
            raise ServerError(f"no answer within {timeout_s:.3g} s", is_timeout=True) from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServerError(f"UNAVAILABLE: {first_line(why)}", is_temporary=True) from error
        if status == http.client.GATEWAY_TIMEOUT:  # the server's own deadline, or a proxy's
            raise ServerError(f"no answer: {_error_of(answer)}", is_timeout=True)
        if status != http.client.OK:
            raise ServerError(f"HTTP {status}: {_error_of(answer)}", status in _TEMPORARY)
        try:
            return _columns(json.loads(answer)["predictions"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ServerError(
                f"an answer that cannot be read: {first_line(repr(error))}"
            ) from error

    def close(self) -> None:
        """Nothing is kept open."""

    def _post(self, body: bytes, end: float) -> tuple[int, bytes]:
        """Return status and content; TimeoutError once the clock shows `end`."""
        connection = http.client.HTTPConnection(self._server, timeout=_left(end))
        try:
            connection.connect()
            wire = connection.sock
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", self._path, body, headers)
            wire.settimeout(_left(end))
            response = connection.getresponse()
            content = bytearray()
            # Newer Pythons close a response with its last byte, older ones on the read behind it.
            while not response.isclosed() and (chunk := _read(response, wire, end)):
                content += chunk
            return response.status, bytes(content)
        finally:
            connection.close()


def _read(response: http.client.HTTPResponse, wire: socket.socket, end: float) -> bytes:
    """Read what is there: a server that sends a byte now and then must not hold us for ever."""
    wire.settimeout(_left(end))
    return response.read1(_CHUNK)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _error_of(answer: bytes) -> str:
    """Return what a refusal says."""
    try:
        return first_line(str(json.loads(answer)["error"]))  # a proxy's may be an object
    except (ValueError, KeyError, TypeError):
        return first_line(answer[:300].decode("utf-8", "replace"))


def _columns(predictions: list[Any]) -> dict[str, np.ndarray]:
    """Make outputs of rows: one dictionary per picture, or, of a single output, its value."""
    if not isinstance(predictions[0], dict):
        return {"": _array(predictions)}
    return {name: _array([row[name] for row in predictions]) for name in predictions[0]}


def _array(values: list[Any]) -> np.ndarray:
    array = np.array(values)
    if array.dtype.kind == "U":
        return np.frompyfunc(str.encode, 1, 1)(np.array(values, object))
    return array.astype(np.float32) if array.dtype.kind == "f" else array
