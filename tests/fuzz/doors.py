"""The doors through which files come in, and what must hold behind each whatever comes.

A door takes one input and returns "taken" or "refused". What it raises is a bug, and so is an
`AssertionError`: something was lost without a word, or one door refuses what another takes.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import pathlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from data_prep import conversion, report, shards
from mrcnn_tf.data import damage, decoder, keypoints, record_files, record_index, schema
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.findings import Finding
from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import ground_truth
from mrcnn_tf.images import pillow_reader, reading, record_image
from mrcnn_tf.inspection import photos
from mrcnn_tf.serving import preprocessing, signatures
from mrcnn_tf.weights import files
from tests.fuzz import inputs

Door = Callable[[Any], str]
LABELS = LabelMap((1, 2), ("fig", "date"))
ENDS = KeypointSet(("left_end", "right_end"), classes=(1,))
WITH_KEYPOINTS = dataclasses.replace(LABELS, keypoints=ENDS)


def open_door(kind: str, folder: pathlib.Path) -> Door:
    """Return the door of a kind of input; it may write into a folder."""
    return {
        "annotations": _annotations,
        "pictures": _pictures,
        "records": _records,
        "keypoints": _annotations,
        "keypoint_records": lambda path: _records(path, WITH_KEYPOINTS),
        "weights": _weights,
        "requests": _requests,
        "faulty": _faulty,
    }[kind](folder)


def _said(error: BaseException) -> str:
    """A refusal is one line that says something; return "refused"."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    assert text.strip(), repr(error)
    assert "\n" not in text, text
    return "refused"


# --- Annotations --------------------------------------------------------------------------------


class _Here(shards.WorkerPool):
    """Writes shards in this process."""

    def __init__(self, num_processes: int) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def write_shards(self, tasks, show) -> Iterator:
        for task in tasks:
            yield task, shards.write_shard(task, lambda: show(1))


def _annotations(folder: pathlib.Path) -> Door:
    """Convert, read what was written as training does, and score against the file itself."""
    shards.WorkerPool = _Here
    images = folder / "images"
    images.mkdir()
    for name, (height, width) in inputs.IMAGE_SIDES.items():
        pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(images / name)

    def convert(content: bytes) -> str:
        path, out = folder / "a.json", folder / "out"
        path.write_bytes(content)
        shutil.rmtree(out, ignore_errors=True)
        job = conversion.Job(str(images), str(path), str(out / "x"), 2, "rle", 1, True)
        silent = io.StringIO()
        try:
            with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
                summary = conversion.convert(job)
                findings = summary.findings
                report.write(str(out / "x.report.txt"), findings, summary.notes, summary.warnings)
                report.print_written("", findings, summary.notes, summary.warnings)
        except (conversion.RefusedError, conversion.StoppedError) as error:
            with contextlib.redirect_stderr(silent):
                report.print_examples(error.findings)
            return _said(error)
        except (ValueError, RuntimeError, tf.errors.OpError) as error:
            return _said(error)
        parsed = json.loads(content)
        _nothing_is_lost(parsed, summary.counts, findings)
        label_map = LabelMap.from_json((out / "label_map.json").read_bytes())
        taken = num_keypoints = 0
        for serialized in record_files.read(record_files.find(str(out / "x-*.tfrecord"))):
            num_keypoints += _decode(serialized, label_map)
            taken += 1
        assert taken == summary.counts["images"]
        assert num_keypoints == summary.counts.get("keypoints", 0)
        with contextlib.suppress(ValueError):
            ground_truth.from_annotation_file(str(path))
        return "taken"

    return convert


def _nothing_is_lost(parsed: Any, counts: dict[str, int], findings: list[Finding]) -> None:
    """What came in is what is there and what is listed as left out."""
    lost_images = sum(f.images for f in findings)
    lost_objects = sum(f.objects + f.annotations for f in findings)
    assert counts["images"] + lost_images == len(parsed["images"]), (counts, findings)
    assert counts["annotations"] + lost_objects == len(parsed["annotations"]), (counts, findings)


def _decode(serialized: bytes, label_map: LabelMap) -> int:
    """Decode one record as training does; return how many keypoints are annotated in it."""
    num_keypoints = len(label_map.keypoints.names) if label_map.keypoints else 0
    example = _decoder_of(label_map.ids, num_keypoints)(tf.constant(serialized))
    if not num_keypoints:
        return 0
    assert np.isfinite(example[schema.GT_KEYPOINTS]).all()
    return int(tf.math.count_nonzero(example[schema.GT_KEYPOINTS_VALID]))


@functools.cache
def _decoder_of(label_ids: tuple[int, ...], num_keypoints: int) -> Callable:
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        example = decoder.decode(serialized, label_ids=label_ids, include_masks=True)
        if num_keypoints:
            example |= keypoints.decode(serialized, example, num_keypoints)
        return example

    return decode


# --- Pictures -----------------------------------------------------------------------------------


def _pictures(folder: pathlib.Path) -> Door:
    """Read as `predict` does, convert, look at as the data doctor does, and decode the record."""
    path = folder / "picture"

    def read(content: bytes) -> str:
        path.write_bytes(content)
        with contextlib.suppress(ValueError):
            pillow_reader.read(content)
        try:
            upright = reading.read(path)
        except reading.UnusableImageError as error:
            return _said(error)
        height, width = upright.pixels.shape[:2]
        assert upright.pixels.shape == (height, width, 3)
        assert height * width > 0
        rule = record_image.ExifRule("apply")
        entry = ImageEntry(1, path.name, height, width)
        (looked,) = photos.look_at([entry], str(folder), rule, 1, lambda: None)
        try:
            encoded = record_image.load(path, height, width, rule).encoded
        except reading.UnusableImageError as error:
            return _said(error)
        assert isinstance(looked, photos.Photo), looked
        stored = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        assert stored.shape == (height, width, 3)
        return "taken"

    return read


