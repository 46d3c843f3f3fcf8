"""Calibration against known truth: lenses, mounts, joints and clocks, from rendered images and projected corners.

Rendered: boards drawn by MuJoCo through a lens with distortion; "noisy" adds blur of 0.8 px, noise of 10 grey levels,
and something in front of the lens in every third image. Projected: corners with Gaussian noise, where hundreds of
trials are needed. Each row is the worst or the median over its trials, as it says. Photographed: a real chessboard
before two real cameras, the images that come with OpenCV's samples (Debian: opencv-doc), where they are installed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vla.runs import Run
from vla.verbs.bench import Args, Metric, share

RENDERED = 10
TRIALS = 100
HAND_EYE_TRIALS = 500
"""A hundred leave the ratio of two medians open by a tenth to each side."""
GUIDED_TRIALS = 20
JOINT_TRIALS = 40
COVERAGE_TRIALS = 500
DRIFT_TRIALS = 500
GRIPPER_TRIALS = 200
SEED = 9_000_000
PHOTOGRAPHS = Path("/usr/share/doc/opencv-doc/examples/data")
"""Where Debian's opencv-doc puts them: 13 by each camera."""
SETUPS = ("eye_in_hand", "eye_to_hand")

Rows = list[dict[str, Any]]


def measure(args: Args) -> list[Metric]:
    """Run the trials that are not there yet; then one row a metric."""
    from vla.verbs.benches import _calibration_trials as trials

    run = functools.partial(_trials, args)
    return [
        *_photographed(),
        *_rendered(run, trials),
        *(m for setup in SETUPS for turning in (False, True) for m in _against_opencv(run, trials, setup, turning)),
        *_guided(run, trials),
        *_joints_and_clocks(run, trials),
        *_coverage(run, trials),
        *_drift(run, trials),
        *_gripper(run),
    ]


def _rendered(run: Callable[..., Rows], trials: Any) -> list[Metric]:
    """Lenses and mounts from images."""
    metrics: list[Metric] = []
    for lens in ("radtan", "fisheye"):
        for noisy in (False, True):
            name = f"intrinsics {lens} {_word(noisy)}"
            rows = run(name, RENDERED, trials.intrinsics_rendered, lens=lens, noisy=noisy)
            metrics += [
                _worst(f"{name}, focal length, worst", rows, "focal", "%", 0.3),
                _worst(f"{name}, centre, worst", rows, "centre", "%", 0.3),
                _worst(f"{name}, reprojection, worst", rows, "rms", "px", 0.5 if noisy else 0.25),
            ]
    for setup in SETUPS:
        for noisy in (False, True):
            name = f"{setup.replace('_', '-')} {_word(noisy)}, 20 rendered views"
            rows = run(name, RENDERED, trials.hand_eye_rendered, setup=setup, noisy=noisy)
            metrics += [
                _worst(f"{name}, worst", rows, "mm", "mm", 3 if noisy else 1),
                _worst(f"{name}, worst turn", rows, "deg", "°", 0.3 if noisy else 0.1),
            ]
    return metrics


def _photographed() -> list[Metric]:
    """Lenses of two real cameras, whose truth nobody knows: how well one lens explains all of a camera's images."""
    import cv2

    from vla_calibration.board import Board
    from vla_calibration.intrinsics import calibrate_intrinsics

    board = Board("chessboard", columns=10, rows=7, square_m=0.025)
    metrics = []
    for side in ("left", "right"):
        files = sorted(PHOTOGRAPHS.glob(f"{side}[0-9][0-9].jpg"))
        if not files:
            print(f"{PHOTOGRAPHS} has no {side}*.jpg: without its rows. On Debian and Ubuntu: apt install opencv-doc")
            continue
        images = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
        views = [view for image in images if (view := board.detect(image)) is not None]
        found = calibrate_intrinsics(views, board, (images[0].shape[1], images[0].shape[0]))
        name = f"photographs, {side} camera"
        metrics += [
            Metric(f"{name}, images used", len(found.used) / len(files), "", len(files), target=">= 1"),
            Metric(f"{name}, reprojection", found.rms_px, "px", len(found.used), target="<= 0.5"),
            Metric(f"{name}, focal length, one standard deviation", float(100 * found.std[0] / found.camera.fx), "%"),
        ]
    return metrics


def _guided(run: Callable[..., Rows], trials: Any) -> list[Metric]:
    """Poses as the node names them against poses at random, as many."""
    rows = run("named poses", GUIDED_TRIALS, trials.guided_projected)
    median = {key: float(np.median([row[key] for row in rows])) for key in ("mm", "deg", "random_mm", "random_deg")}
    in_sight = sum(row["in_sight"] for row in rows) / sum(row["named"] for row in rows)
    return [
        Metric("14 views, from the sixth on named, median position", median["mm"], "mm", len(rows)),
        Metric("the same, to 14 at random", median["mm"] / median["random_mm"], "times", len(rows), target="<= 1"),
        Metric("median turn", median["deg"], "°", len(rows)),
        Metric("the same, to 14 at random", median["deg"] / median["random_deg"], "times", len(rows), target="<= 1"),
        Metric("named poses that have the board in sight", in_sight, "", len(rows)),
    ]


