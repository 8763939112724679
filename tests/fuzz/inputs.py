"""Damaged and hostile input of several kinds, each a function of its seed and number alone."""

import io
import json
import pathlib
import pickle
import random
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import safetensors.numpy
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.data import crc, schema
from mrcnn_tf.weights import files
from tests.weights import torch_samples

NUMBERS = [0, 1, -1, 0.5, -0.0, 1e-300, 1e300, -1e300, float("inf"), float("-inf"), float("nan")]
NUMBERS += [2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**40]
TEXTS = ["", "a", "0", "1", "-1", "NaN", "true", "\0", "\ud800", "ü", "../a.png", "/etc/passwd"]
TEXTS += ["a" * 5000, "%00", "a\nb", "1e5", "\u202e", "C:\\a.png"]
LEAVES = [None, True, False, *NUMBERS, *TEXTS]


def generator(kind: str, seed: int, number: int) -> random.Random:
    """Return the random numbers of one input."""
    rng = random.Random(f"{kind} {seed} {number}")
    rng.number = number  # type: ignore[attr-defined]
    return rng


# --- Bytes --------------------------------------------------------------------------------------


def damaged_bytes(content: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Change, leave out, double, overwrite, cut; now and then put in what belongs elsewhere."""
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        if not damaged:
            break
        place = rng.randrange(len(damaged))
        span = rng.choice([1, 2, 4, 8, rng.randrange(1, 64)])
        kind = rng.randrange(8)
        if kind == 0:
            damaged[place] = rng.randrange(256)
        elif kind == 1:
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del damaged[place : place + span]
        elif kind == 3:
            damaged[place:place] = damaged[place : place + span] * rng.choice([1, 1, 2, 50])
        elif kind == 4:
            value = rng.choice([0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63])
            size = rng.choice([1, 2, 4, 8])
            order = rng.choice(["little", "big"])
            damaged[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, order)
        elif kind == 5:
            del damaged[place:]
        elif kind == 6 and other:
            start = rng.randrange(len(other))
            damaged[place : place + span] = other[start : start + span]
        else:
            damaged[place : place + span] = bytes(span)
    return bytes(damaged)


# --- JSON ---------------------------------------------------------------------------------------

# Characters from which on nothing is multiplied again: memory of the order of a file's size is no
# fault, and the bound is on what exceeds it.
_LARGE_JSON = 100_000


def damaged_value(value: Any, rng: random.Random) -> Any:
    """Return a JSON value with some of its parts replaced, left out, doubled or exchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        holder, key = _somewhere(value, rng)
        if holder is None:
            return rng.choice([*LEAVES, [], {}, [value]])
        kind = rng.randrange(7)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), holder[key])
        elif kind == 2:
            copies = rng.choice([0, 1, 2, 300])
            large = copies == 300 and len(json.dumps(value)) > _LARGE_JSON
            holder[key] = [holder[key]] * (2 if large else copies)
        elif kind == 3:
            other, there = _somewhere(value, rng)
            holder[key] = json.loads(json.dumps(other[there])) if other is not None else None
        elif kind == 4:
            holder[key] = {"a": holder[key]}
        elif kind == 5 and isinstance(holder[key], int | float):
            holder[key] = rng.choice([-holder[key], holder[key] * 1000, holder[key] + 0.5])
        else:
            holder[key] = rng.choice(LEAVES)
    return value


def _somewhere(value: Any, rng: random.Random) -> tuple[Any, Any]:
    """A container and the key of one of its parts, each depth as likely; None if there is none."""
    holder, key, chosen = None, None, value
    for _ in range(rng.randrange(1, 7)):
        if isinstance(chosen, dict) and chosen:
            holder, key = chosen, rng.choice(sorted(chosen))
        elif isinstance(chosen, list) and chosen:
            holder, key = chosen, rng.randrange(len(chosen))
        else:
            break
        chosen = holder[key]
    return holder, key


IMAGE_SIDES = {"a.png": (40, 30), "b.jpg": (32, 48), "c ü.png": (20, 20)}  # {name: (h, w)}


