"""PointRend, tiny, against twins that take one point after the other."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import build, losses, point_rend
from mrcnn_tf.ops import masks as mask_ops
from tests import tiny_network
from tests.modeling import compiled
from tests.ops.test_points import bilinear_twin
from tests.tiny_network import EMPTY, MAX_INSTANCES, NUM_CLASSES, TWO_OBJECTS, WITH_CROWD

POINT_REND = {
    "num_points": 12,
    "coarse_size": 5,
    "coarse_channels": 6,
    "coarse_fc_layers": 1,
    "coarse_fc_channels": 9,
    "fc_layers": 2,
    "fc_channels": 7,
    "first_size": 4,
    "subdivisions": 2,
    "points_per_subdivision": 10,
}
IMAGES = [TWO_OBJECTS, WITH_CROWD, EMPTY]
BOXES = tf.constant([[[4.0, 6.0, 40.0, 30.0], [30.0, 24.0, 58.0, 70.0]]])


def config(**differs):
    model = tiny_network.config()
    model.override({"point_rend": POINT_REND})
    model.override(differs)
    return model


@pytest.fixture(scope="module")
def network():
    found = tiny_network.build_network(config())
    head = found.roi_heads.mask_head.coarse_head.mask_logits
    head.kernel.assign(10.0 * head.kernel)  # masks that differ from point to point
    return found


@pytest.fixture(scope="module")
def features(network):
    return network.features(tiny_network.batch([TWO_OBJECTS])[schema.IMAGE], training=False)


# --- Twins: NumPy, one point after the other ----------------------------------------------------


def twin_fine(features, box, point):
    """Features [C] of the finest level, of stride 4, at a point of a box's unit square."""
    y, x = (box[k] + point[k] * (box[k + 2] - box[k]) for k in (0, 1))
    return bilinear_twin(features[2][0].numpy(), y / 4, x / 4)


