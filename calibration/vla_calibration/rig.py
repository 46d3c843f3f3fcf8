"""The one measurement model: a camera, an arm and a board, and where each corner should appear.

Eye-in-hand: the camera is mounted on the hand, the board stands in the base frame. Eye-to-hand: the camera stands in
the base frame, the board is mounted on the hand. Either way, with `mount` where the camera is
and `far` where the board is,

    camera_from_board = inverse(mount_from_camera) · mount_from_far · far_from_board

What is unknown is chosen by name, so hand-eye calibration, joint offsets and the refinement of intrinsics are one
problem. A measured arm pose is not exact either: each view may correct it, at the price of the arm's own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vla.errors import BadCalibration
from vla_calibration.board import Board, Detection
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import Doubles, apply, checked, inverse, moved, skew
from vla_calibration.kinematics import Chain
from vla_calibration.least_squares import Rows, Solution, Term, solve

Setup = Literal["eye_in_hand", "eye_to_hand"]
Unknown = Literal["camera", "mount", "board", "offsets", "corrections"]

_VARIANCE_ROUNDS = 6
_MIN_REDUNDANCY = 3.0


@dataclass(frozen=True, eq=False)
class View:
    """The board in one image, and where the arm said its hand was."""

    detection: Detection
    base_from_hand: Doubles
    """(4, 4), from the arm's own kinematics."""
    joints: Doubles | None = None
    """(J,) joint angles [rad] as the arm reports them."""
    stamp_ns: int = 0
    camera: str = ""
    """Name of the camera that took it."""

    def __post_init__(self) -> None:
        checked(self.base_from_hand, f"view at {self.stamp_ns} ns, base_from_hand")
        if self.joints is not None and (self.joints.ndim != 1 or not np.isfinite(self.joints).all()):
            raise BadCalibration(
                f"view at {self.stamp_ns} ns: joint angles {self.joints.tolist()} are NaN or infinite, or no row"
            )


@dataclass(frozen=True)
class Noise:
    """Standard deviations of what is measured."""

    pixel: float = 0.3
    """A corner's coordinate [px]."""
    position_m: float = 5e-4
    """The hand's position, each axis [m]."""
    rotation_rad: float = 1e-3
    """The hand's orientation, about each axis [rad]."""


@dataclass(frozen=True, eq=False)
class Rig:
    """Everything that decides where a corner appears."""

    setup: Setup
    board: Board
    camera: CameraModel
    mount_from_camera: Doubles
    """(4, 4); the mount is the hand (eye-in-hand) or the base (eye-to-hand)."""
    far_from_board: Doubles
    """(4, 4); the board's end is the base (eye-in-hand) or the hand (eye-to-hand)."""
    offsets: Doubles
    """(J,) true minus reported joint angles [rad]; (0,) where joints are not known."""
    corrections: Doubles
    """(V, 6) twists from each measured base_from_hand to the true one."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A rig that fits its views."""

    rig: Rig
    covariance: Doubles
    """(P, P), in the order of `slices`."""
    slices: dict[str, slice]
    """Unknown -> its place in the covariance."""
    noise: Noise
    """As estimated, or as assumed where it was not to be estimated."""
    dof: float | None
    """Redundancy behind the estimated noise; None when it was assumed."""
    rms_px: float

    def covariance_of(self, unknown: Unknown) -> Doubles:
        """Its block of the covariance."""
        at = self.slices[unknown]
        return self.covariance[at, at]


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known of the intrinsics before: their own calibration."""

    parameters: Doubles
    covariance: Doubles


def fit(
    rig: Rig,
    views: Sequence[View],
    unknowns: Sequence[Unknown],
    noise: Noise,
    *,
    chain: Chain | None = None,
    joints: Sequence[int] = (),
    prior: Prior | None = None,
    estimate_noise: bool = True,
    name: str = "hand-eye",
) -> Fit:
    """Fit the unknowns of a rig to its views.

    Args:
        rig: the start; what is not unknown stays as it is.
        views: what was seen.
        unknowns: what to fit; "corrections" last.
        noise: assumed, or where to start estimating.
        chain: the arm, when joint offsets are unknown.
        joints: which of its joints.
        prior: of the intrinsics, when they are unknown.
        estimate_noise: take the noise levels from the residuals (variance components).
        name: what is calibrated, for errors.

    Raises:
        BadCalibration: the views do not determine the unknowns.
    """
    problem = _Problem(rig, views, unknowns, chain, joints, prior)
    solution = solve(rig, problem.linearise(noise), problem.retract, name)
    if estimate_noise:
        for _ in range(_VARIANCE_ROUNDS):
            better = _rescaled(noise, solution)
            changes = [abs(np.log(b / a)) for a, b in zip(_levels(noise), _levels(better), strict=True)]
            noise = better
            solution = solve(solution.state, problem.linearise(noise), problem.retract, name)
            if max(changes) < 0.03:
                break
    pixels = solution.residuals["px"].reshape(-1, 2) * noise.pixel
    dof = None
    if estimate_noise:  # the arm's noise, when it is modelled, dominates; its redundancy is the smaller one
        dof = min(v for k, v in solution.redundancy.items() if k != "prior")
    rms = float(np.sqrt(np.square(pixels).sum(1).mean()))
    return Fit(solution.state, solution.covariance, problem.slices, noise, dof, rms)


def information(rig: Rig, view: View, noise: Noise) -> Doubles:
    """(12, 12) what one view says about the camera's and the board's place; the arm's own noise is taken off."""
    problem = _Problem(rig, [view], ("mount", "board", "corrections"), None, (), None)
    _, J = problem._view(rig, view, np.zeros(6))
    J = J.reshape(-1, 18)
    arm = np.diag([noise.position_m**2] * 3 + [noise.rotation_rad**2] * 3)
    covariance = noise.pixel**2 * np.eye(len(J)) + J[:, 12:] @ arm @ J[:, 12:].T
    return np.asarray(J[:, :12].T @ np.linalg.solve(covariance, J[:, :12]))


