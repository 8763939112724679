"""The check that follows every export: does the SavedModel answer what the Python model answers?"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.serving import full_masks, preprocessing

# Eager kernels and the optimised graph round differently; in bfloat16 that is a few thousandths
# of an image. A wrong weight, channel order, scale or size is far outside.
BOX_TOLERANCE = 0.01  # fraction of the image
SCORE_TOLERANCE = 0.02
MASK_TOLERANCE = 0.1  # of any pixel of the 28x28 probabilities
_TOLERANCES = (BOX_TOLERANCE, SCORE_TOLERANCE, MASK_TOLERANCE)
# A detection at the score threshold or at the NMS threshold may flip: one in twenty may be
# missing, so below twenty none.
MIN_MATCHED_FRACTION = 0.95
# So many of a network that is sure of nothing still agree when it is rounded otherwise; of one that
# computes something else in a graph hardly any do.
_MIN_MATCHED_EAGERLY = 0.5

Answer = dict[str, np.ndarray]


class VerificationError(RuntimeError):
    """The SavedModel and the Python model disagree."""


class Verification(NamedTuple):
    """How far a SavedModel is from the Python model on the sample images.

    Attributes:
      num_detections: detections of the Python model over all sample images. With 0 only the
        weights and the images' sizes were compared.
      matched_fraction: matched pairs over the larger of the two counts; 1 if both are 0.
      max_box_difference: over matched pairs, in fractions of the image.
      max_score_difference: over matched pairs, of their scores and, if there are some, of their
        masks' scores.
      max_mask_difference: over matched pairs, probability; 0 without masks.
    """

    num_detections: int
    matched_fraction: float
    max_box_difference: float
    max_score_difference: float
    max_mask_difference: float


def sample_images(sizes_hw: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Draw seeded images with a few bright discs and bars on a noisy ramp.

    Args:
      sizes_hw: (height, width) of each image.

    Returns:
      One uint8 [h, w, 3] image per size, RGB.
    """
    images = []
    for index, (height, width) in enumerate(sizes_hw):
        random = np.random.default_rng(index)
        y, x = np.mgrid[:height, :width]
        ramp = 60.0 + 60.0 * y / height + 30.0 * x / width
        image = ramp[..., np.newaxis] + random.normal(0.0, 12.0, (height, width, 3))
        for shape in range(4):
            centre_y, centre_x = random.uniform(0.2, 0.8, 2) * (height, width)
            radius = random.uniform(0.1, 0.25) * min(height, width)
            distance = np.hypot(y - centre_y, x - centre_x)
            if shape % 2:  # a bar twice as wide as high
                distance = np.maximum(2 * abs(y - centre_y), abs(x - centre_x))
            image[distance < radius] = random.uniform(0.0, 255.0, 3)
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return images


def sample_request(input_type: str) -> tf.Tensor:
    """Return a batch of two sample images, of unequal sizes where the input type allows it.

    Args:
      input_type: "image_bytes", "image_tensor" or "tf_example".

    Returns:
      uint8 [2, h, w, 3] or string [2].
    """
    if input_type == "image_tensor":
        return tf.constant(np.stack(sample_images([(96, 128), (96, 128)])))
    encoded = [tf.io.encode_png(p).numpy() for p in sample_images([(96, 128), (112, 128)])]
    if input_type == "tf_example":
        encoded = [preprocessing.encode_example(png) for png in encoded]
    return tf.constant(encoded)


def verify_export(
    export_dir: str,
    variables: Sequence[tf.Variable],
    serve: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    input_type: str,
) -> Verification:
    """Load a SavedModel, run it once and compare it with the Python model.

    Args:
      export_dir: folder of the SavedModel.
      variables: the Python model's variables, in the order in which they were exported.
      serve: the Python function behind the signature, see `signatures.build_serve`.
      input_type: which kind of request to make.

    Returns:
      The differences, all within tolerance.

    Raises:
      VerificationError: a variable, an output's name, type or shape, or the detections differ.
    """
    loaded = tf.saved_model.load(export_dir)
    _compare_variables(loaded.model_variables, variables)
    request = sample_request(input_type)
    signature = loaded.signatures["serving_default"]
    actual = {k: v.numpy() for k, v in signature(input_tensor=request).items()}
    found = compare_with_function(actual, serve, request)
    if found.matched_fraction < MIN_MATCHED_FRACTION:
        raise VerificationError(
            f"{export_dir}: the SavedModel answers {int(actual['num_detections'].sum())} "
            f"detections on the sample images, the Python model {found.num_detections}; only "
            f"{found.matched_fraction:.1%} of them are the same "
            f"(boxes within {BOX_TOLERANCE} of the image, scores within {SCORE_TOLERANCE}, masks "
            f"within {MASK_TOLERANCE})"
        )
    return found


