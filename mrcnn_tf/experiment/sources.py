"""Where an experiment's images come from: record files, or a data set of TensorFlow Datasets.

A TFDS data set is TFRecord files too, whose records `data/columns.py` reads. So it is looked up
here, by TFDS, and from then on it is a list of file patterns like any other: order, sharding and
resuming are those of record files. TFDS is imported only if an experiment names a data set of its.
"""

import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from mrcnn_tf.console import layout
from mrcnn_tf.data import schema
from mrcnn_tf.experiment import fields

TFDS_FIELDS = ("tfds_name", "tfds_split", "tfds_data_dir")

_MASK_FEATURE = "objects/mask"
# {feature that has to be there: what it is in words}, those that `data/columns.py` reads.
_NEEDED = {
    "image": "the encoded images",
    "image/id": "the images' ids as text",
    "image/height": "their heights",
    "image/width": "their widths",
    "objects/id": "annotation ids",
    "objects/bbox": "boxes",
    "objects/coco_bbox": "boxes as they were annotated, not rounded",
    "objects/area": "areas",
    "objects/category_id": "the data set's own category ids",
    "objects/is_crowd": "which objects are crowds",
    f"{_MASK_FEATURE}/crop": "the rectangles of masks",
    f"{_MASK_FEATURE}/runs": "the run lengths of masks",
}


def check(where: str, data: fields.Data) -> None:
    """Refuse two sources at once, and half of a TFDS data set's name.

    Args:
      where: the fields' name, "task.train_data".
      data: the fields.

    Raises:
      ValueError: which to leave out, or to give.
    """
    if data.tfds_name and data.input_path:
        raise ValueError(
            f"{where}: input_path ({data.input_path!r}) and tfds_name ({data.tfds_name!r}) both "
            "say where the images are: leave one of them out"
        )
    for name in ("tfds_split", "tfds_data_dir"):
        if getattr(data, name) and not data.tfds_name:
            raise ValueError(
                f"{where}.{name}: {getattr(data, name)!r} without a {where}.tfds_name to which it "
                "would belong"
            )


def is_given(data: fields.Data) -> bool:
    """Whether anything says where the images are."""
    return bool(data.input_path or data.tfds_name)


def name(data: fields.Data) -> str:
    """Return the source with its field, for messages."""
    where = _field(data)
    if data.tfds_name:
        split = f", split {data.tfds_split!r}" if data.tfds_split else ""
        return f"{where}.tfds_name ({data.tfds_name!r}{split})"
    return f"{where}.input_path ({data.input_path!r})"


def patterns(data: fields.Data) -> str | Sequence[str]:
    """Return the pattern or patterns of the record files of either source.

    Args:
      data: the fields.

    Raises:
      ValueError: there is no source; or no such TFDS data set or split (those that there are, are
        listed), or it has not the features that are needed here, masks for one.
    """
    if data.tfds_name:
        return _of_tfds(data.tfds_name, data.tfds_split, data.tfds_data_dir, _field(data))
    if not data.input_path:
        where = _field(data)
        raise ValueError(
            f"{where}: where are the images? Give {where}.input_path, the pattern of record files, "
            f"or {where}.tfds_name and tfds_split, a data set of TensorFlow Datasets"
        )
    return data.input_path


@functools.lru_cache(maxsize=8)
def _of_tfds(tfds_name: str, split: str, data_dir: str, where: str) -> tuple[str, ...]:
    """Return the patterns of a split's files."""
    builder = _builder(tfds_name, data_dir, where)
    _check_features(builder, f"{where}.tfds_name: {tfds_name!r}")
    known = ", ".join(f"{s.name} ({s.num_examples:,} images)" for s in builder.info.splits.values())
    where = f"{where}.tfds_split"
    if not split:
        raise ValueError(f"{where}: which part of {tfds_name!r}? It has {known}")
    try:
        instructions = builder.info.splits[split].file_instructions
    except (ValueError, KeyError) as error:
        raise ValueError(f"{where}: {tfds_name!r} has no {split!r}; it has {known}") from error
    cut = [one for one in instructions if one.skip or not one.takes_all]
    if cut or not instructions:
        name = os.path.basename(cut[0].filename) if cut else ""
        raise ValueError(
            f"{where}: {split!r} "
            + (f"takes a part of the file {name}" if cut else "holds no image")
            + f"; whole files are read here. {tfds_name!r} has {known}. Several are joined by '+', "
            "and whole files of one are train[:3shard] for TFDS"
        )
    return tuple(_joined(builder, [one.filename for one in instructions]))


