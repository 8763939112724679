"""The page: everything of a report, with a plain sentence beside each number."""

import dataclasses
import datetime

import numpy as np
import yaml
from pycocotools import mask as coco_mask

from mrcnn_tf.analysis import outcomes
from mrcnn_tf.analysis.coco_numbers import Number
from mrcnn_tf.console.durations import duration
from mrcnn_tf.images import drawing
from mrcnn_tf.pages import charts
from mrcnn_tf.pages.page import Page, Picture
from mrcnn_tf.pages.thumbnails import data_uri, small_drawing
from mrcnn_tf.reporting import advice
from mrcnn_tf.reporting.history import History
from mrcnn_tf.reporting.pixels import Photo
from mrcnn_tf.reporting.scored import Scored

NUM_IMAGES = 6  # of each kind: best, worst, most confusing
_LONG_EDGE = 300  # pixels of each image of a pair
_MAX_CURVES = 8  # of categories in one chart
_MAX_MATRIX = 14  # categories of a matrix that can be read
_RIGHT, _WRONG = 2, 5  # places in the palette of drawings: bluish green, vermilion
_IN_WORDS = {
    "class": "wrong category",
    "localisation": "badly outlined",
    "both": "wrong category and badly outlined",
    "duplicate": "found twice",
    "background": "nothing is annotated there",
}
_SIZES = {
    "all": "all sizes",
    "small": "small (under 32 x 32 pixels)",
    "medium": "medium",
    "large": "large (96 x 96 and more)",
}


@dataclasses.dataclass(frozen=True)
class About:
    """What a report is of.

    Attributes:
      title: of the page.
      made_from: pairs (what, value): checkpoint, data, hashes, times.
      versions: of packages.
      machine: that the report was made on.
      command: that makes the report.
      params: the experiment as YAML; "" if there is none.
      made_at: local time.
      is_found_by_export: whether an export of the checkpoint will find the report.
    """

    title: str
    made_from: list[tuple[str, str]]
    versions: dict[str, str]
    machine: dict[str, str]
    command: str
    params: str
    made_at: datetime.datetime
    is_found_by_export: bool


