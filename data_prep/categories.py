"""One label map per folder: what is converted into it is matched to it by name."""

import tensorflow as tf

from mrcnn_tf.data.coco_data import CocoData, ImageEntry
from mrcnn_tf.data.findings import Finding, Level
from mrcnn_tf.data.label_map import LabelMap, match_names


def match(coco: CocoData, path: str) -> LabelMap:
    """Give the objects of an annotation file the category ids that its folder has for their names.

    Args:
      coco: the annotations; the category ids of objects and images are changed, and what was done,
        or why it cannot be, is a finding more.
      path: the label map of the folder; if there is none yet, that of the annotations will be it.

    Returns:
      The folder's label map.

    Raises:
      ValueError: the file there is no label map.
    """
    if not tf.io.gfile.exists(path):
        return coco.label_map
    with tf.io.gfile.GFile(path, "rb") as file:
        ours = LabelMap.from_json(file.read(), path)
    _match_keypoints(ours, coco, path)
    found = match_names(ours, coco.label_map)
    names = dict(zip(coco.label_map.ids, coco.label_map.names, strict=True))
    counts: dict[str, int] = {}
    for entries in coco.objects.values():
        for k, entry in enumerate(entries):
            category_id = found.ids.get(entry.category_id)
            if category_id is None:
                counts[names[entry.category_id]] = counts.get(names[entry.category_id], 0) + 1
            else:
                entries[k] = entry._replace(category_id=category_id)
    coco.images = [_with_lists_of(image, found.ids) for image in coco.images]
    if counts:
        value = (
            f"{path} has no {', '.join(f'{n!r} ({k:,} objects)' for n, k in counts.items())}; its "
            f"names are {', '.join(map(repr, ours.names))}. Records that are used together share "
            "their names: list these in the annotations that were converted there first (training "
            f"ones before validation), or choose another folder. If no records need it, rm {path}"
        )
        coco.findings.append(
            Finding(Level.REFUSED, "categories are not those there", "", value, "")
        )
    elif found.is_renumbered:
        changes = {names[a]: (a, b) for a, b in found.ids.items() if a != b}
        value = ", ".join(f"{name!r} is {a} here, {b} there" for name, (a, b) in changes.items())
        kind, remedy = "category ids differ from the label map", "matched by name"
        coco.findings.append(Finding(Level.REPAIRED, kind, path, value, remedy))
    return ours


def _match_keypoints(ours: LabelMap, coco: CocoData, path: str) -> None:
    """Refuse keypoints that are not those of the folder."""
    theirs = coco.label_map.keypoints
    if theirs is None or (ours.keypoints and ours.keypoints.names == theirs.names):
        return
    there = ", ".join(ours.keypoints.names) if ours.keypoints else "none"
    value = (
        f"{path} has the keypoints: {there}; the annotations: {', '.join(theirs.names)}. Records "
        "that are used together share them: choose another folder, or, if no records need it, rm "
        f"{path}"
    )
    coco.findings.append(Finding(Level.REFUSED, "keypoints are not those there", "", value, ""))


def _with_lists_of(image: ImageEntry, ids: dict[int, int]) -> ImageEntry:
    """Give a federated image's lists the folder's ids, without those that it does not have."""
    if image.neg_category_ids is None or image.not_exhaustive_category_ids is None:
        return image
    return image._replace(
        neg_category_ids=tuple(ids[i] for i in image.neg_category_ids if i in ids),
        not_exhaustive_category_ids=tuple(
            ids[i] for i in image.not_exhaustive_category_ids if i in ids
        ),
    )
