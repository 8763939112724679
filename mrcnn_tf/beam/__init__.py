"""Work on many machines by Apache Beam, whichever runner its options name."""

import os

# A worker machine has several processes and perhaps one GPU, all of whose memory TensorFlow would
# give to the first of them.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
