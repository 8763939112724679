"""Images for TensorBoard: what training sees, augmented, with the objects it learns from.

The rows are taken from the batches on their way to the network. Nothing is added to the stream of
images, taken from it or reordered, so a run ends with the same weights whether somebody looks or
not.
"""

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.data import schema
from mrcnn_tf.evaluation.detections import decode_source_id
from mrcnn_tf.images import drawing
from mrcnn_tf.training import network_input

NUM_IMAGES = 4  # at the beginning, and after each evaluation
_MAX_EDGE = 800  # pixels; larger ones are shrunk

_Row = dict[str, np.ndarray]


class TrainingImages:
    """Keeps the first rows that pass, until they are written; then those that come next.

    Args:
      inputs: draws them.
    """

    def __init__(self, inputs: network_input.NetworkInput):
        self._input = inputs
        self._rows: list[tuple[np.ndarray, _Row]] = []  # uint8 [h, w, 3], the rest of the row

    def watch(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return the same batches, which are looked at while they pass.

        Args:
          dataset: batches as in `data/schema.py`.
        """

        @tf.autograph.experimental.do_not_convert
        def look(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            keys = network_input.keys_in(batch)

            def kept(*of_batch: np.ndarray) -> np.ndarray:
                return self._keep(dict(zip(keys, of_batch, strict=True)))

            def keep() -> tf.Tensor:
                return tf.numpy_function(kept, [batch[key] for key in keys], tf.bool)

            is_wanted = tf.numpy_function(self._is_wanted, [], tf.bool)
            tf.cond(is_wanted, keep, lambda: tf.constant(False))
            return batch

        return dataset.map(look)

    def write(self, step: int | tf.Tensor) -> None:
        """Draw what was kept and write it to the default summary writer; then keep anew."""
        for number, (image, row) in enumerate(self._rows, start=1):
            name = decode_source_id(row[schema.SOURCE_ID])
            drawn = drawing.with_title(self._input.draw(image, row), f"image {name}, augmented")
            shrunk = Image.fromarray(drawn)
            shrunk.thumbnail((_MAX_EDGE, _MAX_EDGE), Image.Resampling.LANCZOS)
            tf.summary.image(f"training/{number}", np.asarray(shrunk)[np.newaxis], step=step)
        self._rows = []

    def _is_wanted(self) -> np.ndarray:
        return np.array(len(self._rows) < NUM_IMAGES)

    def _keep(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        wanted = NUM_IMAGES - len(self._rows)
        for row in range(min(wanted, len(batch[schema.SOURCE_ID]))):
            # A copy: TensorFlow uses the batch's memory again.
            of_row = {k: np.array(v[row]) for k, v in batch.items() if k != schema.IMAGE}
            pixels = self._input.image(of_row | {schema.IMAGE: batch[schema.IMAGE][row]})
            self._rows.append((pixels, of_row))
        return np.array(True)