def coco() -> dict[str, Any]:
    """Annotations of the images of `IMAGE_SIDES`, with every form of mask."""
    rows = [
        {"id": k, "file_name": name, "height": height, "width": width}
        for k, (name, (height, width)) in enumerate(IMAGE_SIDES.items())
    ]
    block = np.zeros([40, 30], np.uint8, order="F")
    block[2:12, 2:12] = 1
    masks = [
        [[2, 2, 12, 2, 12, 12, 2, 12]],
        [[2, 2, 12, 2, 12, 12, 2, 12], [5, 5, 9, 5, 9, 9]],
        {"size": [40, 30], "counts": [82, 10, 30, 10, 1068]},
        {"size": [40, 30], "counts": coco_mask.encode(block)["counts"].decode()},
        None,
    ]
    annotations = [
        {
            "id": k + 1,
            "image_id": k % 3 if isinstance(masks[k % 5], list | None) else 0,
            "category_id": 1 + k % 2,
            "bbox": [2, 2, 10, 10],
            "area": 90.5,
            "iscrowd": int(k % 5 == 2),
            "segmentation": masks[k % 5],
        }
        for k in range(15)
    ]
    categories = [{"id": 1, "name": "fig"}, {"id": 2, "name": "Äpfel", "supercategory": "fruit"}]
    return {"images": rows, "annotations": annotations, "categories": categories, "info": {}}


def coco_with_keypoints() -> dict[str, Any]:
    """The same, where figs have two keypoints each."""
    content = coco()
    fig, _ = content["categories"]
    fig |= {"keypoints": ["left_end", "right_end"], "skeleton": [[1, 2]]}
    for row in content["annotations"]:
        if row["category_id"] == fig["id"]:
            row["keypoints"] = [2.5, 3, 2, 11, 11.5, row["id"] % 2]
            row["num_keypoints"] = 1 + row["id"] % 2
    return content


def annotations(rng: random.Random, make: Callable[[], dict[str, Any]] = coco) -> bytes:
    """Return an annotation file."""
    value = damaged_value(make(), rng) if rng.random() < 0.7 else make()
    encoding = rng.choice(["utf-8"] * 8 + ["utf-16", "utf-8-sig", "latin1"])
    text = json.dumps(value, ensure_ascii=encoding == "latin1")
    content = text.encode(encoding, "surrogatepass")
    return damaged_bytes(content, rng) if rng.random() < 0.35 else content


# --- Pictures -----------------------------------------------------------------------------------


def _pictures() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved = []
    for kind, mode, options in (
        ("PNG", "RGB", {}), ("PNG", "L", {}), ("PNG", "P", {}), ("PNG", "RGBA", {}),
        ("PNG", "I;16", {}), ("PNG", "RGB", {"exif": exif}), ("JPEG", "RGB", {}),
        ("JPEG", "L", {}), ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"exif": exif}), ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGB", {"exif": exif}), ("GIF", "P", {}), ("BMP", "RGB", {}), ("BMP", "P", {}),
        ("TIFF", "RGB", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "F", {}),
        ("TIFF", "I;16", {}), ("TIFF", "RGB", {"compression": "jpeg"}), ("PPM", "RGB", {}),
        ("JPEG2000", "RGB", {}), ("AVIF", "RGB", {}), ("TGA", "RGB", {}), ("ICO", "RGBA", {}),
        ("PCX", "RGB", {}), ("SGI", "RGB", {}), ("DDS", "RGB", {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        gray = mode in ("I;16", "F")
        converted = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257) if gray else picture
        if mode == "F":
            converted = Image.fromarray(pixels[:, :, 0].astype(np.float32) / 255)
        try:
            (converted if gray else converted.convert(mode)).save(buffer, kind, **options)
        except (KeyError, OSError, ValueError):  # this Pillow has no such encoder
            continue
        saved.append(buffer.getvalue())
    return saved


def picture(rng: random.Random) -> bytes:
    """Return a picture file; in PNGs, the checksums of damaged chunks often fit."""
    content = rng.choice(PICTURES)
    if rng.random() < 0.02:
        return content
    if content.startswith(b"\x89PNG") and rng.random() < 0.6:
        return _png(_damaged_chunks(content, rng))
    return damaged_bytes(content, rng, rng.choice(PICTURES))


def _damaged_chunks(content: bytes, rng: random.Random) -> list[tuple[bytes, bytes]]:
    chunks = []
    place = 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        start = place + 8
        chunks.append((content[place + 4 : start], content[start : start + length]))
        place = start + length + 4
    k = rng.randrange(len(chunks))
    name, data = chunks[k]
    if name == b"IDAT" and rng.random() < 0.5:
        data = zlib.compress(damaged_bytes(zlib.decompress(data), rng))
    else:
        data = damaged_bytes(data, rng) or b""
    chunks[k] = (name, data)
    if rng.random() < 0.1:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[rng.randrange(len(chunks))])
    return chunks


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        parts.append(struct.pack(">I", len(data)) + name + data + checksum)
    return b"".join(parts)


# --- Records ------------------------------------------------------------------------------------