class _Problem:
    """Residuals and Jacobians of a rig. Every view's chain is linear in one thing: the twist of its hand."""

    def __init__(
        self,
        rig: Rig,
        views: Sequence[View],
        unknowns: Sequence[Unknown],
        chain: Chain | None,
        joints: Sequence[int],
        prior: Prior | None,
    ) -> None:
        self.views, self.chain, self.joints, self.prior = views, chain, list(joints), prior
        sizes = {
            "camera": len(rig.camera.parameters),
            "mount": 6,
            "board": 6,
            "offsets": len(self.joints),
            "corrections": 6 * len(views),
        }
        self.slices: dict[str, slice] = {}
        at = 0
        for unknown in unknowns:
            self.slices[unknown] = slice(at, at + sizes[unknown])
            at += sizes[unknown]
        self.n = at
        self.n_shared = at - (sizes["corrections"] if "corrections" in self.slices else 0)
        if "offsets" in self.slices and (chain is None or any(v.joints is None for v in views)):
            raise BadCalibration("joint offsets need the arm's kinematics and the joint angles of every view")

    def linearise(self, noise: Noise) -> Callable[[Rig], Rows]:
        """Residuals in units of a noise level."""
        return lambda rig: self._rows(rig, noise)

    def retract(self, rig: Rig, step: Doubles) -> Rig:
        """A rig moved by a step."""
        part = {unknown: step[at] for unknown, at in self.slices.items()}
        if "camera" in part:
            rig = replace(rig, camera=rig.camera.with_parameters(rig.camera.parameters + part["camera"]))
        if "mount" in part:
            rig = replace(rig, mount_from_camera=moved(rig.mount_from_camera, part["mount"]))
        if "board" in part:
            rig = replace(rig, far_from_board=moved(rig.far_from_board, part["board"]))
        if "offsets" in part:
            offsets = rig.offsets.copy()
            offsets[self.joints] += part["offsets"]
            rig = replace(rig, offsets=offsets)
        if "corrections" in part:
            rig = replace(rig, corrections=rig.corrections + part["corrections"].reshape(-1, 6))
        return rig

    def _rows(self, rig: Rig, noise: Noise) -> Rows:
        residuals, information, gradient = [], np.zeros((self.n, self.n)), np.zeros(self.n)
        for i, view in enumerate(self.views):
            pixels, J = self._view(rig, view, rig.corrections[i])
            if pixels is None:
                return {"px": Term(np.array([np.inf]), information, gradient)}
            r = (pixels - view.detection.corners).ravel() / noise.pixel
            J = J.reshape(len(r), -1) / noise.pixel
            own: Any = 6 * i + np.arange(self.n_shared, self.n_shared + 6) if "corrections" in self.slices else []
            at = np.r_[0 : self.n_shared, own].astype(int)
            information[np.ix_(at, at)] += J.T @ J
            gradient[at] += J.T @ r
            residuals.append(r)
        rows = {"px": Term(np.concatenate(residuals), information, gradient)}
        if "corrections" in self.slices:
            rows |= self._correction_rows(rig, noise)
        if "camera" in self.slices and self.prior is not None:
            rows["prior"] = self._prior_row(rig, self.prior)
        return rows

    def _view(self, rig: Rig, view: View, correction: Doubles) -> tuple[Doubles | None, Doubles]:
        """Pixels (N, 2) of a view's corners and their Jacobian (N, 2, shared + own correction).

        No pixels when a corner would lie behind the camera.
        """
        measured, body = view.base_from_hand, None
        if self.chain is not None and view.joints is not None:
            measured, body = self.chain.forward(view.joints + rig.offsets)
        base_from_hand = moved(measured, correction)
        in_hand = rig.setup == "eye_in_hand"
        mount_from_far = inverse(base_from_hand) if in_hand else base_from_hand
        camera_from_mount = inverse(rig.mount_from_camera)
        points = rig.board.points[view.detection.ids]
        far = apply(rig.far_from_board, points)
        seen = apply(camera_from_mount @ mount_from_far, far)
        if (seen[:, 2] <= 1e-3).any():
            return None, seen
        pixels, by_point, by_camera = rig.camera.linearise(seen)
        # A twist of the hand moves the board's points in the hand's frame, or the camera against them.
        if in_hand:
            by_hand = -by_point @ _by_twist(camera_from_mount[:3, :3], apply(mount_from_far, far))
        else:
            by_hand = by_point @ _by_twist((camera_from_mount @ base_from_hand)[:3, :3], far)
        turned = moved(np.eye(4), correction)
        columns = []
        for unknown in self.slices:
            if unknown == "camera":
                columns.append(by_camera)
            elif unknown == "mount":
                columns.append(-by_point @ _by_twist(np.eye(3), seen))
            elif unknown == "board":
                turn = (camera_from_mount @ mount_from_far @ rig.far_from_board)[:3, :3]
                columns.append(by_point @ _by_twist(turn, points))
            elif unknown == "offsets" and body is not None:
                columns.append(by_hand @ (_adjoint(inverse(turned)) @ body[:, self.joints]))
            else:  # corrections add up as vectors: their translation is in the frame before their turn
                columns.append(np.concatenate([by_hand[:, :, :3] @ turned[:3, :3].T, by_hand[:, :, 3:]], 2))
        return pixels, np.concatenate(columns, 2)

    def _correction_rows(self, rig: Rig, noise: Noise) -> dict[str, Term]:
        """The arm was measured where it is, give or take its noise."""
        rows = {}
        levels = {"position": (slice(0, 3), noise.position_m), "rotation": (slice(3, 6), noise.rotation_rad)}
        at = np.arange(self.n_shared, self.n).reshape(-1, 6)
        for kind, (axes, sigma) in levels.items():
            values = rig.corrections[:, axes].ravel() / sigma
            information, gradient = np.zeros((self.n, self.n)), np.zeros(self.n)
            places = at[:, axes].ravel()
            information[places, places] = sigma**-2
            gradient[places] = values / sigma
            rows[kind] = Term(values, information, gradient)
        return rows

    def _prior_row(self, rig: Rig, prior: Prior) -> Term:
        whiten = np.linalg.inv(np.linalg.cholesky(prior.covariance))
        J = np.zeros((len(whiten), self.n))
        J[:, self.slices["camera"]] = whiten
        return Term.dense(whiten @ (rig.camera.parameters - prior.parameters), J)


