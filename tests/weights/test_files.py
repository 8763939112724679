"""Reading and writing weight files; hostile and damaged ones."""

import json
import pickle
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
import tf_keras

from mrcnn_tf.weights import files
from tests.weights import torch_samples

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


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".pth", ".pt", ".safetensors"])
def test_what_is_written_is_read_again(tmp_path, suffix):
    path = str(tmp_path / f"weights{suffix}")
    files.write(path, STATE)
    assert_same(files.read(path), STATE)


def test_a_pickle_of_the_zoo_has_its_model_unwrapped(tmp_path):
    path = tmp_path / "model_final.pkl"
    content = {"model": STATE, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert_same(files.read(str(path)), STATE)


def test_a_pickle_of_something_else(tmp_path):
    path = tmp_path / "a.pkl"
    for content, message in [
        ([1, 2], "a pickled list, not a dict of tensors"),
        ({}, "holds no tensors"),
        ({"__author__": "me"}, "holds no tensors"),
        ({"w": np.array(["a"])}, "it holds an array of the type 'U1', and only numbers are read"),
    ]:
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=f"a.pkl: {message}"):
            files.read(str(path))


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
    with pytest.raises(ValueError, match=r"a.npz: 'objects.npy' holds objects"):
        files.read(str(path))
    np.savez(path, texts=np.array(["a"]))
    with pytest.raises(ValueError, match=r"a.npz: 'texts' is not numbers but <U1"):
        files.read(str(path))


def write_npz(path, header, content):
    """An archive with one array whose header says what we want."""
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
        archive.writestr("w.npy", start + text + content)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824, 1024), }", "of which th"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, ), }", "of the shape tuple"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1, ), }", "holds objects"),
        ("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1, ), }", "no array of NumPy"),
        ("{'shape': (1, ), }", "no array of NumPy"),
        ("(" * 3000, "no array of NumPy"),
    ],
)
def test_headers_of_arrays_are_not_believed(tmp_path, header, said):
    path = tmp_path / "a.npz"
    write_npz(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, ), }", bytes(8))
    assert files.read(str(path))["w"].tolist() == [0, 0]
    write_npz(path, header, bytes(8))
    with pytest.raises(ValueError, match=f"a.npz: .*{said}"):
        files.read(str(path))


def test_a_file_of_keras_that_would_unpack_to_gigabytes(tmp_path):
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["a"]
        file.create_group("a").attrs["weight_names"] = ["a/kernel:0"]
        file["a"].create_dataset("a/kernel:0", (2**20, 2**12), "f4", chunks=(2**10, 2**10))
    with pytest.raises(ValueError, match="a.h5: a file of .* would unpack to 17,179,869,184"):
        files.read(path)


