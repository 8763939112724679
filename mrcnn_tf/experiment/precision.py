"""In which type a network computes: `runtime.mixed_precision_dtype`, and the flag that sets it.

Weights, losses, boxes and what is exported as a number stay float32 whichever it is; convolutions
and matrix products, and the feature maps between them, are what becomes half.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf
import tf_keras
import yaml
from absl import flags
from official.core import config_definitions

from mrcnn_tf.experiment import overrides

FIELD = "runtime.mixed_precision_dtype"
NONE = "float32"
CHOICES = ("none", "bfloat16", "float16", "auto")
_HAVE_BFLOAT16 = {"amx_bf16", "avx512_bf16"}  # what Linux calls the instructions of processors
_POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16", NONE: "float32", None: ""}


def define_flag() -> None:
    """Define `--mixed_precision`."""
    flags.DEFINE_enum(
        "mixed_precision",
        None,
        CHOICES,
        f"Type that the network computes in; sets {FIELD}. auto: the fastest on this machine, see "
        "docs/performance.md. Default: what the experiment says, float32 if nothing.",
    )


def laid_over(params_override: str, chosen: str | None) -> str:
    """Return `--params_override` with what `--mixed_precision` says.

    Args:
      params_override: as typed.
      chosen: one of `CHOICES`; None if the flag is absent.

    Raises:
      ValueError: both say something, and not the same.
    """
    if chosen is None:
        return params_override
    dtype = {"none": NONE, "auto": fastest()}.get(chosen, chosen)
    layer = overrides.parse_override(params_override or "{}")
    group, _, name = FIELD.partition(".")
    if not isinstance(layer.setdefault(group, {}), dict):
        return params_override  # refused by name where experiments are loaded
    said = layer[group].setdefault(name, dtype)
    if said != dtype:
        raise ValueError(
            f"--mixed_precision={chosen} and --params_override={FIELD}={said} contradict each other"
        )
    return yaml.safe_dump(layer)


def check(runtime: config_definitions.RuntimeConfig) -> None:
    """Refuse what is no type.

    Raises:
      ValueError: with the allowed ones.
    """
    if runtime.mixed_precision_dtype not in _POLICIES:
        raise ValueError(
            f"{FIELD}: got {runtime.mixed_precision_dtype!r}, allowed are 'float32', 'bfloat16' "
            "and 'float16'"
        )


@contextlib.contextmanager
def of(runtime: config_definitions.RuntimeConfig) -> Iterator[None]:
    """Build networks in this type inside; what is built keeps it."""
    before = tf_keras.mixed_precision.global_policy()
    policy = _POLICIES[runtime.mixed_precision_dtype]
    try:
        if policy:
            tf_keras.mixed_precision.set_global_policy(policy)
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def fastest() -> str:
    """Return the type in which this machine trains and infers fastest.

    On GPUs with tensor cores for it (compute capability 8.0 and later) and on processors with
    instructions for it that is bfloat16, on older GPUs with tensor cores (7.0) float16. Elsewhere
    half precision is emulated.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = details.get("compute_capability", (0, 0))
        return "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else NONE
    return "bfloat16" if _HAVE_BFLOAT16.intersection(_processor_flags()) else NONE


def _processor_flags() -> list[str]:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return []
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return line.split()
