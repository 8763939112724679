"""TensorFlow Serving's `Predict` over gRPC."""

import grpc
import numpy as np

from mrcnn_tf.remote import messages
from mrcnn_tf.remote.failures import ServerError, first_line

_TEMPORARY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}
_OPTIONS = [
    # Masks of a batch are megabytes; 4 would be the end.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Retries are ours (`retries.py`), and each shall really knock at the door.
    ("grpc.enable_retries", 0),
    # (min_reconnect_backoff_ms would be the time to connect in, not a pause.)
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),  # the server is named, not to be looked for
]


class Grpc:
    """A connection to the port that `tensorflow_model_server --port` opens; for any threads."""

    def __init__(self, server: str, model_name: str):
        """Prepare; nothing is sent yet.

        Args:
          server: "host:port".
          model_name: as the server has it.
        """
        self._channel = grpc.insecure_channel(server, _OPTIONS)
        self._model_name = model_name
        self._predict = self._channel.unary_unary(
            messages.METHOD,
            request_serializer=messages.PredictRequest.SerializeToString,
            response_deserializer=messages.PredictResponse.FromString,
        )

    def predict(
        self, signature: str, input_name: str, pictures: messages.Pictures, timeout_s: float
    ) -> dict[str, np.ndarray]:
        """Send one request; see `messages.predict_request`.

        Returns:
          The outputs; strings are bytes, dtype object.

        Raises:
          ServerError: no answer in time, or a refusal.
        """
        request = messages.predict_request(signature, input_name, pictures, self._model_name)
        try:
            response = self._predict(request, timeout=timeout_s)
            return {output.key: messages.to_array(output.value) for output in response.outputs}
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ServerError(f"no answer within {timeout_s:.3g} s", is_timeout=True) from error
            text = f"{code.name}: {first_line(error.details() or '')}"
            raise ServerError(text, code in _TEMPORARY) from error
        except ValueError as error:
            raise ServerError(f"an answer that cannot be read: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
