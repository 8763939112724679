"""Inference, quantity by quantity, against what other projects compute with the same weights."""

import numpy as np
import pytest

from mrcnn_tf.ops import paste

pytestmark = pytest.mark.slow

LEVELS = [2, 3, 4, 5, 6]


def assert_close(got: np.ndarray, expected: np.ndarray, what: str, of: float = 1e-3):
    """Compare to `of` standard deviations of what is expected."""
    assert got.shape == expected.shape
    worst = np.abs(got - expected).max() / expected.std()
    assert worst <= of, f"{what}: off by {worst:.2e} standard deviations"


def assert_picked(recording, key: str, got: np.ndarray):
    index, value, shape = recording.picked(key)
    assert got.shape == shape
    assert_close(got.ravel()[index], value, key)


def nchw(tensor) -> np.ndarray:
    return np.transpose(tensor, [0, 3, 1, 2])


def test_our_recipe_makes_the_same_weights(recording, own_recipe):
    expected = recording.state_dict()
    got = own_recipe.state_dict(recording.shapes, recording.meta["seed"])
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(got[name], tensor, err_msg=name)


def test_every_tensor_finds_its_place(recording, replay):
    assert len(replay.report.loaded) == len(replay.model.weights)
    assert set(replay.report.loaded) | set(replay.report.dropped) == set(recording.shapes)


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_backbone_features(recording, replay, level):
    if f"C{level}/value" not in recording.arrays:
        pytest.skip("not recorded")
    assert_picked(recording, f"C{level}", nchw(replay.backbone_features[level]))


@pytest.mark.parametrize("level", LEVELS)
def test_features(recording, replay, level):
    """Those that RPN and heads look at."""
    if level not in replay.features:
        pytest.skip("C4 has one level")
    key = {"torchvision": f"P{level}", "detectron2": f"p{level}"}[recording.source]
    if replay.config.features == "c4":
        key = f"res{level}"
    assert_picked(recording, key, nchw(replay.features[level]))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("output", ["logits", "deltas"])
def test_rpn_head(recording, replay, output, level):
    if level not in replay.features:
        pytest.skip("C4 has one level")
    ordinal = level - min(replay.features)
    suffix = {"torchvision": f"{level}", "detectron2": f"/{ordinal}"}[recording.source]
    logits, deltas = replay.rpn
    got = (logits if output == "logits" else deltas)[level]
    assert_picked(recording, f"rpn_{output}{suffix}", got)


def test_anchors(recording, replay):
    assert len(replay.anchors) == recording.arrays["anchors_count"]
    first = recording.arrays["anchors_first"]
    np.testing.assert_allclose(replay.anchors[: len(first)], first, rtol=0, atol=1e-5)


def test_proposals(recording, replay, box_iou):
    expected = recording.boxes("proposals")
    got = replay.proposals.boxes[0][replay.proposals.valid[0]].numpy()
    assert len(got) == len(expected)
    matched = (box_iou(expected, got).max(axis=1) > 0.99).mean()
    assert matched >= 0.98, f"{matched:.1%} of the proposals are matched"


def test_box_roi_features(recording, replay):
    assert_picked(recording, "box_roi_features", replay.box_roi_features)


def test_class_logits(recording, replay):
    assert_close(replay.box_outputs[0], recording.arrays["class_logits_first"], "class logits")


def test_box_deltas(recording, replay):
    expected = recording.arrays["box_deltas_first"]
    got = replay.box_outputs[1]
    expected = expected.reshape(len(expected), -1, 4)[:, -got.shape[1] :]  # background is first
    assert_close(got, expected, "box deltas")


def matches(recording, detections, box_iou) -> np.ndarray:
    """For each recorded detection the index of ours that is the same one, else -1."""
    arrays = recording.arrays
    iou = box_iou(recording.boxes("detection_boxes"), detections.boxes)
    labels = arrays["detection_labels"] + recording.class_offset
    score_difference = np.abs(arrays["detection_scores"][:, None] - detections.scores)
    same = (labels[:, None] == detections.classes) & (iou > 0.99) & (score_difference < 1e-3)
    return np.where(same.any(axis=1), np.where(same, iou, 0).argmax(axis=1), -1)


def test_detections(recording, replay, box_iou):
    index = matches(recording, replay.detections, box_iou)
    assert len(replay.detections.boxes) == len(index)
    assert len(np.unique(index[index >= 0])) == np.count_nonzero(index >= 0)
    matched = (index >= 0).mean()
    assert matched >= 0.98, f"{matched:.1%} of the detections are matched"


def test_mask_logits_of_recorded_detections(recording, replay):
    if "mask_logits_of_class" in recording.arrays:
        got, expected = replay.mask_logits, recording.arrays["mask_logits_of_class"]
    else:
        got, expected = 1 / (1 + np.exp(-replay.mask_logits)), recording.mask_probs
    assert_close(got, expected, "masks")


def mean_mask_iou(replay, probs, boxes, expected) -> float:
    """Mean IoU of masks [n, M, M], pasted into boxes [n, 4], with masks [n, H, W]."""
    convention = replay.config.detection.mask_paste
    ious = []
    for mask, box, want in zip(probs, boxes, expected, strict=True):
        pasted, top, left = paste.paste_mask(mask, box, *want.shape, convention)
        got = np.zeros_like(want)
        height, width = pasted.shape
        got[top : top + height, left : left + width] = pasted >= 0.5
        union = np.count_nonzero(got | want)
        ious.append(np.count_nonzero(got & want) / union if union else 1.0)
    return float(np.mean(ious))


def test_pasting_of_recorded_masks(recording, replay):
    probs = recording.mask_probs
    boxes = recording.boxes("detection_boxes")[: len(probs)]
    masks = recording.masks("detection_masks_packed")[: len(probs)]
    iou = mean_mask_iou(replay, probs, boxes, masks)
    assert iou >= 0.9999


def test_pasted_masks_of_detections(recording, replay, box_iou):
    index = matches(recording, replay.detections, box_iou)
    found = index >= 0
    assert found.any()
    iou = mean_mask_iou(
        replay,
        replay.detections.masks[index[found]],
        replay.detections.boxes[index[found]],
        recording.masks("detection_masks_packed")[found],
    )
    assert iou >= 0.995, f"mean mask IoU {iou:.4f}"
