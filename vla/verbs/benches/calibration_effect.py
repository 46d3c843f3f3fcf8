"""Does calibration give back what drift takes? The demo policy with a moved camera and with joints that are off.

Each fault is calibrated away as on a robot: guided capture of 25 rendered views, `vla_calibration.solve`, and then the
agent's image drawn from where the policy knows it, or the joint angles corrected by what was found (which leaves its
error). All arms run the same seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vla.runs import Run
from vla.statistics import paired
from vla.verbs import _stages, demo
from vla.verbs.bench import Args, Metric, gain, share

EPISODES = 200
SEED = 9_100_000
OFFSETS_DEG = (0.0, 5.0, -5.0, 5.0, -5.0, 5.0, 0.0)
CAMERA_TWIST = (0.06, -0.08, 0.04, 0.04, -0.1, 0.08)
"""How the agent camera was moved: [m] and [rad] in its own frame."""
VIEWS = 25
PLANE_Z_M = 0.02
"""Height the image is redrawn for: between the table and the tops of the cubes."""


def measure(args: Args) -> list[Metric]:
    """Calibrate and evaluate what is not there yet; then one row a metric."""
    trained = demo.Args(out=args.out / "demo", workers=args.workers)
    if not (trained.out / "policy" / "policy.safetensors").exists():
        demo.collect(trained)
        demo.train(trained)
    policy, folder = trained.out / "policy", args.out / "calibration_effect"
    healthy = _arm(args, policy, folder, "healthy")
    rows = [share("as trained", healthy)]
    for fault in ("camera", "joints"):
        before = _arm(args, policy, folder, fault)
        after = _arm(args, policy, folder, f"{fault}_calibrated")
        loss = float(healthy.mean() - before.mean())
        restored = float(after.mean() - before.mean()) / loss if loss > 0 else float("nan")
        test = paired(after, before)
        rows += [
            share(f"{fault} off, before", before),
            share(f"{fault} off, after calibration", after),
            gain(f"{fault}, gain", test),
            Metric(f"{fault}, share of the loss restored", restored, "", EPISODES, target=">= 0.8"),
        ]
    return rows


def _arm(args: Args, policy: Path, folder: Path, name: str) -> Any:
    """Outcomes (EPISODES,) in the order of the seeds."""
    config = {"policy": str(policy), "arm": name, "offsets_deg": OFFSETS_DEG, "twist": CAMERA_TWIST, "seed": SEED}
    run = Run.create(folder / name, "eval", config, resume=True)
    if name.endswith("_calibrated"):
        _calibrate(folder, name.removesuffix("_calibrated"))
    setup = functools.partial(_worker, str(policy), folder, name)
    return _stages.episodes(run, range(SEED, SEED + EPISODES), setup, args.workers)


def _calibrate(folder: Path, fault: str) -> None:
    """Capture and solve the robot with this fault, into `folder`."""
    from vla.verbs._calibration_robot import PANDA, simulated
    from vla.verbs._calibration_robot import drive as drive_arm
    from vla_calibration import store
    from vla_calibration.board import Board
    from vla_calibration.kinematics import load_chain
    from vla_calibration.session import Session, SessionConfig
    from vla_calibration.solve import solve_session

    file = _store(folder, fault)
    if file.exists():
        return
    offsets = np.deg2rad(OFFSETS_DEG) if fault == "joints" else np.zeros(7)
    mount = _camera_now() if fault == "camera" else None
    robot = simulated("eye_to_hand", Board(), offsets, seed=SEED, mount=mount)
    config = SessionConfig("panda_tabletop", "agent", "eye_to_hand", Board(), 640, 480)
    session = Session.create(folder / f"{fault}_session", config)
    drive_arm(robot, session, VIEWS, SEED, lambda fraction, line: None)
    chain = load_chain(PANDA, "tool") if fault == "joints" else None
    store.add(file, "panda_tabletop", solve_session(session, chain))


def _worker(policy: str, folder: Path, name: str) -> Callable[[tuple[int, ...]], Any]:
    from vla.pipeline import open_pipeline
    from vla_calibration import store
    from vla_calibration.camera import pinhole
    from vla_calibration.reexpress import redrawing
    from vla_sim.rollout import run_episodes
    from vla_sim.tabletop.faults import Faults, FaultySuite, nominal_camera

    fault, _, calibrated = name.partition("_")
    found = store.load(_store(folder, fault)) if calibrated else None
    offsets: Any = np.zeros(7)
    camera, correct = None, None
    if fault == "joints":
        offsets = np.deg2rad(OFFSETS_DEG)
        if found is not None:
            offsets -= [found.joints[f"joint{i}"].value if f"joint{i}" in found.joints else 0.0 for i in range(1, 8)]
    if fault == "camera":
        camera = _camera_now()
        if found is not None:
            place, fov = nominal_camera()
            lens = pinhole(64, 64, fov)
            now, then = (lens, found.cameras["agent"].mount_from_camera), (lens, place)
            correct = redrawing(now, then, PLANE_Z_M)
    suite: Any = FaultySuite(Faults(offsets, camera, correct))
    pipeline = open_pipeline(policy)
    return lambda seeds: run_episodes(pipeline, suite, seeds, n_action_steps=4, batch=20)


def _camera_now() -> Any:
    from vla_calibration.geometry import moved
    from vla_sim.tabletop.faults import nominal_camera

    return moved(nominal_camera()[0], np.array(CAMERA_TWIST))


def _store(folder: Path, fault: str) -> Path:
    return folder / f"{fault}.yaml"
