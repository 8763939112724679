"""Mask Scoring R-CNN, tiny, against twins that take one mask after the other."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import build, losses, mask_scoring
from tests import tiny_network
from tests.modeling import compiled
from tests.tiny_network import EMPTY, MAX_INSTANCES, NUM_CLASSES, TWO_OBJECTS, WITH_CROWD

MASK_SCORING = {
    "mask_head": {"mask_size": 12},
    "mask_scoring": {"conv_layers": 2, "conv_channels": 6, "fc_layers": 1, "fc_channels": 9},
}
IMAGES = [TWO_OBJECTS, WITH_CROWD, EMPTY]


def config(**differs):
    model = tiny_network.config()
    model.override(MASK_SCORING)
    model.override(differs)
    return model


@pytest.fixture(scope="module")
def network():
    found = tiny_network.build_network(config())
    last = found.roi_heads.mask_iou_head.mask_ious
    last.bias.assign(tf.fill(last.bias.shape, 0.5))  # so that few are cut off at 0 or 1
    last.kernel.assign(0.2 * last.kernel)
    return found


def twin_conv(maps, kernel, bias, stride):
    """3x3 convolution of one map [H, W, C], zeros around it, and ReLU."""
    framed = np.pad(maps, [[1, 1], [1, 1], [0, 0]])
    rows = range(0, maps.shape[0], stride)
    found = [
        [np.einsum("yxc,yxco->o", framed[i : i + 3, j : j + 3], kernel) + bias for j in rows]
        for i in rows
    ]
    return np.maximum(found, 0)


def twin_iou(head, roi_features, mask, class_id):
    """The IoU expected of one mask [M, M] of probabilities."""
    side = len(mask) // 2
    pooled = [
        [mask[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max() for j in range(side)] for i in range(side)
    ]
    hidden = np.concatenate([roi_features, np.array(pooled)[..., np.newaxis]], axis=-1)
    for k, layer in enumerate(head.convs):
        stride = 2 if k == len(head.convs) - 1 else 1
        hidden = twin_conv(hidden, layer.kernel.numpy(), layer.bias.numpy(), stride)
    hidden = hidden.ravel()
    for layer in head.hidden:
        hidden = np.maximum(hidden @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    last = head.mask_ious
    return hidden @ last.kernel.numpy()[:, class_id - 1] + last.bias.numpy()[class_id - 1]


def test_masks_are_scored_as_by_a_slow_twin(network):
    batch = tiny_network.batch(IMAGES)
    found = network.infer(batch)
    assert found.mask_scores.shape == (3, MAX_INSTANCES)
    features = network.features(batch[schema.IMAGE], training=False)
    pooled = network.roi_heads.pool(features, found.boxes, 6).numpy()
    seen = set()
    for b, d in np.ndindex(*found.valid.numpy().shape):
        if not found.valid[b, d]:
            assert found.mask_scores[b, d] == 0
            continue
        iou = twin_iou(
            network.roi_heads.mask_iou_head,
            pooled[b, d],
            found.masks[b, d].numpy(),
            int(found.classes[b, d]),
        )
        want = found.scores[b, d].numpy() * min(max(iou, 0.0), 1.0)
        np.testing.assert_allclose(found.mask_scores[b, d], want, rtol=1e-3, atol=1e-5)
        seen.add(round(float(iou), 2))
    assert len(seen) > 3


def test_boxes_masks_and_scores_are_those_of_mask_rcnn(network):
    """The head looks on: with its weights away, all else is the same."""
    plain = tiny_network.config()
    plain.override({"mask_head": {"mask_size": 12}})
    other = tiny_network.build_network(plain)
    looked_at = [v for v in network.trainable_variables if "mask_iou_head" not in v.name]
    for ours, theirs in zip(other.trainable_variables, looked_at, strict=True):
        ours.assign(theirs)
    batch = tiny_network.batch(IMAGES)
    want, found = other.infer(batch), network.infer(batch)
    assert want.mask_scores is None
    for name in ("boxes", "classes", "scores", "valid", "masks"):
        np.testing.assert_array_equal(getattr(found, name), getattr(want, name), name)


def test_ious_by_hand():
    """A mask of the upper half against an object of the left half, half of which lies outside."""
    masks = np.full([1, 2, 4, 4], 0.4, np.float32)
    masks[:, :, :2] = 0.5
    targets = np.zeros([1, 2, 4, 4], np.float32)
    targets[..., :2] = 0.5
    part = tf.constant([[0.5, 1.0]])
    found = mask_scoring.mask_ious(tf.constant(masks), tf.constant(targets), part)
    # 4 cells are shared; 8 of the mask; 16 and 8 of the object.
    np.testing.assert_allclose(found, [[4 / 20, 4 / 12]], rtol=1e-6)
    nothing = mask_scoring.mask_ious(
        tf.fill([1, 1, 4, 4], 0.1), tf.zeros([1, 1, 4, 4]), tf.zeros([1, 1])
    )
    assert float(nothing[0, 0]) == 0.0


def test_the_part_of_an_object_inside_a_roi():
    """The notched object of 36 x 24, its upper half, its lower right quarter, and none of it."""
    batch = tiny_network.batch([TWO_OBJECTS])
    y1, x1, y2, x2 = TWO_OBJECTS.objects[0].box
    middle = (y1 + y2) / 2, (x1 + x2) / 2
    rois = tf.constant(
        [[
            [y1, x1, y2, x2], [y1, x1, middle[0], x2], [middle[0], middle[1], y2, x2],
            [0, 0, 60, 64], [50, 0, 60, 5], [30, 24, 58, 62],
        ]], tf.float32,
    )  # fmt: skip
    index = tf.constant([[0, 0, 0, 0, 0, 1]])
    found = mask_scoring.visible_part(batch, rois, index)
    np.testing.assert_allclose(found[0], [1, 2 / 3, 0, 1, 0, 1], atol=0.03)
    mirrored = dict(batch)
    frames = batch[schema.GT_MASK_FRAMES].numpy()
    mirrored[schema.GT_MASK_FRAMES] = tf.constant(frames[..., [0, 3, 2, 1]])
    left = tf.constant([[[y1, x1, y2, middle[1]]]])
    for one, want in ((batch, 2 / 3), (mirrored, 1 / 3)):
        part = mask_scoring.visible_part(one, left, tf.constant([[0]]))
        np.testing.assert_allclose(part, [[want]], atol=0.03)
    no_mask = mask_scoring.visible_part(batch, left, tf.constant([[3]]))
    assert no_mask.numpy().tolist() == [[0.0]]


def test_what_it_learns_from(network):
    batch = tiny_network.batch(IMAGES)
    outputs = network.train_forward(batch, 3, tf.constant(0, tf.int64))
    masks, ious = outputs.masks, outputs.mask_ious
    np.testing.assert_array_equal(ious.valid, masks.valid)
    assert np.sum(ious.valid) >= 3
    sums = network.losses_of(outputs)
    assert tuple(sums) == build.loss_names(config())
    total = count = 0.0
    for b, f in np.argwhere(ious.valid):
        mask = masks.logits[b, f].numpy() >= 0
        inside = masks.targets[b, f].numpy() >= 0.5
        rois = outputs.roi_targets
        thing = IMAGES[b].objects[int(rois.gt_index[b, f])]
        full = np.zeros([64, 64])
        y1, x1, y2, x2 = thing.box
        full[y1:y2, x1:x2] = thing.mask()
        # The object's area inside the RoI, on a fine grid.
        roi = rois.rois[b, f].numpy()
        y, x = (roi[k] + (np.arange(400) + 0.5) / 400 * (roi[k + 2] - roi[k]) for k in (0, 1))
        within = full[np.ix_(y.astype(int), x.astype(int))].mean()
        within *= (roi[2] - roi[0]) * (roi[3] - roi[1])
        union = mask.sum() + inside.sum() * full.sum() / max(within, 1e-9) - (mask & inside).sum()
        want = (mask & inside).sum() / union
        np.testing.assert_allclose(ious.targets[b, f], want, atol=0.04)
        if ious.targets[b, f] > 0:
            total += 0.5 * float(ious.ious[b, f] - ious.targets[b, f]) ** 2
            count += 1
    assert count >= 2
    np.testing.assert_allclose(sums["mask_iou_loss"].total, total, rtol=1e-4)
    assert float(sums["mask_iou_loss"].count) == count
    kept = outputs.of_images(tf.constant([False, True, True]))
    assert not np.any(kept.mask_ious.valid[0])


def test_loss_by_hand():
    loss = losses.mask_iou_loss(
        tf.constant([[0.7, 0.2, 0.9, 0.1]]),
        tf.constant([[0.5, 0.0, 0.4, 0.5]]),
        tf.constant([[True, True, False, True]]),
    )
    np.testing.assert_allclose(loss.total, 0.5 * 0.04 + 0.5 * 0.16, rtol=1e-5)
    assert float(loss.count) == 2


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="it scores masks of features: fpn, system: mask_rcnn"):
        build.build_model(config(features="c4"), NUM_CLASSES)


@pytest.mark.slow
def test_compiled_is_eager(network):
    given = tiny_network.batch(IMAGES)

    compiled.train_as_eager(network, given, 2e-3)
    eager = network.infer(given)
    got = tf.function(network.infer, jit_compile=True, autograph=False)(given)
    compiled.detections_are_close(got, eager, 1e-3, 2e-3)
