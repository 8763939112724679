"""The doctor's page: what is wrong, with pictures; what is there, in numbers and charts."""

import pathlib
from collections.abc import Sequence

import numpy as np

from mrcnn_tf.images import drawing
from mrcnn_tf.inspection import as_json, checks
from mrcnn_tf.inspection.data_set import DataSet
from mrcnn_tf.inspection.network import Network
from mrcnn_tf.inspection.photos import Photo
from mrcnn_tf.inspection.pictures import MOST_COLORS, picture
from mrcnn_tf.inspection.problems import Kind, Problem, Severity, by_kind
from mrcnn_tf.pages import charts
from mrcnn_tf.pages.markup import Html
from mrcnn_tf.pages.page import Badge, Cell, Page, Picture, Section

_MOST_ROWS = 200  # of one kind; all are in inspection.json
_OPEN_ROWS = 5  # longer tables are folded
_PICTURES_OF_KIND, _PICTURES_OF_SET = 4, {"train": 24, "val": 12}
_GRID = 16  # cells of the map of places, each way
_MOST_BARS = 20  # classes in one chart
_NAMES = {"train": "training", "val": "validation", "": "both"}
_MEANING = {
    Severity.ERROR: "the converter refuses the data, or nothing can be learnt from it",
    Severity.WARNING: "something is lost, or results will be worse or say less than they seem to",
    Severity.NOTE: "harmless or repaired",
}


def write(
    path: pathlib.Path, sets: Sequence[DataSet], problems: Sequence[Problem], network: Network
) -> None:
    """Write the page."""
    num_photos = sum(len(data_set.photos) for data_set in sets)
    num_objects = sum(len(data_set.objects_of(p.image)) for data_set in sets
                      for p in data_set.photos)  # fmt: skip
    page = Page("Data inspection", f"{num_photos:,} photos, {num_objects:,} objects")
    kinds = by_kind(problems)
    _summarise(page.section("Summary"), sets, problems, kinds)
    _list_problems(page, sets, kinds)
    if num_photos:
        _show_photos(page.section(
            "Photos", "Some photos of each set with the outlines that were read. Do they lie on "
            "the objects? Is every object outlined that should be found?"), sets)  # fmt: skip
    if num_objects:
        _chart_classes(page.section("Classes"), sets)
        _chart_sizes(page.section(
            "Sizes and places", f"Sizes are in pixels of the network's input, where an image's "
            f"short edge is resized to {network.short_edge} pixels and its long edge to "
            f"{network.long_edge} at most. An object's size is the square root of its box's area."
        ), sets, network)  # fmt: skip
        _chart_anchors(page.section(
            "Anchors", "Anchors are the boxes that the network starts from. What no anchor fits is "
            "hard to find, however long it trains."), sets, network)  # fmt: skip
    _say_settings(page.section("What was looked at"), sets, network)
    page.save(path)


def _summarise(
    section: Section, sets: Sequence[DataSet], problems: Sequence[Problem], kinds: Sequence[Kind]
) -> None:
    counts = {s: sum(problem.severity == s for problem in problems) for s in Severity}
    if counts[Severity.ERROR]:
        section.text("This data cannot be used as it is: see the errors.", "error")
    elif counts[Severity.WARNING]:
        section.text("This data can be used. Look at the warnings first.", "warning")
    else:
        section.text("Nothing is wrong with this data.", "good")
    numbers: list[tuple[str, Cell]] = [(f"{severity}s", counts[severity]) for severity in Severity]
    for data_set in sets:
        objects = sum(len(data_set.objects_of(photo.image)) for photo in data_set.photos)
        numbers += [
            (f"{data_set.name} photos", len(data_set.photos)),
            (f"{data_set.name} objects", objects),
        ]
    classes = dict.fromkeys(name for data_set in sets for name in data_set.class_names.values())
    section.key_numbers([*numbers, ("classes", len(classes))])
    rows = [
        (Badge(kind.first.severity, kind.first.severity), len(kind.problems), kind.first.kind,
         _NAMES[kind.first.data_set])
        for kind in kinds
    ]  # fmt: skip
    if rows:
        section.table(("", "times", "what", "set"), rows)


def _list_problems(page: Page, sets: Sequence[DataSet], kinds: Sequence[Kind]) -> None:
    """Add a section for each severity that occurs."""
    photos: dict[tuple[str, int | str | None], tuple[DataSet, Photo]] = {
        (data_set.key, photo.image.image_id): (data_set, photo)
        for data_set in sets
        for photo in data_set.photos
    }
    for severity in Severity:
        of_severity = [kind for kind in kinds if kind.first.severity == severity]
        if not of_severity:
            continue
        title = f"{severity.capitalize()}s"
        section = page.section(title, f"{_MEANING[severity].capitalize()}.")
        for kind in of_severity:
            first, count = kind.first, len(kind.problems)
            which = f" ({_NAMES[first.data_set]})" if first.data_set and len(sets) > 1 else ""
            section.heading(f"{first.kind}{which}" + (f", {count:,} times" if count > 1 else ""))
            section.text(f"What happens: {first.happens}.")
            advice = dict.fromkeys(problem.advice for problem in kind.problems)
            section.text(f"What to do: {next(iter(advice))}")
            rows = [(problem.where, problem.value) for problem in kind.problems[:_MOST_ROWS]]
            more = f" (the first {_MOST_ROWS}; all are in inspection.json)"
            fold = f"All {count:,}{more if count > _MOST_ROWS else ''}"
            section.table(
                ("where", "what"), rows, stacked=True, folded=fold if count > _OPEN_ROWS else ""
            )
            shown = [p for p in kind.problems if (p.data_set, p.image_id) in photos]
            shown = list({p.image_id: p for p in shown}.values())[:_PICTURES_OF_KIND]
            if shown and severity != Severity.NOTE:
                section.pictures(p for problem in shown for p in _pictures_of(problem, photos))


