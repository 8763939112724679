"""An exported network as a model of SAHI, which slices images its own way.

    from sahi.predict import get_sliced_prediction
    from mrcnn_tf.sahi_model import MaskRCNN

    model = MaskRCNN(model_path="exported/photos", confidence_threshold=0.5)
    result = get_sliced_prediction("field.png", model, slice_height=1024, slice_width=1024)

`sahi` is no dependency (pip install sahi shapely); PyTorch is not needed. `predict --tiles` joins
objects across slices by what both of two slices saw, SAHI by the overlap of whole pieces.

Source: `sahi/models/base.py` of SAHI 0.12, which says what a model has to have. Differs: no device
is chosen, TensorFlow does that.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

try:
    from sahi.models.base import DetectionModel
    from sahi.prediction import ObjectPrediction
except ImportError as error:
    raise ImportError(f"{__name__} takes SAHI: pip install sahi shapely ({error})") from error

from mrcnn_tf.data import pixel_polygons
from mrcnn_tf.results.detection import Detection, ImageDetections
from mrcnn_tf.serving.predictor import Predictor


class MaskRCNN(DetectionModel):
    """A SavedModel of `mrcnn_tf.export`: `model_path` is its folder, or `model` a `Predictor`.

    Categories have the data set's own ids. Masks are polygons along the pixels' edges; SAHI's
    polygons know no holes, so these are filled. A mask without a pixel is left out.
    """

    model: Any  # a Predictor; None once it is unloaded

    def load_model(self) -> None:
        """Load the SavedModel at `model_path`."""
        self.set_model(Predictor(self.model_path))

    def set_model(self, model: Predictor, **unused: Any) -> None:
        """Take a loaded one."""
        self.model = model
        self.category_mapping = {str(k): name for k, name in model.category_names.items()}

    def set_device(self, device: str | None = None) -> None:
        """Keep the name of a device; TensorFlow places the network itself."""
        self.device = device

    def unload_model(self) -> None:
        """Forget the network."""
        self.model = None

    @property
    def num_categories(self) -> int:
        """Number of categories."""
        return len(self.category_mapping)

    @property
    def category_names(self) -> list[str]:
        """Their names."""
        return [*self.category_mapping.values()]

    def perform_inference(self, image: np.ndarray) -> None:
        """Find objects in an image: uint8 [h, w, 3], RGB."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: Sequence[np.ndarray]) -> None:
        """Find objects in several images, those of one canvas at once."""
        self._batch_images = None  # nothing is put off until the answers are read
        self._original_shapes = [image.shape for image in images]
        self._original_predictions = self.model([np.ascontiguousarray(i) for i in images])

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: Any = None,
        full_shape_list: Any = None,
    ) -> None:
        """Read the answers.

        Args:
          shift_amount_list: (x, y) of each slice in the whole image, or of the only one.
          full_shape_list: (height, width) of each slice's whole image, or of the only one; None
            where an image is no slice.
        """
        count = len(self._original_predictions)
        shifts = _of_each(shift_amount_list or [0, 0], count)
        shapes = _of_each(full_shape_list, count) if full_shape_list else self._original_shapes
        self._object_prediction_list_per_image = [
            self._predictions(found, [*map(int, shift)], [*map(int, shape[:2])])
            for found, shift, shape in zip(self._original_predictions, shifts, shapes, strict=True)
        ]

    def _predictions(
        self, found: ImageDetections, shift: list[int], full_shape: list[int]
    ) -> list[ObjectPrediction]:
        predictions = []
        for detection in found:
            if detection.score < self.confidence_threshold:
                continue
            polygons = _polygons(detection)
            if polygons == []:
                continue
            y1, x1, y2, x2 = (float(v) for v in detection.box)
            predictions.append(
                ObjectPrediction(
                    bbox=[x1, y1, x2, y2],
                    category_id=detection.category_id,
                    category_name=detection.category,
                    segmentation=polygons,
                    score=detection.score,
                    shift_amount=shift,
                    full_shape=full_shape,
                )
            )
        return predictions


def _of_each(values: Any, count: int) -> Any:
    """Return pairs for `count` images, of which one pair for the only one may be given bare."""
    pairs = [values] if np.ndim(values) == 1 else values
    return [*pairs] * count if len(pairs) == 1 else pairs


def _polygons(detection: Detection) -> list[list[float]] | None:
    """Return the outlines of a mask's parts; None if there is no mask."""
    if detection.mask is None:
        return None
    y, x, pixels = detection.mask_crop()
    outlines = [o for o in pixel_polygons.trace(pixels) if not pixel_polygons.is_hole(o)]
    return [(corners + [x, y]).ravel().astype(float).tolist() for corners in outlines]
