"""Tests; pytest imports this first."""

import os

# Tensors and arrays here are tiny: a second thread only waits for the first, above all on a busy machine.
# Set here, because NumPy reads it when it is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
