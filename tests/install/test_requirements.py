"""pyproject.toml's ranges, the pins and what the code imports tell one story."""

import ast
import importlib.metadata
import pathlib
import re
import sys
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.install import environments

ROOT = environments.ROOT
PROJECT = environments.PROJECT
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PINS: dict[str, list[str]] = SETTINGS["tool"]["mrcnn-tf"]["pins"]

# What each command may import beyond what the package alone brings.
EXTRAS = {
    "mrcnn-beam-convert": ["beam"],
    "mrcnn-choose-experiment": ["train"],
    "mrcnn-convert-weights": ["train", "convert"],
    "mrcnn-create-coco-tfrecord": [],
    "mrcnn-create-shapes-coco": [],
    "mrcnn-demo": [],  # itself; it calls the others
    "mrcnn-env": [],
    "mrcnn-export": ["train"],
    "mrcnn-finetune": [],  # itself; it calls the others
    "mrcnn-inspect-data": ["train"],  # with --experiment only
    "mrcnn-predict": ["video"],  # with a film or a camera only
    "mrcnn-predict-beam": ["beam"],
    "mrcnn-report": ["train"],
    "mrcnn-split-coco": [],
    "mrcnn-tfds-build": ["train"],
    "mrcnn-to-coco": [],
    "mrcnn-train": ["train"],
    "mrcnn-train-stages": ["train"],
    "mrcnn-write-proposals": ["train"],
}


def pinned(file: str) -> dict[str, str]:
    """Return {package: version} of a file and those that it includes."""
    pins = {}
    for line in (ROOT / file).read_text("utf-8").splitlines():
        if line.startswith("-r "):
            pins |= pinned(line.split()[1])
        elif line and not line.startswith("#"):
            (specifier,) = Requirement(line).specifier
            assert specifier.operator == "==", line
            pins[canonicalize_name(Requirement(line).name)] = specifier.version
    return pins


@pytest.mark.parametrize("file", PINS)
def test_pins_lie_in_the_ranges_of_pyproject(file):
    pins = pinned(file)
    for requirement in environments.declared(PINS[file]):
        version = pins.get(canonicalize_name(requirement.name))
        assert version, f"{file} lacks {requirement}: make pins"
        assert requirement.specifier.contains(version), f"{file}: {requirement}, pinned {version}"


@pytest.mark.parametrize("file", PINS)
def test_the_head_of_a_file_says_what_it_pins(file):
    extras = f".[{','.join(PINS[file])}]" if PINS[file] else "."
    assert (ROOT / file).read_text("utf-8").startswith(f"# pip install {extras}, pinned ")


def test_every_file_of_pins_is_derived_from_pyproject():
    assert set(PINS) == {path.name for path in ROOT.glob("requirements*.txt")}
    assert {extra for extras in PINS.values() for extra in extras} == set(
        PROJECT["optional-dependencies"]
    )


def test_a_package_has_the_same_pin_in_all_files():
    versions: dict[str, set] = {}
    for file in PINS:
        for name, version in pinned(file).items():
            versions.setdefault(name, set()).add(version)
    different = {name for name, found in versions.items() if len(found) > 1}
    # Apache Beam takes no newer ones, so its file stands alone; all others agree.
    assert different == {"pillow", "protobuf", "pyarrow", "python-dateutil"}
    without = {name: versions[name] - {pinned("requirements-beam.txt")[name]} for name in different}
    assert all(len(left) == 1 for left in without.values())


def test_the_build_needs_no_newer_setuptools_than_is_pinned():
    (setuptools,) = map(Requirement, SETTINGS["build-system"]["requires"])
    assert setuptools.specifier.contains(pinned("requirements.txt")["setuptools"])


def _path(module: str) -> pathlib.Path | None:
    """Return the file of a module of ours."""
    parts = module.removeprefix("mrcnn_tf.data_prep").lstrip(".").split(".")
    base = ROOT / "data_prep" if module.startswith("mrcnn_tf.data_prep") else ROOT
    path = base.joinpath(*filter(None, parts))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _nodes(parent: ast.AST) -> Iterator[ast.AST]:
    """Yield what a file consists of, without what it can do without: `try: import`."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.Try) and "ImportError" in map(_caught, node.handlers):
            continue
        yield node
        yield from _nodes(node)


def _caught(handler: ast.ExceptHandler) -> str:
    return ast.unparse(handler.type) if handler.type else ""


def _imported(module: str) -> set[str]:
    """Return all names that a module of ours imports, wherever in its file."""
    found = set()
    for node in _nodes(ast.parse(_path(module).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = module.rpartition(".")[0] if node.level else ""
            name = ".".join(filter(None, (start, node.module)))
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return found


def foreign_packages(module: str) -> dict[str, str]:
    """Return {package that others made: a module that imports it}, of a module and all it uses."""
    found, seen, waiting = {}, set(), [module]
    while waiting:
        current = waiting.pop()
        if current in seen or not _path(current):
            continue
        seen.add(current)
        for name in _imported(current):
            top = name.split(".")[0]
            if top == "mrcnn_tf":
                waiting.append(name)
            elif top not in sys.stdlib_module_names:
                found[top] = current
    return found


def _check_declared(module: str, extras) -> None:
    names = {canonicalize_name(requirement.name) for requirement in environments.declared(extras)}
    makers = importlib.metadata.packages_distributions()
    for package, importer in foreign_packages(module).items():
        made_by = {canonicalize_name(name) for name in makers.get(package, [package])}
        assert made_by & names, f"{importer} imports {package}, which {module} does not ask for"


@pytest.mark.parametrize("script", PROJECT["scripts"])
def test_what_a_command_imports_is_declared(script):
    module = PROJECT["scripts"][script].partition(":")[0]
    assert len(foreign_packages(module)) >= 2
    _check_declared(module, EXTRAS[script])
    named = ", ".join(f'"{extra}"' for extra in EXTRAS[script])
    asked = f"command_line.require({named})" in _path(module).read_text("utf-8")
    assert asked == bool(named), "the command says what is missing"


def test_building_a_network_takes_the_package_alone():
    assert "tf_keras" in foreign_packages("mrcnn_tf.modeling.mask_rcnn")
    _check_declared("mrcnn_tf.modeling.mask_rcnn", [])


def test_relative_imports_are_followed():
    found = foreign_packages("mrcnn_tf.data_prep.create_coco_tfrecord")
    assert {"PIL", "pycocotools", "tensorflow"} <= set(found)


def test_supported_pythons_are_those_that_are_named():
    named = {c.split()[-1] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    assert (named, PROJECT["requires-python"]) == ({"3.11", "3.12"}, ">=3.11,<3.13")
