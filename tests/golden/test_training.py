"""One training step, nothing sampled away, against what other projects compute."""

import re

import numpy as np
import pytest

pytestmark = pytest.mark.slow

LOSS_NAMES = {
    "torchvision": {
        "rpn_class_loss": "loss_objectness",
        "rpn_box_loss": "loss_rpn_box_reg",
        "class_loss": "loss_classifier",
        "box_loss": "loss_box_reg",
        "mask_loss": "loss_mask",
    },
    "detectron2": {
        "rpn_class_loss": "loss_rpn_cls",
        "rpn_box_loss": "loss_rpn_loc",
        "class_loss": "loss_cls",
        "box_loss": "loss_box_reg",
        "mask_loss": "loss_mask",
    },
}
# Which parameters the losses reach. Proposals pass no gradient on, so the RPN's know its own only.
PARTS = {
    "rpn": r"(rpn|proposal_generator)\..*",
    "box_head": r"roi_heads\.box_.*",
    "mask_head": r"roi_heads\.mask_.*",
    "stage5": r"roi_heads\.res5\..*",
    "fpn": r"backbone\.fpn.*",
    "backbone": r"backbone\.(body|bottom_up|res\d)\..*",
}


def test_sampled_rois(recording, replay, box_iou):
    """Every proposal and every object is there, with the right class."""
    expected = recording.boxes("train_rois")
    classes = recording.arrays["train_roi_labels"] + recording.class_offset
    classes = classes % recording.num_classes  # Detectron2's background comes last
    training = replay.training
    assert len(training.rois) == len(expected)
    same = (box_iou(expected, training.rois) > 0.99) & (classes[:, None] == training.roi_classes)
    matched = same.any(axis=1).mean()
    assert matched >= 0.98, f"{matched:.1%} of the RoIs are matched"
    assert np.count_nonzero(training.roi_classes) == np.count_nonzero(classes)


@pytest.mark.parametrize("loss", LOSS_NAMES["torchvision"])
def test_losses(recording, replay, loss):
    expected = recording.arrays[f"loss/{LOSS_NAMES[recording.source][loss]}"]
    assert replay.training.losses[loss] == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("part", PARTS)
def test_gradient_norms(recording, replay, part):
    names, values = (recording.arrays[f"grad_norm_{k}"] for k in ("names", "values"))
    expected = {
        str(name): value
        for name, value in zip(names, values, strict=True)
        if re.fullmatch(PARTS[part], name)
    }
    if not expected:
        pytest.skip(f"no {part} in {recording.meta['architecture']}")
    got = replay.training.gradient_norms
    off = {
        n: f"{got[n]:.6g} not {v:.6g}" for n, v in expected.items() if abs(got[n] / v - 1) > 0.01
    }
    assert not off, f"{len(off)} of {len(expected)} gradients differ: {off}"


def test_the_same_parameters_train(recording, replay):
    names = [str(name) for name in recording.arrays["grad_norm_names"]]
    assert all(any(re.fullmatch(part, name) for part in PARTS.values()) for name in names)
    assert set(recording.arrays["grad_norm_names"]) <= set(replay.training.gradient_norms)
    assert len(recording.arrays["grad_norm_names"]) == len(replay.model.trainable_variables)
