"""Test-time augmentation, tiny, against a twin that knows the plain network only."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import build, tta
from mrcnn_tf.ops import boxes as box_ops
from tests import tiny_network
from tests.modeling import compiled
from tests.tiny_network import EMPTY, MAX_INSTANCES, TWO_OBJECTS, WITH_CROWD

IMAGES = [TWO_OBJECTS, WITH_CROWD, EMPTY]
FACTOR = 1.5  # of the second size


@pytest.fixture(scope="module")
def network():
    return tiny_network.build_network()


def inference(flips):
    return tta.AugmentedInference(flips, nms_iou=0.5, max_instances=MAX_INSTANCES)


@pytest.fixture(scope="module")
def batch():
    """Of 64 x 64, with two views: itself, and 1.5 times as large on 96 x 96."""
    given = tiny_network.batch(IMAGES)
    large = np.zeros([len(IMAGES), 96, 96, 3], np.float32)
    for b, image in enumerate(IMAGES):
        height, width = image.size_hw
        size = [round(FACTOR * height), round(FACTOR * width)]
        inside = given[schema.IMAGE][b, :height, :width]
        large[b, : size[0], : size[1]] = tf.image.resize(inside, size)
    return given | {
        schema.view_image(0): given[schema.IMAGE],
        schema.view_size_hw(0): given[schema.IMAGE_SIZE_HW],
        schema.view_image(1): tf.constant(large),
        schema.view_size_hw(1): FACTOR * given[schema.IMAGE_SIZE_HW],
    }


def test_one_size_without_flip_is_the_plain_result(network, batch):
    one = {key: value for key, value in batch.items() if not key.startswith("view1")}
    want, got = network.infer(batch), inference(flips=False).infer(network, one)
    assert want.valid.numpy().sum() > 8
    for name, value in want._asdict().items():
        np.testing.assert_array_equal(getattr(got, name), value, name)


def twin(network, batch, b):
    """One image: every view through the plain network, then NumPy; [(score, class, box, mask)]."""
    frame = batch[schema.IMAGE_SIZE_HW][b].numpy()
    looks, found = [], []
    for number in (0, 1):
        image = batch[schema.view_image(number)][b].numpy()
        size = batch[schema.view_size_hw(number)][b].numpy()
        for mirrored in (False, True):
            seen = image.copy()
            if mirrored:
                width = int(size[1])
                seen[:, :width] = image[:, :width][:, ::-1]
            seen, of = tf.constant(seen[np.newaxis]), tf.constant(size[np.newaxis])
            looks.append((network.features(seen, training=False), size, mirrored))
            answer = network(seen, of)
            for d in np.flatnonzero(answer.valid[0]):
                y1, x1, y2, x2 = answer.boxes[0, d].numpy()
                if mirrored:
                    x1, x2 = size[1] - x2, size[1] - x1
                box = np.array([y1, x1, y2, x2]) / np.tile(size, 2) * np.tile(frame, 2)
                found.append((float(answer.scores[0, d]), int(answer.classes[0, d]), box))
    kept = []
    for score, k, box in sorted(found, key=lambda f: -f[0]):
        same = [other for _, c, other in kept if c == k]
        if not same or box_ops.iou(np.float32([box]), np.float32(same)).numpy().max() <= 0.5:
            kept.append((score, k, box))
    rows = []
    for score, k, box in kept[:MAX_INSTANCES]:
        masks = []
        for features, size, mirrored in looks:
            y1, x1, y2, x2 = box / np.tile(frame, 2) * np.tile(size, 2)
            if mirrored:
                x1, x2 = size[1] - x2, size[1] - x1
            at = tf.constant([[[y1, x1, y2, x2]]], tf.float32)
            logits = network.roi_heads.masks(features, at, tf.constant([[k]]))[0, 0].numpy()
            masks.append(1 / (1 + np.exp(-(logits[:, ::-1] if mirrored else logits))))
        rows.append((score, k, box, np.mean(masks, axis=0)))
    return rows, len(found)


def test_two_sizes_with_flips_are_those_of_a_slow_twin(network, batch):
    found = inference(flips=True).infer(network, batch)
    united = 0
    for b in range(len(IMAGES)):
        want, num_found = twin(network, batch, b)
        united += num_found
        count = len(want)
        assert count > 2
        np.testing.assert_array_equal(found.valid[b], np.arange(MAX_INSTANCES) < count)
        np.testing.assert_array_equal(found.classes[b, :count], [row[1] for row in want])
        for got, k, near in (
            (found.scores, 0, 1e-3),
            (found.boxes, 2, 2e-2),
            (found.masks, 3, 5e-3),
        ):
            np.testing.assert_allclose(got[b, :count], [row[k] for row in want], atol=near)
            assert not np.any(got[b, count:])
    assert united > 3 * MAX_INSTANCES * len(IMAGES)  # several views took part


def test_the_mirror_image_has_the_mirror_images_of_the_objects(network, batch):
    views = tta.views_of(batch)
    frame = batch[schema.IMAGE_SIZE_HW]
    want = inference(flips=True).detect(network, views, frame)
    got = inference(flips=True).detect(network, [view.mirrored() for view in views], frame)
    assert want.valid.numpy().all()
    np.testing.assert_array_equal(got.classes, want.classes)
    np.testing.assert_allclose(got.scores, want.scores, atol=1e-5)
    y1, x1, y2, x2 = np.moveaxis(want.boxes.numpy(), -1, 0)
    width = frame.numpy()[:, 1:]
    mirrored = np.stack([y1, width - x2, y2, width - x1], axis=-1)
    np.testing.assert_allclose(got.boxes, mirrored, atol=1e-3)
    np.testing.assert_allclose(got.masks, want.masks.numpy()[..., ::-1], atol=1e-3)


def test_a_view_is_mirrored_inside_its_padding():
    image = np.zeros([2, 2, 4, 1], np.float32)
    image[0, 0, :3, 0], image[1, 1, :, 0] = [1, 2, 3], [4, 5, 6, 7]
    view = tta.View(tf.constant(image), tf.constant([[2.0, 3.0], [2.0, 4.0]])).mirrored()
    np.testing.assert_array_equal(view.images[0, 0, :, 0], [3, 2, 1, 0])
    np.testing.assert_array_equal(view.images[1, 1, :, 0], [7, 6, 5, 4])


def test_without_mask_head_and_with_a_cascade(batch):
    for differs in (
        {"system": "faster_rcnn"},
        {
            "box_head": {"class_agnostic": True},
            "cascade": {"positive_ious": (0.6,), "regression_factors": (2.0,)},
        },
    ):
        config = tiny_network.config()
        config.override(differs)
        other = tiny_network.build_network(config)
        one = {key: value for key, value in batch.items() if not key.startswith("view1")}
        want, got = other.infer(batch), inference(flips=False).infer(other, one)
        np.testing.assert_array_equal(got.boxes, want.boxes)
        assert (got.masks is None) == (config.system == "faster_rcnn")


def test_fields_decide():
    model = tiny_network.config()
    assert build.augmented_inference(model, fields.TTA()) is None
    assert build.augmented_inference(model, fields.TTA(short_edges=(64,))) is not None


@pytest.mark.slow
def test_compiled_is_eager(network, batch):
    want = inference(flips=True).infer(network, batch)
    infer = tf.function(
        lambda given: inference(flips=True).infer(network, given), jit_compile=True, autograph=False
    )
    compiled.detections_are_close(infer(batch), want, 1e-3, 5e-3)
