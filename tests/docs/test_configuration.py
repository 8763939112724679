"""docs/configuration.md is what the fields say, and the other pages name fields that are there."""

import dataclasses
import re

import pytest

from tests.docs import pages

PAGE = pages.read("docs/configuration.md")
_ROOTS = ("task", "trainer", "runtime", "stages")


def listed() -> set[str]:
    """Paths of all fields and groups on the page."""
    found: set[str] = set()
    groups: list[str] = []
    for line in PAGE.prose:
        if line.startswith("## "):
            groups = re.findall(r"`([a-z_.]+)`", line)
            found |= set(groups)
        elif row := re.match(r"\| `([a-z_\d.]+)` \|", line):
            owners = groups or ["trainer.optimizer_config"]
            found |= {f"{group}.{row[1]}" for group in owners}
            if not groups:
                options = re.findall(r"`(\w+)`: ", line)
                found |= {f"trainer.optimizer_config.{row[1]}.{name}" for name in options}
    found.add("trainer.optimizer_config.ema")  # said below the table
    groups_of_groups = {path.rpartition(".")[0] for path in found if "." in path}
    return found | groups_of_groups


@pytest.fixture(scope="module")
def reference():
    """The module; it takes Model Garden, so only what needs it waits for it."""
    from mrcnn_tf.experiment import reference

    return reference


def test_the_page_is_what_the_fields_say(reference):
    said = reference.page()
    assert (pages.ROOT / "docs/configuration.md").read_text("utf-8") == said, (
        "python -m mrcnn_tf.experiment.reference > docs/configuration.md"
    )


def test_every_field_has_its_row_a_meaning_and_if_it_is_a_number_a_unit(reference):
    from mrcnn_tf.experiment import experiment, unread

    default = experiment.maskrcnn()
    described = set()
    for path, group in reference.groups(default):
        for name, value, meaning, _ in reference.rows(path, group):
            assert meaning, f"{path}.{name}: nothing is said of it"
            has_unit = reference.unit(name, value) is not None or meaning.startswith("*refused*")
            assert has_unit, f"{path}.{name}: add the unit to mrcnn_tf/experiment/reference.py"
            described.add(f"{path}.{name}")
    assert set(unread.UNREAD) - described == {"trainer.optimizer_config.ema"}
    assert set(reference._OF_MODEL_GARDEN) <= described

    def leaves(value, path):
        for field in dataclasses.fields(value):
            below, full = getattr(value, field.name), f"{path}.{field.name}".lstrip(".")
            if hasattr(below, "override") and not full.startswith("trainer.optimizer_config"):
                yield from leaves(below, full)
            elif field.name not in ("default_params", "restrictions"):
                yield full

    there = {path.replace("validation_data", "train_data") for path in leaves(default, "")}
    assert there == described
    assert there <= listed()


def test_units_are_told_by_the_longest_end_of_a_name(reference):
    assert reference.unit("nms_iou", 0.5) == "IoU"
    assert reference.unit("score_threshold", 0.05) == "probability"
    assert reference.unit("anchor_sizes", (32.0,)) == "pixels"
    assert reference.unit("aligned", True) == ""
    assert reference.unit("order", "bgr") == ""
    assert reference.unit("nonsense", 3) is None


def test_sources_are_those_that_a_text_names(reference):
    text = "as in Faster R-CNN (section 3.3) and Detectron, FPN section 4.1; table 2c (Detectron2)."
    found = "Faster R-CNN section 3.3, Detectron, FPN section 4.1, table 2c, Detectron2"
    assert reference._sources(text) == found
    assert reference._sources("nobody") == ""


def test_fields_that_other_pages_name_are_there():
    """Between backticks and in commands: `task.model.rpn.nms_iou`, `trainer.patience=5`."""
    known = listed()
    ends = {path.split(".", k)[-1] for path in known for k in range(path.count(".") + 1)}
    starts = re.compile(rf"(?<![\w./-])(?:{'|'.join(_ROOTS)})\.[a-z_][a-z_\d]*(?:\.[a-z_\d]+)*")
    groups = {
        path.rpartition(".")[2] for path in known if any(p.startswith(f"{path}.") for p in known)
    }
    shorter = "|".join(sorted(groups - {*_ROOTS, "model", "optimizer", "learning_rate"}))
    below = re.compile(rf"(?<![\w./-])(?:{shorter})\.[a-z_]+(?:\.[a-z_\d]+)*")
    wrong = []
    for page in pages.all_pages():
        if page.path in (PAGE.path, "CHANGELOG.md"):
            continue
        blocks = [(block.line, block.text, [starts]) for block in page.blocks]
        spans = [(line, text, [starts, below]) for line, text in page.spans()]
        for line, text, patterns in blocks + spans:
            if re.fullmatch(r"[\w./-]+\.(?:py|md|yaml|json|jsonl)", text):
                continue
            names = {name for pattern in patterns for name in pattern.findall(text)}
            wrong += [f"{page.path}:{line}: {name}" for name in names if name not in ends]
    assert not wrong
