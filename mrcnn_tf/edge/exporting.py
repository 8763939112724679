"""Write a network as a file for a runtime, run it there, compare, and only then name it."""

import json
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from mrcnn_tf.console import whole_file
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.edge import device, graph, litert, verification
from mrcnn_tf.edge.formats import NAMES
from mrcnn_tf.serving import verification as serving
from mrcnn_tf.serving.preprocessing import Preprocessor

HELPER = "detect.py"  # the name of `device.py` beside the file


def export(
    detect: graph.Detect,
    export_dir: str,
    *,
    file_format: str,
    input_hw: tuple[int, int],
    quantize: str,
    label_map: LabelMap,
    preprocess: Preprocessor,
    mask_convention: str,
    pictures: Iterable[np.ndarray] = (),
    records: str = "",
    score_threshold: float | None = None,
) -> tuple[str, verification.Verification]:
    """Write `model.tflite` or `model.onnx`, and `detect.py` beside it.

    A file whose answers differ from the network's gets no name; an earlier one stays then.

    Args:
      detect: the network, see `graph.Graph`.
      export_dir: folder on this machine; what else it holds stays.
      file_format: one of `formats.FORMATS`.
      input_hw: (H, W) of the input.
      quantize: one of `formats.QUANTIZE`; "none" for ONNX.
      label_map: the data set's ids and names.
      preprocess: how the network wants its pictures.
      mask_convention: how masks are to be pasted.
      pictures: uint8 [h, w, 3] each, to compare on and to calibrate with. None: drawn ones.
      records: pattern of TFRecord files, on which AP is compared; "" for none.
      score_threshold: that a report suggests.

    Returns:
      The file's path, and what the comparison found.

    Raises:
      FileExistsError: `export_dir` is a file, or holds a SavedModel, which the next export of one
        would replace as a whole.
      ValueError: the format cannot do it.
      serving.VerificationError: the file answers differently from the network.
    """
    if file_format == "onnx" and quantize != "none":
        raise ValueError(f"quantize: {quantize!r}: only LiteRT files are quantised")
    _refuse(export_dir)
    # Each is made small as it comes: fifty photos of a camera would be gigabytes.
    resize = preprocess.resize_convention
    fitted = [device.fit(pixels, input_hw, resize) for pixels in pictures]
    if quantize == "full" and not fitted:
        raise ValueError(
            "quantize: full measures the ranges of activations on pictures: name fifty "
            "from where the network will be used, with --pictures"
        )
    fitted = fitted or [device.fit(pixels, input_hw, resize) for pixels in _drawn(input_hw)]
    description = describe(
        input_hw,
        quantize,
        preprocess.resize_convention,
        mask_convention,
        label_map,
        score_threshold,
    )
    network = graph.Graph(detect, preprocess, input_hw)
    content = convert(network, file_format, quantize, description, fitted)
    path = os.path.join(export_dir, NAMES[file_format])
    os.makedirs(export_dir, exist_ok=True)
    incomplete = os.path.join(export_dir, "incomplete-" + NAMES[file_format])
    try:
        whole_file.write(incomplete, content)
        found = verification.verify(
            path,
            device.load(incomplete),
            graph.reference(detect, preprocess),
            fitted[: verification.MAX_PICTURES],
            records,
        )
        os.replace(incomplete, path)
    finally:
        pathlib.Path(incomplete).unlink(missing_ok=True)
    whole_file.write(os.path.join(export_dir, HELPER), pathlib.Path(device.__file__).read_bytes())
    return path, found


def convert(
    network: graph.Graph,
    file_format: str,
    quantize: str,
    description: str,
    pictures: Sequence[verification.Picture],
) -> bytes:
    """Return the file, with its description, unproven.

    Args:
      network: the graph.
      file_format: one of `formats.FORMATS`.
      quantize: see `export`.
      description: of `describe`.
      pictures: what `device.fit` returns, to calibrate with.
    """
    if file_format == "litert":
        return litert.describe(litert.convert(network, quantize, pictures), description)
    try:
        from mrcnn_tf.edge import onnx_file
    except ImportError as error:
        raise ValueError(
            f"ONNX files need packages that are not installed ({error.name}). They come with\n"
            "  pip install 'mrcnn-tf[onnx]'\n"
            "or in a checkout\n  pip install -r requirements-onnx.txt"
        ) from error
    return onnx_file.convert(network, description)


def describe(
    input_hw: tuple[int, int],
    quantize: str,
    resize: str,
    mask_convention: str,
    label_map: LabelMap,
    score_threshold: float | None,
) -> str:
    """Return what a file says of itself, see `device.Network.description`, as JSON text."""
    fields: dict = {
        "input_size": list(input_hw),
        "quantize": quantize,
        "resize": resize,
        "mask_convention": mask_convention,
    }
    if score_threshold is not None:
        fields["suggested_score_threshold"] = score_threshold
    return json.dumps(fields | json.loads(label_map.to_json()), ensure_ascii=False)


def _drawn(input_hw: tuple[int, int]) -> list[np.ndarray]:
    """Draw pictures of the input's size, one that is not as high, and one that is not as wide."""
    height, width = input_hw
    return serving.sample_images([(height, width), (height // 2, width), (height, width * 2 // 3)])


def _refuse(export_dir: str) -> None:
    if os.path.isfile(export_dir):
        raise FileExistsError(f"{export_dir} is a file; name a folder")
    if os.path.exists(os.path.join(export_dir, "saved_model.pb")):
        raise FileExistsError(f"{export_dir} holds a SavedModel; name another folder")
