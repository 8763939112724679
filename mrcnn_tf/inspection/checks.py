"""The doctor's rules: what is wrong with a training and a validation set, for a network.

Those on single files and annotations are the reader's own (`data/coco_check.py`,
`images/record_image.py`); here are those that need the whole set, both sets, or the network.
"""

import collections
import os
from collections.abc import Iterable, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.data import anchor_recall, findings, label_map
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.findings import Level, RefusedError
from mrcnn_tf.images import near_duplicates
from mrcnn_tf.inspection.data_set import DataSet, Objects
from mrcnn_tf.inspection.network import Network
from mrcnn_tf.inspection.photos import Photo
from mrcnn_tf.inspection.problems import Problem, Severity, counted, of_finding

RARE = 10  # objects: a class that has fewer to learn from is rare
SHARE = 0.01  # of the objects: what concerns fewer is a note, as `data/findings.py` has it
GOOD_IOU, GOOD_SHARE = 0.5, 0.8  # of the objects, this share should have an anchor this good
_CLOSE_IOU, _CLOSE_PIXELS = 0.8, 3.0  # a box that fits its mask less is not close to it
_SAME_PIXELS = 1.0  # boxes of one class whose edges differ by less are one object twice
_SHOWN = 5  # names that are listed in one line


def check(sets: Sequence[DataSet], network: Network) -> list[Problem]:
    """Return everything that is wrong, in no order.

    Args:
      sets: the training set, and the validation set if there is one.
      network: that is to learn from them.
    """
    problems: list[Problem] = []
    for data_set in sets:
        problems += _of_reading(data_set, network)
        objects = data_set.table(network)
        problems += _of_files(data_set)
        problems += _of_outlines(data_set)
        problems += _of_repeated_objects(data_set, objects)
        problems += _of_sizes(data_set, objects, network)
        problems += _of_counts(data_set, network)
    readable = [data_set for data_set in sets if data_set.coco]
    problems += _of_classes(readable)
    problems += _of_anchors(readable, network)
    problems += _of_copies(readable)
    problems += _of_unlisted_files(readable)
    return problems


