"""Check this machine for what the demo needs, and say what to do about each thing missing.

Each line is ok, warn (works, but something is worse than it could be) or fail (the demo will not run). Exits 1 when
something fails. Nothing is changed on the machine.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warn", "fail"]

ROOT = Path(__file__).parents[2]
"""The checkout, when run from one."""

MIN_FREE_GIB = 3.0
"""The demo's dataset, cache and runs take under 1 GiB; the rest is room for everything else on the disk."""

MIN_MEMORY_GIB = 4.0

SHARED_MEMORY_MIB = 128
"""Each of three ROS processes maps a 16 MiB segment for images; Docker gives 64 MiB unless told."""


@dataclass(frozen=True)
class Args:
    json: bool = False
    """Print one JSON list of {check, status, found, cure} instead of lines."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    status: Status
    found: str
    cure: str = ""
    """What to do; empty when there is nothing to do."""


def main(args: Args) -> int:
    """Print the findings; 1 when one of them fails."""
    findings = []
    for finding in _findings():
        findings.append(finding)
        if not args.json:
            _print(finding)
    if args.json:
        import json

        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    return 1 if any(finding.status == "fail" for finding in findings) else 0


def _findings() -> Iterator[Finding]:
    yield python(sys.version_info[:2])
    yield packages(installed(), ROOT / "requirements.lock")
    yield opencv(owners("cv2"))
    yield rendering(os.environ.get("MUJOCO_GL"))
    yield engine()
    yield tensorrt()
    yield ros(os.environ, sys.prefix)
    yield shared_memory(Path("/dev/shm"))
    yield disk(Path.cwd())
    yield processor(os.environ)
    yield memory(Path("/proc/meminfo"))


def python(version: tuple[int, ...]) -> Finding:
    """The interpreters that the locked packages were built for."""
    found = ".".join(map(str, version))
    if (3, 11) <= version < (3, 13):
        return Finding("python", "ok", found)
    return Finding("python", "fail", found, "use Python 3.12: `make demo` finds it, or says how to get it")


def packages(have: Mapping[str, str], lock: Path) -> Finding:
    """Installed versions against the locked ones."""
    if not lock.exists():
        return Finding("packages", "ok", "no requirements.lock here to compare with")
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE))
    wanted = {_canonical(name): version for name, version in wanted.items()}
    missing = sorted(wanted.keys() - have.keys())
    other = [f"{n} {have[n]} (locked {v})" for n, v in sorted(wanted.items()) if n in have and have[n] != v]
    cure = "rm -f .venv/.ready && make setup"
    if missing:
        return Finding("packages", "fail", f"not installed: {_few(missing)}", cure)
    if other:
        return Finding("packages", "warn", f"another version than locked: {_few(other)}", cure)
    return Finding("packages", "ok", f"{len(wanted)} at their locked versions")


def opencv(found: list[str]) -> Finding:
    """Two distributions that both own the folder cv2 overwrite each other; which one wins varies."""
    if len(found) == 1:
        return Finding("opencv", "ok", found[0])
    if not found:
        return Finding("opencv", "fail", "cv2 is not installed", "uv pip install opencv-python-headless")
    names = " ".join(name.partition(" ")[0] for name in found)
    return Finding(
        "opencv",
        "fail",
        f"{' and '.join(found)} both own the folder cv2",
        f"uv pip uninstall {names} && uv pip install opencv-python-headless",
    )


_RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><light pos="0 0 3"/><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    assert renderer.render().max() > 0, "the image is black"
print(mujoco.__version__)
"""


def rendering(chosen: str | None) -> Finding:
    """Draw one image with each GL backend until one works; with the one in MUJOCO_GL alone when that is set."""
    errors = []
    for backend in [chosen] if chosen else ["egl", "osmesa"]:
        ok, said = _python(_RENDER, {**os.environ, "MUJOCO_GL": backend})
        if ok and backend in (chosen, "egl"):
            return Finding("rendering", "ok", f"MuJoCo {said} draws with {backend}")
        if ok:
            return Finding("rendering", "fail", "EGL does not work, OSMesa does", "export MUJOCO_GL=osmesa")
        errors.append(f"{backend}: {said}")
    cure = "apt-get install libosmesa6" if chosen == "osmesa" else "apt-get install libegl1 libgl1 libgl1-mesa-dri"
    if chosen:
        cure += f"; or unset MUJOCO_GL, which is {chosen!r}"
    return Finding("rendering", "fail", "; ".join(errors), cure)


def engine() -> Finding:
    """The default engine of bundles."""
    ok, said = _python("import onnxruntime as o; print(o.__version__, *o.get_available_providers())")
    if not ok:
        return Finding("onnxruntime", "fail", said, "uv pip install onnxruntime")
    return Finding("onnxruntime", "ok", said.replace("ExecutionProvider", ""))