def twin_coarse(head, features, box):
    """Coarse logits [S, S, K] of a box."""
    side = 2 * head.mask_size
    grid = [
        [twin_fine(features, box, ((i + 0.5) / side, (j + 0.5) / side)) for j in range(side)]
        for i in range(side)
    ]
    grid, size = np.array(grid), head.mask_size
    kernel, bias = (w.numpy() for w in head.coarse_head.conv.weights)  # [2, 2, C, Cout]
    hidden = np.zeros([size, size, len(bias)])
    for i in range(size):
        for j in range(size):
            patch = grid[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            hidden[i, j] = np.maximum(np.einsum("yxc,yxco->o", patch, kernel) + bias, 0)
    hidden = hidden.ravel()
    for layer in head.coarse_head.hidden:
        hidden = np.maximum(hidden @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    last = head.coarse_head.mask_logits
    logits = hidden @ last.kernel.numpy() + last.bias.numpy()
    return logits.reshape([size, size, NUM_CLASSES - 1])


def twin_point(head, features, box, coarse, point, class_id):
    """The logit of a class at one point of a box's unit square."""
    seen = bilinear_twin(coarse, *(p * len(coarse) for p in point))
    hidden = np.concatenate([twin_fine(features, box, point), seen])
    for layer in head.point_head.hidden:
        hidden = np.maximum(hidden @ layer.kernel.numpy() + layer.bias.numpy(), 0)
        hidden = np.concatenate([hidden, seen])
    kernel = head.point_head.predictor_kernel.numpy()[:, class_id - 1]
    return hidden @ kernel + head.point_head.predictor_bias.numpy()[class_id - 1]


def twin_doubled(mask):
    """Twice the side: each new pixel's centre asked of the old mask, whose border goes on."""
    framed = np.pad(mask, 1, mode="edge")
    side = 2 * len(mask)
    return np.array(
        [
            [bilinear_twin(framed, 1 + (i + 0.5) / 2, 1 + (j + 0.5) / 2) for j in range(side)]
            for i in range(side)
        ]
    )


def twin_mask(head, features, box, class_id):
    """The final mask logits of a box, and how many points were ever computed."""
    coarse = twin_coarse(head, features, box)
    side = POINT_REND["first_size"]

    def at(i, j, side):
        point = ((i + 0.5) / side, (j + 0.5) / side)
        return twin_point(head, features, box, coarse, point, class_id)

    mask = np.array([[at(i, j, side) for j in range(side)] for i in range(side)])
    for _ in range(POINT_REND["subdivisions"]):
        mask, side = twin_doubled(mask), 2 * side
        order = np.argsort(np.abs(mask).ravel(), kind="stable")
        for cell in order[: POINT_REND["points_per_subdivision"]]:
            mask[cell // side, cell % side] = at(cell // side, cell % side, side)
    return mask


def test_coarse_masks_and_points_are_those_of_a_slow_twin(network, features):
    head = network.roi_heads.mask_head
    coarse = head.coarse(features, BOXES)
    assert coarse.shape == (1, 2, 5, 5, NUM_CLASSES - 1)
    points = np.random.default_rng(1).uniform(0, 1, [1, 2, 6, 2]).astype(np.float32)
    classes = tf.constant([[1, 3]])
    found = head.at_points(features, BOXES, coarse, tf.constant(points), classes)
    for r, box in enumerate(BOXES[0].numpy()):
        want = twin_coarse(head, features, box)
        assert np.ptp(want) > 0.1
        np.testing.assert_allclose(coarse[0, r], want, rtol=1e-3, atol=1e-4)
        for p, point in enumerate(points[0, r]):
            logit = twin_point(head, features, box, want, point, int(classes[0, r]))
            np.testing.assert_allclose(found[0, r, p], logit, rtol=1e-3, atol=1e-3)


def test_a_mask_is_that_of_a_slow_twin(network, features):
    masks = network.roi_heads.masks(features, BOXES, tf.constant([[2, 1]]))
    assert masks.shape == (1, 2, 16, 16)
    for r, class_id in enumerate((2, 1)):
        want = twin_mask(network.roi_heads.mask_head, features, BOXES[0, r].numpy(), class_id)
        # Of two that are equally uncertain either may be computed anew.
        differs = np.abs(masks[0, r] - want) > 1e-3 * np.abs(want).max() + 1e-3
        assert differs.mean() < 0.02
        assert np.ptp(want) > 0.05


def test_doubling_by_hand():
    doubled = point_rend.doubled(tf.constant([[[0.0, 4.0], [8.0, 8.0]]]))
    np.testing.assert_allclose(
        doubled[0], [[0, 1, 3, 4], [2, 2.75, 4.25, 5], [6, 6.25, 6.75, 7], [8, 8, 8, 8]]
    )
    maps = tf.random.stateless_normal([3, 5, 5], [1, 2])
    want = tf.image.resize(maps[..., tf.newaxis], [10, 10])[..., 0]
    np.testing.assert_allclose(point_rend.doubled(maps), want, atol=1e-5)


def test_what_it_learns_from(network):
    batch = tiny_network.batch(IMAGES)
    outputs = network.train_forward(batch, 3, tf.constant(0, tf.int64))
    rois, masks, points = outputs.roi_targets, outputs.masks, outputs.points
    count = masks.valid.shape[1]
    assert masks.logits.shape == masks.targets.shape == (3, count, 5, 5)
    assert points.logits.shape == points.targets.shape == (3, count, 12)
    np.testing.assert_array_equal(masks.valid, rois.is_positive[:, :count])
    np.testing.assert_array_equal(points.valid, masks.valid)
    assert np.sum(points.valid) >= 3
    assert not np.any(points.valid[2])
    # The boxes of the box head, the coarse masks of the true class, targets of the whole mask.
    features = network.features(batch[schema.IMAGE], training=True)
    for b, r in np.argwhere(points.valid):
        deltas = outputs.box_deltas[b, r, int(rois.classes[b, r]) - 1].numpy()
        roi, box = rois.rois[b, r].numpy(), np.zeros(4)
        for k in (0, 1):
            side = roi[k + 2] - roi[k]
            centre = roi[k] + side / 2 + deltas[k] / 10 * side
            half = side * np.exp(min(deltas[k + 2] / 5, np.log(62.5))) / 2
            box[k], box[k + 2] = centre - half, centre + half
        assert np.abs(box - roi).max() > 0.1
        of_image = {level: value[b : b + 1] for level, value in features.items()}
        want = twin_coarse(network.roi_heads.mask_head, of_image, box)
        np.testing.assert_allclose(
            masks.logits[b, r], want[..., int(rois.classes[b, r]) - 1], rtol=2e-3, atol=1e-3
        )
    assert 0.05 < np.mean(points.targets.numpy()[points.valid.numpy()]) < 0.95
    sums = network.losses_of(outputs)
    assert tuple(sums) == build.loss_names(config())
    total = 0.0
    for b, r in np.argwhere(points.valid):
        z, t = points.logits[b, r].numpy(), points.targets[b, r].numpy()
        total += np.mean(np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z))))
    np.testing.assert_allclose(sums["point_loss"].total, total, rtol=1e-5)
    assert float(sums["point_loss"].count) == np.sum(points.valid)


