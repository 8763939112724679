"""Where a model is served. Imports nothing: commands name it before they need what calls it."""

from typing import NamedTuple

PROTOCOLS = ("grpc", "rest")
DEFAULT_MODEL_NAME = "model"  # of TensorFlow Serving's container
DEFAULT_DEADLINE_S = 60.0


class Server(NamedTuple):
    """Where a model is served.

    Attributes:
      address: "host:port".
      protocol: of `PROTOCOLS`.
      model_name: as the server has it.
      deadline_s: seconds that a request may take, retries included.
    """

    address: str
    protocol: str = PROTOCOLS[0]
    model_name: str = DEFAULT_MODEL_NAME
    deadline_s: float = DEFAULT_DEADLINE_S

    def __str__(self) -> str:
        return f"{self.model_name} on {self.address}"
