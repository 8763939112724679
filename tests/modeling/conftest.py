import pytest
import tf_keras


@pytest.fixture
def mixed_precision():
    """Return f(policy name), which sets Keras's global policy until the test ends."""
    before = tf_keras.mixed_precision.global_policy()
    yield tf_keras.mixed_precision.set_global_policy
    tf_keras.mixed_precision.set_global_policy(before)
