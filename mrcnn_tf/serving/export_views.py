"""Test-time augmentation in an export: two more functions beside `prepare` and `network`.

`prepare_views` makes network input of one decoded image, once for each size; `network_views`
answers a batch of them as `network` does. `predict --tta` calls them. Signatures answer as without:
on a server a request would take many times as long.
"""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.tta import View
from mrcnn_tf.serving import postprocessing, preprocessing, verification, views


@dataclasses.dataclass(frozen=True)
class Views:
    """How an image is looked at several times.

    Attributes:
      detect: see `AugmentedInference.detect`: views of a batch, and the size of the frame.
      preprocessors: of each size.
    """

    detect: Callable[[Sequence[View], tf.Tensor], Detections]
    preprocessors: tuple[preprocessing.Preprocessor, ...]

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """Of what goes into `network_views`."""
        return [
            spec
            for k in range(len(self.preprocessors))
            for spec in (
                tf.TensorSpec([None, None, None, 3], tf.float32, f"images_{k}"),
                tf.TensorSpec([None, 2], tf.float32, f"image_size_hw_{k}"),
                tf.TensorSpec([None, 2], tf.int32, f"original_size_hw_{k}"),
            )
        ]

    def prepare(self, pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Prepare one decoded image: uint8 [h, w, 3] -> three tensors for each size, without B."""
        with tf.device("CPU:0"):  # as `signatures.build_prepare`
            return tuple(tensor for one in self.preprocessors for tensor in one.from_pixels(pixels))

    def network(self, category_ids: tuple[int, ...]) -> Callable[..., dict[str, tf.Tensor]]:
        """Join network and postprocessing, as `signatures.build_network`."""

        def network_views(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            given = views.unflatten(tensors)
            # Any of the sizes would do: boxes become fractions of the image.
            frame_hw, original_size_hw = given[0].image_size_hw, given[0].original_size_hw
            found = self.detect([View(*one[:2]) for one in given], frame_hw)
            return postprocessing.object_detection_outputs(
                found, frame_hw, original_size_hw, category_ids
            )

        return network_views

    def verify(self, export_dir: str, category_ids: tuple[int, ...]) -> None:
        """Compare a SavedModel's two functions with these, on a picture.

        Raises:
          verification.VerificationError: they differ.
        """
        loaded = tf.saved_model.load(export_dir)
        pixels = tf.constant(verification.sample_images([(96, 128)])[0])
        prepared = views.stack([self.prepare(pixels)])
        of_loaded = loaded.network_views(*views.stack([loaded.prepare_views(pixels)]))
        answer = {name: value.numpy() for name, value in of_loaded.items()}
        found = verification.compare_with_function(answer, self.network(category_ids), *prepared)
        if found.matched_fraction < verification.MIN_MATCHED_FRACTION:
            raise verification.VerificationError(
                f"{export_dir}: with test-time augmentation only {found.matched_fraction:.1%} of "
                "what the SavedModel and the Python model find is the same"
            )
