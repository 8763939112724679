"""Checkpoints of other classes, other heads, other backbones."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.modeling import build
from mrcnn_tf.weights import fine_tune
from tests import tiny_network

LAST = ("class_logits", "box_deltas", "predictor")


def label_map(*names):
    return LabelMap(tuple(range(1, len(names) + 1)), names)


ABC = label_map("cat", "dog", "kite")


def make_model(num_classes, seed=0, **sizes):
    config = tiny_network.config()
    config.override(sizes)
    tf_keras.utils.set_random_seed(seed)
    return build.build_model(config, num_classes)


@pytest.fixture(scope="module")
def trained():
    """A model of three classes whose every value is its own."""
    model = make_model(4)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    """As a run leaves it: with other things that hold on to the same variables."""
    optimizer = tf_keras.optimizers.SGD(momentum=0.9)
    optimizer.build(trained.trainable_variables)
    root = tf.train.Checkpoint(
        global_step=tf.Variable(3), optimizer=optimizer, backbone=trained.backbone, model=trained
    )
    return root.save(str(tmp_path_factory.mktemp("run") / "ckpt"))


def is_last(variable):
    return any(name in variable.name for name in LAST)


def assert_rest_equal(model, trained):
    for got, want in zip(model.variables, trained.variables, strict=True):
        if not is_last(got):
            np.testing.assert_array_equal(got, want, err_msg=got.name)


def test_the_same_classes_load_whole(trained, checkpoint):
    model = make_model(4, seed=1)
    report = fine_tune.load_what_fits(model, checkpoint, ABC, ABC)
    assert f": {len(model.variables)} tensors loaded" in report
    assert "afresh" not in report
    for got, want in zip(model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("unknown", [None, label_map("class 1", "class 2", "class 3")])
def test_classes_without_names_are_taken_by_their_number(trained, checkpoint, unknown):
    model = make_model(4, seed=1)
    fine_tune.load_what_fits(model, checkpoint, label_map("x", "y", "z"), unknown)
    for got, want in zip(model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    model = make_model(3, seed=1)
    before = model.roi_heads.box_head.class_logits.bias.numpy()
    report = fine_tune.load_what_fits(model, checkpoint, label_map("x", "y"), unknown)
    assert_rest_equal(model, trained)
    assert "initialised afresh ((4,) in the checkpoint, (3,) here)" in report
    np.testing.assert_array_equal(model.roi_heads.box_head.class_logits.bias, before)


def test_classes_of_the_same_name_are_carried_over(trained, checkpoint):
    model, fresh = make_model(5, seed=1), make_model(5, seed=1)
    ours = label_map("Kite", "owl", "cat", "fox")
    report = fine_tune.load_what_fits(model, checkpoint, ours, ABC)
    assert "6 tensors of the last layers: 2 classes carried over (Kite, cat)" in report
    assert "with background, 2 initialised afresh" in report
    assert_rest_equal(model, trained)
    theirs_of = {0: 0, 1: 3, 3: 1}  # class -> class of the checkpoint
    for path in ("box_head.class_logits", "box_head.box_deltas"):
        for leaf in ("kernel", "bias"):
            got, old, new = (
                getattr(layer_of(m, path), leaf).numpy() for m in (model, trained, fresh)
            )
            assert_columns(got, old, new, theirs_of, 1 if "logits" in path else 4)
    for name in ("predictor_kernel", "predictor_bias"):
        got, old, new = (
            getattr(m.roi_heads.mask_head, name).numpy() for m in (model, trained, fresh)
        )
        assert_columns(got, old, new, theirs_of, 1)


def layer_of(model, path):
    head, layer = path.split(".")
    return getattr(getattr(model.roi_heads, head), layer)


def assert_columns(got, old, new, theirs_of, width):
    """Columns of the five classes, background among them if there is one for each."""
    background = got.shape[-1] == 5 * width
    for ours in range(0 if background else 1, 5):
        theirs = theirs_of.get(ours)
        source, k = (new, ours) if theirs is None else (old, theirs)
        shift = 0 if background else 1
        np.testing.assert_array_equal(
            got[..., (ours - shift) * width : (ours - shift + 1) * width],
            source[..., (k - shift) * width : (k - shift + 1) * width],
        )


def test_no_class_in_common(trained, checkpoint):
    model, fresh = make_model(4, seed=1), make_model(4, seed=1)
    report = fine_tune.load_what_fits(model, checkpoint, label_map("x", "y", "z"), ABC)
    assert_rest_equal(model, trained)
    last = next(line for line in report.splitlines() if "(other classes)" in line)
    for layer in ("class_logits", "box_deltas", "mask_head"):
        assert layer in last
    for got, want in zip(model.variables, fresh.variables, strict=True):
        if is_last(got):
            np.testing.assert_array_equal(got, want)


def test_boxes_of_all_classes_are_loaded_whole(tmp_path):
    cascade = {
        "box_head": {"class_agnostic": True},
        "cascade": {"positive_ious": (0.6,), "regression_factors": (2.0,)},
    }
    trained, model = make_model(4, seed=2, **cascade), make_model(5, seed=1, **cascade)
    tiny_network.randomize(trained)
    path = tf.train.Checkpoint(model=trained).save(str(tmp_path / "ckpt"))
    report = fine_tune.load_what_fits(model, path, label_map("kite", "owl", "cat", "fox"), ABC)
    assert "6 tensors of the last layers: 2 classes carried over (kite, cat)" in report
    for got, want in zip(model.roi_heads.box_heads, trained.roi_heads.box_heads, strict=True):
        np.testing.assert_array_equal(got.box_deltas.kernel, want.box_deltas.kernel)
        theirs = want.class_logits.bias.numpy()[[0, 3, 1]]
        np.testing.assert_array_equal(got.class_logits.bias.numpy()[[0, 1, 3]], theirs)


def test_what_mixes_classes_starts_afresh(tmp_path):
    """As many classes in another order: all that PointRend's points see is of other classes."""
    points = {"point_rend": {"num_points": 8, "coarse_fc_layers": 1, "coarse_fc_channels": 9}}
    trained, model = make_model(4, seed=2, **points), make_model(4, seed=1, **points)
    fresh = make_model(4, seed=1, **points)
    tiny_network.randomize(trained)
    path = tf.train.Checkpoint(model=trained).save(str(tmp_path / "ckpt"))
    ours = label_map(*reversed(ABC.names))
    fine_tune.load_what_fits(model, path, ours, ABC)
    heads = [network.roi_heads.mask_head for network in (model, trained, fresh)]
    for got, loaded, kept in zip(*(head.variables for head in heads), strict=True):
        mixes = "point_head" in got.name or "mask_logits" in got.name
        np.testing.assert_array_equal(got, kept if mixes else loaded, got.name)
    fine_tune.load_what_fits(model, path, ABC, ABC)
    for got, loaded in zip(heads[0].variables, heads[1].variables, strict=True):
        np.testing.assert_array_equal(got, loaded)