def compare_with_function(
    actual: Answer, function: Callable[..., dict[str, tf.Tensor]], *arguments: tf.Tensor
) -> Verification:
    """Compare an answer of a SavedModel with that of the Python function which was saved.

    The function runs eagerly, which is the further comparison. A network that is sure of nothing,
    after few steps, finds some other things where bfloat16 is rounded otherwise; if at least half
    are the same, the function runs as one graph, as the SavedModel does, with the same roundings.

    Args:
      actual: of the SavedModel, to the same arguments.
      function: returns outputs of `postprocessing.object_detection_outputs`.
      *arguments: of the function.

    Raises:
      VerificationError: an output's name, type or shape differs.
    """
    for run in (function, tf.function(function)):
        expected = {name: value.numpy() for name, value in run(*arguments).items()}
        _compare_outputs(actual, expected)
        found = compare_detections(actual, expected)
        if not _MIN_MATCHED_EAGERLY <= found.matched_fraction < MIN_MATCHED_FRACTION:
            break
    return found


def _compare_variables(actual: Sequence[tf.Variable], expected: Sequence[tf.Variable]) -> None:
    """Raise VerificationError unless all values are equal, bit for bit."""
    if len(actual) != len(expected):
        raise VerificationError(
            f"the SavedModel has {len(actual)} variables, the Python model {len(expected)}"
        )
    for a, e in zip(actual, expected, strict=True):
        if not np.array_equal(a.numpy(), e.numpy(), equal_nan=True):
            raise VerificationError(f"the SavedModel's variable {e.name} has other values")


def _compare_outputs(actual: Answer, expected: Answer) -> None:
    """Raise VerificationError unless names, types and shapes agree, and the images' sizes."""
    signs = [{k: _sign(k, v) for k, v in a.items()} for a in (actual, expected)]
    if signs[0] != signs[1]:
        raise VerificationError(f"the SavedModel's outputs are {signs[0]}, not {signs[1]}")
    if not np.array_equal(actual["image_size"], expected["image_size"]):
        raise VerificationError(
            f"image_size is {actual['image_size'].tolist()}, not {expected['image_size'].tolist()}"
        )


def _sign(name: str, value: np.ndarray) -> tuple:
    """Return what must be the same of an output, whatever is in it."""
    shape = value.shape
    if name == full_masks.PASTED:  # has as many rows as there are detections
        shape = (shape[0], -1, *shape[2:])
    return value.dtype.name, shape


def compare_detections(actual: Answer, expected: Answer) -> Verification:
    """Pair the detections of two answers to one request and measure how far they are apart.

    A pair has the same class, and box, scores and mask within the tolerances; every detection of
    `expected` in turn takes the nearest one that is left.

    Args:
      actual: outputs of `postprocessing.object_detection_outputs`, as NumPy arrays.
      expected: the same.
    """
    differences: list[tuple[float, float, float]] = []
    for image, count in enumerate(expected["num_detections"].astype(int)):
        left = list(range(int(actual["num_detections"][image])))
        for row in range(count):
            pairs = [(_difference(actual, expected, image, other, row), other) for other in left]
            pairs = [p for p in pairs if np.less_equal(p[0], _TOLERANCES).all()]
            if pairs:
                difference, other = min(pairs)
                differences.append(difference)
                left.remove(other)
    total = int(max(actual["num_detections"].sum(), expected["num_detections"].sum()))
    worst = np.max(differences, axis=0) if differences else np.zeros(3)
    return Verification(
        num_detections=int(expected["num_detections"].sum()),
        matched_fraction=len(differences) / total if total else 1.0,
        max_box_difference=float(worst[0]),
        max_score_difference=float(worst[1]),
        max_mask_difference=float(worst[2]),
    )


def _difference(
    actual: Answer, expected: Answer, image: int, row: int, expected_row: int
) -> tuple[float, float, float]:
    """Return how far two rows are apart in box, scores and mask; infinitely for other classes."""
    if (
        actual["detection_class_ids"][image, row]
        != expected["detection_class_ids"][image, expected_row]
    ):
        return (np.inf, np.inf, np.inf)

    def apart(name: str) -> float:
        if name not in expected:
            return 0.0
        return float(np.abs(actual[name][image, row] - expected[name][image, expected_row]).max())

    # Unlike Python's, NumPy's maximum of a number and NaN is NaN.
    scores = np.maximum(apart("detection_scores"), apart("detection_mask_scores"))
    return (apart("detection_boxes"), float(scores), apart("detection_masks"))
