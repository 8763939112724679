"""The machine that runs pickles: what weights are written with, and everything else."""

import argparse
import collections
import io
import os
import pathlib
import pickle
import random
import re
import struct
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from mrcnn_tf.weights import pickle_machine, pickles
from tests.weights import torch_samples

ARRAYS = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "none": np.zeros([0, 3], np.float32),
    "one": np.array(2.5),
    "half": np.float16([1, -2]),
    "brain": np.array([1.5, -3], ml_dtypes.bfloat16),
    "big-endian": np.arange(3, dtype=">f4"),
    "yes": np.array([True, False]),
    "bytes": np.uint8([0, 127, 128, 255]),
    "number": np.float64(3.5),
}


def load(content):
    return pickles.load(io.BytesIO(content))


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"])
def test_arrays_of_every_protocol_and_numpy(protocol, module):
    pickled = pickle.dumps(collections.OrderedDict(ARRAYS), protocol)
    if protocol in (2, 3):  # where names end at a newline they can be replaced
        pickled = pickled.replace(b"numpy._core", module)
    got = load(pickled)
    assert got.keys() == ARRAYS.keys()
    for name, want in ARRAYS.items():
        np.testing.assert_array_equal(got[name], want)
        assert (got[name].dtype, got[name].shape) == (want.dtype, want.shape), name


def test_an_array_of_python_2():
    """Its bytes were text: `SHORT_BINSTRING`."""
    content = np.float32([1.5, -2]).tobytes()
    program = b"\x80\x02}U\x01w" + numpy_array(b"U\x02f4", (2,), b"U" + b"\x08" + content) + b"s."
    np.testing.assert_array_equal(load(program)["w"], np.float32([1.5, -2]))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values(protocol):
    shared = ["a", 1]
    content = {
        "none": None,
        "flags": [True, False],
        "numbers": (0, 255, 65535, -1, 2**31 - 1, -(2**31), 2**40, -(2**70), 1.5, 1e300),
        "texts": ["", "é", "漢", "x" * 300],
        "bytes": [b"", b"\x00\xff", b"y" * 300],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "lists": [[], [1], shared, shared],
        "dicts": [{}, {1: 2}, {1.5: None, "a": {"b": {}}}],
        "many": list(range(1500)),
        "default": collections.defaultdict(list, {"a": [1]}),
    }
    got = load(pickle.dumps(content, protocol))
    assert got == content
    assert got["lists"][2] is got["lists"][3]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_what_programs_leave_beside_weights_is_stood_in_for(protocol):
    beside = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("a/b")),
        "path": pathlib.PurePosixPath("/x/y"),
        "set": {1, 2},
        "frozen": frozenset([1]),
        "deque": collections.deque([1, 2]),
        "counter": collections.Counter("aab"),
    }
    got = load(pickle.dumps(beside, protocol))
    assert got["args"] == pickle_machine.Record("argparse.Namespace")
    assert got["path"].what.endswith("PurePosixPath")
    assert got["counter"] == {"a": 2, "b": 1}
    assert {type(got[key]).__name__ for key in ("set", "frozen", "deque")} <= {"Record", "list"}


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "asked_for"),
    [
        (os.system, ["touch {}"], "posix.system"),
        (eval, ["open({!r}, 'w')"], "(__builtin__|builtins).eval"),
        (io.open, ["{}", "w"], "io.open|_io.open"),
        (np.load, ["{}"], "numpy.load"),
        (np.savetxt, ["{}", [1]], "numpy.savetxt"),
        (getattr, [1, "real"], "(__builtin__|builtins).getattr"),
    ],
)
def test_a_call_is_refused_by_name_and_runs_nothing(
    tmp_path, protocol, function, arguments, asked_for
):
    victim = tmp_path / "touched"
    arguments = [a.format(str(victim)) if isinstance(a, str) else a for a in arguments]
    pickled = pickle.dumps({"model": {"a": Call(function, *arguments)}}, protocol)
    with pytest.raises(pickle_machine.RefusedError, match=f"it asks for ({asked_for}), .*was run"):
        load(pickled)
    assert not victim.exists()
    if function is os.system:
        pickle.loads(pickled)
        assert victim.exists()  # it would have worked


def numpy_dtype(code, order=b"U\x01<", rest=b"NNN"):
    """Instructions of a type; `code` and the others are instructions, too."""
    return b"cnumpy\ndtype\n(" + code + b"\x89\x88tR(K\x03" + order + rest + b"K\x00K\x00K\x00tb"


def numpy_array(code, shape, content, order=b"U\x01<", rest=b"NNN"):
    shell = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    sides = b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", side) for side in shape) + b"t"
    return shell + b"(K\x01" + sides + numpy_dtype(code, order, rest) + b"\x89" + content + b"tb"


