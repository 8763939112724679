"""A network that is called alike wherever it runs: in this process, or behind a server."""

from typing import NamedTuple

from mrcnn_tf.remote.server import Server
from mrcnn_tf.serving import predictor, remote_predictor


class WithViews(NamedTuple):
    """A SavedModel that is to look at each image several times.

    Attributes:
      saved_model: its folder.
    """

    saved_model: str

    def __str__(self) -> str:
        return f"{self.saved_model} with test-time augmentation"


AnyModel = str | Server | WithViews
AnyPredictor = predictor.Predictor | remote_predictor.RemotePredictor


def load(model: AnyModel) -> AnyPredictor:
    """Load a SavedModel, or connect to the server that holds it.

    Args:
      model: folder that `python -m mrcnn_tf.export` wrote, also `WithViews`, or where it is served.

    Raises:
      FileNotFoundError: no SavedModel.
      ServerError: the server does not answer, or not with an export of ours.
      ValueError: the SavedModel is not ours, or has no test-time augmentation.
    """
    if isinstance(model, WithViews):
        return predictor.Predictor(model.saved_model, tta=True)
    if isinstance(model, Server):
        return remote_predictor.RemotePredictor(model)
    return predictor.Predictor(model)
