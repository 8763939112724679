"""PyTorch's files without PyTorch: what it wrote is read (`torch_samples.py`), and damaged ones."""

import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.weights import files, torch_files
from tests.weights import torch_samples as samples

BOTH = pytest.mark.parametrize("form", ["ZIP", "LEGACY"])


def read_bytes(content):
    if content.startswith(b"PK"):
        return torch_files.read_archive(io.BytesIO(content))
    return torch_files.read_legacy(content)


def sample(name, form):
    return read_bytes(getattr(samples, f"{name}_{form}"))


@BOTH
def test_views_of_one_storage(form):
    """A storage 0..11: rows 1 and 2 of [3, 4] without the outer columns; all of it turned."""
    got = sample("VIEWS", form)
    assert list(got) == ["rows", "turned", "alone"]
    np.testing.assert_array_equal(got["rows"].array(), [[5, 6], [9, 10]])
    np.testing.assert_array_equal(got["turned"].array(), np.arange(12).reshape(3, 4).T)
    assert got["rows"].storage is got["turned"].storage
    assert got["rows"].storage.content is got["turned"].storage.content  # read once
    np.testing.assert_array_equal(got["alone"].array(), np.float32([-1.5]))


@BOTH
def test_types(form):
    got = {name: tensor.array() for name, tensor in sample("TYPES", form).items()}
    want = {
        "f16": np.float16([1.5, -2]),
        "bf16": np.array([1.5, -2], ml_dtypes.bfloat16),
        "f64": np.float64(3.25),
        "i64": np.int64([[2**40]]),
        "i32": np.int32([-5]),
        "i16": np.int16([300]),
        "i8": np.int8([-3]),
        "u8": np.uint8([255]),
        "bool": np.array([True, False, True]),
        "none": np.zeros([0, 3], np.float32),
        "parameter": np.ones(2, np.float32),
    }
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        assert got[name].shape == value.shape, name
        np.testing.assert_array_equal(got[name], value)


@BOTH
def test_what_lies_beside_the_weights_is_passed_over(form, tmp_path):
    path = tmp_path / "run.pth"
    path.write_bytes(getattr(samples, f"RUN_{form}"))
    got = files.read_weights(str(path))
    assert got.tensors.keys() == {"w"}
    np.testing.assert_allclose(got.tensors["w"], [1.9], rtol=1e-6)  # 2 - 0.1 * 1
    assert got.notes == [
        "the weights in 'model' taken",
        "beside the weights, not read: optimizer, args (argparse.Namespace), epoch, device "
        "(torch.device), size, kind",
    ]


@BOTH
def test_a_tensor_with_attributes_and_one_of_a_newer_type(form):
    got = sample("TAGGED", form)
    np.testing.assert_array_equal(got["tagged"].array(), [4])
    np.testing.assert_array_equal(got["u16"].array(), np.uint16([65535]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("QUANTIZED", "'w' is a quantized tensor, which is not read"),
        ("SPARSE", "'w' is a sparse tensor"),
        ("META", "'w' is a tensor without numbers"),
        ("COMPLEX", "'w' is of the type torch.ComplexFloatStorage, which is not read"),
        ("MODULE", "it asks for torch.nn.modules.linear.Linear, .* write its state_dict.. alone"),
        ("TORCHSCRIPT", "a TorchScript program, not a file of weights"),
    ],
)
def test_what_is_no_state_dict_is_named(name, said, tmp_path):
    path = tmp_path / "other.pt"
    path.write_bytes(getattr(samples, name))
    with pytest.raises(ValueError, match=f"other.pt: {said}"):
        files.read(str(path))


@BOTH
def test_every_truncation_is_refused(form):
    content = getattr(samples, f"TYPES_{form}")
    for length in range(0, len(content), 1 if form == "LEGACY" else 7):
        with pytest.raises(ValueError, match=r"cut off or damaged|damaged archive|pickled"):
            [tensor.array() for tensor in read_bytes(content[:length]).values()]


