"""A network that is called alike wherever it runs: in this process, or behind a server."""

from mrcnn_tf.remote.server import Server
from mrcnn_tf.serving import predictor, remote_predictor

AnyPredictor = predictor.Predictor | remote_predictor.RemotePredictor


def load(model: str | Server) -> AnyPredictor:
    """Load a SavedModel, or connect to the server that holds it.

    Args:
      model: folder that `python -m mrcnn_tf.export` wrote, or where it is served.

    Raises:
      FileNotFoundError: no SavedModel.
      ServerError: the server does not answer, or not with an export of ours.
      ValueError: the SavedModel is not ours.
    """
    if isinstance(model, Server):
        return remote_predictor.RemotePredictor(model)
    return predictor.Predictor(model)
