import json

import pytest

from mrcnn_tf.experiment import loading


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("runtime.tpu", "local", "not on TPUs"),
        ("runtime.run_eagerly", True, "train_tf_function"),
        ("runtime.per_gpu_thread_count", 2, "TF_GPU_THREAD_COUNT"),
        ("runtime.loss_scale", 8, "float16"),
        ("runtime.distribution_strategy", "tpu", "allowed are 'mirrored'"),
        ("trainer.eval_tf_while_loop", True, "scored in Python"),
        (
            "trainer.optimizer_config.ema",
            {"average_decay": 0.99},
            "set trainer.ema_decay",
        ),
        ("trainer.allow_tpu_summary", True, "not on TPUs"),
        ("trainer.summary_interval", 30, "multiple of trainer.steps_per_loop, 20"),
        ("trainer.validation_interval", 0, "got 0, needs 1 or more"),
    ],
)
def test_what_would_do_nothing_is_refused(field, value, why):
    with pytest.raises(ValueError, match=rf"^{field}: .*{why}"):
        loading.load("maskrcnn_r50_fpn", params_override=json.dumps({field: value}))


def test_what_is_read_is_not():
    text = "runtime.mixed_precision_dtype=float16,runtime.loss_scale=dynamic"
    assert loading.load("maskrcnn_r50_fpn", params_override=text).runtime.loss_scale == "dynamic"