# --- Records ------------------------------------------------------------------------------------


def _records(folder: pathlib.Path, label_map: LabelMap = LABELS) -> Door:
    """Verify, count, read the ground truth, and decode as training does, with and without skips."""
    path = folder / "x-00000-of-00001.tfrecord"

    def read(content: bytes) -> str:
        path.write_bytes(content)
        os.utime(path, ns=(next(_clock), next(_clock)))
        damage._damages_of.cache_clear()
        found = damage.verify(record_files.find(str(path)))
        refused = False
        try:
            whole = list(record_files.read([str(path)]))
            assert not found
            assert record_files.count_records([str(path)]) == len(whole)
        except ValueError as error:
            refused = bool(_said(error)) and bool(found)
            if not found:
                raise AssertionError(f"{error}, and nothing is damaged") from error
        kept = list(record_files.read(damage.usable([str(path)], len(found))))
        damage._copy_without.cache_clear()
        for copy in pathlib.Path(damage._folder().name).iterdir():
            shutil.rmtree(copy)
        _ends_at_the_end(found, content, kept)
        for serialized in kept:
            try:
                _decode(serialized, label_map)
            except tf.errors.OpError:  # which ends training with its text
                refused = True
            except UnicodeDecodeError:  # which has no text: training must not come so far
                refused = refused or _index_refuses(path)
        try:
            ground_truth.from_records(str(path), label_map)
        except ValueError as error:
            refused = bool(_said(error))
        return "refused" if refused else "taken"

    return read


def _index_refuses(path: pathlib.Path) -> bool:
    """Training looks where all records lie before it decodes one."""
    path.with_name(record_index.INDEX_FILE).unlink(missing_ok=True)
    try:
        record_index.of_files([str(path)])
    except ValueError as error:
        return bool(_said(error))
    raise AssertionError("a record that cannot be parsed is in the index")


def _numbers() -> Iterator[int]:
    number = 1
    while True:
        number += 1_000_000_000
        yield number


_clock = _numbers()


def _ends_at_the_end(found: list[damage.Damage], content: bytes, kept: list[bytes]) -> None:
    """All bytes of the file are those of records that are kept, or of damage that is listed."""
    covered = sum(len(record) + 16 for record in kept) + sum(d.end - d.start for d in found)
    assert covered == len(content), (found, len(content))


# --- Weights ------------------------------------------------------------------------------------


def _weights(folder: pathlib.Path) -> Door:
    """Read a file; nothing in it is run."""

    def read(given: tuple[str, bytes]) -> str:
        ending, content = given
        path = folder / f"a{ending}"
        if ending in inputs.CHECKPOINT:
            path = folder / "ckpt"
            for other, whole in inputs.CHECKPOINT.items():
                (folder / f"ckpt{other}").write_bytes(content if other == ending else whole)
        else:
            path.write_bytes(content)
        try:
            state = files.read(str(path))
        except ValueError as error:
            assert not os.path.exists(inputs.VICTIM), "code was run"
            return _said(error)
        assert not os.path.exists(inputs.VICTIM), "code was run"
        for array in state.values():
            array.sum()  # all of it can be read
        return "taken"

    return read


# --- Requests -----------------------------------------------------------------------------------


def _requests(folder: pathlib.Path) -> Door:
    """Ask an exported model for a file between two good ones."""
    from tests.serving.conftest import RED, RectangleFinder

    model = RectangleFinder()
    signatures.export_saved_model(
        lambda images, size: model(images, size),
        str(folder / "model"),
        input_type="image_bytes",
        label_map=LABELS,
        preprocess=preprocessing.Preprocessor(
            short_edge=128,
            long_edge=200,
            resize_convention="detectron2",
            channel_order="rgb",
            pixel_mean=(0.0, 0.0, 0.0),
            pixel_std=(255.0, 255.0, 255.0),
        ),
        mask_convention="pixel_centres",
    )
    serve = tf.saved_model.load(str(folder / "model")).signatures["serving_default"]
    pixels = np.full((60, 90, 3), 50, np.uint8)
    pixels[10:30, 20:50] = RED
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    good = buffer.getvalue()
    alone = {key: value.numpy()[0] for key, value in serve(tf.constant([good])).items()}
    assert alone["num_detections"] == 1

    def ask(content: bytes) -> str:
        answer = {k: v.numpy() for k, v in serve(tf.constant([good, content, good])).items()}
        for row in (0, 2):
            for key, value in alone.items():
                np.testing.assert_allclose(answer[key][row], value, atol=1e-4, err_msg=key)
        status = int(answer["detection_status"][1])
        assert status in (0, 1, 2)
        if status:
            assert answer["num_detections"][1] == 0
            assert not answer["detection_scores"][1].any()
        return "refused" if status else "taken"

    return ask


# --- A door that fails, for the test of what looks after them ------------------------------------


def _faulty(folder: pathlib.Path) -> Door:
    def fail(number: int) -> str:
        if number == 2:
            raise KeyError(number)
        if number == 4:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 6:
            time.sleep(1000)
        if number == 8:
            np.ones(2**26)  # 0.54 GB
        return "taken"

    return fail
