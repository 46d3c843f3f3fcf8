"""What `vla calibrate` does; its options are in `vla.verbs.calibrate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.verbs.calibrate import (
    Args,
    Capture,
    Check,
    Diff,
    Export,
    Gripper,
    Import,
    Reexpress,
    Show,
    Solve,
    Time,
    Tool,
    Verifier,
)

if TYPE_CHECKING:
    from vla.spec import Drift
    from vla_calibration.drift import DriftResult
    from vla_calibration.store import Calibration

_RECORDED: dict[type, Any] = {Time: "time", Tool: "tool", Gripper: "gripper"}


def do(args: Args) -> int:
    """The action whose options these are; returns the exit code."""
    work: dict[type, Any] = {
        Capture: _capture,
        Solve: _solve,
        Show: _show,
        Diff: _diff,
        Check: _check,
        Export: _export,
        Import: _import,
        Reexpress: _reexpress,
        Time: _recording,
        Tool: _recording,
        Gripper: _recording,
        Verifier: _verifier,
    }
    code: int = work[type(args)](args)
    return code


def _capture(args: Capture) -> int:
    import numpy as np

    from vla.errors import BadConfig
    from vla.progress import bar
    from vla.verbs._calibration_robot import drive, simulated
    from vla_calibration.board import Board
    from vla_calibration.session import Session, SessionConfig

    if args.offsets_deg and (len(args.offsets_deg) != 7 or not all(abs(o) <= 10 for o in args.offsets_deg)):
        raise BadConfig(f"--offsets-deg wants 7 numbers, one a joint, of 10 at most, got {args.offsets_deg}")
    if args.views < 1 or args.seed < 0:
        raise BadConfig(f"--views {args.views} --seed {args.seed}: want at least one view, and no negative seed")
    board = Board()
    offsets = np.deg2rad(args.offsets_deg or (0.0,) * 7)
    robot = simulated(args.setup, board, offsets, args.seed)
    session = Session.create(args.session, SessionConfig(args.robot, args.camera, args.setup, board, 640, 480))
    with bar("capture") as show:
        drive(robot, session, args.views, args.seed, show)
    print(f"{args.session}: {len(session.views)} views; next: vla calibrate solve --session {args.session}")
    return 0


def _solve(args: Solve) -> int:
    from vla import zoo
    from vla.errors import BadConfig
    from vla.spec import Spec
    from vla_calibration import store
    from vla_calibration.kinematics import load_chain
    from vla_calibration.session import Session
    from vla_calibration.solve import solve_session

    session = Session.open(args.session)
    chain = None if args.model is None else load_chain(args.model, args.hand)
    before = store.load(args.store, session.config.robot) if args.store.exists() else None
    found = solve_session(session, chain, before)
    if args.policy is not None:
        spec = Spec.load(zoo.folder(args.policy) / "spec.json")
        if spec.robot != session.config.robot:
            raise BadConfig(f"{args.policy} is for robot {spec.robot!r}, {args.session} of {session.config.robot!r}")
        found = replace(found, spec=store.robot_digest(spec))
    number = store.add(args.store, session.config.robot, found)
    print(f"{args.store}: version {number}")
    _print(found)
    return 0


def _show(args: Show) -> int:
    from vla_calibration import store

    found = store.load(args.store, None, args.version)
    print(f"{store.robot_of(args.store)}, version {found.version} of {found.date}, revision {found.revision}")
    _print(found)
    return 0


def _diff(args: Diff) -> int:
    from vla.errors import BadConfig
    from vla_calibration import store

    versions = store.history(args.store)
    if args.version is None and len(versions) < 2:
        raise BadConfig(f"{args.store} has one version only: nothing to compare it with")
    old = store.load(args.store, None, len(versions) - 1 if args.version is None else args.version)
    lines = store.differences(old, versions[-1])
    print(f"version {old.version} of {old.date} against {versions[-1].version} of {versions[-1].date}")
    print("\n".join(lines) or "nothing changed")
    return 0


def _check(args: Check) -> int:
    from vla import zoo
    from vla.spec import Drift, Spec
    from vla_calibration import store
    from vla_calibration.drift import check_spec

    spec = Spec.load(zoo.folder(args.policy) / "spec.json")
    calibration = store.load(args.store, spec.robot)
    results = check_spec(calibration, spec)
    if args.live is not None:
        results["live scene"] = _live(args, calibration, spec.drift or Drift(), spec.robot)
    if args.stills is not None:
        results["gripper"] = _gripper(args, calibration, spec.drift or Drift())
    for name, result in results.items():
        print(f"{name:12} {result.level:7} {result.reason}")
    return 1 if any(r.level == "refuse" for r in results.values()) else 0


def _live(args: Check, calibration: Calibration, limits: Drift, robot: str) -> DriftResult:
    from vla.errors import BadCalibration
    from vla_calibration.drift import check_scene
    from vla_calibration.kinematics import load_chain
    from vla_calibration.session import Session
    from vla_calibration.solve import corrected

    assert args.live is not None
    session = Session.open(args.live)
    name = session.config.camera
    if session.config.robot != robot:
        raise BadCalibration(f"{session.run.path} is of robot {session.config.robot!r}, the policy for {robot!r}")
    entry = calibration.cameras.get(name)
    if entry is None or entry.far_from_board is None:
        raise BadCalibration(
            f"{args.store} does not know camera {name!r}, or where its board is: solve a session first"
        )
    chain = None if args.model is None else load_chain(args.model, args.hand)
    views = corrected(session.views, chain, calibration)
    return check_scene(views, session.config.board, entry, limits, entry.far_from_board)


def _gripper(args: Check, calibration: Calibration, limits: Drift) -> DriftResult:
    from vla.errors import BadCalibration, BadConfig
    from vla_calibration.gripper_drift import check_gripper
    from vla_calibration.kinematics import load_chain
    from vla_calibration.stills import read_shape, read_stills

    if args.stills is None or args.meshes is None or args.model is None:
        raise BadConfig(
            "the gripper is checked with --stills, --meshes and --model, and --hand: the link that carries it"
        )
    if args.camera not in calibration.cameras:
        raise BadCalibration(f"{args.store} does not know camera {args.camera!r}: solve a session first")
    chain = load_chain(args.model, args.hand)
    stills = read_stills(args.stills, chain, calibration)
    return check_gripper(stills, read_shape(args.meshes, chain), calibration.cameras[args.camera], limits)


def _export(args: Export) -> int:
    from vla.errors import BadConfig
    from vla_calibration import store
    from vla_calibration.exchange import export

    if args.out.exists() and not args.out.is_dir():
        raise BadConfig(f"--out {args.out} is a file: choose a folder")
    for path in export(store.load(args.store), args.out, args.model):
        print(path)
    return 0


def _import(args: Import) -> int:
    from vla_calibration import store
    from vla_calibration.exchange import imported

    before = store.load(args.store, args.robot) if args.store.exists() else store.Calibration()
    entry = imported(args.camera_info, args.handeye, before.cameras.get(args.camera))
    files = " and ".join(path.name for path in (args.camera_info, args.handeye) if path is not None)
    found = replace(before, cameras=before.cameras | {args.camera: entry}, note=f"camera {args.camera} from {files}")
    print(f"{args.store}: version {store.add(args.store, args.robot, found)}")
    _print(found)
    return 0


def _reexpress(args: Reexpress) -> int:
    from math import radians

    from vla.errors import BadConfig
    from vla.progress import bar
    from vla.verbs import _calibration_dataset as datasets
    from vla.verbs._stages import open_demonstrations
    from vla_calibration import store

    if args.fov_deg is not None and not 1 <= args.fov_deg <= 170:
        raise BadConfig(f"--fov-deg {args.fov_deg}: want 1 to 170 degrees")
    cache = open_demonstrations(args.dataset)
    new = store.load(args.store, cache.spec.robot)
    old = None if args.version is None else store.load(args.store, cache.spec.robot, args.version)
    if args.moved == "camera":
        fov = None if args.fov_deg is None else radians(args.fov_deg)
        change = datasets.camera_moved(cache.spec, args.camera, old, new, fov, args.plane_z_m)
    else:
        change = datasets.base_moved(cache.spec, args.camera, old, new)
    config = {
        "dataset": args.dataset,
        "fingerprint": datasets.fingerprint(args.dataset),
        "old": None if old is None else old.cameras[args.camera],
        "new": new.cameras[args.camera],
        **{key: getattr(args, key) for key in ("store", "version", "camera", "moved", "fov_deg", "plane_z_m")},
    }
    with bar("reexpress") as show:
        datasets.write(args.dataset, cache, change, args.out, config, show)
    print(f"{args.out}: {cache.n_episodes} episodes, {len(cache)} frames under version {new.version} of {args.store}")
    if change.new_from_old is not None:
        print("limits of states and actions are now the boxes around the old ones, turned: look at spec.json")
    return 0


def _recording(args: Time | Tool | Gripper) -> int:
    from vla_calibration import store
    from vla_calibration.kinematics import load_chain
    from vla_calibration.recordings import solve_recording

    before = store.load(args.store, args.robot) if args.store.exists() else store.Calibration()
    chain = None if args.model is None else load_chain(args.model, args.hand)
    found = solve_recording(args.recording, _RECORDED[type(args)], before, chain)
    print(f"{args.store}: version {store.add(args.store, args.robot, found)}")
    _print(found)
    return 0


def _verifier(args: Verifier) -> int:
    from vla.verbs._calibration_verifier import SEED, ScaleConfig, calibrate

    out = Path(args.policy) / "verifiers" / f"{args.verifier}_scale"
    config = ScaleConfig(args.policy, args.verifier, args.suite, args.candidates, args.noise_scale, SEED + args.seed)
    for name, value in calibrate(config, args.episodes, out).items():
        print(f"{name:>18}  {value:.4g}" if isinstance(value, float) else f"{name:>18}  {value}")
    print(f"plot: {out / 'reliability.png'}; a bundle exported from now on has p_success")
    return 0


def _print(found: Calibration) -> None:
    import numpy as np

    for name, entry in found.cameras.items():
        x, y, z = entry.mount_from_camera[:3, 3]
        sure, seen = "imported, nothing says how sure", ""
        if entry.covariance is not None:
            std = np.sqrt(np.diag(entry.covariance))
            sure = f"±{1e3 * np.linalg.norm(std[:3]):.2f} mm ±{np.rad2deg(np.linalg.norm(std[3:])):.3f} degrees"
        if entry.rms_px is not None:
            seen = f"; reprojection {entry.rms_px:.3f} px over {entry.views} views"
        lens = entry.intrinsics
        print(f"camera {name}: on the {entry.mount} at ({x:.4f}, {y:.4f}, {z:.4f}) m, {sure}")
        print(
            f"  {lens.model} {lens.width} x {lens.height}, fx {lens.fx:.2f}, fy {lens.fy:.2f}, cx {lens.cx:.2f}, "
            f"cy {lens.cy:.2f}{seen}"
        )
    for name, offset in found.joints.items():
        print(f"joint {name}: {np.rad2deg(offset.value):+.3f} ± {np.rad2deg(offset.std):.3f} degrees")
    for name, offset in found.clocks.items():
        print(f"clock of {name}: {1e3 * offset.value:+.2f} ± {1e3 * offset.std:.2f} ms")
    if found.gripper is not None:
        print(f"gripper: true width = {found.gripper[0]:.4f} x reported {1e3 * found.gripper[1]:+.2f} mm")
    if found.tool is not None:
        x, y, z = found.tool.tip_m
        std = 1e3 * np.sqrt(np.trace(found.tool.covariance))
        print(f"tool: tip at ({x:.4f}, {y:.4f}, {z:.4f}) m in the hand's frame, ±{std:.2f} mm")