def _joints_and_clocks(run: Callable[..., Rows], trials: Any) -> list[Metric]:
    rendered = run("joint offsets rendered", RENDERED, trials.joint_offsets_rendered)
    projected = run("joint offsets projected", JOINT_TRIALS, trials.joint_offsets_projected)
    clocks = run("time offset", TRIALS, trials.time_offset_projected)
    return [
        _worst("joint offsets up to 5°, rendered, worst joint", rendered, "deg", "°", 0.1),
        _worst("joint offsets up to 5°, projected, worst joint", projected, "deg", "°", 0.1),
        _worst("time offset up to 100 ms, worst", clocks, "ms", "ms", 2),
    ]


def _drift(run: Callable[..., Rows], trials: Any) -> list[Metric]:
    metrics = []
    for what, label, bound in (
        ("camera", "drift check sees a camera 2 cm off", ">= 0.95"),
        ("joint", "drift check sees a joint 2° off", ">= 0.95"),
        ("nothing", "drift check, false alarms", "<= 0.01"),
    ):
        rows = run(f"drift {what}", DRIFT_TRIALS, trials.drift_projected, what=what)
        metrics.append(share(label, [row["level"] != "ok" for row in rows], bound))
    return metrics


def _gripper(run: Callable[..., Rows]) -> list[Metric]:
    """Without a board. A check that could not be made counts as a miss, and as a false alarm."""
    from vla.verbs.benches import _gripper_trials as trials

    rows = run("drift gripper", GRIPPER_TRIALS, trials.gripper_rendered)
    return [
        share("no board, camera 2 cm off is seen", [row["camera_2cm_alarm"] is True for row in rows], ">= 0.95"),
        share("no board, a joint 2° off is seen", [row["joint_2deg_alarm"] is True for row in rows], ">= 0.95"),
        share("no board, false alarms", [row["nothing_alarm"] is not False for row in rows], "<= 0.01"),
    ]


def _against_opencv(run: Callable[..., Rows], trials: Any, setup: str, turning: bool) -> list[Metric]:
    name = f"{setup.replace('_', '-')}, 0.5 px, 1 mm{', 0.1°' if turning else ''}"
    rows = run(name, HAND_EYE_TRIALS, trials.hand_eye_projected, setup=setup, turning=turning)
    solvers = sorted({key.removesuffix("_mm") for key in rows[0] if key.endswith("_mm")})
    found = []
    for what, unit, sign, bound in (("position", "mm", "mm", 3), ("turn", "deg", "°", 0.3)):
        own = np.median([row[unit] for row in rows])
        medians = {s: float(np.nanmedian([row[f"{s}_{unit}"] for row in rows])) for s in solvers}
        best = min(medians, key=lambda s: medians[s])
        found += [
            Metric(f"{name}, median {what}", float(own), sign, len(rows), target=f"<= {bound}"),
            Metric(
                f"{name}, {what} to OpenCV's best ({best})",
                float(own / medians[best]),
                "times",
                len(rows),
                target="<= 1",
            ),
            *(Metric(f"{name}, median {what}, {s}", medians[s], sign, len(rows)) for s in solvers),
        ]
    return found


def _coverage(run: Callable[..., Rows], trials: Any) -> list[Metric]:
    rows = run("coverage", COVERAGE_TRIALS, trials.coverage_projected)
    held = [row["held"] for row in rows]
    name = "95% ellipsoid holds the camera's place"
    return [share(f"{name}, often enough", held, ">= 0.93"), share(f"{name}, not too often", held, "<= 0.97")]


def _worst(name: str, rows: Rows, key: str, unit: str, bound: float) -> Metric:
    return Metric(name, max(row[key] for row in rows), unit, len(rows), target=f"<= {bound}")


def _word(noisy: bool) -> str:
    return "noisy" if noisy else "clean"


def _trials(args: Args, name: str, n: int, trial: Callable[..., dict[str, Any]], **settings: Any) -> Rows:
    """The rows of n trials, one seed each; those on disk are not run again."""
    from vla.progress import bar
    from vla_sim.workers import run_jobs

    folder = args.out / "calibration" / name.replace(" ", "_").replace(",", "").replace("°", "deg")
    record = Run.create(folder, "calibration", {"trial": trial.__name__, "seed": SEED, **settings}, resume=True)
    done = {row["seed"] for row in record.rows()}
    todo = [seed for seed in range(SEED, SEED + n) if seed not in done]
    with bar(name) as show:
        for seed, row in run_jobs(functools.partial(_worker, trial, settings), todo, args.workers, print):
            record.append({"seed": seed, **row})
            done.add(seed)
            show(len(done) / n, "")
    return sorted(record.rows(), key=lambda row: int(row["seed"]))[:n]


def _worker(trial: Callable[..., dict[str, Any]], settings: dict[str, Any]) -> Callable[[int], dict[str, Any]]:
    return functools.partial(trial, **settings)
