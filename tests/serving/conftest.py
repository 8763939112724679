"""A network that finds rectangles by looking, so that frames, scales and orders are really tested.

It answers what any detector would: boxes in pixels of the network input. A saturated red rectangle
is class 1, a green one class 2.
"""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.data import label_map
from mrcnn_tf.images import decoding
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.serving import preprocessing, signatures

SHORT_EDGE, LONG_EDGE = 128, 200
RED, GREEN = (255, 0, 0), (0, 255, 0)


class RectangleFinder(tf_keras.Model):
    """Reds score `red_score`, greens `green_score`: its two variables."""

    def __init__(self):
        super().__init__()
        self.red_score = tf.Variable(0.75, name="red_score")
        self.green_score = tf.Variable(0.5, name="green_score")

    def call(self, images, image_size_hw):
        red, green, blue = tf.unstack(images, axis=-1)  # normalised to 0..1
        maps = tf.stack([red - green, green - red], -1) - blue[..., tf.newaxis] > 0.5
        boxes, found = self._extents(maps)  # [B, 2, 4], [B, 2]
        # What is outside the image is padding: a leak of it would be a detection there.
        found &= tf.reduce_all(boxes[..., 2:] <= image_size_hw[:, tf.newaxis] + 1.0, -1)
        scores = tf.stack([self.red_score, self.green_score]) * tf.ones_like(boxes[..., 0])
        left_half = tf.cast(tf.range(28) < 14, tf.float32) * tf.ones([28, 1])
        masks = left_half * tf.ones_like(scores)[..., tf.newaxis, tf.newaxis]
        classes = tf.constant([1, 2]) * tf.ones_like(found, tf.int32)
        # Found ones first, then three rows of zeros and more.
        order = tf.argsort(tf.cast(found, tf.int32), direction="DESCENDING", stable=True)

        def pad(rows):
            shape = tf.concat([tf.shape(found), [1] * (rows.shape.rank - 2)], 0)
            rows = tf.where(tf.reshape(found, shape), rows, tf.zeros([], rows.dtype))
            rows = tf.gather(rows, order, batch_dims=1)
            return tf.pad(rows, [[0, 0], [0, 3]] + [[0, 0]] * (rows.shape.rank - 2))

        return Detections(
            boxes=pad(boxes),
            classes=pad(classes),
            scores=pad(scores),
            valid=pad(found),
            masks=pad(masks),
        )

    @staticmethod
    def _extents(maps):
        height, width = tf.shape(maps)[1], tf.shape(maps)[2]
        rows = tf.cast(tf.reduce_any(maps, 2), tf.int32)  # [B, H, 2]
        columns = tf.cast(tf.reduce_any(maps, 1), tf.int32)
        top, left = tf.argmax(rows, 1), tf.argmax(columns, 1)
        bottom = height - tf.argmax(rows[:, ::-1], 1, tf.int32)
        right = width - tf.argmax(columns[:, ::-1], 1, tf.int32)
        edges = [tf.cast(e, tf.float32) for e in (top, left, bottom, right)]
        return tf.stack(edges, -1), tf.reduce_any(maps, [1, 2])


@pytest.fixture(scope="session")
def model() -> RectangleFinder:
    return RectangleFinder()


@pytest.fixture(scope="session")
def detect(model):
    return lambda images, image_size_hw: model(images, image_size_hw)


@pytest.fixture(scope="session")
def labels() -> label_map.LabelMap:
    return label_map.LabelMap((17, 2**24 + 1), ("Röhre", "green"))


@pytest.fixture(scope="session")
def preprocess() -> preprocessing.Preprocessor:
    return preprocessing.Preprocessor(
        short_edge=SHORT_EDGE,
        long_edge=LONG_EDGE,
        resize_convention="detectron2",
        channel_order="rgb",
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(255.0, 255.0, 255.0),
    )


@pytest.fixture(scope="session")
def draw_rectangles():
    """Return f(height, width, {colour: (y1, x1, y2, x2)}) -> uint8 [height, width, 3]."""

    def draw(height, width, rectangles, seed=0):
        random = np.random.default_rng(seed)
        image = random.integers(40, 80, (height, width, 1), np.uint8).repeat(3, axis=2)
        for color, (y1, x1, y2, x2) in rectangles.items():
            image[y1:y2, x1:x2] = color
        return image

    return draw


@pytest.fixture(scope="session")
def export_of_0_1_0(tmp_path_factory, model, detect, labels, preprocess):
    """Return f(input_type) -> path of a SavedModel as release 0.1.0 wrote it: one function."""
    folder = tmp_path_factory.mktemp("old_models")

    def all_or_none(serve, input_type):
        """One file that cannot be decoded fails the call, which answers no status."""

        def size_of_decoded(file):
            return tf.shape(decoding.decode_as_stored(file))

        def function(input_tensor):
            answer = dict(serve(input_tensor))
            del answer["detection_status"]
            decoded = []
            if input_type == "image_bytes":
                sizes = tf.map_fn(size_of_decoded, input_tensor, fn_output_signature=tf.int32)
                decoded.append(sizes)
            with tf.control_dependencies(decoded):
                return {name: tf.identity(value) for name, value in answer.items()}

        return function

    def path(input_type):
        target = folder / input_type
        if not target.exists():
            module = tf.Module()
            module.model_variables = list(model.variables)
            network = signatures.build_network(detect, labels.ids)
            traced = signatures.trace(network, *signatures.NETWORK_SPECS).get_concrete_function()
            serve = signatures.build_serve(
                network,
                answers=signatures.answers_of(traced),
                input_type=input_type,
                preprocess=preprocess,
            )

            module.__call__ = signatures.trace(
                all_or_none(serve, input_type), signatures.INPUT_SPECS[input_type]
            )
            description = signatures.describe(input_type, "pixel_centres", labels)
            module.description = signatures.trace(lambda: tf.constant(description))
            signature = module.__call__.get_concrete_function()
            tf.saved_model.save(module, str(target), signatures={"serving_default": signature})
        return target

    return path


@pytest.fixture(scope="session")
def export(tmp_path_factory, model, detect, labels, preprocess):
    """Return f(input_type) -> path of a SavedModel, written once each."""
    folder = tmp_path_factory.mktemp("models")

    def path(input_type):
        target = folder / input_type
        if not target.exists():
            signatures.export_saved_model(
                detect,
                str(target),
                input_type=input_type,
                label_map=labels,
                preprocess=preprocess,
                mask_convention="pixel_centres",
            )
        return target

    return path