def _pictures_of(
    problem: Problem, photos: dict[tuple[str, int | str | None], tuple[DataSet, Photo]]
) -> list[Picture]:
    """Return the photo that a problem is of, and the one that it is too much like."""
    data_set, photo = photos[problem.data_set, problem.image_id]
    pictures = [picture(data_set, photo, problem.value)]
    if problem.twin_id is not None:
        data_set, photo = photos["train", problem.twin_id]
        pictures.append(picture(data_set, photo, "in the training set"))
    return pictures


def _show_photos(section: Section, sets: Sequence[DataSet]) -> None:
    for data_set in sets:
        if not data_set.photos:
            continue
        section.heading(f"{data_set.name.capitalize()}")
        names = list(data_set.class_names.values())
        if len(names) <= MOST_COLORS:
            colors = drawing.colors_of(range(len(names)))
            section.color_keys(zip(names, colors.tolist(), strict=True))
        most = _PICTURES_OF_SET[data_set.key]
        # Evenly spread over the file, whose order is often that of sources or dates.
        places = np.unique(np.linspace(0, len(data_set.photos) - 1, most).round().astype(int))
        chosen = [data_set.photos[place] for place in places]
        half = len(chosen) // 2 if len(chosen) > most // 2 else len(chosen)
        section.pictures(picture(data_set, photo) for photo in chosen[:half])
        if chosen[half:]:
            section.pictures(
                (picture(data_set, photo) for photo in chosen[half:]),
                folded=f"{len(chosen) - half} more",
            )


def _chart_classes(section: Section, sets: Sequence[DataSet]) -> None:
    rows: dict[str, list[int]] = {}
    for k, data_set in enumerate(sets):
        for row in as_json.classes_of(data_set):
            counts = rows.setdefault(row["name"], [0] * (2 * len(sets)))
            counts[2 * k : 2 * k + 2] = [row["objects"], row["images"]]
    columns = [f"{data_set.name} {what}" for data_set in sets for what in ("objects", "photos")]
    ordered = sorted(rows.items(), key=lambda item: -item[1][0])
    shown = ordered[:_MOST_BARS]
    values = {d.name: [counts[2 * k] for _, counts in shown] for k, d in enumerate(sets)}
    title = "Objects of each class"
    title += f" (the {_MOST_BARS} most frequent)" if len(ordered) > _MOST_BARS else ""
    labels = [name for name, _ in shown]
    chart = charts.bars(labels, values if len(sets) > 1 else values[sets[0].name], title)
    section.charts([chart])
    section.table(
        ("class", *columns), [(name, *counts) for name, counts in ordered],
        folded=f"All {len(ordered):,} classes in numbers" if len(ordered) > _OPEN_ROWS else "",
        stacked=True,
    )  # fmt: skip


def _chart_sizes(section: Section, sets: Sequence[DataSet], network: Network) -> None:
    tables = {data_set.name: data_set.table(network) for data_set in sets}
    sides = {name: np.maximum(t.network_sides, 0.5) for name, t in tables.items() if len(t.boxes)}
    shapes = {}
    for name, table in tables.items():
        height, width = (table.boxes[:, k + 2] - table.boxes[:, k] for k in (0, 1))
        if len(height):
            shapes[name] = np.clip(width / np.maximum(height, 1e-6), 0.05, 20)
    counts = {
        d.name: [float(len(d.objects_of(photo.image))) for photo in d.photos]
        for d in sets if d.photos
    }  # fmt: skip
    photo_sizes = {
        d.name: ([float(p.image.width) for p in d.photos], [float(p.image.height)
                 for p in d.photos]) for d in sets if d.photos
    }  # fmt: skip
    marks = [(network.smallest_visible, f"visible from {network.smallest_visible:g}")]
    section.charts([
        charts.histogram(
            _one(sides), "Object sizes", "pixels of network input", log=True, marks=marks,
        ),
        charts.histogram(
            _one(shapes), "Object shapes", "width / height", log=True,
            caption="Right of 1 are objects that are wider than high.",
        ),
        charts.histogram(
            _one(counts), "Objects per photo", "objects",
            marks=[(network.max_instances, f"max_instances {network.max_instances}")]
            if max(map(max, counts.values())) > network.max_instances / 2 else [],
        ),
        _map_of_places([tables[data_set.name].boxes for data_set in sets], sets, tables),
        charts.scatter(photo_sizes, "Photo sizes", "width, pixels", "height, pixels"),
    ])  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for data_set in sets:
        values = as_json.quantiles(tables[data_set.name].network_sides)
        rows.append((data_set.name, *(v if v is None else float(v) for v in values.values())))
    columns = ("object sizes", "smallest", "5 %", "25 %", "half below", "75 %", "95 %", "largest")
    section.table(columns, rows, stacked=True)