def tensorrt() -> Finding:
    """Optional: only robots with an NVIDIA GPU have it, and only its vendor distributes it."""
    version = installed().get("tensorrt")
    return Finding("tensorrt", "ok", version or "not installed; bundles run on ONNX Runtime")


def ros(environment: Mapping[str, str], prefix: str) -> Finding:
    """Can a ROS 2 node be made; and is only one ROS in play?"""
    sourced = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    sourced = [path for path in sourced if path and not path.startswith(prefix)]
    if sourced and "ros-jazzy-rclpy" in installed():
        return Finding(
            "ros",
            "fail",
            f"{sourced[0]} is sourced, and this environment has ROS 2 of its own",
            "start a shell that sources no ROS; or uv pip uninstall the ros-* wheels to use the system's",
        )
    from vla_ros.env import child_environment

    ok, said = _python(
        "import rclpy; rclpy.init(); rclpy.create_node('doctor').destroy_node(); rclpy.shutdown()\n"
        "print(rclpy.get_rmw_implementation_identifier())",
        {**child_environment(0, environment), "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"},
    )
    if not ok:
        return Finding(
            "ros", "fail", f"no node can be made: {said}", "uv pip install -e '.[ros]', or source your ROS 2"
        )
    where = sourced[0] if sourced else "wheels"
    return Finding("ros", "ok", f"{environment.get('ROS_DISTRO', 'jazzy')} from {where}, {said}")


def shared_memory(folder: Path) -> Finding:
    """Images between ROS nodes travel through shared memory; without room for it they are dropped."""
    if not folder.is_dir():
        return Finding("shared memory", "warn", f"{folder} does not exist", "images between ROS nodes may be dropped")
    free = shutil.disk_usage(folder).free // 2**20
    if free < SHARED_MEMORY_MIB:
        return Finding(
            "shared memory",
            "warn",
            f"{free} MiB free in {folder}",
            "ROS nodes may drop images; in Docker: --shm-size=1g or --ipc=host",
        )
    return Finding("shared memory", "ok", f"{free} MiB free in {folder}")


def disk(folder: Path) -> Finding:
    """Room for datasets and runs."""
    free = shutil.disk_usage(folder).free / 2**30
    if free < MIN_FREE_GIB:
        return Finding("disk", "fail", f"{free:.1f} GiB free here", f"free {MIN_FREE_GIB:.0f} GiB, or work elsewhere")
    return Finding("disk", "ok", f"{free:.0f} GiB free here")


def processor(environment: Mapping[str, str]) -> Finding:
    """Cores, and whether several processes will fight for them."""
    from vla.runs import cores, machine

    threads = environment.get("OMP_NUM_THREADS")
    found = f"{machine()}; OMP_NUM_THREADS={threads or 'unset'}"
    if threads and threads.isdigit() and int(threads) > cores():
        return Finding("cpu", "warn", found, "unset OMP_NUM_THREADS: more threads than cores is several times slower")
    return Finding("cpu", "ok", found)


def memory(meminfo: Path) -> Finding:
    """Memory that could be had without swapping."""
    match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text()) if meminfo.exists() else None
    if match is None:
        return Finding("memory", "ok", "unknown")
    gib = int(match[1]) / 2**20
    if gib < MIN_MEMORY_GIB:
        return Finding("memory", "warn", f"{gib:.1f} GiB available", "close something: training takes up to 4 GiB")
    return Finding("memory", "ok", f"{gib:.0f} GiB available")


@functools.cache
def installed() -> Mapping[str, str]:
    """Canonical name -> version of every distribution in this environment."""
    return {_canonical(d.metadata["Name"]): d.version for d in metadata.distributions() if d.metadata["Name"]}


def owners(folder: str) -> list[str]:
    """The distributions that put files into a top-level folder of site-packages."""
    return sorted(
        f"{d.metadata['Name']} {d.version}"
        for d in metadata.distributions()
        if any(file.parts[0] == folder for file in d.files or [])
    )


def _python(code: str, environment: Mapping[str, str] = os.environ) -> tuple[bool, str]:
    """Run code in a process of its own, where a library that crashes does no harm; what it printed or its last error.

    PyOpenGL complains at exit after all went well, so what counts is that the code got to its last line, a print.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        return False, "did not answer within 60 s"
    if done.stdout.strip():
        return True, done.stdout.strip().splitlines()[-1]
    errors = [line for line in done.stderr.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return False, (errors[0] if errors else f"the process ended with {done.returncode}")


def _print(finding: Finding) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    colour = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.status]
    console.print(f"[{colour}]{finding.status:4}[/]  {finding.check:13}  {escape(finding.found)}")
    if finding.cure:
        console.print(f"{'':21}[bold]→ {escape(finding.cure)}[/]")


def _few(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
