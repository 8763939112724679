"""What a result depends on: data, versions, machine."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence

import tensorflow as tf

from mrcnn_tf.data import record_files, record_sets

_PACKAGES = ("mrcnn-tf", "tensorflow", "tf-keras", "tf-models-official", "numpy", "pycocotools")
_MANIFEST = ".manifest.json"  # what the converter leaves beside its shards


def versions() -> dict[str, str]:
    """Return the versions of Python and of what calculates here."""
    found = {"Python": platform.python_version()}
    for name in (*_PACKAGES, "hotcoco"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """Return processor, memory, GPUs and system of the machine that this runs on."""
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{_memory_gb():.0f} GB" if _memory_gb() else "unknown",
        "GPU": ", ".join(gpus) or "none",
        "system": platform.platform(),
    }


def annotations_sha256(pattern: str | Sequence[str]) -> str:
    """Return the hash of the annotation file that records were made of; "" if nothing says it."""
    try:
        files = record_files.find(pattern)
    except (FileNotFoundError, ValueError):
        return ""
    names = {os.path.basename(path) for path in files}
    for folder in sorted({os.path.dirname(path) for path in files}):
        for path in tf.io.gfile.glob(os.path.join(folder, "*" + _MANIFEST)):
            try:
                manifest = record_sets.read_manifest(path)
            except ValueError:
                continue
            if names <= manifest["shards"].keys():
                return str(manifest["made_from"].get("annotations_sha256", ""))
    return ""


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _memory_gb() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (ValueError, OSError, AttributeError):  # not POSIX
        return 0.0
