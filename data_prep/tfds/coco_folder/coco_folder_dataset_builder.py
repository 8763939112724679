r"""Any COCO folder as a TFDS data set, with exact masks.

    tfds build data_prep/tfds/coco_folder --manual_dir=FOLDER

or data_prep/tfds_build.py, which starts without Apache Beam. docs/tfds.md says what FOLDER holds,
how splits of other names are given, and how it is built by Beam.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

if __package__ == "coco_folder":  # `tfds build` knows this folder, not the packages around it
    _parent = pathlib.Path(__file__).resolve().parents[3]
    if (_parent / "__init__.py").exists():  # in a wheel, data_prep is inside the package
        __package__ = "mrcnn_tf.data_prep.tfds.coco_folder"
        _parent = _parent.parent
    else:
        __package__ = "data_prep.tfds.coco_folder"
    sys.path.append(str(_parent))

from ... import report
from .. import annotated, examples

if TYPE_CHECKING:
    from ..annotated import Annotated

_INSTANCES = "annotations/instances_*.json"  # COCO's own layout: images in the folder of that name
# COCO's names begin with these.
_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


@dataclasses.dataclass(eq=False)
class CocoFolderConfig(tfds.core.BuilderConfig):
    """Which folders and files are the data set.

    Attributes:
      splits: {split: (folder of images, COCO JSON)}, relative to the manual folder, or absolute.
        Empty takes every annotations/instances_NAME.json; its images are in the folder NAME.
      exif: "auto", "apply" or "ignore", as for the converter.
      on_error: "fail" refuses a split of which more than 1 % cannot be used, "skip" leaves it out.
    """

    splits: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    exif: str = "auto"
    on_error: str = "fail"


class Builder(tfds.core.ShardBasedBuilder):
    """Builds it, file by file: in this process, or where Beam's options say."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {
        "1.0.0": "Images, boxes, labels, crowds, areas and masks as run lengths.",
        "1.1.0": "Keypoints.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    The folder holds images and COCO files of instances. In COCO's own layout,

        annotations/instances_train2017.json    train2017/
        annotations/instances_val2017.json      val2017/

    nothing else has to be said. Any other is given as a configuration:

        --config='{"name": "photos", "splits": {"train": ["images", "train.json"]}}'
    """
    BUILDER_CONFIGS = [
        CocoFolderConfig(name="coco", description="The folder in COCO's own layout.")
    ]

    # TFDS 4.9.10 finds it by importlib_resources, which it does not require.
    code_path = epath.Path(__file__)

    _options = tfds.download.DownloadConfig()
    _splits: Mapping[str, "Annotated"] = {}
    _stored: Mapping[str, Sequence[examples.StoredShard]] = {}  # with Beam only

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(features=examples.features())

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig | None = None,
    ) -> None:
        """Build, and refuse the result if too many images turned out to be unusable."""
        self._options = _with_runner(download_config or tfds.download.DownloadConfig())
        super()._download_and_prepare(dl_manager, self._options)
        for name, stored in self._stored.items():
            self._splits[name].left_out.extend(row for one in stored for row in one.left_out())
        if self._stored:
            tf.io.gfile.rmtree(self._folder_of_shards)
        for name, split in self._splits.items():
            split.check()
            split.write_manifest([os.fspath(path) for path in self.info.splits[name].filepaths])
            path = os.path.join(self.data_dir, f"{name}.report.txt")
            found = [*split.coco.findings, *split.left_out]
            report.write(path, found, split.coco.notes, split.coco.warnings)
            report.print_written(path, found, split.coco.notes, split.coco.warnings)

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[examples.Shard | examples.StoredShard]]:
        """Read and check all annotations before the first image is."""
        config: Any = self.builder_config
        root = os.fspath(dl_manager.manual_dir)
        self._splits = {
            name: annotated.read(
                os.path.join(root, images),
                os.path.join(root, annotations),
                folder=self.data_dir,
                exif=config.exif,
                skip=config.on_error == "skip",
            )
            for name, (images, annotations) in _paths(config, root).items()
        }
        label_map = next(iter(self._splits.values())).label_map
        _check_names(label_map.names)
        self.info.features["objects"]["label"].names = list(label_map.names)
        sharding = self._options.get_shard_config()
        shards = {}
        for name, split in self._splits.items():
            most = _num_images(split, self._options)
            split.coco.images = split.coco.images[:most]
            shards[name] = split.shards(
                min(most, sharding.get_number_shards(split.num_bytes, most))
            )
        if self._options.beam_runner is None:
            return shards
        tf.io.gfile.makedirs(self._folder_of_shards)
        self._stored = {
            name: [
                examples.StoredShard.store(
                    one, os.path.join(self._folder_of_shards, f"{name}-{k:05d}")
                )
                for k, one in enumerate(of_split)
            ]
            for name, of_split in shards.items()
        }
        return self._stored

    @property
    def _folder_of_shards(self) -> str:
        """Where Beam's workers find what each has to do: beside the files that they write."""
        return os.path.join(self.data_dir, "shards")


def _num_images(split: "Annotated", options: tfds.download.DownloadConfig) -> int:
    most = options.max_examples_per_split
    return len(split.coco.images) if most is None else min(most, len(split.coco.images))


def _with_runner(options: tfds.download.DownloadConfig) -> tfds.download.DownloadConfig:
    """Have Beam run where `--beam_pipeline_options` are given; TFDS asks for a runner by itself."""
    if options.beam_options is None or options.beam_runner is not None:
        return options
    runner = options.beam_options.get_all_options()["runner"] or "DirectRunner"
    return options.replace(beam_runner=runner)


def _paths(config: Any, root: str) -> dict[str, tuple[str, str]]:
    """Return {split: (folder of images, annotation file)}, what is trained on first.

    Raises:
      ValueError: the configuration names none, and the folder has not COCO's layout.
    """
    if config.exif not in ("auto", "apply", "ignore"):
        raise ValueError(f"exif: got {config.exif!r}, allowed are 'auto', 'apply', 'ignore'")
    if config.on_error not in ("fail", "skip"):
        raise ValueError(f"on_error: got {config.on_error!r}, allowed are 'fail', 'skip'")
    if config.splits:
        return {name: _pair(name, value) for name, value in config.splits.items()}
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(tf.io.gfile.glob(os.path.join(root, _INSTANCES))):
        folder = os.path.basename(path).removeprefix("instances_").removesuffix(".json")
        split = next((s for prefix, s in _SPLIT_NAMES.items() if folder.startswith(prefix)), folder)
        if split in found:
            raise ValueError(
                f"{root}: {found[split][1]} and {path} would both be the split {split!r}: say by a "
                "configuration's splits which is which"
            )
        found[split] = folder, path
    if not found:
        raise ValueError(
            f"{root}: no {_INSTANCES}: say by a configuration which folders and files it is. "
            f"{Builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        )
    first = [name for name in ("train",) if name in found]
    return {name: found[name] for name in (*first, *(n for n in found if n not in first))}


def _pair(split: str, value: Any) -> tuple[str, str]:
    if not isinstance(value, list | tuple) or [type(part) for part in value] != [str, str]:
        raise ValueError(f"splits: {split!r} needs [folder of images, COCO JSON], got {value!r}")
    return value[0], value[1]


def _check_names(names: tuple[str, ...]) -> None:
    """Refuse class names that TFDS's file of names, one a line, would not give back."""
    bad = [name for name in names if name != name.strip() or len(name.splitlines()) != 1]
    if bad:
        raise ValueError(
            f"categories {bad!r}: TFDS keeps names one a line, so that none can be empty, hold a "
            "line break, or begin or end with a space"
        )