EIGHT = b"U\x08" + bytes(8)
HOSTILE = {
    "a type with fields of its own": (
        numpy_array(b"U\x02V8", (1,), EIGHT, rest=b"N(U\x01at}U\x01aK\x00s"),
        "an array of records",
    ),
    "a type made of another": (
        numpy_array(b"U\x02f8", (1,), EIGHT, rest=b"(K\x01K\x02tNN"),
        "an array of records",
    ),
    "objects": (numpy_array(b"U\x02O8", (1,), EIGHT), "an array of the type 'O8'"),
    "raw memory": (numpy_array(b"U\x03V64", (1,), EIGHT), "an array of the type 'V64'"),
    "texts": (numpy_array(b"U\x02U2", (1,), EIGHT), "an array of the type 'U2'"),
    "an order that is none": (
        numpy_array(b"U\x02f8", (1,), EIGHT, order=b"U\x01X"),
        "an array of the type 'f8'",
    ),
    "more numbers than bytes": (
        numpy_array(b"U\x02f8", (2**20, 2**19), EIGHT),
        "an array of 4,398,046,511,104 bytes, of which there are 8",
    ),
    "sides beyond all bounds": (numpy_array(b"U\x02f8", (2**62, 4), EIGHT), "of the shape tuple"),
    "a negative side": (numpy_array(b"U\x02f8", (-1,), EIGHT), "of the shape tuple"),
    "a huge shell": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n\x8a\x06" + bytes(5) + b"\x01\x85"
        b"U\x01btRK\x00b",
        "cut off or damaged",
    ),
    "an array that is made twice": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btRq\x01h\x01"
        b"(K\x01K\x02\x85" + numpy_dtype(b"U\x02f4") + b"\x89" + EIGHT + b"tq\x02b0h\x02b",
        "it sets the state of one array twice",
    ),
    "a dict of a tuple": (
        b"ccollections\nOrderedDict\n(K\x01K\x02\x86t\x85R",
        "it makes a dict of a tuple",
    ),
    "a state for a type that is done": (
        numpy_dtype(b"U\x02f8") + b"(K\x03U\x01<NNNK\x40K\x40K\x00tb",
        "it sets the state of a",
    ),
    "an item of an array": (numpy_array(b"U\x02f8", (1,), EIGHT) + b"K\x00K\x05s", "it sets items"),
    "a frame without end": (b"\x95" + bytes(7) + b"\x40N", "a frame of 4,611,686,018,427,387,904"),
    "text that is not there": (b"X\xff\xff\xff\x7f", "2,147,483,647 bytes are announced at byte"),
    "bytes that are not there": (b"\x8e" + bytes(7) + b"\x40", "4,611,686,018,427,387,904 bytes"),
    "an integer of a megabyte": (b"\x8b\x00\x00\x10\x00", "the instruction LONG4"),
    "an integer of 255 bytes": (b"\x8a\xff" + bytes(255), "an integer of 255 bytes"),
    "code by number": (b"\x82\x01", "the instruction EXT1"),
    "an old instance": (b"(ios\nsystem\n", "the instruction INST"),
    "text in quotes": (b"S'a'\n", "the instruction STRING"),
    "a buffer from outside": (b"\x97", "the instruction NEXT_BUFFER"),
    "no instruction": (b"\xff", "no instruction of a pickle"),
    "a call of a number": (b"K\x01)R", "it calls something that is no function"),
    "a call of a stand-in": (b"cnumpy\nndarray\n)R", "it calls something that is no function"),
    "a global of a stack of numbers": (b"K\x01K\x02\x93", "a name that is no text"),
    "a name without end": (b"c" + b"a" * 1000, "a name without an end"),
    "a key that nests": (b"}(K\x01)tK\x01s", "a dict with a tuple among its keys"),
    "a key of many bits": (b"}\x8a\x0a" + b"\x01" * 10 + b"K\x01s", "a dict with a int among"),
    "a memo that is empty": (b"h\x05", "cut off or damaged"),
    "an empty stack": (b"", "cut off or damaged"),
    "a mark that is missing": (b"t", "cut off or damaged"),
    "a tuple of too little": (b"K\x01\x86", "too little on the stack"),
    "tensors of another file": (b"K\x01Q", "its tensors are not in it"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_refused(case):
    program, said = HOSTILE[case]
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        load(b"\x80\x04" + program + b".")
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_a_memo_index_takes_no_memory():
    assert load(b"\x80\x02Nr\xff\xff\xff\xff.") is None


def test_every_truncation_is_refused():
    pickled = pickle.dumps({"model": ARRAYS, "lr": [0.1]}, protocol=2)
    for length in range(len(pickled)):
        with pytest.raises(ValueError, match="cut off or damaged"):
            load(pickled[:length])


def test_instructions_are_counted(monkeypatch):
    monkeypatch.setattr(pickle_machine, "_MOST_INSTRUCTIONS", 100)
    assert load(b"\x80\x04(" + b"]" * 96 + b"t.") == ([],) * 96
    with pytest.raises(pickle_machine.RefusedError, match="more than 100 instructions"):
        load(b"\x80\x04(" + b"]" * 97 + b"t.")


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from mrcnn_tf.weights import pickles, torch_files
import io, struct
content = sys.stdin.buffer.read()
while content:
    (size,) = struct.unpack("<I", content[:4])
    one, content = content[4 : 4 + size], content[4 + size :]
    try:
        if one.startswith(b"PK"):
            got = torch_files.read_archive(io.BytesIO(one))
        elif one.startswith(torch_files.LEGACY_START):
            got = torch_files.read_legacy(one)
        else:
            got = pickles.load(io.BytesIO(one))
        for value in got.values() if isinstance(got, dict) else ():
            value.array() if hasattr(value, "array") else None
        print("read")
    except ValueError as error:
        assert str(error) and "\\n" not in str(error), error
        print("refused")
"""


def in_a_process_of_its_own(contents):
    """What becomes of files in a process that may have one gigabyte: "read" or "refused" each."""
    sent = b"".join(struct.pack("<I", len(content)) + content for content in contents)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], input=sent, capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode().split()


def test_little_files_do_not_become_large():
    """Each would take gigabytes, or forever, where sizes and calls are believed."""
    half = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x01"
    encode = b"c_codecs\nencode\n(h\x01X\x06\x00\x00\x00latin1tR"
    ordered = b"](" + b"](K\x01K\x02e" * 1000 + b"eq\x02" + b"ccollections\nOrderedDict\nh\x02\x85R"
    nested = b")" + b"q\x01h\x01\x86" * 60  # as a tree it has 2**60 leaves
    contents = [
        b"\x80\x02" + half + b"(" + encode * 2000 + b"t.",
        b"\x80\x02(" + ordered + b"ccollections\nOrderedDict\nh\x02\x85R" * 20_000 + b"t.",
        b"\x80\x02(" + b"}" * 1_900_000 + b"t.",
        b"\x80\x02" + b"]q\x01" + b"h\x01a" * 100_000 + b".",
        b"\x80\x02" + b"(" * 500_000 + b"t" * 500_000 + b".",
        b"\x80\x02}" + nested + b"K\x01s.",
        b"\x80\x02c_codecs\nencode\n" + nested + b"R.",
        b"\x80\x02cnumpy\ndtype\n(" + nested + b"\x89\x88tR(K\x03" + nested + b"NNNtb.",
    ]
    got = in_a_process_of_its_own(contents)
    assert len(got) == len(contents)
    assert got[-3:] == ["refused"] * 3


def mutated(content, rng):
    """The content with some bytes changed, left out, doubled or swapped for instructions."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        place = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            content[place] = rng.randrange(256)
        elif kind == 1:
            del content[place : place + rng.randrange(1, 8)]
        elif kind == 2:
            content[place:place] = content[place : place + rng.randrange(1, 32)]
        else:
            content[place : place + 1] = rng.choice(INSTRUCTIONS)
        if not content:
            return b""
    return bytes(content)


INSTRUCTIONS = [getattr(pickle, name) for name in dir(pickle) if name.isupper()]
INSTRUCTIONS = [code for code in INSTRUCTIONS if isinstance(code, bytes) and len(code) == 1]


def fuzzed(count, seed):
    whole = [
        pickle.dumps({"model": ARRAYS, "__author__": "x"}, 2),
        pickle.dumps(ARRAYS, 5),
        torch_samples.VIEWS_ZIP,
        torch_samples.VIEWS_LEGACY,
        torch_samples.TYPES_LEGACY,
        torch_samples.RUN_LEGACY,
        torch_samples.TAGGED_ZIP,
    ]
    rng = random.Random(seed)
    return [mutated(rng.choice(whole), rng) for _ in range(count)]


def test_damage_of_any_kind_ends_in_a_sentence():
    got = in_a_process_of_its_own(fuzzed(3000, seed=0))
    assert len(got) == 3000
    assert got.count("refused") > 1000
    assert got.count("read") > 100


@pytest.mark.slow
def test_much_damage_ends_in_a_sentence():
    for seed in range(1, 4):
        assert len(in_a_process_of_its_own(fuzzed(20_000, seed))) == 20_000
