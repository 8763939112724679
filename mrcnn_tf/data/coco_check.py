"""Checks a whole COCO annotation file: images, categories, annotations, and that they fit.

Findings are of four levels, see `findings.py`; one cause makes one finding.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mrcnn_tf.data import (
    coco_categories,
    coco_data,
    coco_federated,
    coco_masks,
    coco_values,
    schema,
)
from mrcnn_tf.data.coco_annotation import BadAnnotationError, ObjectEntry, Reader
from mrcnn_tf.data.coco_boxes import CornersWithoutMasks
from mrcnn_tf.data.coco_data import CocoData, ImageEntry
from mrcnn_tf.data.findings import Finding, Level

_LARGEST_SIDE = 100_000  # pixels; no decoder here reads larger images


SizeOf = Callable[[str], tuple[int, int] | None]


def check(
    content: Any,
    include_masks: bool,
    name: str,
    size_of: SizeOf | None = None,
    consume: bool = False,
) -> CocoData:
    """Check parsed COCO annotations.

    Args:
      content: the JSON value.
      include_masks: whether masks are wanted.
      name: the file's path, for messages.
      size_of: see `read`.
      consume: whether the list of annotations may be emptied on the way.

    Raises:
      ValueError: it is no COCO file at all.
    """
    images, annotations, categories = _lists_of(content, name)
    findings: list[Finding] = []
    used = {coco_values.integer(row.get("category_id")) for row in annotations}
    label_map, notes = coco_categories.read(categories, used - {None}, findings)
    num_objects = len(annotations)
    names = {}
    if label_map.keypoints:
        with_keypoints = [label_map.ids[k - 1] for k in label_map.keypoints.classes]
        names = dict.fromkeys(with_keypoints, label_map.keypoints.names)
    reader = Reader(frozenset(label_map.ids), include_masks, names)
    checker = _Checker(images, findings, notes, reader, size_of)
    checker.read_lists(images, frozenset(label_map.ids))
    new_ids = _unused_ids(annotations)
    checker.add_annotations(_popping(annotations) if consume else annotations, new_ids)
    checker.finish(num_objects)
    entries = checker.images.values()
    label_map = coco_federated.with_frequencies(label_map, categories, entries, checker.objects)
    return CocoData(
        name=name,
        images=list(checker.images.values()),
        objects=checker.objects,
        label_map=label_map,
        num_images=len(images),
        num_objects=num_objects,
        findings=findings,
        notes=notes,
        warnings=coco_data.warnings_of(checker.objects, include_masks),
    )


class _Checker:
    """Checks images and annotations; findings are appended to a list."""

    def __init__(
        self,
        rows: list[dict[str, Any]],
        findings: list[Finding],
        notes: dict[str, int],
        reader: Reader,
        size_of: SizeOf | None,
    ) -> None:
        self.images: dict[str, ImageEntry] = {}
        self.objects: dict[str, list[ObjectEntry]] = {}
        self._findings, self._notes, self._reader = findings, notes, reader
        self._size_of = size_of
        self._lost_images: dict[str, Finding] = {}  # listed in the file, but left out
        self._num_rows: collections.Counter[str] = collections.Counter()  # by image
        self._without_image: dict[str, list[Any]] = {}  # annotation ids by an unknown image id
        self._readings: dict[str, int] = {}  # what boxes seem to be: how many
        self._corners = CornersWithoutMasks()
        self._seen: set[int] = set()  # annotation ids
        self._known_sizes: set[str] = set()  # images whose file was asked
        self._known: frozenset[int] = frozenset()  # category ids, of a federated file
        for k, row in enumerate(rows):
            self._add_image(row, k)

    def _add_image(self, row: dict[str, Any], k: int) -> None:
        short = coco_values.short
        where = f"image {short(row.get('id'))} ({short(row.get('file_name'))}, images[{k}])"
        identifier, file_name = coco_values.identifier(row.get("id")), row.get("file_name")
        key = _key(row.get("id"))
        if identifier is None:
            fault = ("malformed image id", "expected a number or a text")
        elif not 1 <= len(key.encode(errors="replace")) <= schema.SOURCE_ID_BYTES:
            fault = ("malformed image id", f"expected 1..{schema.SOURCE_ID_BYTES} bytes of text")
        elif key in self.images or key in self._lost_images:
            kind = "image ids occur more than once"
            value = f"id {short(identifier)} belongs to an image already"
            finding = Finding(Level.REFUSED, kind, where, value, "")
            self._findings.append(finding._replace(image_id=identifier))
            return
        else:
            file_name = coco_values.text(file_name) or _name_in_url(row)
            size = self._size(row, file_name, where)
            if size:
                self.images[key] = ImageEntry(identifier, file_name, *size)
                return
            sides = f"height {short(row.get('height'))}, width {short(row.get('width'))}"
            fault = ("malformed image size", f"{sides}; expected positive integers")
        finding = Finding(Level.LEFT_OUT, fault[0], where, fault[1], "image left out", images=1)
        file_name = coco_values.text(row.get("file_name")) or ""
        self._lose(key, finding._replace(image_id=identifier, file_name=file_name))

    def read_lists(self, rows: list[dict[str, Any]], known: frozenset[int]) -> None:
        """Read what a federated file's images say of categories, see `coco_federated.py`."""
        if not any(coco_federated.NEG in r or coco_federated.NOT_EXHAUSTIVE in r for r in rows):
            return
        self._known = known
        for row in rows:
            key = _key(row.get("id"))
            if key not in self.images:
                continue
            image = coco_federated.read_lists(self.images[key], row, known, self._findings)
            if image.neg_category_ids is None:
                self._note("images without lists of categories in a federated file, taken as empty")
                image = image._replace(neg_category_ids=(), not_exhaustive_category_ids=())
            self.images[key] = image

    def _lose(self, key: str, finding: Finding) -> None:
        self._lost_images[key] = finding
        self._findings.append(finding)

    def _size(self, row: dict[str, Any], file_name: str, where: str) -> tuple[int, int] | None:
        height, width = (coco_values.integer(row.get(key)) for key in ("height", "width"))
        if height and width and 0 < height <= _LARGEST_SIDE and 0 < width <= _LARGEST_SIDE:
            return height, width
        size = self._size_of(file_name) if self._size_of and file_name else None
        if size:
            value = f"height {row.get('height')!r}, width {row.get('width')!r}; the file has "
            value += f"{size[1]} x {size[0]} (width x height)"
            remedy = "taken from the image file"
            finding = Finding(Level.REPAIRED, "no image size", where, value[:200], remedy)
            identifier = coco_values.identifier(row.get("id"))
            self._findings.append(finding._replace(image_id=identifier, file_name=file_name))
        return size

    def add_annotations(self, rows: Iterable[dict[str, Any]], new_ids: Iterator[int]) -> None:
        """Check annotations and sort them by image."""
        for row in rows:
            key = _key(row.get("image_id"))
            self._num_rows[key] += 1
            image = self.images.get(key)
            if image:
                entry = self._read(row, image)
                if entry:
                    entry = entry._replace(annotation_id=self._own_id(entry, new_ids))
                    self.objects.setdefault(image.source_id, []).append(entry)
            elif key not in self._lost_images:
                self._without_image.setdefault(key, []).append(row.get("id"))

    def _read(self, row: dict[str, Any], image: ImageEntry) -> ObjectEntry | None:
        """Read one annotation of an image that is there."""
        where = f"annotation {coco_values.short(row.get('id'))} of {image.where}"

        other_size, num_findings = False, len(self._findings)

        def report(level: Level, kind: str, value: str, remedy: str) -> None:
            nonlocal other_size
            other_size = other_size or kind == coco_masks.OTHER_SIZE
            finding = Finding(level, kind, where, value, remedy)
            self._findings.append(image.sign(finding))

        if "iscrowd" not in row:
            self._note("annotations without iscrowd, taken as 0")
        try:
            entry = self._reader.read(row, image.height, image.width, report)
        except BadAnnotationError as fault:
            del self._findings[num_findings:]  # what becomes of its parts does not matter
            if self._has_other_size(image):
                return None
            if fault.evidence and fault.evidence.reading:
                reading = fault.evidence.reading
                self._readings[reading] = self._readings.get(reading, 0) + 1
            finding = Finding(
                Level.LEFT_OUT, fault.kind, where, fault.value, "object left out", objects=1
            )
            self._findings.append(image.sign(finding))
            self.images[image.source_id] = coco_federated.without_object(
                image, coco_values.integer(row.get("category_id")), self._known
            )
            return None
        if other_size and self._has_other_size(image):
            return None
        if not entry.mask:
            self._corners.add(entry.bbox, image.height, image.width)
        return entry

    def _has_other_size(self, image: ImageEntry) -> bool:
        """Look whether an image whose annotations are odd has another size than they say.

        Then the image is left out, and that is the one thing to say about it.
        """
        if not self._size_of or image.source_id in self._known_sizes:
            return False
        self._known_sizes.add(image.source_id)
        size = self._size_of(image.file_name) if image.file_name else None
        if size is None or size == (image.height, image.width):
            return False
        value = f"{image.width} x {image.height} in the annotations, {size[1]} x {size[0]} in the "
        kind = "size differs from the file's (width x height)"
        finding = Finding(Level.LEFT_OUT, kind, image.where, value + "file", "image left out")
        self._findings[:] = [f for f in self._findings if not f.where.endswith(f"of {image.where}")]
        self._lose(image.source_id, image.sign(finding._replace(images=1)))
        del self.images[image.source_id]
        self.objects.pop(image.source_id, None)
        return True

    def _own_id(self, entry: ObjectEntry, new_ids: Iterator[int]) -> int:
        identifier = entry.annotation_id
        if identifier is None or identifier in self._seen:
            what = "without a whole number as id" if identifier is None else "with another's id"
            self._note(f"annotations {what}, numbered anew")
            identifier = next(new_ids)
        self._seen.add(identifier)
        return identifier

    def _note(self, what: str) -> None:
        self._notes[what] = self._notes.get(what, 0) + 1

    def finish(self, num_objects: int) -> None:
        """Draw the conclusions that need the whole file."""
        num_lost = {id(f): self._num_rows[key] for key, f in self._lost_images.items()}
        self._findings[:] = [
            f._replace(annotations=num_lost[id(f)]) if id(f) in num_lost else f
            for f in self._findings
        ]
        for key, image in self.images.items():
            self.images[key] = coco_federated.without_present(
                image, self.objects.get(key, ()), self._findings
            )
        for key, ids in self._without_image.items():
            where = f"{len(ids)} annotations, the first with id {coco_values.short(ids[0])}"
            value = f"no image has the id {key}"
            finding = Finding(Level.LEFT_OUT, "unknown image", where, value, "objects left out")
            self._findings.append(finding._replace(objects=len(ids)))
        for reading, count in self._readings.items():
            if count >= 3 and 100 * count > num_objects:
                self._refuse(
                    "boxes are not COCO's",
                    f"in {count:,} of {num_objects:,} objects the box contradicts mask or image; "
                    f"they seem to be {reading}. COCO has boxes [x, y, width, height] and polygons "
                    "[x1, y1, x2, y2, ...] in pixels",
                )
        if self._corners.found():
            self._refuse(
                "boxes are not COCO's",
                f"{self._corners.num_outside:,} boxes reach out of their image, and all would fit "
                "as corners [x1, y1, x2, y2]. COCO's are [x, y, width, height] in pixels",
            )
        if not self.objects and any(finding.objects for finding in self._findings):
            self._refuse("no usable object", f"of {num_objects:,} objects none can be used")

    def _refuse(self, kind: str, value: str) -> None:
        self._findings.append(Finding(Level.REFUSED, kind, "", value, ""))


