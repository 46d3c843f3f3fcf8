"""MuJoCo without a screen: one OpenGL context a model and process, shared by all environments and image sizes.

Importing this module is how `vla_sim` imports MuJoCo: its GL backend is chosen by environment variables that are read
once, at import.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vla.errors import BadConfig, Missing
from vla.types import Image

__all__ = ["Kind", "Look", "Solid", "mujoco", "render", "share_display"]

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")
# Mesa's software rasteriser hands each frame to a pool of threads; at 64 px waking them takes four times as long as
# drawing the frame in the caller's thread. Hardware drivers ignore this.
os.environ.setdefault("LP_NUM_THREADS", "0")

_HELP = "Run `vla doctor`; on Debian or Ubuntu: apt-get install libegl1 libgl1-mesa-dri, or set MUJOCO_GL=osmesa."

try:
    import mujoco
except Exception as error:  # ImportError, AttributeError or RuntimeError, depending on which GL library is missing
    backend = os.environ.get("MUJOCO_GL", "")
    raise Missing(f"MuJoCo cannot be loaded with MUJOCO_GL={backend!r}: {error}. {_HELP}") from error

_MOST_CANVASES = 24
"""Kept at a time: each holds a scene's meshes and textures once more."""


@dataclass(frozen=True)
class Look:
    """What is drawn, and how well."""

    geom_groups: tuple[int, ...] = (1, 1, 1, 0, 0, 0)
    """Which of MuJoCo's six groups of geoms are seen."""
    shadows: bool = False
    reflections: bool = False
    samples: int = 4
    """Samples a pixel."""


Kind = Literal["box", "cylinder", "sphere"]


@dataclass(frozen=True)
class Solid:
    """Something that is drawn and that the physics does not know."""

    kind: Kind
    place: tuple[float, float, float]
    """Of its middle [m], in the world; it stands upright."""
    half_m: float
    """Half of its height and width [m]."""
    colour: tuple[float, float, float]
    """Red, green and blue, 0 to 1."""


_GEOMS: dict[Kind, int] = {
    "box": mujoco.mjtGeom.mjGEOM_BOX.value,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER.value,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE.value,
}


class _Canvas:
    """A model's meshes and textures in OpenGL, to draw images of any size up to the model's offscreen buffer."""

    def __init__(self, model: Any, look: Look) -> None:
        quality = model.vis.quality  # read once, when the context is made
        quality.offsamples = look.samples
        shadow_px = quality.shadowsize
        quality.shadowsize = shadow_px if look.shadows else 0  # 67 MB at MuJoCo's 4096
        try:
            self._gl = mujoco.GLContext(model.vis.global_.offwidth, model.vis.global_.offheight)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except Exception as error:  # each GL backend raises its own
            backend = os.environ.get("MUJOCO_GL", "")
            raise Missing(f"cannot create an OpenGL context with MUJOCO_GL={backend!r}: {error}. {_HELP}") from error
        finally:
            quality.shadowsize = shadow_px
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = look.shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = look.reflections
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = look.geom_groups
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    @property
    def address(self) -> int:
        """Which context it is; EGL only."""
        return int(self._gl._context.address)

    def draw(self, model: Any, data: Any, camera: str, height: int, width: int, solids: Sequence[Solid]) -> Image:
        """One image, upright: OpenGL's rows begin at the bottom."""
        self._gl.make_current()
        self._camera.fixedcamid = model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._options, None, self._camera, everything, self._scene)
        for solid in solids:
            self._add(solid)
        whole, image = mujoco.MjrRect(0, 0, width, height), np.empty((height, width, 3), np.uint8)
        mujoco.mjr_render(whole, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, whole, self._context)
        return np.ascontiguousarray(image[::-1])

    def _add(self, solid: Solid) -> None:
        geom, size = self._scene.geoms[self._scene.ngeom], np.full(3, solid.half_m)
        upright, colour = np.eye(3).ravel(), np.array([*solid.colour, 1.0], np.float32)
        mujoco.mjv_initGeom(geom, _GEOMS[solid.kind], size, np.array(solid.place), upright, colour)
        self._scene.ngeom += 1

    def close(self) -> None:
        """Give back what it holds."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()


_canvases: OrderedDict[tuple[int, Look], _Canvas] = OrderedDict()


def render(
    model: Any, data: Any, camera: str, height: int, width: int, look: Look = Look(), solids: Sequence[Solid] = ()
) -> Image:
    """Draw an upright (height, width, 3) uint8 RGB image of an `mjData` whose positions are up to date, and `solids`.

    Raises:
        Missing: this machine cannot draw; says what to install.
        BadConfig: the image is larger than the model's offscreen buffer.
    """
    most = model.vis.global_
    if height > most.offheight or width > most.offwidth:
        raise BadConfig(f"images may be up to {most.offheight} x {most.offwidth} here, not {height} x {width}")
    mujoco.mj_camlight(model, data)
    with _others_context_kept():
        return _canvas(model, look).draw(model, data, camera, height, width, solids)


def _canvas(model: Any, look: Look) -> _Canvas:
    key = (id(model), look)
    if key not in _canvases:
        canvas = _Canvas(model, look)
        if not _canvases:  # after MuJoCo's own exit handler was registered, so that this one runs before it
            atexit.register(_close)
        _canvases[key] = canvas
        weakref.finalize(model, _forget, key).atexit = False
        if len(_canvases) > _MOST_CANVASES:
            _canvases.popitem(last=False)[1].close()
    _canvases.move_to_end(key)
    return _canvases[key]


def _forget(key: tuple[int, Look]) -> None:
    """A model is gone: another may get its id."""
    with _others_context_kept():
        if canvas := _canvases.pop(key, None):
            canvas.close()


@contextlib.contextmanager
def _others_context_kept() -> Iterator[None]:
    """After the block the EGL context is current that was before, unless it is one of ours.

    robosuite draws, and frees what it drew with, in whichever context is current. Left to do so in ours, it would take
    our objects, which have the same numbers, for its own.
    """
    if os.environ.get("MUJOCO_GL") != "egl":
        yield
        return
    from mujoco.egl import EGL

    before = EGL.eglGetCurrentContext()
    ours = {canvas.address for canvas in _canvases.values()}
    try:
        yield
    finally:
        if before and before.address not in ours:
            EGL.eglMakeCurrent(mujoco.egl.EGL_DISPLAY, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, before)


def share_display() -> None:
    """Before robosuite draws: have it use the EGL display that MuJoCo opened instead of opening the same once more.

    Whoever opens it closes it at exit, under everyone's feet.
    """
    if os.environ.get("MUJOCO_GL") == "egl":
        import mujoco.egl
        from robosuite.renderers.context import egl_context

        mujoco.GLContext(1, 1).free()
        egl_context.EGL_DISPLAY = mujoco.egl.EGL_DISPLAY


def _close() -> None:
    """Free GL contexts while the display is still open; later each of them complains."""
    while _canvases:
        _canvases.popitem()[1].close()
