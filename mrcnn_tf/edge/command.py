"""The part of `mrcnn_tf.export` that writes LiteRT and ONNX files: its flags, and what they do."""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import yaml
from absl import flags

from mrcnn_tf.data import record_files
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.edge import formats, graph
from mrcnn_tf.experiment import overrides
from mrcnn_tf.images import finding, reading, storage
from mrcnn_tf.serving.preprocessing import Preprocessor

SAVED_MODEL = "saved_model"
_OF_FILES = ("input_size", "quantize", "score_threshold", "max_instances", "pictures", "records")
_OF_SAVED_MODELS = ("input_type", "serving_kit", "model_name", "max_image_pixels", "add_masks")
_MAX_PICTURES = 50  # that are read: each takes seconds to calibrate with


def define_flags() -> None:
    """Define `--format` and the flags of the formats that are files."""
    flags.DEFINE_enum(
        "format",
        SAVED_MODEL,
        [SAVED_MODEL, *formats.FORMATS],
        "What is written; onnx is experimental.",
    )
    flags.DEFINE_list("input_size", None, "litert, onnx: H,W of the input, multiples of 32.")
    flags.DEFINE_enum("quantize", "none", formats.QUANTIZE, "litert: how weights are stored.")
    flags.DEFINE_float(
        "score_threshold",
        None,
        "litert, onnx: of what is answered; default the experiment's.",
        0.0,
        1.0,
    )
    flags.DEFINE_integer(
        "max_instances",
        None,
        "litert, onnx: objects at most; fewer are faster. Default the experiment's.",
        lower_bound=1,
    )
    flags.DEFINE_multi_string(
        "pictures",
        [],
        "litert, onnx: pictures to compare on and, for --quantize=full, to calibrate with. "
        "Default: drawn ones.",
    )
    flags.DEFINE_string(
        "records", "", "litert, onnx: records on which AP is compared; decides for int8."
    )


def laid_over(params_override: str) -> str:
    """Return `--params_override` with what the flags say, checked.

    Raises:
      ValueError: a flag does not go with the format, or contradicts `--params_override`.
      FileNotFoundError: there are no such records.
    """
    values = flags.FLAGS
    given = [name for name in (*_OF_FILES, *_OF_SAVED_MODELS) if values[name].present]
    if values.format == SAVED_MODEL:
        if wrong := [name for name in given if name in _OF_FILES]:
            raise ValueError(f"--{wrong[0]} needs --format=litert or --format=onnx")
        return params_override
    if wrong := [name for name in given if name in _OF_SAVED_MODELS]:
        raise ValueError(f"--{wrong[0]} is for SavedModels, not for --format={values.format}")
    if storage.is_remote(values.export_dir):
        raise ValueError(f"--export_dir={values.export_dir}: a folder on this machine")
    _input_hw()
    if values.records:  # or it would be found out once the file is there
        record_files.find(values.records)
    layer = overrides.parse_override(params_override or "{}")
    _set(layer, ("task", "model"), "max_instances", values.max_instances)
    _set(layer, ("task", "model", "detection"), "score_threshold", values.score_threshold)
    return yaml.safe_dump(layer)


def _set(layer: dict[str, Any], groups: Sequence[str], name: str, value: float | None) -> None:
    if value is None:
        return
    for group in groups:
        layer = layer.setdefault(group, {})
    if layer.setdefault(name, value) != value:
        raise ValueError(
            f"--{name}={value} and --params_override={'.'.join(groups)}.{name}={layer[name]} "
            "contradict each other"
        )


def _input_hw() -> tuple[int, int]:
    given = flags.FLAGS.input_size
    try:
        height, width = map(int, given or ())
    except ValueError as error:
        raise ValueError(
            f"--input_size: {','.join(given or ['']) or 'nothing'}: give the height and the width "
            "of the network's input, as in --input_size=320,320"
        ) from error
    graph.check_input(height, width)
    return height, width


def run(
    detect: graph.Detect,
    *,
    label_map: LabelMap,
    preprocess: Preprocessor,
    mask_convention: str,
    score_threshold: float | None,
) -> None:
    """Export as the flags say, and print what was compared; see `exporting.export`."""
    from mrcnn_tf.edge import exporting  # it imports packages that SavedModels do not need

    values = flags.FLAGS
    start = time.monotonic()
    path, found = exporting.export(
        detect,
        values.export_dir,
        file_format=values.format,
        input_hw=_input_hw(),
        quantize=values.quantize,
        label_map=label_map,
        preprocess=preprocess,
        mask_convention=mask_convention,
        pictures=_read(values.pictures),
        records=values.records,
        score_threshold=score_threshold,
    )
    print(
        f"{path}: {os.path.getsize(path) / 1e6:.1f} MB, in {time.monotonic() - start:.0f} s; run "
        f"in its own runtime on {found.num_pictures} pictures, {found.agreement:.1%} of what it "
        f"and the Python model find agree ({found.num_detections} detections, scores to "
        f"{found.max_score_difference:.1g})"
    )
    for kind, (of_file, of_network) in found.ap.items():
        print(f"{kind} {of_file:.4f}, of the Python model {of_network:.4f}")
    print(f"{os.path.join(values.export_dir, exporting.HELPER)} runs it on a device")


def _read(patterns: Sequence[str]) -> Iterator[np.ndarray]:
    """Read the pictures that are named, one at a time: uint8 [h, w, 3] each.

    Raises:
      ValueError: one cannot be read.
    """
    if not patterns:
        return
    for name, path in finding.find_images(patterns).images[:_MAX_PICTURES]:
        try:
            yield reading.read(path).pixels
        except reading.UnusableImageError as error:
            raise ValueError(f"{name}: {error}") from error