def _map_of_places(boxes: Sequence[np.ndarray], sets: Sequence[DataSet], tables: dict) -> Html:
    """Return a map of where in their photos the objects' centres lie."""
    places = np.zeros((_GRID, _GRID))
    for data_set, of_set in zip(sets, boxes, strict=True):
        size = np.array([(p.image.height, p.image.width) for p in data_set.photos], np.float64)
        if len(of_set):
            size = size[tables[data_set.name].image]
            centre = (of_set[:, :2] + of_set[:, 2:]) / 2 / size
            cell = np.minimum((centre * _GRID).astype(int), _GRID - 1)
            np.add.at(places, (cell[:, 0], cell[:, 1]), 1)
    return charts.heat_map(
        places, (), (), "Where objects lie", caption="Centres of all objects, every photo "
        "stretched to a square. Dark is frequent: a network that saw objects in the middle only "
        "finds them there best.",
    )  # fmt: skip


def _chart_anchors(section: Section, sets: Sequence[DataSet], network: Network) -> None:
    drawn = []
    for data_set in sets:
        sides, ious = checks.best_ious(data_set, network)
        if not ious.size:
            continue
        section.heading(data_set.name.capitalize())
        section.key_numbers([
            ("mean best IoU", float(ious.mean())),
            *((f"have one of IoU {least} or more", f"{(ious >= least).mean():.0%}")
              for least in as_json.IOUS),
        ])  # fmt: skip
        rows = as_json.by_size(sides, ious)
        middle = [float(np.median(sides[(sides >= row["from"]) & (sides < (row["to"] or np.inf))]))
                  for row in rows]  # fmt: skip
        drawn += [
            charts.lines(
                {f"IoU {least} or more": (middle, [row[f"recall_{int(100 * least)}"]
                 for row in rows]) for least in as_json.IOUS},
                f"Anchor recall by size, {data_set.name}", "object size, pixels of network input",
                "share of objects", x_log=True, y_range=(0, 1), points=True,
            ),
            charts.histogram(
                ious, f"Best IoU with an anchor, {data_set.name}", "IoU", x_range=(0, 1),
                marks=[(network.rpn.positive_iou, "positive from here")],
            ),
        ]  # fmt: skip
        section.table(
            ("object size", "objects", "mean best IoU", "IoU 0.5 or more", "IoU 0.7 or more"),
            [(f"{row['from']} to {row['to']}" if row["to"] else f"{row['from']} and more",
              row["objects"], *(round(row[key], 2) for key in ("mean_best_iou", "recall_50",
              "recall_70"))) for row in rows],
            stacked=True,
        )  # fmt: skip
    section.heading("Charts")
    section.charts(drawn)
    inside = ", leaving out anchors that reach beyond the image, as training does"
    section.text(
        "For each object that is no crowd, the best overlap (IoU) of its box with any anchor"
        + (inside if network.rpn.ignore_anchors_across_border else "")
        + f". An anchor is positive from {network.rpn.positive_iou:g} on; an object that has none "
        "gets its best one all the same, which teaches less."
    )


def _say_settings(section: Section, sets: Sequence[DataSet], network: Network) -> None:
    rows: list[tuple[Cell, Cell]] = []
    for data_set in sets:
        rows += [
            (f"{data_set.name} images", data_set.images_dir),
            (f"{data_set.name} annotations", data_set.annotations),
            ("SHA-256 of them", data_set.coco.sha256 if data_set.coco else None),
        ]
    rpn = network.rpn
    rows += [
        ("experiment", network.name or "none: the paper's network"),
        ("short edge, long edge", f"{network.short_edge}, {network.long_edge} pixels"),
        ("anchor sizes", ", ".join(f"{size:g}" for size in rpn.anchor_sizes)),
        ("anchor ratios (height / width)", ", ".join(f"{ratio:g}" for ratio in rpn.anchor_ratios)),
        ("strides of the feature maps", ", ".join(map(str, network.strides))),
        ("objects per image at most (max_instances)", str(network.max_instances)),
        (
            "objects count as visible from",
            f"{network.smallest_visible:g} pixels across: half of the finest stride. A smaller one "
            "covers less than a quarter of one cell of the finest feature map, so that the "
            "network sees its surroundings more than itself",
        ),
    ]
    section.table(("setting", "value"), rows, stacked=True)


def _one(series: dict[str, np.ndarray] | dict[str, list[float]]) -> dict:
    """Return named series; what has one only needs no name."""
    return series if len(series) > 1 else {"": next(iter(series.values()), np.zeros(0))}