def _by_twist(turn: Doubles, points: Doubles) -> Doubles:
    """(N, 3, 6) how `turn` @ points move when their frame is twisted."""
    by_turn = np.concatenate([np.broadcast_to(np.eye(3), (len(points), 3, 3)), -skew(points)], 2)
    return np.asarray(turn @ by_turn)


def _adjoint(T: Doubles) -> Doubles:
    """(6, 6) a twist in the frame of b, seen from a, for T = a_from_b."""
    A = np.zeros((6, 6))
    A[:3, :3] = A[3:, 3:] = T[:3, :3]
    A[:3, 3:] = skew(T[None, :3, 3])[0] @ T[:3, :3]
    return A


def _levels(noise: Noise) -> tuple[float, float, float]:
    return noise.pixel, noise.position_m, noise.rotation_rad


def _rescaled(noise: Noise, solution: Solution[Rig]) -> Noise:
    """The noise levels that the residuals speak for; floors keep a perfect simulation solvable."""

    def factor(kind: str) -> float:
        if solution.redundancy.get(kind, 0.0) < _MIN_REDUNDANCY:
            return 1.0
        return solution.scale(kind)

    return Noise(
        max(noise.pixel * factor("px"), 1e-3),
        max(noise.position_m * factor("position"), 1e-5),
        max(noise.rotation_rad * factor("rotation"), 1e-5),
    )
