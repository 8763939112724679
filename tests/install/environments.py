"""Building and installing the project as someone does who has never seen the checkout."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterable

from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def run(command, cwd, code: int = 0, **environment) -> str:
    """Run a command with an environment of its own; return what it printed.

    Args:
      command: the command.
      cwd: where to run it.
      code: the exit code that is expected.
      environment: further variables.
    """
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
    quiet = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONNOUSERSITE": "1"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | quiet | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def pip(*arguments, python=None) -> str:
    """Run pip, by the test's own environment, for `python`; it has no index to ask."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command += ["--python", python] if python else []
    return run([*command, *arguments], ROOT.parent, PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)


def build_wheel(source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Build a wheel of a source folder or archive."""
    pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def declared(extras: Iterable[str]) -> list[Requirement]:
    """Return what `pip install mrcnn-tf[extras]` asks for, as pyproject.toml has it."""
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            found += declared(requirement.extras)
        else:
            found.append(requirement)
    return found


def environment(folder: pathlib.Path, extras: Iterable[str]) -> pathlib.Path:
    """Make an environment that holds what the extras ask for, and nothing else.

    The packages are links to those that the tests run with: a copy would take 3 GB.

    Returns:
      Its python.
    """
    venv.create(folder, symlinks=True)
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    for distribution in _with_dependencies(declared(extras)):
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            link = pathlib.Path(paths["purelib"], top)
            if not link.exists():
                link.symlink_to(distribution.locate_file(top))
    return folder / "bin" / "python"


def _with_dependencies(
    requirements: Iterable[Requirement],
) -> list[importlib.metadata.Distribution]:
    """Return the installed packages of these names, and all that they need."""
    waiting = [(requirement.name, frozenset(requirement.extras)) for requirement in requirements]
    seen, found = set(), {}
    while waiting:
        entry = name, extras = waiting.pop()
        if entry in seen:
            continue
        seen.add(entry)
        found[name] = importlib.metadata.distribution(name)
        for needed in map(Requirement, found[name].requires or ()):
            marker = needed.marker
            if not marker or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                waiting.append((needed.name, frozenset(needed.extras)))
    return list(found.values())
