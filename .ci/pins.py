"""Write the pins of requirements*.txt: what pip chooses today for the ranges in pyproject.toml.

    make pins

A pin that is there and still fits stays, in whichever file it stands, so that a new dependency
changes no more than it must; delete a line to have its newest version chosen. Where files differ,
as that of Apache Beam does, which takes no newest protobuf, each keeps its own. What begins a file,
comments and `-r`, is kept, and what the file named by `-r` pins is not repeated.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main() -> None:
    """Choose for all files first, then write them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    files: dict[str, list[str]] = settings["tool"]["mrcnn-tf"]["pins"]
    kept = {file: _read(file)[1] for file in files}
    chosen = {file: _choose(extras, _constraints(file, kept)) for file, extras in files.items()}
    for file, pins in chosen.items():
        head, _ = _read(file)
        included = [line.split()[1] for line in head if line.startswith("-r ")]
        repeated = {pin for other in included for pin in chosen[other]}
        lines = [*head, *sorted(set(pins) - repeated, key=_name)]
        (ROOT / file).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        print(f"{file}: {len(lines) - len(head)} pins")


def _read(file: str) -> tuple[list[str], list[str]]:
    """Return the lines that begin a file, and its pins."""
    lines = (ROOT / file).read_text("utf-8").splitlines()
    head = [line for line in lines if re.match("#|-r ", line)]
    return head, [line for line in lines if "==" in line and line not in head]


def _constraints(file: str, kept: dict[str, list[str]]) -> list[str]:
    """Return a file's own pins, and for what it lacks those of the first file that has one."""
    pins: dict[str, str] = {}
    for other in (file, *kept):
        for pin in kept[other]:
            pins.setdefault(_name(pin), pin)
    return sorted(pins.values())


def _name(pin: str) -> str:
    return pin.partition("==")[0].lower()


def _choose(extras: list[str], kept: list[str]) -> list[str]:
    """Ask pip what it would install for these extras into an empty environment."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(kept))
        constraints.flush()
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--report=-", f"--constraint={constraints.name}"]
        command += [f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    others = [entry["metadata"] for entry in report["install"] if not _is_this(entry)]
    return [f"{package['name']}=={package['version']}" for package in others]


def _is_this(entry: dict[str, Any]) -> bool:
    """Whether an entry of pip's report is this project: it comes from a folder."""
    return "dir_info" in entry["download_info"]


if __name__ == "__main__":
    main()
