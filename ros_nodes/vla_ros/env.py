"""The environment a node process is started in, the same every time.

ROS 2 from wheels restarts each Python process to set its library path, in a random order. Setting it here keeps the
order fixed, saves the restart, and keeps nodes from finding another ROS on the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from vla.errors import Missing

FASTDDS_PROFILE = Path(__file__).with_name("fastdds.xml")
FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""The new name and the old one, so that every release finds the profile."""
_DOMAINS = range(1, 101)
"""Domain ids whose ports lie below Linux's ephemeral ones."""


def child_environment(domain_id: int, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables for a node that talks to this machine's nodes of the same domain, and to nobody else."""
    environment = {
        **base,
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "ROS_DOMAIN_ID": str(domain_id),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        **dict.fromkeys(FASTDDS_VARIABLES, str(FASTDDS_PROFILE)),
        "PYTHONUNBUFFERED": "1",
    }
    environment.setdefault("OMP_NUM_THREADS", "1")
    if wheels := _wheel_libraries(Path(sys.prefix)):
        environment["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(wheels)
        for name in ("AMENT_PREFIX_PATH", "COLCON_PREFIX_PATH", "ROS_DISTRO"):
            environment.pop(name, None)
    return environment


@contextlib.contextmanager
def own_domain() -> Iterator[int]:
    """A ROS domain id that no other session on this machine uses while the block runs.

    Raises:
        Missing: all are taken.
    """
    with contextlib.ExitStack() as locks:
        yield _lock_one(locks)


def _lock_one(locks: contextlib.ExitStack) -> int:
    """A domain whose lock file nobody holds; the kernel lets go of it when the holder dies."""
    for domain in random.sample(_DOMAINS, len(_DOMAINS)):
        try:
            file = locks.enter_context((Path(tempfile.gettempdir()) / f"vla_ros_domain_{domain}.lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return domain
        except (BlockingIOError, PermissionError):
            continue
    raise Missing(f"all {len(_DOMAINS)} ROS domains of this machine are taken: end the sessions that are left over")


def _wheel_libraries(prefix: Path) -> list[str]:
    """Where ROS wheels keep their libraries; [] when ROS comes from the system."""
    packages = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    found = sorted(str(path) for path in packages.glob("ros_*.libs"))
    return [str(prefix / "lib"), *found] if found else []
