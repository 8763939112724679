import types

import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment import loading, overrides, precision


@pytest.mark.parametrize(
    ("chosen", "dtype"), [("none", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")]
)
def test_the_flag_sets_the_field(chosen, dtype):
    text = precision.laid_over("trainer.train_steps=7", chosen)
    experiment = loading.load("maskrcnn_r50_fpn", params_override=text)
    assert experiment.runtime.mixed_precision_dtype == dtype
    assert experiment.trainer.train_steps == 7
    with precision.of(experiment.runtime):
        assert tf_keras.mixed_precision.global_policy().compute_dtype == dtype
        assert tf_keras.mixed_precision.global_policy().variable_dtype == "float32"
    assert tf_keras.mixed_precision.global_policy().name == "float32"


def test_without_the_flag_what_was_typed_stays():
    assert precision.laid_over("a.b=1", None) == "a.b=1"
    assert precision.laid_over("", None) == ""


def test_both_may_say_the_same_and_nothing_else():
    said = "runtime.mixed_precision_dtype=float16"
    assert overrides.parse_override(precision.laid_over(said, "float16")) == {
        "runtime": {"mixed_precision_dtype": "float16"}
    }
    with pytest.raises(ValueError, match="--mixed_precision=bfloat16 and .*=float16 contradict"):
        precision.laid_over(said, "bfloat16")


@pytest.mark.parametrize(
    "typed", ["a='\N{GRINNING FACE}'", "a=2026-01-31", "a=.inf", "a=1e-4", "a={1: yes}", "a='on'"]
)
def test_what_was_typed_beside_the_flag_is_read_as_without_it(typed):
    with_flag = overrides.parse_override(precision.laid_over(typed, "none"))
    assert with_flag.pop("runtime") == {"mixed_precision_dtype": "float32"}
    assert with_flag == overrides.parse_override(typed)


@pytest.mark.parametrize("typed", ["runtime=", "runtime=3"])
def test_a_group_that_is_no_group_is_refused_as_without_the_flag(typed):
    with pytest.raises(ValueError, match="runtime needs fields of its own"):
        loading.load("maskrcnn_r50_fpn", params_override=precision.laid_over(typed, "none"))


def test_no_other_type():
    with pytest.raises(ValueError, match="mixed_precision_dtype: got 'half', allowed are"):
        loading.load("maskrcnn_r50_fpn", params_override="runtime.mixed_precision_dtype=half")


def test_the_policy_of_before_comes_back_after_an_error():
    runtime = types.SimpleNamespace(mixed_precision_dtype="bfloat16")
    with pytest.raises(KeyError), precision.of(runtime):
        raise KeyError
    assert tf_keras.mixed_precision.global_policy().name == "float32"


@pytest.mark.parametrize(
    ("gpu", "processor", "want"),
    [
        ((9, 0), "", "bfloat16"),
        ((8, 0), "", "bfloat16"),
        ((7, 5), "amx_bf16", "float16"),
        ((6, 1), "", "float32"),
        (None, "fpu avx512f amx_bf16 amx_tile", "bfloat16"),
        (None, "fpu avx512f avx512_bf16", "bfloat16"),
        (None, "fpu avx512f avx512_vnni", "float32"),
    ],
)
def test_auto_is_what_the_machine_has_units_for(gpu, processor, want, monkeypatch):
    devices = ["gpu"] if gpu else []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    details = {"compute_capability": gpu}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    monkeypatch.setattr(precision, "_processor_flags", processor.split)
    assert precision.fastest() == want
    text = precision.laid_over("", "auto")
    assert overrides.parse_override(text)["runtime"]["mixed_precision_dtype"] == want
