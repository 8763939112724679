"""The keypoint branch against torchvision's, whose numbers `make_keypoints.py` recorded.

As operations they differ in two points: torchvision's score is the logit of the place, ours its
probability; and a RoI without area teaches nothing here. What places mean is another matter:
torchvision's users take them for COCO's coordinates, here they are continuous.
"""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.modeling import losses
from mrcnn_tf.ops import heatmaps
from mrcnn_tf.results.detection import Keypoints
from mrcnn_tf.weights import torchvision
from tests.weights import foreign_shapes as foreign
from tests.weights.test_round_trips import model_for

RECORDED = pathlib.Path(__file__).parent / "data" / "keypoints_torchvision.npz"
NUM_ROIS = (5, 3)  # of the two images; three and five are padded to five
K, SIZE = 5, 56


@pytest.fixture(scope="module")
def recorded():
    with np.load(RECORDED) as file:
        return dict(file)


@pytest.fixture(scope="module")
def network(recorded, own_recipe):
    """A whole Keypoint R-CNN's file, the head's weights as recorded, by our converter."""
    shapes = foreign.torchvision(foreign.small(), "faster_rcnn", outputs=2, keypoints=K)
    of_head = {n: list(s) for n, s in shapes.items() if n.startswith("roi_heads.keypoint_")}
    assert of_head == json.loads(str(recorded["shapes"]))
    state = own_recipe.state_dict(shapes, int(recorded["seed"]))
    model = model_for(state)
    report = torchvision.load(model, state)
    assert of_head.keys() <= set(report.loaded)
    return model


def by_image(rows: np.ndarray) -> np.ndarray:
    """Rows of the RoIs of both images, [8, ...] -> [2, 5, ...], zeros where there is none."""
    padded = np.zeros([2, max(NUM_ROIS), *rows.shape[1:]], rows.dtype)
    padded[0], padded[1, : NUM_ROIS[1]] = rows[: NUM_ROIS[0]], rows[NUM_ROIS[0] :]
    return padded


def together(padded: np.ndarray) -> np.ndarray:
    """[2, 5, ...] -> [8, ...]."""
    return np.concatenate([padded[image, :count] for image, count in enumerate(NUM_ROIS)])


@pytest.fixture(scope="module")
def targets(recorded):
    """Cells and validity [2, 5, K]."""
    rois = [recorded[f"rois{image}"] for image in range(2)]
    points = [recorded[f"gt_keypoints{i}"][recorded[f"gt_index{i}"]] for i in range(2)]
    rois, points = (by_image(np.concatenate(part)) for part in (rois, points))
    return heatmaps.cells(points[..., :2], points[..., 2] > 0, rois, SIZE)


@pytest.fixture(scope="module")
def step(recorded, network, targets):
    """Logits, the loss of both images, its gradients of logits, features and weights."""
    features = by_image(recorded["features"].astype(np.float32).transpose(0, 2, 3, 1))
    features = tf.constant(features)
    entries = {name: e.variable for e in torchvision.entries(network) for name in e.names}
    weights = [entries[name] for name in json.loads(str(recorded["shapes"]))]
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = network.roi_heads.keypoint_head(features)
        loss = losses.keypoint_loss(logits, *targets)
        mean = loss.mean()
    return logits, loss, tape.gradient(mean, [logits, features, *weights])


def assert_picked(recorded, key: str, got: np.ndarray):
    """Compare to 1e-5 of the largest."""
    expected = recorded[f"{key}/value"]
    largest = np.abs(expected).max()
    assert largest > 0
    got = np.ascontiguousarray(got).ravel()[recorded[f"{key}/index"]]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * largest)


def test_logits(recorded, step):
    assert_picked(recorded, "logits", together(step[0].numpy()))


def test_loss(recorded, step, targets):
    assert int(step[1].count) == sum(recorded["num_learned"])
    np.testing.assert_allclose(step[1].mean(), recorded["loss"], rtol=1e-5)
    # Some keypoints of each kind: taken, not annotated, outside of their RoI.
    annotated = sum(
        np.count_nonzero(recorded[f"gt_keypoints{i}"][recorded[f"gt_index{i}"]][..., 2])
        for i in range(2)
    )
    assert 10 < sum(recorded["num_learned"]) < annotated < sum(NUM_ROIS) * K
    assert not np.any(targets[1][1, NUM_ROIS[1] :])


