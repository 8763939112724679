"""The Python API: an experiment and a checkpoint in, detections of images out.

Ten lines are enough:

    from mrcnn_tf.detector import Detector

    detector = Detector.load("maskrcnn_shapes", "runs/demo")
    for detection in detector(["photo.jpg"])[0]:
        print(detection.category, detection.score, detection.box)

`predict.py` does the same from an exported SavedModel, without tf-models-official.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from mrcnn_tf import checkpoints
from mrcnn_tf.data import canvases
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import inputs, label_maps, loading, precision
from mrcnn_tf.experiment.experiment import Experiment
from mrcnn_tf.images import reading
from mrcnn_tf.modeling import build
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.results.detection import ImageDetections
from mrcnn_tf.serving import (
    answers,
    export_views,
    predictor,
    preprocessing,
    signatures,
    verification,
)
from mrcnn_tf.staged import stages
from mrcnn_tf.staged.two_networks import ProposalsAsDetections, TwoNetworks

Network = MaskRCNN | TwoNetworks | ProposalsAsDetections

# What an RPN alone answers: it does not tell classes apart.
OBJECT = LabelMap((1,), ("object",))


class Detector:
    """A network with its weights, its label map and its way of preparing images.

    Attributes:
      model: the network: Mask R-CNN; Faster R-CNN, whose detections have no masks; an RPN and a
        detector that were trained apart; an RPN alone, whose proposals are of one category,
        "object".
      label_map: its categories.
      preprocess: resizes, normalises and pads.
      mask_paste: how probabilities become pixels, see `ops/paste.py`.
      views: test-time augmentation, if the experiment has some.
    """

    def __init__(
        self,
        model: Network,
        label_map: LabelMap,
        preprocess: preprocessing.Preprocessor,
        mask_paste: str,
        views: export_views.Views | None = None,
    ):
        """Put the parts together; see `load`."""
        self.mask_paste = mask_paste
        self.model = model
        self.label_map = label_map
        self.preprocess = preprocess
        self.views = views
        self._names = dict(zip(label_map.ids, label_map.names, strict=True))
        network = signatures.build_network(self.detect, label_map.ids)
        self._network = signatures.trace(network, *signatures.NETWORK_SPECS)
        prepare = signatures.build_prepare(preprocess)
        self._prepare = signatures.trace(prepare, signatures.PIXELS_SPEC)

    @classmethod
    def load(cls, experiment: str, checkpoint: str, params_override: str = "") -> "Detector":
        """Build the network of an experiment and load its weights.

        Args:
          experiment: a name in `experiments/`, or a YAML file, the run's params.yaml for one.
          checkpoint: a checkpoint or a run's folder, whose newest one is taken. The label map is
            read from there, or else from beside the experiment's records.
          params_override: as `--params_override`.

        Raises:
          ValueError: the experiment or the checkpoint does not exist, or they do not fit.
        """
        config = loading.load(experiment, params_override=params_override)
        config, checkpoint = stages.of_run(config, checkpoint, params_override=params_override)
        with precision.of(config.runtime):
            model, label_map = _load_network(config, checkpoint)
        paste = config.task.model.detection.mask_paste
        return cls(model, label_map, preprocessor(config), paste, _views(config, model))

    def detect(self, images: tf.Tensor, image_size_hw: tf.Tensor) -> Detections:
        """The bare network; see `MaskRCNN.call`."""
        return self.model(images, image_size_hw, training=False)

    def __call__(self, images: Iterable[str | os.PathLike | np.ndarray]) -> list[ImageDetections]:
        """Detect objects.

        Args:
          images: paths of image files, turned upright as their EXIF orientation says; or uint8
            [h, w, 3] RGB arrays, taken as they are. Any sizes, any number; those that share a
            canvas go through the network at once. So what is found in one does not depend on the
            others, and is what `predict` finds.

        Returns:
          Per image its detections, best first, boxes and masks in pixels of the upright image.

        Raises:
          ValueError: there is no list, or a file or an array in it is no image that can be used;
            names it.
        """
        if isinstance(images, str | bytes | os.PathLike):
            raise ValueError(f"expected a list of images, not {images!r}: give [{images!r}]")
        if not isinstance(images, Iterable):
            raise ValueError(f"expected a list of images, not {images!r}")
        prepared = []
        for image in images:
            given = preprocessing.NetworkInput(*self._prepare(tf.constant(_pixels(image))))
            prepared.append(predictor.Prepared(tuple(given.images.shape[:2]), given))
        return predictor.detect(prepared, self._call, self._read)

    def _call(self, batch: Sequence[predictor.Prepared]) -> answers.Answer:
        answer = self._network(*preprocessing.stack([image.request for image in batch]))
        return {name: value.numpy() for name, value in answer.items()}

    def _read(self, answer: answers.Answer, row: int) -> ImageDetections:
        return answers.read_detections(
            answer, row, self._names, self.mask_paste, self.label_map.keypoints
        )

    def export(
        self,
        export_dir: str,
        input_type: str,
        score_threshold: float | None = None,
        max_image_pixels: int = preprocessing.MAX_IMAGE_PIXELS,
        added_masks: str | None = None,
    ) -> verification.Verification:
        """Write a SavedModel and check it; see `signatures.export_saved_model`."""
        return signatures.export_saved_model(
            self.detect,
            export_dir,
            input_type=input_type,
            label_map=self.label_map,
            preprocess=dataclasses.replace(self.preprocess, max_image_pixels=max_image_pixels),
            mask_convention=self.mask_paste,
            score_threshold=score_threshold,
            added_masks=added_masks,
            views=self.views,
        )


def _load_network(config: Experiment, checkpoint: str) -> tuple[Network, LabelMap]:
    """Build what the experiment describes, and the RPN it was trained with if that is another."""
    if config.task.model.system == "rpn":
        rpn = build.build_model(config.task.model, num_classes=0)
        checkpoints.load(rpn, checkpoint)
        return ProposalsAsDetections(rpn), OBJECT
    label_map = checkpoints.label_map_of(checkpoint) or label_maps.of_experiment(config.task)
    model = build.build_model(config.task.model, label_map.num_classes)
    checkpoints.load(model, checkpoint)
    if config.task.model.proposals == "file":
        return TwoNetworks(_load_rpn(config), model), label_map
    return model, label_map


def _load_rpn(detector: Experiment) -> build.Model:
    """Load the RPN that proposes for a detector without one.

    Raises:
      ValueError: the experiment does not say which, or it wants other images.
    """
    where = detector.stages
    if not where.rpn_experiment or not where.rpn_checkpoint:
        raise ValueError(
            "this detector has no RPN of its own (task.model.proposals: file), and images come "
            "without proposals: give the RPN that it was trained with as stages.rpn_experiment "
            "(its run's params.yaml) and stages.rpn_checkpoint (its run's folder)"
        )
    rpn = loading.load(where.rpn_experiment)
    if preprocessor(rpn) != preprocessor(detector):
        raise ValueError(
            f"stages.rpn_experiment: {where.rpn_experiment} prepares images otherwise than the "
            f"detector:\n  {preprocessor(rpn)}\n  {preprocessor(detector)}"
        )
    # As many as the detector has seen of each image; they are the RPN's best.
    rpn.task.model.rpn.post_nms_top_k_test = detector.task.model.rpn.post_nms_top_k_test
    model = build.build_model(rpn.task.model, num_classes=0)
    checkpoints.load(model, where.rpn_checkpoint)
    return model


def preprocessor(
    config: Experiment, short_edge: int = 0, long_edge: int = 0
) -> preprocessing.Preprocessor:
    """How the experiment prepares images at inference; in another size, if that is given."""
    pixels, data = config.task.model.pixels, config.task.validation_data
    bucket = canvases.make(tuple(data.short_edges), data.long_edge)
    if short_edge:
        bucket = canvases.make((short_edge,), long_edge)
    return preprocessing.Preprocessor(
        short_edge=short_edge or data.short_edges[0],
        long_edge=long_edge or data.long_edge,
        resize_convention=pixels.resize,
        channel_order=pixels.order,
        pixel_mean=tuple(pixels.mean),
        pixel_std=tuple(pixels.std),
        canvas_sizes=None if data.canvas == "exact" else bucket,
    )


def _views(config: Experiment, model: Network) -> export_views.Views | None:
    """How the experiment looks at an image several times, if it does."""
    augmented = build.augmented_inference(config.task.model, config.task.tta)
    if augmented is None:
        return None
    detect = functools.partial(augmented.detect, model)
    return export_views.Views(
        detect, tuple(preprocessor(config, *edges) for edges in inputs.views(config.task))
    )


def _pixels(image: str | os.PathLike | np.ndarray) -> np.ndarray:
    """Return the upright image: uint8 [h, w, 3], RGB."""
    if isinstance(image, str | os.PathLike):
        try:
            return reading.read(image).pixels
        except reading.UnusableImageError as error:
            raise ValueError(f"{os.fspath(image)}: {error}") from error
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"an image is a path or an array, uint8 [height, width, 3], not {type(image).__name__}"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"an image as an array must be uint8 [height, width, 3], RGB, not {image.dtype} "
            f"{list(image.shape)}"
        )
    return image
