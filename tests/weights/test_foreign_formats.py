"""Foreign state dicts in a tiny model, against NumPy heads in torch layout."""

import dataclasses
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import build
from mrcnn_tf.weights import detectron2, torchvision

CLASSES, CHANNELS, HIDDEN = 4, 6, 5  # classes with background
SIDE = 3  # of the RoI feature


def make_model(**backbone):
    config = fields.Model()
    config.override(
        {
            "backbone": {"depth": 18, "base_width": 2} | backbone,
            "fpn": {"channels": CHANNELS},
            "box_head": {"pool_size": SIDE, "fc_channels": HIDDEN},
            "mask_head": {"mask_size": 2 * SIDE, "conv_channels": CHANNELS, "conv_layers": 2},
        }
    )
    return build.build_model(config, CLASSES)


@dataclasses.dataclass(frozen=True)
class Format:
    """How a project names things, written down a second time.

    Attributes:
      conv: (stage 2.., block, k) -> names of a residual convolution and its norm; k 0: shortcut.
      background_mask: the mask predictor has a row for background, and so have the box deltas.
    """

    module: ModuleType
    stem: tuple[str, str]
    conv: Callable[[int, int, int], tuple[str, str]]
    lateral: Callable[[int], str]
    output: Callable[[int], str]
    rpn: tuple[str, str, str]
    box: tuple[str, str, str, str]
    mask: tuple[str, str, str, str]
    background_rows: bool


def _torchvision_conv(level, block, k):
    at = f"backbone.body.layer{level - 1}.{block}."
    return (at + f"conv{k}", at + f"bn{k}") if k else (at + "downsample.0", at + "downsample.1")


def _detectron2_conv(level, block, k):
    name = f"backbone.bottom_up.res{level}.{block}." + (f"conv{k}" if k else "shortcut")
    return name, f"{name}.norm"


TORCHVISION = Format(
    torchvision,
    stem=("backbone.body.conv1", "backbone.body.bn1"),
    conv=_torchvision_conv,
    lateral=lambda level: f"backbone.fpn.inner_blocks.{level - 2}",
    output=lambda level: f"backbone.fpn.layer_blocks.{level - 2}",
    rpn=("rpn.head.conv", "rpn.head.cls_logits", "rpn.head.bbox_pred"),
    box=(
        "roi_heads.box_head.fc6",
        "roi_heads.box_head.fc7",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    ),
    mask=(
        "roi_heads.mask_head.mask_fcn1",
        "roi_heads.mask_head.mask_fcn2",
        "roi_heads.mask_predictor.conv5_mask",
        "roi_heads.mask_predictor.mask_fcn_logits",
    ),
    background_rows=True,
)
DETECTRON2 = Format(
    detectron2,
    stem=("backbone.bottom_up.stem.conv1", "backbone.bottom_up.stem.conv1.norm"),
    conv=_detectron2_conv,
    lateral=lambda level: f"backbone.fpn_lateral{level}",
    output=lambda level: f"backbone.fpn_output{level}",
    rpn=tuple(
        f"proposal_generator.rpn_head.{n}" for n in ("conv", "objectness_logits", "anchor_deltas")
    ),
    box=(
        "roi_heads.box_head.fc1",
        "roi_heads.box_head.fc2",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    ),
    mask=tuple(
        f"roi_heads.mask_head.{n}" for n in ("mask_fcn1", "mask_fcn2", "deconv", "predictor")
    ),
    background_rows=False,
)
BOTH = pytest.mark.parametrize("form", [TORCHVISION, DETECTRON2], ids=["torchvision", "detectron2"])