def test_two_images_on_two_devices_weigh_by_their_keypoints(recorded, step, targets):
    """torchvision's devices each take the mean of their own; here sums and counts are joined."""
    logits, joint, _ = step
    cells, valid = targets
    alone = [
        losses.keypoint_loss(logits[i : i + 1], cells[i : i + 1], valid[i : i + 1]) for i in (0, 1)
    ]
    for image, loss in enumerate(alone):
        assert int(loss.count) == recorded["num_learned"][image]
        np.testing.assert_allclose(loss.mean(), recorded[f"loss{image}"], rtol=1e-5)
    total, count = (sum(parts) for parts in zip(*alone, strict=True))
    np.testing.assert_allclose(total / count, joint.mean(), rtol=1e-6)
    of_devices = (recorded["loss0"] + recorded["loss1"]) / 2
    assert abs(of_devices - recorded["loss"]) > 1e-3


def test_gradients(recorded, step):
    of_logits, of_features, *of_weights = step[2]
    assert np.count_nonzero(recorded["logit_gradient/value"] < 0) > 10
    assert_picked(recorded, "logit_gradient", together(of_logits.numpy()))
    of_features = together(of_features.numpy()).transpose(0, 3, 1, 2)
    assert_picked(recorded, "feature_gradient", of_features)
    names = list(json.loads(str(recorded["shapes"])))
    for name, gradient, expected in zip(names, of_weights, recorded["gradient_norms"], strict=True):
        # A softmax does not see what is added to a whole map: the last bias' is rounding alone.
        atol = 1e-5 if name.endswith("kps_score_lowres.bias") else 0
        np.testing.assert_allclose(tf.norm(gradient), expected, rtol=1e-4, atol=atol, err_msg=name)


def test_targets_where_rounding_shows(recorded):
    """PyTorch turns 56 / side into 56 times the rounded 1 / side; here it is rounded once.

    On the border of two cells, to a hundred-thousandth of a cell, that may be the one or the other.
    """
    rois, keypoints = recorded["odd_rois"], recorded["odd_keypoints"]
    has_area = np.all(rois[:, 2:] > rois[:, :2], axis=1)
    assert np.count_nonzero(~has_area) == 2
    cells, valid = heatmaps.cells(
        keypoints[None, ..., :2], keypoints[None, ..., 2] > 0, rois[None], SIZE
    )
    # Of a RoI without height or width, torchvision learns keypoints on its corner.
    assert np.any(recorded["odd_valid"][~has_area])
    assert not np.any(valid[0][~has_area])
    learned = recorded["odd_valid"][has_area]
    assert 100 < np.count_nonzero(learned) < 450
    np.testing.assert_array_equal(valid[0][has_area], learned)

    start, end = rois[has_area, None, :2], rois[has_area, None, 2:]  # [38, 1, 2]
    points = keypoints[has_area, :, :2]
    ours, theirs = cells[0].numpy()[has_area], recorded["odd_cells"][has_area]
    side = end - start
    for scale, expected in ((np.float32(SIZE) / side, ours), (1 / side * np.float32(SIZE), theirs)):
        place = np.floor((points - start) * scale)
        place = np.where(points == end, SIZE - 1, place)
        np.testing.assert_array_equal(
            np.where(learned, place[..., 0] * SIZE + place[..., 1], 0), expected
        )
    exact = (np.float64(points) - start) * SIZE / (np.float64(end) - start)
    to_border = np.abs(exact - np.round(exact)).min(axis=-1)
    differ = ours != theirs
    assert np.any(differ)
    assert np.all(to_border[differ] < 1e-5)


def test_places_and_scores(recorded, step):
    logits = together(step[0].numpy())[None]  # of one image, all eight
    boxes = recorded["boxes"][None]
    found = heatmaps.decode(logits, boxes, np.ones([1, 8], bool))[0].numpy()
    np.testing.assert_allclose(found[..., :2], recorded["places"], rtol=0, atol=1e-4)
    # torchvision's score is the logit there; ours what it is of all cells' softmax, 1 at most.
    total = np.log(np.exp(np.float64(logits[0])).sum(axis=(2, 3)))
    probability = np.exp(np.minimum(recorded["scores"] - total, 0))
    np.testing.assert_allclose(found[..., 2], probability, rtol=1e-4)
    assert np.ptp(probability) > 0.1
    # What users see: half a pixel less, since COCO's i is the middle of a pixel.
    kinds = KeypointSet(tuple("abcde"), (), (1,))
    for box, (places, scores) in enumerate(zip(found[..., :2], found[..., 2], strict=True)):
        rows = np.reshape(Keypoints(places, scores, kinds).to_coco(scores.tolist()), [K, 3])
        theirs = recorded["places"][box][:, ::-1]
        np.testing.assert_allclose(rows[:, :2], theirs - 0.5, rtol=0, atol=1e-2)
