"""A calibration board and a Panda in MuJoCo, seen through a camera with a real lens: images with a known truth.

MuJoCo draws an ideal pinhole with a centred image. So each view is drawn wide and fine, then resampled to the lens that
was asked for, with its distortion and its own centre, and given blur, noise, and perhaps something in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from vla.types import Image
from vla_sim.panda import ASSETS, N_JOINTS, Doubles, with_meshes, with_sky
from vla_sim.rendering import mujoco, render

Normalise = Callable[[Doubles], Doubles]
"""Pixels (N, 2) of the lens -> x/z and y/z (N, 2) of their rays."""

_FINE = 2
"""Pixels drawn for each pixel of the image, across and down: corners lie between pixels."""
_TO_MUJOCO = np.diag([1.0, -1.0, -1.0])
"""A camera's frame as OpenCV has it (z forward) against MuJoCo's (z backward)."""
_THICKNESS_M = 0.004
_MARGIN = 0.5
"""White border of the board, in squares: markers at its edge need it."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What is printed on the board."""

    image: Image
    """(h, w, 3) RGB, all squares, no margin."""
    size_m: Doubles
    """(2,) width and height of it [m]."""
    square_m: float


@dataclass(frozen=True)
class Flaws:
    """What a real camera adds."""

    blur_px: float = 0.0
    """Standard deviation of the blur."""
    noise: float = 0.0
    """Standard deviation of the noise, in grey levels of 255."""
    covered: float = 0.0
    """Share of the image's width that something in front of the lens hides."""


class BoardScene:
    """A Panda whose joints may be off, a board on its hand or on the table, and one camera."""

    def __init__(
        self,
        picture: Picture,
        size: tuple[int, int],
        normalise: Normalise,
        joint_offsets: Doubles | None = None,
        meshes: bool = False,
    ) -> None:
        """`size`: width and height [px]; offsets (7,) [rad]: true minus reported angles; the true Panda's `meshes`.

        Raises Missing.
        """
        self._size = size
        self._offsets = np.zeros(N_JOINTS) if joint_offsets is None else joint_offsets
        x, y = np.meshgrid(*((np.arange(n * _FINE) + 0.5) / _FINE - 0.5 for n in size))
        rays = normalise(np.stack([x.ravel(), y.ravel()], 1)).reshape(*x.shape, 2)
        self._half = 1.02 * np.abs(rays).reshape(-1, 2).max(0)
        self._fine = int(np.ceil(self._half[0] / self._half[1] * size[1] * _FINE)), size[1] * _FINE
        self._map = ((rays / self._half + 1) / 2 * self._fine - 0.5).astype(np.float32)
        self._model = _compile(picture, 2 * np.degrees(np.arctan(self._half[1])), self._fine, meshes)
        self._data = mujoco.MjData(self._model)
        self._tool = self._model.site("tool").id

    def base_from_hand(self, joints: Doubles) -> Doubles:
        """(4, 4) where the hand really is when the arm reports joint angles (7,) [rad]."""
        self._data.qpos[:N_JOINTS] = joints + self._offsets
        mujoco.mj_kinematics(self._model, self._data)
        T = np.eye(4)
        T[:3, :3] = self._data.site_xmat[self._tool].reshape(3, 3)
        T[:3, 3] = self._data.site_xpos[self._tool]
        return T

    def photograph(
        self,
        joints: Doubles,
        base_from_board: Doubles,
        base_from_camera: Doubles,
        flaws: Flaws = Flaws(),
        rng: np.random.Generator | None = None,
    ) -> Image:
        """One (h, w, 3) RGB image.

        Args:
            joints: (7,) angles the arm reports [rad].
            base_from_board: (4, 4) in OpenCV's board frame: first corner, x across, y down.
            base_from_camera: (4, 4) in OpenCV's camera frame.
            flaws: of the camera.
            rng: of the noise; needed when there is any.
        """
        self.base_from_hand(joints)
        _place(self._data, 0, base_from_board)
        _place(self._data, 1, base_from_camera @ np.block([[_TO_MUJOCO, np.zeros((3, 1))], [np.zeros((1, 3)), 1]]))
        mujoco.mj_kinematics(self._model, self._data)
        drawn = render(self._model, self._data, "lens", self._fine[1], self._fine[0])
        lens = cv2.remap(drawn, self._map, np.empty(0), cv2.INTER_CUBIC)
        image = cv2.resize(lens, self._size, interpolation=cv2.INTER_AREA).astype(np.float64)
        if flaws.covered:
            image[:, : round(flaws.covered * self._size[0])] = 40
        if flaws.blur_px:
            image = cv2.GaussianBlur(image, (0, 0), flaws.blur_px)
        if flaws.noise and rng is not None:
            image += rng.normal(0, flaws.noise, image.shape)
        return np.asarray(np.clip(np.round(image), 0, 255), np.uint8)


def _place(data: Any, index: int, base_from_body: Doubles) -> None:
    q = Rotation.from_matrix(base_from_body[:3, :3]).as_quat()
    data.mocap_pos[index] = base_from_body[:3, 3]
    data.mocap_quat[index] = q[[3, 0, 1, 2]]


def _compile(picture: Picture, fov_y_deg: float, size: tuple[int, int], meshes: bool) -> Any:
    """The arm, a table, a board that hides nothing but itself, and the camera; board and camera are mocap bodies."""
    scene = mujoco.MjSpec.from_file(str(ASSETS / "panda.xml"))
    if meshes:
        with_meshes(scene)
        with_sky(scene)
    scene.visual.global_.offwidth, scene.visual.global_.offheight = size
    scene.visual.quality.offsamples = 4
    scene.visual.map.znear = 0.01
    scene.visual.headlight.ambient, scene.visual.headlight.diffuse = (0.7,) * 3, (0.3,) * 3
    margin = round(_MARGIN * picture.square_m / picture.size_m[0] * picture.image.shape[1])
    sheet: npt.NDArray[np.uint8] = np.pad(
        picture.image, ((margin, margin), (margin, margin), (0, 0)), constant_values=255
    )
    texture = scene.add_texture(
        name="print",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        width=sheet.shape[1],
        height=sheet.shape[0],
        nchannel=3,
    )
    texture.data = sheet.tobytes()
    material = scene.add_material(name="print", specular=0.0, reflectance=0.0)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "print"
    scene.worldbody.add_light(pos=(0.5, 0, 3), dir=(0, 0, -1), castshadow=False)
    scene.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, pos=(0.45, 0, -0.05), size=(0.6, 0.6, 0.02), rgba=(0.62, 0.55, 0.48, 1)
    )
    board = scene.worldbody.add_body(name="board", mocap=True)
    half = (picture.size_m + 2 * _MARGIN * picture.square_m) / 2
    middle = picture.size_m / 2
    turn = (0.0, 1.0, 0.0, 0.0)  # the board's z points into it, a plane's out of it
    plain = {"contype": 0, "conaffinity": 0, "quat": turn}
    board.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, pos=(*middle, 0), size=(*half, 1), material="print", **plain)
    board.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(*middle, _THICKNESS_M),
        size=(*half, _THICKNESS_M / 2),
        rgba=(0.3, 0.3, 0.3, 1),
        **plain,
    )
    scene.worldbody.add_body(name="camera", mocap=True).add_camera(name="lens", fovy=fov_y_deg)
    return scene.compile()
