"""Keeps what XLA has compiled, so that the runs to come need not compile it again.

TensorFlow reads and writes the files; here it is told where: ~/.cache/mrcnn_tf/xla (or below
XDG_CACHE_HOME), in a folder for this TensorFlow on this kind of machine, since a home may be shared
by others. Removing the folder is always safe.
"""

import hashlib
import importlib.metadata
import os
import pathlib
import platform

_DIRECTORY = "--tf_xla_persistent_cache_directory"
# GPUs are left out: nobody has tried yet what TensorFlow does there.
_DEVICES = "--tf_xla_persistent_cache_device_types=CPU"


def use() -> None:
    """Tell TensorFlow, before it runs anything: it looks once.

    Does nothing if TF_XLA_FLAGS names a folder, or if the folder cannot be written: TensorFlow
    would end the run there.
    """
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if _DIRECTORY in flags:
        return
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK | os.X_OK):
        os.environ["TF_XLA_FLAGS"] = f"{flags} {_DIRECTORY}={folder} {_DEVICES}".strip()


def _folder() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    kind = hashlib.sha256(_instructions().encode()).hexdigest()[:8]
    name = f"tensorflow-{_version()}-{platform.machine()}-{kind}"
    return pathlib.Path(base) / "mrcnn_tf" / "xla" / name


def _version() -> str:
    try:
        return importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:  # built under another name
        return "unknown"


def _instructions() -> str:
    """Name the instruction sets of this machine's processor, which XLA compiles for."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
