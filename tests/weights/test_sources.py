"""Wrappers, prefixes and averages: which weights of a file are taken, and what is said of it."""

import numpy as np
import pytest

from mrcnn_tf.weights import sources
from mrcnn_tf.weights.pickle_values import Record
from tests.weights import foreign_shapes as foreign

TV = foreign.state_dict(foreign.torchvision(foreign.small(), outputs=4))
D2 = foreign.state_dict(foreign.detectron2(foreign.small(), classes=3))
CAFFE2 = foreign.state_dict(foreign.caffe2_backbone(foreign.small(depth=50)))
BACKBONE = foreign.state_dict(foreign.torchvision_backbone(foreign.small()))
AVERAGE = {name: tensor + 1 for name, tensor in TV.items()}


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def is_same(got, want):
    return got.keys() == want.keys() and all(got[name] is want[name] for name in want)


@pytest.mark.parametrize("state", [TV, D2, CAFFE2, BACKBONE], ids=["tv", "d2", "caffe2", "resnet"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.", "_orig_mod.", "a.b.module."])
@pytest.mark.parametrize("keys", [(), ("model",), ("state_dict",), ("checkpoint", "net")])
def test_every_wrapper_comes_off(state, prefix, keys):
    content = prefixed(prefix, state)
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: {"m": np.ones(2)}}}}
    got, notes = sources.choose(content)
    assert is_same(got, state)
    assert any("names are read without" in note for note in notes) == bool(prefix)
    assert any("optimizer" in note for note in notes) == bool(keys)


def test_wrappers_inside_of_names():
    """A part that was compiled, or wrapped for several GPUs."""
    inner = {name.replace("backbone.", "backbone._orig_mod."): t for name, t in TV.items()}
    inner = {name.replace("roi_heads.", "roi_heads.module."): t for name, t in inner.items()}
    got, notes = sources.choose(inner)
    assert is_same(got, TV)
    assert notes == ["names are read without '_orig_mod.', 'module.'"]
    with pytest.raises(ValueError, match="has both 'x' and 'module.x'"):
        sources.choose({"x": np.ones(1), "module.x": np.ones(1)})


def test_what_lies_beside_is_listed():
    content = {"model": TV, "args": Record("argparse.Namespace"), "epoch": 3, "rng": np.ones(9)}
    _, notes = sources.choose(content)
    assert notes[-1] == "beside the weights, not read: args (argparse.Namespace), epoch, rng"
    many = {f"thing{i}": i for i in range(20)}
    assert sources.choose({"model": TV} | many)[1][-1].endswith("thing7 and 12 more")


@pytest.mark.parametrize("key", ["model_ema", "ema", "ema_state_dict", "modelEMA", "swa_model"])
def test_an_average_beside_the_weights(key):
    content = {"model": TV, key: AVERAGE}
    got, notes = sources.choose(content)
    assert is_same(got, TV)
    assert notes == [
        "the weights in 'model' taken",
        f"a running average in '{key}' not taken; --weights={key} takes them",
    ]
    got, notes = sources.choose(content, key)
    assert is_same(got, AVERAGE)
    assert notes[0] == f"the running average in '{key}' taken"
    assert is_same(sources.choose(content, "model")[0], TV)


def test_an_average_of_pytorchs_own_class():
    """`torch.optim.swa_utils.AveragedModel`: everything below `module.`, and a counter."""
    average = prefixed("module.", AVERAGE) | {"n_averaged": np.int64(7)}
    got, notes = sources.choose(average)
    assert is_same(got, AVERAGE)
    assert notes[0] == "the running average in 'top' taken"
    got, _ = sources.choose({"a": TV, "b": average})
    assert is_same(got, TV)
    got, _ = sources.choose({"a": TV, "b": average}, "b")
    assert is_same(got, AVERAGE)


def test_an_average_deep_in_the_file():
    content = {"state_dict": TV, "ema": {"decay": 0.99, "shadow": AVERAGE}}
    assert is_same(sources.choose(content)[0], TV)
    assert is_same(sources.choose(content, "ema.shadow")[0], AVERAGE)


def test_an_average_of_the_trained_weights_alone_gets_the_statistics():
    """Without, a norm would stand for mean 0 and variance 1."""
    trained = {n: t for n, t in AVERAGE.items() if "running" not in n}
    got, notes = sources.choose({"model": TV, "ema": trained}, "ema")
    assert got.keys() == TV.keys()
    name = "backbone.body.bn1.running_mean"
    assert got[name] is TV[name]
    assert got["backbone.body.bn1.weight"] is AVERAGE["backbone.body.bn1.weight"]
    count = len(TV) - len(trained)
    assert notes[-1] == (
        f"{count} statistics of norms, which the average lacks, are those of model"
    )


def test_several_networks_are_asked_about():
    both = prefixed("modelStudent.", D2) | prefixed("modelTeacher.", D2)
    got, notes = sources.choose(both)
    assert is_same(got, D2)
    assert "a running average in 'modelTeacher' not taken" in notes[1]
    both = prefixed("encoder_q.", BACKBONE) | prefixed("encoder_k.", BACKBONE)
    with pytest.raises(ValueError, match="several networks, 'encoder_q', 'encoder_k': say which"):
        sources.choose(both)
    assert is_same(sources.choose(both, "encoder_k")[0], BACKBONE)
    with pytest.raises(ValueError, match="has no weights 'model'; it has 'encoder_q', 'encoder_k'"):
        sources.choose(both, "model")


def test_what_is_none_of_the_network_is_left_out_and_listed():
    content = prefixed("model.", TV) | {"criterion.weight": np.ones(3), "__author__": "somebody"}
    got, notes = sources.choose(content)
    assert is_same(got, TV)
    assert notes[-1] == "beside the weights, not read: criterion.weight, __author__"
    unknown = TV | {"criterion.weight": np.ones(3)}  # what belongs to the network is not left out
    assert "criterion.weight" in sources.choose(unknown)[0]


def test_networks_that_are_not_known_keep_their_names_and_get_them_back():
    other = {"layers.0.weight": np.ones([2, 2]), "layers.0.bias": np.ones(2)}
    got, _ = sources.choose({"state_dict": prefixed("module.", other), "epoch": 3})
    assert is_same(got, other)


def test_dicts_that_hold_each_other():
    content = {"model": TV}
    content["self"] = content
    assert is_same(sources.choose(content)[0], TV)
    with pytest.raises(ValueError, match="holds no tensors"):
        sources.choose({"a": {"b": {}}, "c": [1]})