def test_a_backbone_alone(trained, tmp_path):
    root = tf.train.Checkpoint(model=tf.train.Checkpoint(backbone=trained.backbone))
    root.save(str(tmp_path / "ckpt"))
    model, fresh = make_model(4, seed=1), make_model(4, seed=1)
    report = fine_tune.load_what_fits(model, str(tmp_path), ABC, None)
    assert f": {len(trained.backbone.variables)} tensors loaded" in report
    assert "initialised afresh (not in the checkpoint): pyramid/lateral2" in report
    for part, source in (("backbone", trained), ("pyramid", fresh), ("roi_heads", fresh)):
        got, want = getattr(model, part).get_weights(), getattr(source, part).get_weights()
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_two_layers_share_is_found_on_either(trained, checkpoint):
    """Of C4, stage 5 hangs on the backbone and on the heads; of FPN on the backbone only."""
    model = make_model(
        4, seed=1, features="c4", box_head={"pool_size": 14}, mask_head={"mask_size": 14}
    )
    report = fine_tune.load_what_fits(model, checkpoint, ABC, ABC)
    for got, want in zip(model.backbone.weights, trained.backbone.weights, strict=True):
        np.testing.assert_array_equal(got, want)
    assert "in the checkpoint, (3, 3, 32, 32) here): rpn/head/convs/0" in report


def test_heads_of_another_size_are_named(trained, checkpoint):
    model = make_model(4, seed=1, box_head={"fc_channels": 7})
    report = fine_tune.load_what_fits(model, checkpoint, ABC, label_map("dog", "cat", "cow"))
    assert "(32,) in the checkpoint, (7,) here): roi_heads/box_head/hidden/0" in report
    assert "initialised afresh (other classes): roi_heads/box_head/class_logits" in report


def test_another_backbone_is_refused_and_nothing_assigned(checkpoint):
    model = make_model(4, seed=1, backbone={"depth": 34})
    before = model.get_weights()
    with pytest.raises(ValueError, match="another backbone.* backbone/stage.*not in the checkp"):
        fine_tune.load_what_fits(model, checkpoint, ABC, ABC)
    for got, want in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_what_is_no_checkpoint(tmp_path, checkpoint):
    with pytest.raises(ValueError, match="no checkpoint: .*nowhere"):
        fine_tune.load_what_fits(make_model(4), str(tmp_path / "nowhere"), ABC, ABC)
    other = tf.train.Checkpoint(step=tf.Variable(1)).save(str(tmp_path / "ckpt"))
    with pytest.raises(ValueError, match="nothing of it fits this model"):
        fine_tune.load_what_fits(make_model(4), other, ABC, ABC)


def test_under_mixed_precision(trained, checkpoint):
    """Variables are wrapped there."""
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = make_model(4, seed=1)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    fine_tune.load_what_fits(model, checkpoint, ABC, ABC)
    for got, want in zip(model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_under_a_mirrored_strategy(trained, checkpoint):
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        model = make_model(4, seed=1)
        fine_tune.load_what_fits(model, checkpoint, ABC, ABC)
    for got, want in zip(model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", ["fcn", "mlp"])
@pytest.mark.parametrize("classes", ["independent", "softmax", "agnostic"])
def test_masks_of_every_kind_carry_their_classes_over(kind, classes, tmp_path):
    """Each map of the last layer goes with its class, background's with background."""
    sizes = {"mask_head": {"type": kind, "classes": classes, "mask_size": 4, "fc_channels": 6}}
    theirs, ours = make_model(4, **sizes), make_model(3, seed=1, **sizes)
    fresh = ours.roi_heads.mask_head.predictor_bias.numpy() + 7.0
    ours.roi_heads.mask_head.predictor_bias.assign(fresh)
    head = theirs.roi_heads.mask_head
    pixels = 16 if kind == "mlp" else 1
    # In map m all values are m: background, if it has one, comes first.
    maps = {"independent": 3, "softmax": 4, "agnostic": 1}[classes]
    head.predictor_bias.assign(np.repeat(np.arange(maps), pixels))
    path = tf.train.Checkpoint(model=theirs).save(str(tmp_path / "ckpt"))
    fine_tune.load_what_fits(ours, path, label_map("owl", "kite"), ABC)
    got = ours.roi_heads.mask_head.predictor_bias.numpy().reshape(-1, pixels)
    want = {"independent": [7, 2], "softmax": [0, 7, 3], "agnostic": [0]}[classes]
    np.testing.assert_array_equal(got, np.repeat(want, pixels).reshape(-1, pixels))
