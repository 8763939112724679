"""What of a network matters to data: its input size, its anchors, how many objects it can hold."""

from typing import TYPE_CHECKING, NamedTuple

from mrcnn_tf.data import anchor_recall
from mrcnn_tf.experiment import fields

if TYPE_CHECKING:
    from mrcnn_tf.experiment.experiment import Experiment

_LEVELS = {"fpn": (2, 3, 4, 5, 6), "c4": (4,), "c5": (5,), "dc5": (4,)}  # where anchors stand


class Network(NamedTuple):
    """The numbers of a network that data are held against.

    Attributes:
      name: of the experiment; "" for the defaults.
      has_masks: it learns masks.
      short_edge: to which an image's short edge is resized, pixels.
      long_edge: which the long edge does not exceed, pixels.
      resize: convention of the size, see `data/preprocess.py`.
      rpn: its anchors.
      strides: of the levels that have anchors, pixels of network input.
      max_instances: objects per image.
    """

    name: str
    has_masks: bool
    short_edge: int
    long_edge: int
    resize: str
    rpn: fields.RPN
    strides: tuple[int, ...]
    max_instances: int

    @property
    def anchor_levels(self) -> list[anchor_recall.Level]:
        """The anchors of every level."""
        rpn = self.rpn
        return anchor_recall.levels(
            rpn.anchor_sizes, rpn.anchor_ratios, self.strides, rpn.anchors_rounded
        )

    @property
    def smallest_visible(self) -> float:
        """Side, in pixels of network input, below which an object counts as invisible.

        Half of the finest stride: such an object covers less than a quarter of one cell of the
        finest feature map, so that it has no feature of its own; what stands there is mostly its
        surroundings.
        """
        return self.strides[0] / 2


def default() -> Network:
    """Return the paper's network."""
    return _from_fields("", fields.Model(), fields.Data())


def of_experiment(experiment: "Experiment") -> Network:
    """Return the network of an experiment, with the image size of its evaluation."""
    task = experiment.task
    return _from_fields(task.name, task.model, task.validation_data)


def with_image_size(network: Network, short_edge: int, long_edge: int | None) -> Network:
    """Return the network at another image size; the aspect of both edges stays by default."""
    long_edge = long_edge or round(short_edge * network.long_edge / network.short_edge)
    return network._replace(short_edge=short_edge, long_edge=max(short_edge, long_edge))


def _from_fields(name: str, model: fields.Model, data: fields.Data) -> Network:
    return Network(
        name=name,
        has_masks=model.system == "mask_rcnn",
        short_edge=data.short_edges[0],
        long_edge=data.long_edge,
        resize=model.pixels.resize,
        rpn=model.rpn,
        strides=tuple(2**level for level in _LEVELS[model.features]),
        max_instances=model.max_instances,
    )
