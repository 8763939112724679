"""Which classes an experiment is about: its label map, and that of its validation set."""

import os

import tensorflow as tf

from mrcnn_tf.console import layout
from mrcnn_tf.data import coco_json, record_files, schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import fields, sources
from mrcnn_tf.experiment.experiment import Task


def of_experiment(config: Task) -> LabelMap:
    """Return the label map beside the records; generic names if the experiment gives a number.

    Records of other converters have no label map: then the categories of `annotation_file` are it.

    Raises:
      ValueError: there is none, or its classes are not as many as the experiment says.
    """
    found = _find(config)
    if found:
        path, label_map = found
        if config.model.num_classes not in (0, label_map.num_classes):
            raise ValueError(
                f"task.model.num_classes is {config.model.num_classes}, but {path} has "
                f"{label_map.num_classes - 1} categories: it must be {label_map.num_classes} "
                "(background counts), or 0 to take it from there"
            )
        _check_keypoints(config, label_map, path)
        return label_map
    if config.model.num_classes:
        ids = tuple(range(1, config.model.num_classes))
        return LabelMap(ids, tuple(f"class {i}" for i in ids))
    patterns = record_files.patterns(sources.patterns(config.train_data))
    folder = os.path.dirname(patterns[0] if patterns else "") or "."
    converter = " ".join(layout.data_prep_command("create_coco_tfrecord"))
    raise ValueError(
        f"no {schema.LABEL_MAP_FILE} in {folder!r}, where {sources.name(config.train_data)} "
        "points to. Make the records first:\n"
        f"  python {converter} --image_dir=DIR "
        f"--object_annotations_file=FILE.json --output_file_prefix={folder}/train\n"
        "or, where another converter made them, give the COCO file with their categories as "
        "task.annotation_file"
    )


def _check_keypoints(config: Task, label_map: LabelMap, path: str) -> None:
    """Refuse a keypoint branch for other keypoints than there are.

    Raises:
      ValueError: says which there are, and what to set.
    """
    wanted = config.model.keypoint_head.num_keypoints
    if not wanted:
        return
    where = f"task.model.keypoint_head.num_keypoints is {wanted}, but {path}"
    if label_map.keypoints is None:
        raise ValueError(
            f"{where} has no keypoints: convert annotations whose categories name some (COCO's "
            "person_keypoints files), or set it to 0"
        )
    names = label_map.keypoints.names
    if len(names) != wanted:
        raise ValueError(f"{where} has {len(names)}: {', '.join(names)}. Set it to {len(names)}")


def of_records(config: Task, data: fields.Data, label_map: LabelMap) -> LabelMap:
    """Return a label map with the network's classes in order and the ids that records have.

    One data set's parts may be converted apart, and number the same names otherwise.

    Args:
      config: the task.
      data: its `train_data` or `validation_data`.
      label_map: the classes of the network.

    Raises:
      ValueError: the records have a category that the network does not know, or the label maps
        of their folders contradict each other.
    """
    field = "train_data" if data is config.train_data else "validation_data"
    found: LabelMap | None = None
    for path, theirs in _beside(data):
        renumbered = label_map.renumbered(theirs, path, f"what is trained (task.{field})")
        if found is not None and renumbered != found:
            raise ValueError(
                f"{path}: numbers its categories otherwise than the other folders of "
                f"task.{field} do. Convert them from annotations with the same ids"
            )
        found = renumbered
    return found or label_map


def _find(config: Task) -> tuple[str, LabelMap] | None:
    for data in (config.train_data, config.validation_data):
        for found in _beside(data):
            return found
    if config.annotation_file:
        return config.annotation_file, coco_json.read_label_map(config.annotation_file)
    return None


def paths(data: fields.Data) -> list[str]:
    """Return the files of the label maps in the folders of the records, if any are named."""
    patterns = record_files.patterns(sources.patterns(data)) if sources.is_given(data) else []
    folders = dict.fromkeys(os.path.dirname(p) for p in patterns)
    candidates = (os.path.join(folder, schema.LABEL_MAP_FILE) for folder in folders)
    return [path for path in candidates if tf.io.gfile.exists(path)]


def _beside(data: fields.Data) -> list[tuple[str, LabelMap]]:
    """The label maps in the folders of the records: (path, label map)."""
    found = []
    for path in paths(data):
        with tf.io.gfile.GFile(path, "rb") as file:
            found.append((path, LabelMap.from_json(file.read(), path)))
    return found