def test_the_tar_of_the_first_versions_is_named(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(bytes(257) + b"ustar" + bytes(250))
    with pytest.raises(ValueError, match=r"old.pth: .*found a tar archive .PyTorch before 0.1.10"):
        files.read(str(path))


def rewritten(content, entries=(), compression=zipfile.ZIP_STORED):
    """A zip archive with some entries replaced (None: left out), or otherwise packed."""
    entries = dict(entries)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            value = entries.get(name.split("/", 1)[1], old.read(name))
            if value is not None:
                new.writestr(name, value, compression)
    return packed.getvalue()


def test_archives_that_somebody_packed_again():
    packed = rewritten(samples.VIEWS_ZIP, compression=zipfile.ZIP_DEFLATED)
    assert len(packed) != len(samples.VIEWS_ZIP)
    np.testing.assert_array_equal(read_bytes(packed)["rows"].array(), [[5, 6], [9, 10]])
    without_order = rewritten(samples.VIEWS_ZIP, {"byteorder": None})  # PyTorch 1.6 wrote none
    np.testing.assert_array_equal(read_bytes(without_order)["alone"].array(), np.float32([-1.5]))
    with pytest.raises(ValueError, match="packed in an unusual way"):
        read_bytes(rewritten(samples.VIEWS_ZIP, compression=zipfile.ZIP_LZMA))


def test_big_endian_numbers_are_refused():
    with pytest.raises(ValueError, match="big-endian"):
        read_bytes(rewritten(samples.VIEWS_ZIP, {"byteorder": b"big"}))
    place = samples.VIEWS_LEGACY.index(b"little_endian") + len(b"little_endianq\x00")
    assert samples.VIEWS_LEGACY[place] == pickle.NEWTRUE[0]
    big = samples.VIEWS_LEGACY[:place] + pickle.NEWFALSE + samples.VIEWS_LEGACY[place + 1 :]
    with pytest.raises(ValueError, match="big-endian"):
        read_bytes(big)


def test_a_storage_of_another_length_than_its_tensors_say():
    for given in (bytes(44), bytes(52), None):
        with pytest.raises(ValueError, match="cut off or damaged"):
            read_bytes(rewritten(samples.VIEWS_ZIP, {"data/0": given}))["rows"].array()


def test_an_archive_that_unpacks_to_a_multiple_is_not_unpacked():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(2**27))
    assert len(packed.getvalue()) < 2**18
    with pytest.raises(ValueError, match="that would unpack to 134,217,"):
        read_bytes(packed.getvalue())


def pickled_view(offset, shape, strides, count=4):
    """The pickle of {"w": view of `count` float32 numbers}."""
    number = lambda n: b"\x8a\x08" + struct.pack("<q", n)  # noqa: E731
    text = lambda t: b"X" + struct.pack("<I", len(t)) + t  # noqa: E731
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu")
    storage += number(count) + b"tQ"
    tuples = [b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (shape, strides)]
    arguments = storage + number(offset) + b"".join(tuples) + b"\x89}t"
    return b"\x80\x02}" + text(b"w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"Rs."


def test_a_view_made_by_hand():
    """The pickle of the next test is one that is read, where its numbers are right."""
    numbers = np.float32([3, 4, 5, 6]).tobytes()
    program = pickled_view(1, (2,), (2,))
    content = rewritten(samples.VIEWS_ZIP, {"data.pkl": program, "data/0": numbers})
    np.testing.assert_array_equal(read_bytes(content)["w"].array(), [4, 6])


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (4,), (1,)),
        (0, (2, 2), (4, 1)),
        (0, (2**30, 2), (0, 0)),  # eight gigabytes of the same number
        (0, (2**20, 2**30), (1, 1)),
        (4, (1,), (1,)),
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
    ],
)
def test_views_beyond_their_storage_are_refused(offset, shape, strides):
    program = pickled_view(offset, shape, strides)
    content = rewritten(samples.VIEWS_ZIP, {"data.pkl": program, "data/0": bytes(16)})
    with pytest.raises(ValueError, match=r"view of|strides|shape"):
        read_bytes(content)["w"].array()


def test_what_is_written_is_what_pytorch_reads(tmp_path):
    """PyTorch 2.13 read such a file back (`weights_only`, with and without mmap): by hand."""
    state = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "count": np.int64(3),
        "half": np.float16([1, 2]),
        "brain": np.array([1.5], ml_dtypes.bfloat16),
        "none": np.zeros([0, 2], np.float64),
    }
    path = str(tmp_path / "ours.pth")
    files.write(path, state)
    got = files.read(path)
    for name, tensor in state.items():
        assert got[name].dtype == tensor.dtype
        np.testing.assert_array_equal(got[name], tensor)
    torch = pytest.importorskip("torch")
    for name, tensor in torch.load(path, weights_only=True).items():
        np.testing.assert_array_equal(tensor.to(torch.float64).numpy(), state[name].astype(float))


def test_types_that_pytorch_has_not_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="'w' is of the type complex64"):
        files.write(str(tmp_path / "a.pth"), {"w": np.zeros(2, np.complex64)})


def test_files_in_other_file_systems():
    for name, content in (("a.pth", samples.VIEWS_ZIP), ("b.pt", samples.VIEWS_LEGACY)):
        path = f"ram://weights/{name}"
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(content)
        np.testing.assert_array_equal(files.read(path)["rows"], [[5, 6], [9, 10]])
    for suffix in ("pth", "npz", "pkl", "safetensors"):
        path = f"ram://weights/ours.{suffix}"
        files.write(path, {"w": np.float32([1, 2])})
        np.testing.assert_array_equal(files.read(path)["w"], [1, 2])
