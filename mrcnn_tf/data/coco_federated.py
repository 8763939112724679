"""What a federated annotation file says beyond COCO's: which categories were looked for where.

In a federated data set (LVIS, arXiv 1908.03195, section 3) each image is annotated for some
categories only. Those with objects are there; those in its list `neg_category_ids` were looked for
and are absent; of those in `not_exhaustive_category_ids` not every object is annotated; of all
others nothing is known. A file is federated if an image has one of the lists, or a category a
`frequency` or an `image_count`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from mrcnn_tf.data import coco_values
from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.findings import Finding, Level
from mrcnn_tf.data.label_map import FREQUENCIES, LabelMap, frequency_of

NEG, NOT_EXHAUSTIVE = "neg_category_ids", "not_exhaustive_category_ids"


def read_lists(
    image: ImageEntry, row: Mapping[str, Any], known: Set[int], findings: list[Finding]
) -> ImageEntry:
    """Return an image with the two lists of its JSON, a missing one empty; as it is without both.

    Args:
      image: the image.
      row: its JSON.
      known: the ids of the file's categories.
      findings: what is wrong is appended: a list that is none is refused, since nobody can tell
        what it would have said, and ids of no category are left out.
    """
    if NEG not in row and NOT_EXHAUSTIVE not in row:
        return image
    lists = {}
    for name in (NEG, NOT_EXHAUSTIVE):
        values = row.get(name, [])
        ids = [coco_values.integer(v) for v in values] if isinstance(values, list) else [None]
        if None in ids:
            value = f"{coco_values.short(row[name])}; expected a list of category ids"
            findings.append(
                image.sign(Finding(Level.REFUSED, f"malformed {name}", image.where, value, ""))
            )
            ids = []
        unknown = [i for i in ids if i not in known]
        if unknown:
            value = f"{coco_values.short(unknown)} is the id of no category"
            kind, remedy = f"unknown category in {name}", "left out of the list"
            finding = Finding(Level.REPAIRED, kind, image.where, value, remedy)
            findings.append(image.sign(finding))
        lists[name] = tuple(sorted({i for i in ids if i is not None and i in known}))
    return image._replace(
        neg_category_ids=lists[NEG], not_exhaustive_category_ids=lists[NOT_EXHAUSTIVE]
    )


def without_present(
    image: ImageEntry, objects: Iterable[ObjectEntry], findings: list[Finding]
) -> ImageEntry:
    """Take categories off the list of absent ones that the image has objects of.

    Args:
      image: an image with or without lists.
      objects: its objects.
      findings: each such list is one more.
    """
    if not image.neg_category_ids:
        return image
    present = {entry.category_id for entry in objects}
    wrong = sorted(present.intersection(image.neg_category_ids))
    if not wrong:
        return image
    value = f"{coco_values.short(wrong)} is listed as absent, but the image has objects of it"
    kind, remedy = f"category in {NEG} is there", "taken as there"
    findings.append(image.sign(Finding(Level.REPAIRED, kind, image.where, value, remedy)))
    left = tuple(i for i in image.neg_category_ids if i not in present)
    return image._replace(neg_category_ids=left)


def without_object(image: ImageEntry, category_id: int | None, known: Set[int]) -> ImageEntry:
    """Say of an image with lists that an object of it is left out: it has more than it says.

    Args:
      image: an image with or without lists.
      category_id: of the object.
      known: the ids of the file's categories.
    """
    if image.not_exhaustive_category_ids is None or category_id is None or category_id not in known:
        return image
    return image._replace(
        neg_category_ids=tuple(i for i in image.neg_category_ids or () if i != category_id),
        not_exhaustive_category_ids=tuple(
            sorted({*image.not_exhaustive_category_ids, category_id})
        ),
    )


def with_frequencies(
    label_map: LabelMap,
    rows: Sequence[Mapping[str, Any]],
    images: Iterable[ImageEntry],
    objects: Mapping[str, Sequence[ObjectEntry]],
) -> LabelMap:
    """Say how many images each category of a federated file is in; others come back as they are.

    The file's own numbers count if all categories have one: an extract of LVIS keeps the whole
    one's. Otherwise the images are counted. So it is with LVIS's letters, which follow from them.

    Args:
      label_map: the file's categories.
      rows: their JSON.
      images: the file's images.
      objects: by source id.
    """
    named = {coco_values.integer(row.get("id")): row for row in rows}
    of_class = [named[i] for i in label_map.ids]
    has_lists = any(image.neg_category_ids is not None for image in images)
    if not has_lists and not any(
        k in row for row in of_class for k in ("image_count", "frequency")
    ):
        return label_map
    given = [coco_values.integer(row.get("image_count")) for row in of_class]
    counts = [count for count in given if count is not None and count >= 0]
    if len(counts) < len(given):
        number = dict.fromkeys(label_map.ids, 0)
        for entries in objects.values():
            for category_id in {entry.category_id for entry in entries}:
                number[category_id] += 1
        counts = list(number.values())
    letters = [row.get("frequency") for row in of_class]
    if not all(isinstance(letter, str) and letter in FREQUENCIES for letter in letters):
        letters = [frequency_of(count) for count in counts]
    return dataclasses.replace(
        label_map, image_counts=tuple(counts), frequencies=tuple(map(str, letters))
    )
