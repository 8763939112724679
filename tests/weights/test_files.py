"""Reading and writing weight files; hostile and damaged ones."""

import argparse
import collections
import io
import json
import os
import pickle
import sys

import h5py
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.weights import files, pickles

STATE = {
    "stem.weight": np.arange(12, dtype=np.float32).reshape(2, 3, 2, 1),
    "stem.bias": np.float32([0.5, -2.0]),
    "steps": np.int64([7]),
}


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        np.testing.assert_array_equal(got[name], tensor)
        assert got[name].shape == tensor.shape


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".pth", ".pt"])
def test_what_is_written_is_read_again(tmp_path, suffix):
    if suffix in (".pth", ".pt"):
        pytest.importorskip("torch")
    path = str(tmp_path / f"weights{suffix}")
    files.write(path, STATE)
    assert_same(files.read(path), STATE)


def test_a_pickle_of_the_zoo_has_its_model_unwrapped(tmp_path):
    path = tmp_path / "model_final.pkl"
    content = {"model": STATE, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert_same(files.read(str(path)), STATE)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"])
def test_pickles_of_every_protocol_and_numpy(tmp_path, protocol, module):
    path = tmp_path / "weights.pkl"
    content = collections.OrderedDict(STATE, number=np.float64(3.5))
    pickled = pickle.dumps(content, protocol=protocol)
    if protocol in (2, 3):  # where names end at a newline they can be replaced
        pickled = pickled.replace(b"numpy._core", module)
    path.write_bytes(pickled)
    if protocol < 2:  # text: Python 2 wrote such for lists of strings, not for weights
        with pytest.raises(ValueError, match="expected a pickle, found neither"):
            files.read(str(path))
        return
    got = files.read(str(path))
    assert got.pop("number") == 3.5
    assert_same(got, STATE)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "asked_for"),
    [
        (os.system, ["touch {}"], "posix.system"),
        (eval, ["open({!r}, 'w')"], "(__builtin__|builtins).eval"),
        (io.open, ["{}", "w"], "io.open|_io.open"),
        (np.load, ["{}"], "numpy.load"),
        (np.savetxt, ["{}", [1]], "numpy.savetxt"),
    ],
)
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, function, arguments, asked_for):
    victim, path = tmp_path / "touched", tmp_path / "evil.pkl"
    arguments = [a.format(str(victim)) if isinstance(a, str) else a for a in arguments]
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"model": {"a": Call(function, *arguments)}}, protocol))
        with pytest.raises(ValueError, match=f"evil.pkl: it asks for ({asked_for}).*was run"):
            files.read(str(path))
        assert not victim.exists()
    pickle.loads(path.read_bytes()) if function is os.system else None
    assert victim.exists() == (function is os.system)  # it would have worked


def test_every_truncation_of_a_pickle_is_refused():
    pickled = pickle.dumps({"model": STATE}, protocol=2)
    for length in range(1, len(pickled)):
        with pytest.raises(ValueError, match="cut off or damaged"):
            pickles.load(io.BytesIO(pickled[:length]))


def test_a_pickle_of_something_else(tmp_path):
    path = tmp_path / "a.pkl"
    for content, message in [
        ([1, 2], "a pickled list, not a dict of tensors"),
        ({}, "holds no tensors"),
        ({"__author__": "me"}, "holds no tensors"),
        ({"w": np.array(["a"])}, "'w' is not numbers but <U1"),
    ]:
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=f"a.pkl: {message}"):
            files.read(str(path))


def write_safetensors(path, state, cut=0):
    names = {np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}
    names[np.dtype(ml_dtypes.bfloat16)] = "BF16"
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in state.items():
        offsets = [len(body), len(body) + tensor.nbytes]
        kind = names[tensor.dtype]
        header[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": offsets}
        body += tensor.tobytes()
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + body
    path.write_bytes(content[: len(content) - cut])


def test_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    half = {"half": np.array([1.5, -3.0], ml_dtypes.bfloat16)}
    write_safetensors(path, STATE | half)
    got = files.read(str(path))
    np.testing.assert_array_equal(got.pop("half").astype(np.float32), [1.5, -3.0])
    assert_same(got, STATE)
    write_safetensors(path, STATE, cut=1)
    with pytest.raises(ValueError, match="model.safetensors: cut off: 'steps' is not all there"):
        files.read(str(path))
    path.write_bytes((1000).to_bytes(8, "little") + b"{")
    with pytest.raises(ValueError, match="cut off within its header"):
        files.read(str(path))


def test_safetensors_as_its_own_package_writes_them(tmp_path):
    numpy_files = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    numpy_files.save_file(STATE, path)
    assert_same(files.read(str(path)), STATE)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".safetensors", ".npz", ".h5"])
def test_wrong_kinds_are_named(tmp_path, suffix):
    for content, found in [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs", "neither of the known kinds"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
    ]:
        if suffix == ".h5" and b"HDF" in content:
            continue
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"weights{suffix}: expected .*, found {found}"):
            files.read(str(path))


def test_damaged_archives(tmp_path):
    path = tmp_path / "a.npz"
    files.write(str(path), STATE)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="a.npz"):
        files.read(str(path))
    np.savez(path, objects=np.array([{}], object))
    with pytest.raises(ValueError, match=r"a.npz: .*allow_pickle=False"):
        files.read(str(path))


def test_unknown_ending_and_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pkl"):
        files.read(str(tmp_path / "nowhere.pkl"))
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a.onnx: files are read that end in .h5, .npz, .pkl"):
        files.read(str(tmp_path / "a.onnx"))
    with pytest.raises(ValueError, match=r"a.onnx: state dicts are written as .npz"):
        files.write(str(tmp_path / "a.onnx"), STATE)


def test_without_torch_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02K\x01.")
    with pytest.raises(ImportError, match="pip install -r requirements-convert.txt"):
        files.read(str(path))


def test_torch_files(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(a.copy()) for name, a in STATE.items()}
    path = tmp_path / "a.pth"
    for zipped in (True, False):
        for content in (tensors, {"model": tensors, "epoch": 3, "optimizer": {"lr": [0.1]}}):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            assert_same(files.read(str(path)), STATE)
    torch.save({"half": torch.tensor([1.5], dtype=torch.bfloat16)}, path)
    assert files.read(str(path))["half"] == 1.5
    torch.save({"model": tensors, "args": argparse.Namespace()}, path)
    with pytest.raises(ValueError, match="a.pth: not readable as tensors only"):
        files.read(str(path))
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"a\.pth"):
        files.read(str(path))


def test_keras_weights(tmp_path):
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, name="top", input_shape=[3])])
    path = str(tmp_path / "keras.h5")
    for save in (model.save_weights, model.save):
        save(path)
        got = files.read(path)
        np.testing.assert_array_equal(got["top/kernel"], model.get_weights()[0])
        assert got.keys() == {"top/kernel", "top/bias"}
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = [1.0]
    with pytest.raises(ValueError, match=r"keras.h5: an HDF5 file, but not of Keras 2"):
        files.read(path)


def test_tensorflow_checkpoints(tmp_path):
    layer = tf_keras.layers.Dense(2)
    layer.build([None, 3])
    prefix = tf.train.Checkpoint(model=layer).save(str(tmp_path / "ckpt"))
    for path in (prefix, f"{prefix}.index", str(tmp_path)):
        got = files.read(path)
        assert got.keys() == {"model/kernel", "model/bias", "save_counter"}
        np.testing.assert_array_equal(got["model/kernel"], layer.kernel)
    (tmp_path / "ckpt-1.index").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="ckpt-1: not a readable TensorFlow checkpoint"):
        files.read(prefix)
