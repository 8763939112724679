"""A wheel built from a copy of the checkout, and environments in which it is installed."""

import pathlib
import shutil

import pytest

from tests.install import environments

_NOT_SOURCE = (".*", "*.egg-info", "__pycache__", "build", "dist", "runs", "datasets")


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> pathlib.Path:
    """A copy of the checkout: builds leave files behind, and what they find of earlier ones."""
    folder = tmp_path_factory.mktemp("source") / "project"
    shutil.copytree(environments.ROOT, folder, ignore=shutil.ignore_patterns(*_NOT_SOURCE))
    return folder


@pytest.fixture(scope="session")
def wheel(source, tmp_path_factory) -> pathlib.Path:
    """The wheel."""
    return environments.build_wheel(source, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def plain(wheel, tmp_path_factory) -> pathlib.Path:
    """Python of an environment with the wheel and what it cannot do without."""
    python = environments.environment(tmp_path_factory.mktemp("plain"), [])
    environments.pip("install", wheel, python=python)
    return python


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> pathlib.Path:
    """Python of an environment with the wheel, and what training, other weights and films need."""
    extras = ["train", "convert", "video"]
    python = environments.environment(tmp_path_factory.mktemp("installed"), extras)
    environments.pip("install", f"{wheel}[{','.join(extras)}]", python=python)
    return python


@pytest.fixture(scope="session")
def editable(source, tmp_path_factory) -> pathlib.Path:
    """Python of an environment with `pip install -e`."""
    python = environments.environment(tmp_path_factory.mktemp("editable"), [])
    environments.pip("install", "--no-build-isolation", "-e", source, python=python)
    return python
