"""Calibrate cameras and joints, keep the results, and check a robot against its policy.

`vla calibrate ACTION --help` has an action's options. What is found is kept in one file a robot, --store, version by
version.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import subcommand

Setup = Literal["eye_in_hand", "eye_to_hand"]


@dataclass(frozen=True, kw_only=True)
class Capture:
    """Take guided views into --session; the simulated arm drives itself (a robot's views: the ROS node)."""

    session: Path = Path("runs/calibration")
    """Folder of the views."""
    robot: str = "panda_tabletop"
    """Name of the robot."""
    camera: str = "agent"
    """Name of the camera."""
    setup: Setup = "eye_to_hand"
    """Who carries the camera: the hand, or a stand in the base frame with the board on the hand."""
    views: int = 20
    """Views to end up with."""
    offsets_deg: tuple[float, ...] = ()
    """How far each joint is really off."""
    seed: int = 0
    """Of the arm and its views."""


@dataclass(frozen=True, kw_only=True)
class _Stored:
    store: Path = Path("calibration.yaml")
    """The robot's file; one robot, all its versions."""


@dataclass(frozen=True, kw_only=True)
class _Modelled(_Stored):
    model: Path | None = None
    """URDF or MJCF of the arm; joint offsets need it."""
    hand: str = "tool"
    """Link, body or site of that model that is the hand."""


@dataclass(frozen=True, kw_only=True)
class Solve(_Modelled):
    """Intrinsics, camera place and, with --model, joint offsets from a session; added to --store."""

    session: Path = Path("runs/calibration")
    """Folder of the views."""
    policy: str | None = None
    """Checkpoint or bundle folder, or zoo:NAME, whose spec the calibration is for."""


@dataclass(frozen=True, kw_only=True)
class Show(_Stored):
    """The newest version in --store, or another."""

    version: int | None = None
    """Version to show."""


@dataclass(frozen=True, kw_only=True)
class Diff(_Stored):
    """What changed from one version to the newest."""

    version: int | None = None
    """Version to compare with; None is the one before."""


@dataclass(frozen=True, kw_only=True)
class Check(_Modelled):
    """--store against the camera places in a policy's spec, and what is seen now against --store.

    Exits 1 when the policy must not run.
    """

    policy: str
    """Checkpoint or bundle folder, or zoo:NAME, that is to run."""
    live: Path | None = None
    """Session of a few views of the board, taken just now."""
    stills: Path | None = None
    """npz of images and joint angles taken just now, of the gripper: no board needed. With --meshes and --model."""
    meshes: Path | None = None
    """Folder of the arm's STL files; docs/calibration.md has their names."""
    camera: str = "agent"
    """Name of the camera that took the stills."""


@dataclass(frozen=True, kw_only=True)
class Export(_Stored):
    """camera_info, easy_handeye2 and patched model files from --store."""

    out: Path = Path("calibration_export")
    """Folder to export into."""
    model: Path | None = None
    """URDF or MJCF of the arm, to patch with the joint offsets."""


@dataclass(frozen=True, kw_only=True)
class Import(_Stored):
    """A lens, a camera's place, or both, from ROS's own files."""

    robot: str = "panda_tabletop"
    """Name of the robot."""
    camera: str = "agent"
    """Name of the camera."""
    camera_info: Path | None = None
    """ROS's camera_info YAML: the lens."""
    handeye: Path | None = None
    """easy_handeye2's file: the place."""


@dataclass(frozen=True, kw_only=True)
class Reexpress(_Stored):
    """A dataset as it would be under the newest calibration."""

    dataset: Path
    """LeRobotDataset to re-express."""
    out: Path
    """Folder of the new dataset."""
    camera: str = "agent"
    """Name of the camera."""
    moved: Literal["camera", "base"] = "camera"
    """What was: the camera, and its images are redrawn; or the base, and states and actions are turned into the new."""
    version: int | None = None
    """Version that the dataset was recorded under; None where its spec says."""
    fov_deg: float | None = None
    """Vertical field of view of its images where no calibrated lens took them, as in simulation."""
    plane_z_m: float = 0.02
    """Height in the base frame that images are redrawn for: the table, or half the height of what is on it."""


@dataclass(frozen=True, kw_only=True)
class _Recorded(_Modelled):
    recording: Path
    """JSON file of the measurements; docs/calibration.md has the formats."""
    robot: str = "panda_tabletop"
    """Name of the robot."""


@dataclass(frozen=True, kw_only=True)
class Time(_Recorded):
    """A camera's clock against the joints'."""


@dataclass(frozen=True, kw_only=True)
class Tool(_Recorded):
    """The tool's tip."""


@dataclass(frozen=True, kw_only=True)
class Gripper(_Recorded):
    """The gripper's width."""


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """A verifier's score as a probability of success, from rollouts in simulation; saved beside it."""

    policy: str
    """Checkpoint folder that it was fitted for."""
    verifier: str = "privileged_advantage"
    """Verifier whose scores are calibrated."""
    candidates: int = 16
    """Action chunks it chooses among."""
    noise_scale: float = 1.0
    """Standard deviation of their noise."""
    episodes: int = 400
    """Rollouts for it; every other one is held out."""
    suite: str = "tabletop"
    """Where they are rolled out."""
    seed: int = 0
    """How far on the seeds of the rollouts begin."""


Args = (
    Annotated[Capture, subcommand("capture")]
    | Annotated[Solve, subcommand("solve")]
    | Annotated[Show, subcommand("show")]
    | Annotated[Diff, subcommand("diff")]
    | Annotated[Check, subcommand("check")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Import, subcommand("import")]
    | Annotated[Reexpress, subcommand("reexpress")]
    | Annotated[Time, subcommand("time")]
    | Annotated[Tool, subcommand("tool")]
    | Annotated[Gripper, subcommand("gripper")]
    | Annotated[Verifier, subcommand("verifier")]
)


def main(args: Args) -> int:
    """Do it."""
    from vla.verbs import _calibration_actions

    return _calibration_actions.do(args)