def make_state_dict(form: Format) -> dict[str, np.ndarray]:
    """Random tensors under the project's names, in torch's layouts."""
    rng = np.random.default_rng(0)
    state = {}

    def layer(name, *shape, bias=True, outputs=None):
        state[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        if bias:
            state[f"{name}.bias"] = rng.normal(size=outputs or shape[0]).astype(np.float32)

    def conv_and_norm(names, *shape):
        layer(names[0], *shape, bias=False)
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            state[f"{names[1]}.{tensor}"] = rng.uniform(0.5, 1.5, shape[0]).astype(np.float32)

    conv_and_norm(form.stem, 2, 3, 7, 7)
    width_in = 2
    for level in range(2, 6):
        width = 2 * 2 ** (level - 2)
        for block in range(2):
            conv_and_norm(form.conv(level, block, 1), width, width_in, 3, 3)
            conv_and_norm(form.conv(level, block, 2), width, width, 3, 3)
            if level > 2 and block == 0:
                conv_and_norm(form.conv(level, block, 0), width, width_in, 1, 1)
            width_in = width
        layer(form.lateral(level), CHANNELS, width, 1, 1)
        layer(form.output(level), CHANNELS, CHANNELS, 3, 3)
    conv, logits, deltas = form.rpn
    layer(conv, CHANNELS, CHANNELS, 3, 3)
    layer(logits, 3, CHANNELS, 1, 1)
    layer(deltas, 12, CHANNELS, 1, 1)
    rows = CLASSES if form.background_rows else CLASSES - 1
    for name, outputs, inputs in zip(
        form.box,
        (HIDDEN, HIDDEN, CLASSES, 4 * rows),
        (CHANNELS * SIDE * SIDE, HIDDEN, HIDDEN, HIDDEN),
        strict=True,
    ):
        layer(name, outputs, inputs)
    for name in form.mask[:2]:
        layer(name, CHANNELS, CHANNELS, 3, 3)
    layer(form.mask[2], CHANNELS, CHANNELS, 2, 2, outputs=CHANNELS)
    layer(form.mask[3], rows, CHANNELS, 1, 1)
    return state


def conv(state, name, x):
    """torch's Conv2d, padded to keep the size: [n, in, h, w] -> [n, out, h, w]."""
    kernel = state[f"{name}.weight"]
    size, (h, w) = kernel.shape[-1], x.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), *[(size // 2, size // 2)] * 2])
    total = state[f"{name}.bias"][:, None, None]
    for i in range(size):
        for j in range(size):
            window = padded[:, :, i : i + h, j : j + w]
            total = total + np.einsum("oi,nihw->nohw", kernel[:, :, i, j], window)
    return total


def deconv(state, name, x):
    """torch's ConvTranspose2d of size and stride 2."""
    kernel = state[f"{name}.weight"]  # [in, out, 2, 2]
    n, _, h, w = x.shape
    total = np.zeros([n, kernel.shape[1], 2 * h, 2 * w])
    for i in range(2):
        for j in range(2):
            total[:, :, i::2, j::2] = np.einsum("io,nihw->nohw", kernel[:, :, i, j], x)
    return total + state[f"{name}.bias"][:, None, None]


def dense(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def relu(x):
    return np.maximum(x, 0)


@pytest.fixture(scope="module")
def model():
    return make_model()


@BOTH
def test_every_tensor_is_accounted_for(model, form):
    state = make_state_dict(form)
    extra = form.stem[1] + ".num_batches_tracked"
    report = form.module.load(model, state | {extra: np.int64(7)})
    assert set(report.loaded) == set(state)
    assert len(report.loaded) == len(model.weights)
    assert list(report.dropped) == [extra]


def test_what_released_files_of_detectron2_hold_besides_is_dropped(model):
    extra = {
        "pixel_mean": np.zeros([3, 1, 1]),
        "pixel_std": np.ones([3, 1, 1]),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros([3, 4]),
    }
    report = detectron2.load(model, make_state_dict(DETECTRON2) | extra)
    assert set(report.dropped) == set(extra)
    assert report.dropped["pixel_mean"] == "pixel statistics are configuration"


@BOTH
def test_rpn_head(model, form):
    state = make_state_dict(form)
    form.module.load(model, state)
    features = np.random.default_rng(1).normal(size=[2, CHANNELS, 4, 5]).astype(np.float32)
    hidden = relu(conv(state, form.rpn[0], features))
    logits = conv(state, form.rpn[1], hidden).transpose(0, 2, 3, 1).reshape(2, -1)
    deltas = conv(state, form.rpn[2], hidden).transpose(0, 2, 3, 1).reshape(2, -1, 4)
    got_logits, got_deltas = model.rpn.head({2: tf.constant(features.transpose(0, 2, 3, 1))})
    np.testing.assert_allclose(got_logits[2], logits, atol=1e-3)
    # (dx, dy, dw, dh) there, (dy, dx, dh, dw) here
    np.testing.assert_allclose(got_deltas[2], deltas[..., [1, 0, 3, 2]], atol=1e-3)


@BOTH
def test_box_head(model, form):
    state = make_state_dict(form)
    form.module.load(model, state)
    pooled = np.random.default_rng(2).normal(size=[7, CHANNELS, SIDE, SIDE]).astype(np.float32)
    hidden = relu(dense(state, form.box[0], pooled.reshape(7, -1)))
    hidden = relu(dense(state, form.box[1], hidden))
    logits, deltas = (dense(state, name, hidden) for name in form.box[2:])
    deltas = deltas.reshape(7, -1, 4)
    if form.background_rows:
        deltas = deltas[:, 1:]
    else:
        logits = np.concatenate([logits[:, -1:], logits[:, :-1]], axis=1)
    got_logits, got_deltas = model.roi_heads.box_head(pooled.transpose(0, 2, 3, 1)[None])
    np.testing.assert_allclose(got_logits[0], logits, atol=1e-3)
    np.testing.assert_allclose(got_deltas[0], deltas[..., [1, 0, 3, 2]], atol=1e-3)


@BOTH
def test_mask_head(model, form):
    state = make_state_dict(form)
    form.module.load(model, state)
    pooled = np.random.default_rng(3).normal(size=[3, CHANNELS, SIDE, SIDE]).astype(np.float32)
    hidden = pooled
    for name in form.mask[:2]:
        hidden = relu(conv(state, name, hidden))
    maps = conv(state, form.mask[3], relu(deconv(state, form.mask[2], hidden)))
    maps = maps[:, 1:] if form.background_rows else maps
    got = model.roi_heads.mask_head(pooled.transpose(0, 2, 3, 1)[None], tf.constant([[1, 2, 3]]))
    np.testing.assert_allclose(got[0], maps[[0, 1, 2], [0, 1, 2]], rtol=1e-4, atol=1e-2)


@BOTH
def test_backbone_and_pyramid_names(model, form):
    state = make_state_dict(form)
    form.module.load(model, state)
    backbone = model.backbone
    kernels = {
        form.stem[0]: backbone.stem.conv1,
        form.conv(2, 1, 2)[0]: backbone.stage2.blocks[1].conv2,
        form.conv(5, 0, 1)[0]: backbone.stage5.blocks[0].conv1,
        form.conv(3, 0, 0)[0]: backbone.stage3.blocks[0].shortcut,
        form.lateral(4): model.pyramid.lateral4,
        form.output(2): model.pyramid.output2,
    }
    for name, layer in kernels.items():
        expected = np.einsum("oihw->hwio", state[f"{name}.weight"])
        np.testing.assert_array_equal(layer.kernel, expected)
    norm, name = backbone.stage3.blocks[0].shortcut_norm, form.conv(3, 0, 0)[1]
    np.testing.assert_array_equal(norm.gamma, state[f"{name}.weight"])
    np.testing.assert_array_equal(norm.beta, state[f"{name}.bias"])
    np.testing.assert_array_equal(norm.moving_mean, state[f"{name}.running_mean"])
    np.testing.assert_array_equal(norm.moving_variance, state[f"{name}.running_var"])


def test_both_spellings_of_torchvision(model):
    state = make_state_dict(TORCHVISION)
    newer = {}
    for name, tensor in state.items():
        parent, leaf = name.rsplit(".", 1)
        if "fpn." in parent:
            parent += ".0"
        elif parent == "rpn.head.conv":
            parent += ".0.0"
        elif "mask_fcn" in parent and "logits" not in parent:
            parent = f"roi_heads.mask_head.{int(parent[-1]) - 1}.0"
        newer[f"{parent}.{leaf}"] = tensor
    assert len(newer.keys() - state.keys()) == 2 * (8 + 1 + 2)
    torchvision.load(model, state)
    expected = model.get_weights()
    torchvision.load(model, {name: np.zeros_like(tensor) for name, tensor in state.items()})
    torchvision.load(model, newer)
    for got, want in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(got, want)


@BOTH
def test_problems_are_listed_and_nothing_is_assigned(model, form):
    state = make_state_dict(form)
    form.module.load(model, state)
    before = model.get_weights()
    bad = {name: tensor + 1 for name, tensor in state.items()}
    del bad[f"{form.rpn[0]}.bias"]
    bad["roi_heads.keypoint_head.weight"] = np.zeros([1])
    bad[f"{form.box[2]}.weight"] = np.zeros([CLASSES + 7, HIDDEN])
    bad[f"{form.box[0]}.weight"] = np.zeros([HIDDEN, CHANNELS * SIDE * SIDE + 1])
    with pytest.raises(ValueError, match="do not fit") as caught:
        form.module.load(model, bad)
    message = str(caught.value)
    assert f"1 tensors missing:\n  {form.rpn[0]}.bias" in message
    assert "1 tensors unknown:\n  roi_heads.keypoint_head.weight" in message
    assert "2 tensors of the wrong shape:" in message
    assert f"{form.box[2]}.weight {(CLASSES + 7, HIDDEN)}, for " in message
    assert f"kernel:0 {(HIDDEN, CLASSES)}" in message
    for got, want in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


@BOTH
def test_another_number_of_classes_is_refused(model, form):
    state = make_state_dict(form)
    for name in (*form.box[2:], form.mask[3]):
        for leaf in ("weight", "bias"):
            state[f"{name}.{leaf}"] = np.concatenate([state[f"{name}.{leaf}"]] * 2)
    with pytest.raises(ValueError, match="6 tensors of the wrong shape"):
        form.module.load(model, state)


def test_a_variable_without_a_source_is_an_error():
    model = make_model()
    model.roi_heads.extra = tf.Variable(0.0, name="extra")
    with pytest.raises(ValueError, match="1 tensors of ours without a source:\n  extra"):
        torchvision.load(model, make_state_dict(TORCHVISION))


@BOTH
def test_group_norm_is_refused(form):
    model = make_model(norm="group_norm")
    message = {
        torchvision: "has a batch norm .*, our model a GroupNorm",
        # It has group norms, but not in this file.
        detectron2: r"tensors unknown:\n  .*norm.running_mean",
    }[form.module]
    with pytest.raises(ValueError, match=message):
        form.module.load(model, make_state_dict(form))