def _joined(builder: Any, files: list[str]) -> Iterable[str]:
    """Yield one pattern for each split that is there with all its files, else the files."""
    left = dict.fromkeys(files)
    for split in builder.info.splits.values():
        paths = [os.fspath(path) for path in split.filepaths]
        if all(path in left for path in paths):
            head, _, count = paths[0].rpartition("-of-")
            yield f"{head.rpartition('-')[0]}-*-of-{count}"
            for path in paths:
                del left[path]
    yield from left


def _builder(tfds_name: str, data_dir: str, where: str) -> Any:
    """Open a data set that has been built.

    Raises:
      ValueError: there is none of that name; names those that there are.
    """
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import constants, read_only_builder
    except ImportError as error:
        raise ValueError(
            f"{where}.tfds_name: {tfds_name!r} needs TensorFlow Datasets: pip install "
            "tensorflow-datasets"
        ) from error
    where = f"{where}.tfds_name"
    root = os.path.expanduser(data_dir) or constants.DATA_DIR
    if not tf.io.gfile.isdir(root):
        raise ValueError(f"{where}: {tfds_name!r}: there is no folder {root!r}. {_ADVICE}")
    try:
        return read_only_builder.builder_from_files(tfds_name, data_dir=root)
    except (tfds.core.DatasetNotFoundError, ValueError, OSError) as error:
        built = sorted(_built(root))
        there = f"There are {', '.join(built)}" if built else "There is none"
        of_tfds = ""
        if tfds_name.split("/")[0].split(":")[0] in tfds.list_builders():
            of_tfds = (
                ". TFDS knows it, but it is not built here, and TFDS's own data sets have no masks "
                "in the form that is needed"
            )
        raise ValueError(
            f"{where}: no data set {tfds_name!r} in {root!r}. {there}{of_tfds}. {_ADVICE}"
        ) from error


_ADVICE = (
    f"A COCO folder becomes one by: python {' '.join(layout.data_prep_command('tfds_build'))} "
    "--manual_dir=FOLDER"
)


def _built(root: str) -> Iterable[str]:
    """Yield the data sets in a folder of TFDS: name/config, or name."""
    for pattern in ("*/*/features.json", "*/*/*/features.json"):
        for path in tf.io.gfile.glob(os.path.join(root, pattern)):
            yield os.path.relpath(os.path.dirname(os.path.dirname(path)), root)


def _check_features(builder: Any, what: str) -> None:
    """Refuse a data set that has not what a record has.

    Raises:
      ValueError: names what is missing.
    """
    found = {key for key, _ in _features(builder.info.features)}
    missing = [f"{name} ({words})" for name, words in _NEEDED.items() if name not in found]
    if missing:
        masks = not any(name.startswith(_MASK_FEATURE) for name in found)
        raise ValueError(
            f"{what} has no {', '.join(missing)}"
            + (": it has boxes at most, from which no mask can be learnt" if masks else "")
            + f". It has {', '.join(sorted(found))}. {_ADVICE}"
        )
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(f"{what} lies in {builder.info.file_format.value} files, not in TFRecords")
    folder = os.fspath(builder.data_path)
    if not tf.io.gfile.exists(os.path.join(folder, schema.LABEL_MAP_FILE)):
        raise ValueError(f"{what}: no {schema.LABEL_MAP_FILE} in {folder!r}. {_ADVICE}")


def _features(features: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the leaves of a `tfds.features.FeaturesDict`: (objects/mask/crop, feature)."""
    for key, feature in features.items():
        inner = getattr(feature, "feature", feature)  # of a Sequence
        if hasattr(inner, "items"):
            yield from _features(inner, f"{prefix}{key}/")
        else:
            yield prefix + key, feature


def _field(data: fields.Data) -> str:
    return f"task.{'train' if data.is_training else 'validation'}_data"