def _lists_of(content: Any, name: str) -> list[list[dict[str, Any]]]:
    """Return the lists of images, annotations and categories."""
    if not isinstance(content, dict):
        raise ValueError(
            f"{name}: not a COCO annotation file: expected an object with the lists 'images', "
            f"'annotations' and 'categories', found a {type(content).__name__}"
            + (" (a file of detections?)" if isinstance(content, list) else "")
        )
    lists: list[list[dict[str, Any]]] = []
    for key in ("images", "annotations", "categories"):
        rows: Any = content.get(key)
        found = None
        if not isinstance(rows, list):
            found = "nothing" if rows is None else f"a {type(rows).__name__}"
        elif not all(isinstance(row, dict) for row in rows):
            k = next(k for k, row in enumerate(rows) if not isinstance(row, dict))
            found = f"{coco_values.short(rows[k])} as {key}[{k}]"
        if found:
            raise ValueError(
                f"{name}: not a COCO annotation file: expected a list of objects under {key!r}, "
                f"found {found} (keys of the file: {sorted(content)})"
            )
        lists.append(rows)
    return lists


def _name_in_url(row: dict[str, Any]) -> str:
    """Return the file of an image that has an address only, as LVIS's: folder and name."""
    return "/".join((coco_values.text(row.get("coco_url")) or "").split("/")[-2:])


def _key(image_id: Any) -> str:
    """Return the text by which an image is found, whatever its id is."""
    identifier = coco_values.identifier(image_id)
    return coco_values.short(image_id) if identifier is None else str(identifier)


def _unused_ids(rows: list[dict[str, Any]]) -> Iterator[int]:
    """Return an iterator over annotation ids that the file does not use."""
    largest = max((coco_values.integer(row.get("id")) or 0 for row in rows), default=0)
    if largest < 2**62:
        return itertools.count(largest + 1)
    used = {coco_values.integer(row.get("id")) for row in rows}
    return (k for k in itertools.count(1) if k not in used)


def _popping(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows in their order, and forget each."""
    rows.reverse()
    while rows:
        yield rows.pop()