def _record(k: int) -> dict[str, list]:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(k).integers(0, 256, (24, 36, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG" if k % 2 else "JPEG")
    return {
        schema.IMAGE_ENCODED: [buffer.getvalue()],
        schema.IMAGE_FORMAT: [b"png" if k % 2 else b"jpeg"],
        schema.IMAGE_FILENAME: [b"a.png"],
        schema.IMAGE_SOURCE_ID: [str(k).encode()],
        schema.IMAGE_HEIGHT: [24],
        schema.IMAGE_WIDTH: [36],
        schema.BBOX_YMIN: [0.25, 0.5],
        schema.BBOX_XMIN: [0.25, 0.5],
        schema.BBOX_YMAX: [0.5, 0.75],
        schema.BBOX_XMAX: [0.5, 1.0],
        schema.CLASS_LABEL: [1, 2],
        schema.CLASS_TEXT: [b"fig", b"date"],
        schema.IS_CROWD: [0, 1],
        schema.AREA: [54.0, 100.0],
        schema.OBJECT_ID: [2 * k, 2 * k + 1],
        schema.BBOX_AREA_FLOAT64: [np.arange(10.0).tobytes()],
        schema.MASK_CROP: [6, 9, 6, 9, 12, 18, 6, 18],
        schema.MASK_NUM_RUNS: [2, 3],
        schema.MASK_RUNS: [0, 54, 10, 50, 48],
    }


def _record_with_keypoints(k: int) -> dict[str, list]:
    keypoints = {
        schema.KEYPOINT_X: [0.25, 0.5, 0.0, 0.75],
        schema.KEYPOINT_Y: [0.5, 0.0, 0.25, 1.0],
        schema.KEYPOINT_VISIBILITY: [2, 0, 1, 2],
    }
    return _record(k) | keypoints


def _serialized(columns: dict[str, Any]) -> bytes:
    def feature(values: Any) -> tf.train.Feature:
        if values and isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if values and isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    features = {name: feature(values) for name, values in columns.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _damaged_columns(columns: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    for _ in range(rng.choice([1, 1, 2, 4])):
        name = rng.choice(sorted(columns))
        values = list(columns[name])
        kind = rng.randrange(6)
        if kind == 0:
            del columns[name]
            if not columns:
                break
            continue
        if kind == 1:
            values = values * rng.choice([0, 2, 40])
        elif kind == 2:
            values = rng.choice([[b""], [1], [0.5], [b"a", b"b"], [], [-1], [2**62]])
        elif kind == 3:
            values = list(columns[rng.choice(sorted(columns))])
        elif values:
            k = rng.randrange(len(values))
            if isinstance(values[k], bytes):
                values[k] = damaged_bytes(values[k], rng, rng.choice(PICTURES))
            elif isinstance(values[k], float):
                values[k] = float(rng.choice([*NUMBERS[:11], 1.5, -0.5]))
            else:
                values[k] = rng.choice([0, -1, 1, 2**31, -(2**31), 2**62, -(2**63), 7, 100_000])
        columns[name] = values
    return columns


def framed(content: bytes) -> bytes:
    """Return one record with the checksums that fit."""
    length = struct.pack("<Q", len(content))
    checksums = (struct.pack("<I", crc.masked(part)) for part in (length, content))
    first, second = checksums
    return length + first + content + second


def records(rng: random.Random, make: Callable[[int], dict[str, list]] = _record) -> bytes:
    """Return a file of four records: one damaged within, or the file as a whole."""
    rows = [_serialized(make(k)) for k in range(4)]
    way = rng.randrange(3)
    k = rng.randrange(len(rows))
    if way == 0:
        rows[k] = _serialized(_damaged_columns(make(k), rng))
    elif way == 1:
        rows[k] = damaged_bytes(rows[k], rng)
    content = b"".join(map(framed, rows))
    return damaged_bytes(content, rng) if way == 2 else content


# --- Weights ------------------------------------------------------------------------------------

STATE = {
    "stem.weight": np.arange(12, dtype=np.float32).reshape(2, 3, 2, 1),
    "stem.bias": np.float32([0.5, -2.0]),
    "half": np.float16([1, -2]),
    "steps": np.int64([7]),
}
# In a pickle that is run by Python, each of these leaves a file.
VICTIM = "/tmp/mrcnn_tf-fuzz-victim"
PAYLOADS = [
    b"cposix\nsystem\n(X%s%st" % (struct.pack("<I", len(text)), text) + b"R"
    for text in [f"touch {VICTIM}".encode()]
] + [
    b"c__builtin__\neval\n(X%s%st" % (struct.pack("<I", len(text)), text) + b"R"
    for text in [f"open({VICTIM!r}, 'w')".encode()]
]


def _weights() -> list[tuple[str, bytes]]:
    """(ending, content) of files of all kinds."""
    saved = []
    with tempfile.TemporaryDirectory() as folder:
        for ending in (".npz", ".pkl", ".pth", ".safetensors"):
            files.write(f"{folder}/a{ending}", STATE)
            with open(f"{folder}/a{ending}", "rb") as file:
                saved.append((ending, file.read()))
        with h5py.File(f"{folder}/a.h5", "w") as file:
            file.attrs["layer_names"] = ["a", "b"]
            for name in ("a", "b"):
                file.create_group(name).attrs["weight_names"] = [f"{name}/kernel:0"]
                file[name].create_dataset(f"{name}/kernel:0", data=STATE["stem.weight"])
        with open(f"{folder}/a.h5", "rb") as file:
            saved.append((".h5", file.read()))
    for protocol in range(2, 6):
        saved.append((".pkl", pickle.dumps({"model": STATE, "lr": [0.1]}, protocol)))
    for name in ("VIEWS_ZIP", "VIEWS_LEGACY", "TYPES_LEGACY", "RUN_LEGACY", "TAGGED_ZIP"):
        saved.append((".pth", getattr(torch_samples, name)))
    saved.append((".safetensors", safetensors.numpy.save(STATE)))
    return saved


def _checkpoint() -> dict[str, bytes]:
    """{ending: content} of the files of a TensorFlow checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(
            **{name.replace(".", "_"): tf.Variable(value) for name, value in STATE.items()}
        ).write(f"{folder}/ckpt")
        return {
            ending: pathlib.Path(path + ending).read_bytes()
            for ending in (".index", ".data-00000-of-00001")
        }


def weights(rng: random.Random) -> tuple[str, bytes]:
    """Return the ending and the content of a weight file."""
    if rng.random() < 0.1:
        ending = rng.choice(sorted(CHECKPOINT))
        return ending, damaged_bytes(CHECKPOINT[ending], rng)
    ending, content = rng.choice(WEIGHTS)
    if content.startswith(b"PK") and rng.random() < 0.6:
        return ending, _damaged_archive(content, rng)
    if ending == ".safetensors" and rng.random() < 0.6:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        text = json.dumps(damaged_value(header, rng)).encode()
        return ending, len(text).to_bytes(8, "little") + text + content[8 + size :]
    if ending == ".pkl" and rng.random() < 0.5:
        return ending, _hostile_pickle(content, rng)
    return ending, damaged_bytes(content, rng, rng.choice(WEIGHTS)[1])


def _damaged_archive(content: bytes, rng: random.Random) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        chosen = rng.choice(archive.namelist())
        method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        with zipfile.ZipFile(packed, "w", method) as writer:
            for name in archive.namelist():
                entry = archive.read(name)
                if name == chosen:
                    kind = rng.randrange(4)
                    entry = damaged_bytes(entry, rng) if kind else bytes(rng.choice([0, 2**20]))
                writer.writestr(name, entry)
    return packed.getvalue()


def _hostile_pickle(content: bytes, rng: random.Random) -> bytes:
    """Put instructions into a pickle: one, a call, or one that announces a size."""
    place = rng.randrange(2, len(content))
    size = struct.pack("<Q", rng.choice([2**20, 2**31, 2**32, 2**40, 2**63 - 1]))
    put = rng.choice(
        [
            rng.choice(PAYLOADS),
            rng.choice(INSTRUCTIONS),
            b"\x8e" + size,  # BINBYTES8
            b"\x95" + size,  # FRAME
            b"\x8b" + size[:4],  # LONG4
            b"r" + size[:4],  # LONG_BINPUT
            b"X" + size[:4],
            b"(" * rng.choice([1, 5000]),
            b"q\x01h\x01\x86" * 50,
        ]
    )
    return content[:place] + put + content[place + rng.choice([0, 0, len(put)]) :]


INSTRUCTIONS = [getattr(pickle, name) for name in dir(pickle) if name.isupper()]
INSTRUCTIONS = [code for code in INSTRUCTIONS if isinstance(code, bytes) and len(code) == 1]

PICTURES = _pictures()
WEIGHTS = _weights()
CHECKPOINT = _checkpoint()
MAKERS: dict[str, Callable[[random.Random], Any]] = {
    "annotations": annotations,
    "pictures": picture,
    "records": records,
    "keypoints": lambda rng: annotations(rng, coco_with_keypoints),
    "keypoint_records": lambda rng: records(rng, _record_with_keypoints),
    "weights": weights,
    "requests": picture,
    "faulty": lambda rng: rng.number,  # type: ignore[attr-defined]
}