def test_targets_at_points_lie_where_the_points_do(network, monkeypatch):
    """Of a solid object: inside 1, outside 0."""
    seen = {}

    def spy(*arguments):
        seen["points"], seen["gt_index"] = arguments[5:]
        return mask_ops_at_points(*arguments)

    mask_ops_at_points = mask_ops.masks_at_points
    monkeypatch.setattr(mask_ops, "masks_at_points", spy)
    monkeypatch.setattr(network.roi_heads.mask_head, "on_refined_boxes", False)  # random ones
    batch = tiny_network.batch([WITH_CROWD])
    outputs = network.train_forward(batch, 3, tf.constant(0, tf.int64))
    y1, x1, y2, x2 = WITH_CROWD.objects[0].box
    y, x = np.moveaxis(seen["points"].numpy(), -1, 0)
    inside = (y > y1 + 0.5) & (y < y2 - 0.5) & (x > x1 + 0.5) & (x < x2 - 0.5)
    outside = (y < y1 - 0.5) | (y > y2 + 0.5) | (x < x1 - 0.5) | (x > x2 + 0.5)
    valid = outputs.points.valid.numpy()
    targets = outputs.points.targets.numpy()
    assert (targets[valid][inside[valid]] == 1).all()
    assert (targets[valid][outside[valid]] == 0).all()
    assert inside[valid].sum() > 10


def test_images_without_objects_teach_the_masks_nothing(network):
    batch = tiny_network.batch([EMPTY])
    with tf.GradientTape() as tape:
        sums = network.losses_of(network.train_forward(batch, 3, tf.constant(0, tf.int64)))
        loss = sums["mask_loss"].mean() + sums["point_loss"].mean()
    assert float(loss) == 0.0
    assert float(sums["point_loss"].count) == 0.0
    head = network.roi_heads.mask_head.trainable_variables
    for gradient in tape.gradient(loss, head):
        assert gradient is None or not np.any(tf.convert_to_tensor(gradient))


def test_on_the_rois_themselves(network):
    """Without `on_refined_boxes` coarse masks are those of the RoIs."""
    plain = tiny_network.build_network(config(point_rend={"on_refined_boxes": False}))
    batch = tiny_network.batch([TWO_OBJECTS])
    outputs = plain.train_forward(batch, 3, tf.constant(0, tf.int64))
    rois, count = outputs.roi_targets, outputs.masks.valid.shape[1]
    features = plain.features(batch[schema.IMAGE], training=True)
    coarse = plain.roi_heads.mask_head.coarse(features, rois.rois[:, :count])
    for r in np.flatnonzero(outputs.masks.valid[0]):
        np.testing.assert_allclose(
            outputs.masks.logits[0, r], coarse[0, r, ..., int(rois.classes[0, r]) - 1], atol=1e-5
        )


def test_selected_images_alone_count(network):
    outputs = network.train_forward(tiny_network.batch(IMAGES), 3, tf.constant(0, tf.int64))
    kept = outputs.of_images(tf.constant([False, True, True]))
    assert np.any(outputs.points.valid[0])
    assert not np.any(kept.points.valid[0])
    np.testing.assert_array_equal(kept.points.valid[1], outputs.points.valid[1])


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="a mask branch for features: fpn, system: mask_rcnn"):
        build.build_model(config(features="c4"), NUM_CLASSES)


def test_detections_carry_the_large_masks(network):
    found = network.infer(tiny_network.batch(IMAGES))
    assert found.masks.shape == (3, MAX_INSTANCES, 16, 16)
    masks, valid = found.masks.numpy(), found.valid.numpy()
    assert not masks[~valid].any()
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert all(np.ptp(mask) > 0.01 for mask in masks[valid])


@pytest.mark.slow
def test_compiled_is_eager(network):
    given = tiny_network.batch(IMAGES)

    compiled.train_as_eager(network, given, 1e-3)
    eager = network.infer(given)
    got = tf.function(network.infer, jit_compile=True, autograph=False)(given)
    np.testing.assert_allclose(got.boxes, eager.boxes, 1e-4, 2e-3)
    assert (np.abs(got.masks - eager.masks) > 1e-3).mean() < 0.01
    in_graph = tf.function(
        network.infer,
        input_signature=[
            {k: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for k, v in given.items()}
        ],
    )
    nothing = in_graph({key: value[:0] for key, value in given.items()})
    assert nothing.masks.shape == (0, MAX_INSTANCES, 16, 16)
    assert np.abs(in_graph(given).masks - eager.masks).mean() < 1e-3


@pytest.mark.slow
def test_half_precision(mixed_precision):
    mixed_precision("mixed_bfloat16")
    half = tiny_network.build_network(config())
    sums = half.losses_of(
        half.train_forward(tiny_network.batch(IMAGES), 3, tf.constant(0, tf.int64))
    )
    assert np.isfinite(sums["point_loss"].mean())
    assert sums["point_loss"].total.dtype == tf.float32


def test_point_loss_by_hand():
    """Two points of logits 0 and ln 3, targets 1 and 0.25: ln 2 and 0.75 ln 3 + ln(4/3)."""
    logits = tf.constant([[[0.0, np.log(3.0)], [5.0, 5.0]]])
    targets = tf.constant([[[1.0, 0.25], [0.0, 0.0]]])
    total, count = losses.point_loss(logits, targets, tf.constant([[True, False]]))
    want = (np.log(2) + 0.75 * np.log(3) + np.log(4 / 3)) / 2
    np.testing.assert_allclose(total, want, rtol=1e-6)
    assert float(count) == 1