def keras_file(path, fill):
    """A file of one layer "a"; `fill` puts its weights into the group."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["a"]
        fill(file.create_group("a"))


def test_many_tensors_of_keras_that_would_unpack_to_gigabytes(tmp_path):
    """Each within what one may take; the last in a chunk that is larger than it."""
    path = str(tmp_path / "a.h5")
    names = [f"{k}:0" for k in range(4)]

    def fill(group):
        group.attrs["weight_names"] = names
        for name in names:
            group.create_dataset(name, (2**22,), "f4", chunks=(2**10,), compression="gzip")

    keras_file(path, fill)
    assert files.read(path)["3"].size == 2**22
    names.append("4:0")
    keras_file(path, fill)
    with pytest.raises(ValueError, match="a.h5: a file of .* would unpack to 83,886,080"):
        files.read(path)

    def fill_a_chunk(group):
        group.attrs["weight_names"] = ["w:0"]
        group.create_dataset("w:0", (1,), "f4", chunks=(2**25,), maxshape=(None,))

    keras_file(path, fill_a_chunk)
    with pytest.raises(ValueError, match="a.h5: a file of .* would unpack to 134,217,728"):
        files.read(path)


@pytest.mark.parametrize("way", ["link", "soft link", "layer", "model", "numbers", "virtual"])
def test_a_file_of_keras_reads_no_other(tmp_path, way):
    secret, path = tmp_path / "secret.h5", str(tmp_path / "a.h5")
    keras_file(secret, lambda group: group.create_dataset("kernel:0", data=np.arange(4.0)))
    (tmp_path / "secret.bin").write_bytes(np.arange(4.0).tobytes())

    def fill(group):
        group.attrs["weight_names"] = ["kernel:0"]
        if way == "link":
            group["kernel:0"] = h5py.ExternalLink(str(secret), "/a/kernel:0")
        elif way == "soft link":
            group["kernel:0"] = h5py.SoftLink("/b/kernel:0")
            group.file["b"] = h5py.ExternalLink(str(secret), "/a")
        elif way == "layer":
            group.file["b"] = h5py.ExternalLink(str(secret), "/a")
        elif way == "model":
            group.file["model_weights"] = h5py.ExternalLink(str(secret), "/")
        elif way == "numbers":
            other = [(str(tmp_path / "secret.bin"), 0, 32)]
            group.create_dataset("kernel:0", (4,), "f8", external=other)
        else:
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "a/kernel:0", (4,))
            group.create_virtual_dataset("kernel:0", layout)

    if way in ("layer", "model"):

        def fill_plainly(group):
            group.attrs["weight_names"] = ["kernel:0"]
            group.create_dataset("kernel:0", data=np.arange(4.0))
            fill_links(group)

        fill_links, fill = fill, fill_plainly
    keras_file(path, fill)
    with pytest.raises(ValueError, match=r"a.h5: .*(a link, which is not|are in another file)"):
        files.read(path)


def test_an_index_of_a_checkpoint_is_not_believed(tmp_path):
    """It says that one number is a piece of a matrix of four terabytes."""
    prefix = str(tmp_path / "ckpt")
    for shape in ("", "2 1 0,2:0,1", "1000000 1000000 0,2:0,1"):
        tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=["w"], shape_and_slices=[shape], tensors=[[[1.5], [2.0]]]
        )
        if len(shape) < 15:
            assert files.read(prefix)["w"].tolist() == [[1.5], [2.0]]
    with pytest.raises(ValueError, match="4,000,000,000,000 bytes are announced, 8 are there"):
        files.read(prefix)


@pytest.mark.parametrize("ending", [".bin", ".ckpt", ".pth.tar", ".pyth", ".pkl", ".pickle"])
def test_endings_that_people_give_pytorchs_files(tmp_path, ending):
    path = tmp_path / f"model.v2{ending}"
    path.write_bytes(torch_samples.VIEWS_ZIP)
    assert files.read(str(path)).keys() == {"rows", "turned", "alone"}


def test_safetensors(tmp_path):
    path = str(tmp_path / "model.safetensors")
    safetensors.numpy.save_file(STATE, path, metadata={"format": "pt"})
    assert_same(files.read(path), STATE)
    half = np.array([1.5, -3.0], ml_dtypes.bfloat16)
    write_safetensors(path, "BF16", [2], [0, 4], half.tobytes())
    np.testing.assert_array_equal(files.read(path)["w"], half)


def write_safetensors(path, dtype, shape, offsets, content, size=None):
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    start = (len(header) if size is None else size).to_bytes(8, "little")
    with open(path, "wb") as file:
        file.write(start + header + content)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("F32", [2], [0, 8], bytes(7)), "no readable safetensors file"),
        (("F32", [2], [0, 4], bytes(4)), "no readable safetensors file"),
        (("F32", [2**40, 2**40], [0, 4], bytes(4)), "no readable safetensors file"),
        (("F32", [1], [4, 0], bytes(4)), "no readable safetensors file"),
        (("F32", [1], [0, 4], bytes(4), 2**60), "no readable safetensors file"),
        (("F8_E4M3", [4], [0, 4], bytes(4)), "'w' has the type F8_E4M3, which is not read"),
    ],
)
def test_headers_of_safetensors_are_not_believed(tmp_path, arguments, said):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, *arguments)
    with pytest.raises(ValueError, match=f"a.safetensors: {said}"):
        files.read(str(path))


def test_unknown_ending_and_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pkl"):
        files.read(str(tmp_path / "nowhere.pkl"))
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a.onnx: files are read that end in .*.h5, .npz, .pi"):
        files.read(str(tmp_path / "a.onnx"))
    with pytest.raises(ValueError, match=r"a.onnx: state dicts are written as files that end"):
        files.write(str(tmp_path / "a.onnx"), STATE)


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
