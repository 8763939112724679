"""A network that is called alike wherever it runs: in this process, or behind a server."""

from mrcnn_tf.remote.served_model import Server
from mrcnn_tf.serving.predictor import Predictor
from mrcnn_tf.serving.remote_predictor import RemotePredictor

AnyPredictor = Predictor | RemotePredictor


def load(model: str | Server) -> AnyPredictor:
    """Load a SavedModel, or connect to the server that holds it.

    Args:
      model: folder that `python -m mrcnn_tf.export` wrote, or where it is served.

    Raises:
      FileNotFoundError: no SavedModel.
      ServerError: the server does not answer, or not with an export of ours.
      ValueError: the SavedModel is not ours.
    """
    return RemotePredictor(model) if isinstance(model, Server) else Predictor(model)