def best_ious(data_set: DataSet, network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Return, of each object that is no crowd, its size and its best IoU with an anchor.

    Returns:
      float [n] square roots of areas in pixels of the network input, float [n] IoUs.
    """
    objects = data_set.table(network)
    single = ~objects.is_crowd
    ious = anchor_recall.best_ious(
        objects.network_boxes[single],
        objects.network_hw[single],
        network.anchor_levels,
        offset=network.rpn.anchor_offset,
        within_image=network.rpn.ignore_anchors_across_border,
    )
    return objects.network_sides[single], ious


def _of_reading(data_set: DataSet, network: Network) -> list[Problem]:
    """Problems of the annotation file, and of images that cannot be used."""
    coco, key = data_set.coco, data_set.key
    refused = "the converter refuses the file"
    if not coco:
        return [Problem(
            Severity.ERROR, "no COCO file", key, data_set.annotations, data_set.unreadable, refused,
            "Export again as COCO instances (JSON).",
        )]  # fmt: skip
    problems = [of_finding(finding, key) for finding in data_set.findings]
    problems += [
        Problem(Severity.NOTE, what, key, "the whole file", f"{count:,}", "harmless", "Nothing.")
        for what, count in coco.notes.items()
        if not what.startswith("categories without objects")  # `_of_classes` names them
    ]
    try:
        findings.check(
            data_set.findings, num_objects=coco.num_objects, num_images=coco.num_images,
            skip=False, name=coco.name,
        )  # fmt: skip
    except RefusedError as error:
        named = {str(f) for f in data_set.findings if f.level == Level.REFUSED}
        problems += [
            Problem(
                Severity.ERROR, "too much cannot be used", key, "the whole file", reason, refused,
                "Mend what is listed below as left out; or go on without it: the converter's "
                "--on_error=skip.",
            )
            for reason in error.reasons if reason not in named
        ]  # fmt: skip
    if not coco.num_images:
        problems.append(Problem(
            Severity.ERROR, "no image", key, "the whole file", "the list `images` is empty",
            refused, "Export again with images.",
        ))  # fmt: skip
    problems += _of_teaching(data_set, network)
    return problems


def _of_teaching(data_set: DataSet, network: Network) -> list[Problem]:
    """What the file as a whole cannot teach."""
    assert data_set.coco
    entries = [entry for of_image in data_set.coco.objects.values() for entry in of_image]
    usable = [e for e in entries if not e.is_crowd and (e.mask or not network.has_masks)]
    severity = Severity.WARNING if usable or data_set.key == "val" else Severity.ERROR
    happens = "little or nothing is learnt" if data_set.key == "train" else "scores say little"
    texts = data_set.coco.warnings
    if not network.has_masks:
        texts = [text for text in texts if "mask" not in text or "crowd" in text]
    return [
        Problem(
            severity, "nothing to learn from", data_set.key, "the whole file", text, happens,
            "See docs/data.md, `Warned of`.",
        )
        for text in texts
    ]  # fmt: skip


def _of_files(data_set: DataSet) -> list[Problem]:
    """Images that the converter stores otherwise than they are."""
    problems = []
    for photo in data_set.photos:
        if photo.change:
            unsure = "no image of another size tells" in photo.change
            problems.append(_of_image(
                photo.image, data_set.key, Severity.WARNING if unsure else Severity.NOTE,
                "image that is stored otherwise", photo.change, "the network sees it so",
                "Look at its outlines on this page: if they lie beside the objects, give the "
                "converter --exif=ignore." if unsure else "Nothing.",
            ))  # fmt: skip
    return problems


def _of_outlines(data_set: DataSet) -> list[Problem]:
    """Masks without a pixel, and boxes that fit theirs loosely."""
    problems, loose = [], collections.Counter[int]()
    for place, image, entry in data_set.entries():
        if not entry.mask:
            continue
        x, y, width, height = coco_mask.toBbox(
            entry.mask.to_rle(image.height, image.width)
        ).tolist()
        where = f"annotation {entry.annotation_id} of {image.where}"
        if not width:
            problems.append(_of_image(
                image, data_set.key, Severity.WARNING, "outline that covers no pixel",
                f"bbox {list(entry.bbox)}", "the object teaches its box only",
                "Draw the object anew: its outline is a line or a dot, or lies outside.",
            )._replace(where=where))  # fmt: skip
        elif not entry.is_crowd:
            bx, by, bw, bh = entry.bbox
            edges = np.abs([bx - x, by - y, bx + bw - x - width, by + bh - y - height])
            shared = max(min(bx + bw, x + width) - max(bx, x), 0) * max(
                min(by + bh, y + height) - max(by, y), 0
            )
            iou = shared / (bw * bh + width * height - shared)
            loose[place] += bool(edges.max() > _CLOSE_PIXELS and iou < _CLOSE_IOU)
    for place, count in loose.items():
        if count:
            image = data_set.photos[place].image
            problems.append(_of_image(
                image, data_set.key, Severity.NOTE, "box that does not fit its outline closely",
                f"{count} of {len(data_set.objects_of(image))} objects: box and outline share less "
                f"than {_CLOSE_IOU:.0%}", "the box is learnt as it is drawn",
                "Let the annotation tool make boxes from outlines, unless these boxes include "
                "hidden parts on purpose.",
            ))  # fmt: skip
    return problems


def _of_repeated_objects(data_set: DataSet, objects: Objects) -> list[Problem]:
    """Objects that are annotated twice."""
    problems = []
    for place in np.unique(objects.image):
        rows = np.flatnonzero(objects.image == place)
        boxes, classes = objects.boxes[rows], objects.category_id[rows]
        count = 0
        for k in range(1, len(rows)):  # against those before it, for the sake of memory
            edges = np.abs(boxes[:k] - boxes[k]).max(axis=1)
            count += bool(np.any((edges < _SAME_PIXELS) & (classes[:k] == classes[k])))
        if count:
            problems.append(_of_image(
                data_set.photos[place].image, data_set.key, Severity.WARNING,
                "object annotated twice", f"{count} of {len(rows)} objects have the class and the "
                "box of another one", "counts twice when learnt, and once as missed when scored",
                "Delete the copies in the annotation tool.",
            ))  # fmt: skip
    return problems


def _of_sizes(data_set: DataSet, objects: Objects, network: Network) -> list[Problem]:
    """Objects that are smaller than the network can see."""
    least = network.smallest_visible
    sides = objects.network_sides
    small = ~objects.is_crowd & (sides < least)
    if not small.any():
        return []
    severity = Severity.WARNING if small.sum() > SHARE * len(small) else Severity.NOTE
    shown = f"{network.short_edge}, long edge at most {network.long_edge}"
    problems = []
    for place, count in collections.Counter(objects.image[small].tolist()).items():
        photo = data_set.photos[place]
        smallest = sides[small & (objects.image == place)].min()
        problems.append(_of_image(
            photo.image, data_set.key, severity, "objects too small to be seen",
            f"{count} of {len(data_set.objects_of(photo.image))} objects, the smallest "
            f"{smallest:.1f} pixels across, where {least:g} are the least (short edge {shown})",
            "they are learnt as noise, and count as missed when scored",
            f"Train at a larger image size ({_size_that_shows(sides, network)}), cut the "
            "photos into tiles, or take these objects out.",
        ))  # fmt: skip
    return problems


def _size_that_shows(sides: np.ndarray, network: Network) -> str:
    """Return the short edge at which 99 % of the objects are visible."""
    needed = network.smallest_visible / max(float(np.quantile(sides, SHARE)), 1e-6)
    edge = 32 * int(np.ceil(network.short_edge * max(needed, 1.0) / 32))
    return f"short edge {edge:,} shows 99 % of them" if needed > 1 else "all but a few are visible"


def _of_counts(data_set: DataSet, network: Network) -> list[Problem]:
    """Images of too many objects or of none."""
    problems, empty = [], []
    for photo in data_set.photos:
        count = len(data_set.objects_of(photo.image))
        if count > network.max_instances:
            problems.append(_of_image(
                photo.image, data_set.key, Severity.WARNING, "more objects than max_instances",
                f"{count:,} objects, max_instances is {network.max_instances:,}",
                f"{count - network.max_instances:,} of them are not learnt, nor found",
                f"Raise task.model.max_instances to {count:,} or more, or cut the photo into "
                "tiles.",
            ))  # fmt: skip
        elif not count:
            empty.append(photo.image)
    if empty:
        problems.append(Problem(
            Severity.NOTE, "images without objects", data_set.key, counted(len(empty), "image"),
            _some(image.file_name for image in empty), "they teach what is background",
            "Nothing, if there really is nothing of your classes in them; else annotate them.",
        ))  # fmt: skip
    return problems


def _of_classes(sets: Sequence[DataSet]) -> list[Problem]:
    """Classes that are missing on one side, too rare, or not those of the other side."""
    problems = []
    counts = {data_set.key: _count_classes(data_set) for data_set in sets}
    if "train" in counts:
        for name, count in counts["train"].items():
            if 0 < count < RARE:
                problems.append(Problem(
                    Severity.WARNING, "rare class", "train", f"category {name!r}",
                    f"{counted(count, 'object')} to learn from, where {RARE} are the least",
                    "it is hardly learnt", "Annotate more of them, or join it with another class.",
                ))  # fmt: skip
    if len(counts) < 2:
        problems += [
            Problem(
                Severity.NOTE, "class without objects", key, f"category {name!r}", "no object",
                "the network has a class that it never sees", "Delete the category.",
            )
            for key, of_set in counts.items() for name, count in of_set.items() if not count
        ]  # fmt: skip
        return problems
    train, val = counts["train"], counts["val"]
    maps = [data_set.coco.label_map for data_set in sets if data_set.coco]
    matched = label_map.match_names(maps[0], maps[1])
    for name in dict.fromkeys([*train, *val]):
        here, there = train.get(name, 0), val.get(name, 0)
        if name not in train and there:
            problems.append(Problem(
                Severity.ERROR, "class that training lacks", "val", f"category {name!r}",
                f"{counted(there, 'object')}; the training file has no such category",
                "the converter refuses the validation file",
                "Give the category the same name in both files, or list it in the training file.",
            ))  # fmt: skip
        elif there and not here:
            problems.append(Problem(
                Severity.WARNING, "class without a training object", "train", f"category {name!r}",
                f"no object to learn from, {there:,} in validation",
                "none of them can be found", "Move some of its photos into the training set.",
            ))  # fmt: skip
        elif here and not there:
            problems.append(Problem(
                Severity.WARNING, "class without a validation object", "val", f"category {name!r}",
                f"{counted(here, 'object')} in training, none in validation",
                "nobody will know how well it is found",
                "Move some of its photos into the validation set.",
            ))  # fmt: skip
        elif not here:
            problems.append(Problem(
                Severity.NOTE, "class without objects", "", f"category {name!r}", "no object",
                "the network has a class that it never sees", "Delete the category.",
            ))  # fmt: skip
    if matched.is_renumbered:
        problems.append(Problem(
            Severity.NOTE, "category ids differ between the files", "val", "the whole file",
            "the same names have other ids", "matched by name", "Nothing.",
        ))  # fmt: skip
    return problems


def _of_anchors(sets: Sequence[DataSet], network: Network) -> list[Problem]:
    """Training objects that no anchor fits."""
    if not sets or sets[0].key != "train":
        return []
    sides, ious = best_ious(sets[0], network)
    if not ious.size or (ious >= GOOD_IOU).mean() >= GOOD_SHARE:
        return []
    low, middle, high = np.quantile(sides, [0.05, 0.5, 0.95])
    return [Problem(
        Severity.WARNING, "anchors that do not fit the objects", "train", "the whole set",
        f"{(ious >= GOOD_IOU).mean():.0%} of the objects have an anchor with an IoU of "
        f"{GOOD_IOU} or more, where {GOOD_SHARE:.0%} are the least; anchor sizes are "
        f"{', '.join(f'{size:g}' for size in network.rpn.anchor_sizes)}, nine of ten objects are "
        f"{low:.0f} to {high:.0f} pixels across, half of them less than {middle:.0f}",
        "the others are found less often",
        "Choose task.model.rpn.anchor_sizes that cover these sizes, or another image size.",
    )]  # fmt: skip


def _of_copies(sets: Sequence[DataSet]) -> list[Problem]:
    """Photos that show almost the same, in one set or in both."""
    found: list[tuple[DataSet, Photo]] = [
        (data_set, photo) for data_set in sets for photo in data_set.photos if photo.bits
    ]  # an image of one colour has no bits, and is like any other such
    problems = []
    for group in near_duplicates.groups([photo.bits for _, photo in found]):
        members = [found[place] for place in group]
        train = [photo for data_set, photo in members if data_set.key == "train"]
        val = [photo for data_set, photo in members if data_set.key == "val"]
        for photo in val:
            if train:
                twin = min(train, key=lambda t: (t.bits ^ photo.bits).bit_count())
                problems.append(_of_image(
                    photo.image, "val", Severity.WARNING, "photo in training and validation",
                    f"{_likeness(photo, twin)} {twin.image.file_name} (image "
                    f"{twin.image.image_id}) of the training set",
                    "scores on it are too good: the network has seen it",
                    "Keep photos of one scene on one side: move it to the training set.",
                )._replace(twin_id=twin.image.image_id))  # fmt: skip
        for key, photos in (("train", train), ("val", val)):
            if len(photos) > 1:
                problems.append(_of_image(
                    photos[0].image, key, Severity.NOTE, "photos that show almost the same",
                    f"{_likeness(photos[0], photos[1])} "
                    f"{_some(photo.image.file_name for photo in photos[1:])}",
                    "they teach little more than one of them",
                    "Nothing; but keep them on one side when you split the data.",
                ))  # fmt: skip
    return problems


def _likeness(photo: Photo, other: Photo) -> str:
    if photo.sha256 == other.sha256:
        return "the same file as"
    bits = (photo.bits ^ other.bits).bit_count()
    return f"{bits} of 64 bits from" if bits else "looks the same as"


def _of_unlisted_files(sets: Sequence[DataSet]) -> list[Problem]:
    """Images that lie in the folder and in no annotation file."""
    problems = []
    for data_set in sets:
        folder = os.path.realpath(data_set.images_dir)
        sharing = [other for other in sets if os.path.realpath(other.images_dir) == folder]
        if sharing[0] is not data_set:
            continue  # said once for a folder
        names = set(data_set.unlisted).intersection(*(other.unlisted for other in sharing))
        if names:
            problems.append(Problem(
                Severity.NOTE, "images without annotations", data_set.key,
                counted(len(names), "file"), _some(sorted(names)), "they are not used",
                "Nothing; or annotate them, and there is more to learn from.",
            ))  # fmt: skip
    return problems


def _count_classes(data_set: DataSet) -> dict[str, int]:
    """Return how many objects that are no crowds each class has, by name."""
    names = data_set.class_names
    counts = dict.fromkeys(names.values(), 0)
    for _, _, entry in data_set.entries():
        counts[names[entry.category_id]] += not entry.is_crowd
    return counts


def _of_image(
    image: ImageEntry, key: str, severity: Severity, kind: str, value: str, happens: str,
    advice: str,
) -> Problem:  # fmt: skip
    return Problem(
        severity, kind, key, image.where, value, happens, advice, image.image_id, image.file_name
    )


def _some(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
