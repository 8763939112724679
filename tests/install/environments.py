"""Building and installing the project as someone does who has never seen the checkout."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(command, cwd, **environment) -> str:
    """Run a command with an environment of its own; return what it printed."""
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
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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


def empty_environment(folder: pathlib.Path) -> pathlib.Path:
    """Make an environment that holds nothing of its own; return its python.

    It finds the packages that the tests run with through a .pth file. Such a path is only looked
    through, its own .pth files are not followed: the checkout stays out even where the tests run
    in an environment in which it is installed with `pip install -e`.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    packages = [path for path in sys.path if pathlib.Path(path).name.endswith("-packages")]
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    pathlib.Path(paths["purelib"], "dependencies.pth").write_text("\n".join(packages))
    return python
