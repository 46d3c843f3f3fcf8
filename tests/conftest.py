"""Before anything imports torch: one thread. Two on busy cores wait for each other, and take eight times as long."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