def chosen_images(scored: Scored) -> dict[str, list[outcomes.Outcome]]:
    """Return which images the page shows, by why: best, worst, surest mistakes."""
    count = min(NUM_IMAGES, max(1, len(scored.outcomes) // 2))
    found = [o for o in scored.outcomes if o.right or o.wrong or o.missed]
    worst = outcomes.worst(found, count)
    found = [o for o in found if o not in worst]
    confusing = outcomes.most_confusing(found, count)
    best = outcomes.best([o for o in found if o.right and o not in confusing], count)
    return {"worst": worst, "confusing": confusing, "best": best}


def build(scored: Scored, about: About, history: History | None, photos: dict[str, Photo]) -> Page:
    """Put the page together.

    Args:
      scored: the numbers.
      about: what it is of.
      history: of the training; None without a run.
      photos: by the text of their ids; images that are not among them are not shown.
    """
    images = f"{len(scored.rows.images):,} validation images"
    page = Page(
        about.title,
        f"{images}, {scored.num_objects:,} objects, {len(scored.names)} "
        f"categor{'y' if len(scored.names) == 1 else 'ies'}; {about.made_at:%d %B %Y, %H:%M}",
    )
    _in_short(page, scored, history)
    _images(page, scored, photos)
    _errors(page, scored)
    _confusion(page, scored)
    _scores(page, scored)
    _threshold(page, scored, about)
    _curves(page, scored)
    _calibration(page, scored)
    if history and (history.training or history.evaluations):
        _training(page, scored, history)
    _facts(page, about)
    return page


def _in_short(page: Page, scored: Scored, history: History | None) -> None:
    section = page.section(
        "In short",
        "How well the network does on images that it did not learn from, and what would help.",
    )
    number = scored.numbers[scored.kind].get("ap50")
    best = scored.threshold
    section.key_numbers(
        [
            (f"{scored.kind} AP50 (0 to 1, higher is better)", _plain(number)),
            ("of the objects are found", f"{best.recall:.0%}" if best else None),
            ("of what it shows is right", f"{best.precision:.0%}" if best else None),
            ("score from which to believe it", f"{best.score:.2f}" if best else None),
        ]
    )
    if best:
        section.text(
            f"Showing detections with a score of {best.score:.2f} or more, the network finds "
            f"{best.right:,} of {scored.num_objects:,} objects, misses {best.missed:,}, and shows "
            f"{best.wrong:,} that are wrong. Right means: the right category, and at least half "
            "overlap with the annotated object."
        )
    if number.low is not None:
        section.text(
            f"With other images of the same kind, AP50 would be between {number.low:.2f} and "
            f"{number.high:.2f} in 19 of 20 cases."
        )
    section.heading("What would help")
    points = advice.advice(scored, history)
    section.points(points or ["Nothing stands out: all errors are small and of many kinds."])


def _images(page: Page, scored: Scored, photos: dict[str, Photo]) -> None:
    chosen = chosen_images(scored)
    if not photos or not any(chosen.values()):
        return
    section = page.section(
        "Images",
        f"Left what was annotated, right what was found with a score of {scored.shown_from:.2f} or "
        "more. Look at the mistakes first: some are wrong or missing annotations.",
    )
    section.color_keys(
        [
            ("found, right", drawing.colors_of([_RIGHT])[0]),
            ("missed (left), wrong (right)", drawing.colors_of([_WRONG])[0]),
            ("crowd, not scored", (150, 150, 150)),
        ]
    )
    titles = {
        "worst": "Worst: most missed and wrong",
        "confusing": "Most confusing: wrong, and sure of it",
        "best": "Best",
    }
    for why, title in titles.items():
        pictures = [
            _picture(scored, outcome, photo)
            for outcome in chosen[why]
            if (photo := photos.get(str(scored.image_ids[outcome.image])))
        ]
        if pictures:
            section.heading(title)
            section.pictures(pictures, wide=True)


def _picture(scored: Scored, outcome: outcomes.Outcome, photo: Photo) -> Picture:
    """Draw ground truth beside prediction."""
    matches = scored.numbers[scored.kind].matches
    image = scored.rows.images[outcome.image]
    enlarge = max(1, _LONG_EDGE // max(photo.pixels.shape[:2]))  # room for labels
    pixels = photo.pixels.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    frame_hw = image["height"], image["width"]
    missed = {int(matches.object_id[k]) for k in outcome.missed}
    there = [row for row in scored.rows.annotations if row["image_id"] == image["id"]]
    left = small_drawing(
        pixels,
        _boxes(there),
        [row.get("segmentation") for row in there],
        [scored.names[row["category_id"] - 1] for row in there],
        color_ids=[_WRONG if row["id"] in missed else _RIGHT for row in there],
        is_crowd=[bool(row["iscrowd"]) for row in there],
        frame_hw=frame_hw,
        long_edge=_LONG_EDGE,
    )
    rows = {row["id"]: row for row in scored.rows.detections if row["image_id"] == image["id"]}
    shown = sorted([*outcome.right, *outcome.wrong])
    wrong = set(outcome.wrong)
    found = [rows[int(matches.detection_id[k])] for k in shown]
    right = small_drawing(
        pixels,
        _boxes(found),
        [row.get("segmentation") for row in found],
        [scored.names[row["category_id"] - 1] for row in found],
        [row["score"] for row in found],
        color_ids=[_WRONG if k in wrong else _RIGHT for k in shown],
        frame_hw=frame_hw,
        long_edge=_LONG_EDGE,
    )
    kinds = {error.index: error.kind for error in scored.errors.wrong}
    mistakes = [
        f"{scored.names[int(matches.category[k]) - 1]} {matches.score[k]:.2f}: "
        f"{_IN_WORDS[kinds[k]]}"
        for k in outcome.wrong[:3]
    ]
    caption = (
        f"{photo.name}: {len(outcome.right)} found, {len(outcome.missed)} missed, "
        f"{len(outcome.wrong)} wrong" + (f" ({'; '.join(mistakes)})" if mistakes else "")
    )
    pair = drawing.draw_side_by_side(left, right, ("annotated", "found"))
    return Picture(data_uri(pair), caption, f"annotated and found objects of {photo.name}")


def _boxes(rows: list[dict]) -> np.ndarray:
    """Return float [n, (y1, x1, y2, x2)]; of masks, the boxes around them."""
    boxes = [
        row["bbox"] if "bbox" in row else coco_mask.toBbox(row["segmentation"]) for row in rows
    ]
    x, y, width, height = np.asarray(boxes, np.float64).reshape(-1, 4).T
    return np.stack([y, x, y + height, x + width], axis=1)


def _errors(page: Page, scored: Scored) -> None:
    section = page.section(
        "Kinds of errors",
        "Every error has one kind, and mending one kind alone would raise AP50 by so much. The "
        "longest bar is where work pays most. Kinds as in TIDE (Bolya et al. 2020).",
    )
    gains = scored.errors.gain
    measured = {kind: gain for kind, gain in gains.items() if gain is not None}
    drawn = [
        charts.bars(
            list(gains),
            list(scored.shown_errors.counts.values()),
            f"How many there are from a score of {scored.shown_from:.2f} on",
            "errors",
        )
    ]
    if measured:
        chart = charts.bars(
            list(measured),
            [100 * gain for gain in measured.values()],
            "What mending each kind would give",
            "points of AP50 (of 100)",
        )
        drawn.insert(0, chart)
    section.charts(drawn)
    section.table(
        ("kind", "what it means", "shown", "all", "AP50 gained"),
        [
            (
                kind,
                advice.KINDS[kind][0],
                scored.shown_errors.counts[kind],
                scored.errors.counts[kind],
                _two_digits(gains[kind]),
            )
            for kind in gains
        ],
        stacked=True,
    )
    later = _found_below(scored)
    if later:
        section.text(
            f"Shown: with a score of {scored.shown_from:.2f} or more. {later:,} of the objects "
            "that are missed then are found, but with a lower score: they count as missed where "
            "few are shown, and cost less of AP50, which looks at all detections."
        )
    section.text(
        "Without all that is wrong, AP50 would gain "
        f"{_two_digits(scored.errors.gain_false_positives)}; without all that is not found, "
        f"{_two_digits(scored.errors.gain_false_negatives)}. Gains do not add up, because one "
        "error may hide another."
    )


def _found_below(scored: Scored) -> int:
    """Return how many objects are found by detections below the threshold only."""
    if scored.threshold is None or not scored.sweep.right.size:
        return 0
    return int(scored.sweep.right[-1]) - scored.threshold.right


def _confusion(page: Page, scored: Scored) -> None:
    section = page.section(
        "What is taken for what",
        "Each row is what was there, each column what it was taken for. Numbers off the diagonal "
        "are errors; the last row was seen where nothing is annotated, or a second time, the "
        "last column was not seen.",
    )
    counts = scored.confusion.counts
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    last = len(scored.names)
    busiest = np.argsort(-wrong[:last], kind="stable")[:_MAX_MATRIX]
    kept = [*sorted(busiest.tolist()), last]
    names = [*scored.names]
    part = counts[np.ix_(kept, kept)]
    shares = part / np.maximum(part.sum(axis=1, keepdims=True), 1)
    section.charts(
        [
            charts.heat_map(
                part,
                [*(names[k] for k in kept[:-1]), "nothing"],
                [*(names[k] for k in kept[:-1]), "not seen"],
                "Confusion matrix",
                "there",
                "taken for",
                shares=shares,
                caption=f"Detections from a score of {scored.shown_from:.2f} on; darker: a larger "
                "part of its row."
                + (
                    f" The {_MAX_MATRIX} categories with most errors of {last}."
                    if last > _MAX_MATRIX
                    else ""
                ),
            )
        ]
    )
    pairs = scored.confusion.pairs()[:10]
    if pairs:
        section.table(
            ("there", "taken for", "times"),
            [(names[a - 1], names[b - 1], count) for a, b, count in pairs],
        )
    elif last > 1:
        section.text("No object was taken for one of another category.", "good")


def _scores(page: Page, scored: Scored) -> None:
    section = page.section(
        "Scores",
        "Average precision (AP), 0 to 1, is what detectors are compared by: high if the network "
        "finds most objects, shows little else, and its outlines fit. AP50 asks for half overlap, "
        "AP75 for three quarters, AP alone is the mean from 0.50 to 0.95. In brackets: where the "
        "score would lie in 19 of 20 cases with other images of the same kind.",
    )
    rows = []
    for kind, numbers in scored.numbers.items():
        for size, text in _SIZES.items():
            cells = [_with_interval(numbers.get(m, size=size)) for m in ("ap", "ap50", "ap75")]
            rows.append((f"{kind}, {text}", *cells, numbers.get("ap", size=size).objects))
    section.table(("what", "AP", "AP50", "AP75", "objects"), rows, stacked=True)
    section.heading("By category")
    columns = ["category", "objects"]
    columns += [f"{kind} {m}" for kind in scored.numbers for m in ("AP", "AP50")]
    columns += [f"{scored.kind} AP {size}" for size in ("small", "medium", "large")]
    main = scored.numbers[scored.kind]
    table = []
    for k, name in enumerate(scored.names, start=1):
        cells = [
            _with_interval(numbers.get(measure, k))
            for numbers in scored.numbers.values()
            for measure in ("ap", "ap50")
        ]
        sizes = [_plain(main.get("ap", k, size)) for size in ("small", "medium", "large")]
        table.append((name, main.get("ap", k).objects, *cells, *sizes))
    section.table(columns, table, stacked=True)


def _threshold(page: Page, scored: Scored, about: About) -> None:
    section = page.section(
        "From which score to believe it",
        "Every detection comes with a score, 0 to 1. A higher threshold shows fewer wrong ones, "
        "but misses more. F1 weighs both alike; the line is where it is highest.",
    )
    swept = scored.sweep
    if not swept.score.size:
        section.text("There are no detections.", "warning")
        return
    marks = [(scored.threshold.score, f"{scored.threshold.score:.2f}")] if scored.threshold else []
    section.charts(
        [
            charts.lines(
                {
                    "right, of what is shown (precision)": (swept.score, swept.precision),
                    "found, of the objects (recall)": (swept.score, swept.recall),
                    "F1": (swept.score, swept.f1),
                },
                "What each threshold gives",
                "score threshold",
                "",
                y_range=(0, 1),
                marks=marks,
            )
        ]
    )
    if scored.threshold:
        score = scored.threshold.score
        section.text(
            (
                f"predict draws from {score:.2f} on if the network was exported after this report "
                "(--score_threshold changes it). "
                if about.is_found_by_export
                else f"To draw from {score:.2f} on: predict --score_threshold={score:.2f}. "
            )
            + "Take a higher one if wrong detections are worse for you than missed objects, a "
            "lower one if it is the other way round."
        )
    section.table(
        ("category", "best threshold", "right of shown", "found of objects", "F1", "missed"),
        [
            (
                name,
                *(
                    (_two_digits(of.score), f"{of.precision:.0%}", f"{of.recall:.0%}")
                    if of
                    else (None, None, None)
                ),
                _two_digits(of.f1) if of else None,
                of.missed if of else None,
            )
            for name, of in zip(scored.names, scored.category_thresholds, strict=True)
        ],
        folded="The best threshold of each category",
    )


def _curves(page: Page, scored: Scored) -> None:
    section = page.section(
        "Precision and recall",
        "Each line: how much of what is shown is right (upwards), if so much of the objects is to "
        "be found (to the right). The nearer to the upper right corner, the better; where a line "
        "falls to 0, the network finds no more.",
    )
    numbers = scored.numbers[scored.kind]
    recall = np.linspace(0, 1, 101)
    measured = [k for k in range(len(scored.names)) if numbers.get("ap50", k + 1).value is not None]
    by_objects = sorted(measured, key=lambda k: -numbers.get("ap50", k + 1).objects)
    chosen = sorted(by_objects[:_MAX_CURVES])
    if not measured:
        section.text("There are no objects to find.", "warning")
        return
    mean = {
        f"IoU {0.5 + 0.05 * t:.2f}": (recall, numbers.precision[t][:, measured].mean(axis=1))
        for t in (0, 5, 8)
    }
    section.charts(
        [
            charts.lines(
                {scored.names[k]: (recall, numbers.precision[0, :, k]) for k in chosen},
                "By category, at half overlap (IoU 0.50)",
                "found, of the objects (recall)",
                "right, of what is shown (precision)",
                y_range=(0, 1),
                caption=f"The {_MAX_CURVES} categories with most objects of {len(measured)}."
                if len(measured) > _MAX_CURVES
                else "",
            ),
            charts.lines(
                mean,
                "Mean of all, by how well outlines must fit",
                "found, of the objects (recall)",
                "right, of what is shown (precision)",
                y_range=(0, 1),
            ),
        ]
    )


def _calibration(page: Page, scored: Scored) -> None:
    section = page.section(
        "Can scores be believed?",
        "Of detections with a score near 0.8, 8 in 10 should be right: points on the diagonal. "
        "Below it the network is too sure, above it less sure than it could be.",
    )
    bins = scored.calibration.bins
    if scored.calibration.error is None:
        section.text("There are no detections.", "warning")
        return
    section.charts(
        [
            charts.lines(
                {
                    "measured": ([b.mean_score for b in bins], [b.part_right for b in bins]),
                    "perfect": ([0, 1], [0, 1]),
                },
                "Score and truth",
                "score",
                "part that is right",
                y_range=(0, 1),
                points=True,
            ),
            charts.bars(
                [f"{b.low:.1f} to {b.high:.1f}" for b in bins],
                [b.count for b in bins],
                "How many detections have such a score",
                "detections",
            ),
        ]
    )
    section.text(
        f"In the mean over all detections, score and truth differ by {scored.calibration.error:.3f}"
        " (expected calibration error; 0 is perfect). Low scores weigh most here, because they are "
        "the most frequent."
    )


def _training(page: Page, scored: Scored, history: History) -> None:
    section = page.section(
        "Training",
        "The loss, how wrong the network is on what it learns from, should fall and then lie flat. "
        "If it still falls at the end, longer training helps; if validation gets worse while it "
        "falls, the network learns its pictures by heart.",
    )
    drawn = []
    training, evaluations = history.training, history.evaluations
    if training:
        steps = [row["step"] for row in training]
        losses = {"all": (steps, [row.get("training_loss", np.nan) for row in training])}
        names = [n for n in training[-1] if n.endswith("_loss") and n != "training_loss"]
        parts = {
            n.removesuffix("_loss").replace("_", " "): (
                steps,
                [row.get(n, np.nan) for row in training],
            )
            for n in names
        }
        if any("validation_loss" in row for row in evaluations):
            losses["validation"] = _series(evaluations, "validation_loss")
        drawn.append(charts.lines(losses, "Loss", "step", "", points=len(steps) == 1))
        drawn.append(charts.lines(parts, "Parts of the training loss", "step", ""))
        rates = [row.get("learning_rate", np.nan) for row in training]
        drawn.append(charts.lines({"rate": (steps, rates)}, "Learning rate", "step", ""))
    scores = {
        f"{kind} {text}": _series(evaluations, f"{kind}_{key}")
        for kind in scored.numbers
        for key, text in (("ap", "AP"), ("ap50", "AP50"))
        if any(f"{kind}_{key}" in row for row in evaluations)
    }
    if scores:
        drawn.append(charts.lines(scores, "Score on validation images", "step", "", points=True))
    section.charts(drawn)
    if training:
        section.text(
            f"{training[-1]['step']:,} steps, {training[-1]['images']:,} images, "
            f"{duration(history.seconds)} of training without evaluations."
        )


def _facts(page: Page, about: About) -> None:
    section = page.section("Settings", "What this result depends on, to make it again.")
    section.table(
        ("what", "value"),
        [
            *about.made_from,
            *((f"version of {name}", version) for name, version in about.versions.items()),
            *((f"this report's {what}", value) for what, value in about.machine.items()),
            ("command", about.command),
        ],
        stacked=True,
    )
    if about.params:
        section.table(
            ("setting", "value"),
            _flat(yaml.safe_load(about.params)),
            folded="Every setting (params.yaml)",
        )


def _flat(nested: dict, prefix: str = "") -> list[tuple[str, str]]:
    """{"a": {"b": 1}} -> [("a.b", "1")]."""
    rows = []
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows


def _series(rows: list[dict], key: str) -> tuple[list[float], list[float]]:
    there = [row for row in rows if key in row]
    return [row["step"] for row in there], [row[key] for row in there]


def _plain(number: Number) -> str | None:
    return None if number.value is None else f"{number.value:.2f}"


def _with_interval(number: Number) -> str | None:
    if number.value is None:
        return None
    if number.low is None:
        return f"{number.value:.2f}"
    return f"{number.value:.2f} ({number.low:.2f}\N{EN DASH}{number.high:.2f})"


def _two_digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
