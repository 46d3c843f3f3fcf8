"""How many threads torch computes on."""

import os
import subprocess
import sys

import pytest
import torch

from vla.runs import cores
from vla.threads import computing_on

ONE_CORE = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import torch
from vla.threads import computing_on
with computing_on(2):
    print(torch.get_num_threads())
"""


def test_what_was_before_comes_back() -> None:
    before = torch.get_num_threads()
    with computing_on(2):
        assert torch.get_num_threads() == min(2, cores())
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to a core")
def test_there_are_no_more_threads_than_cores() -> None:
    """As in a container that was given one of several."""
    assert subprocess.run([sys.executable, "-c", ONE_CORE], stdout=subprocess.PIPE, check=True).stdout == b"1\n"
