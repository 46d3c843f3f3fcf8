"""MuJoCo without a screen: one renderer a model, size and process, shared by all environments.

Importing this module is how `vla_sim` imports MuJoCo: its GL backend is chosen by environment variables that are read
once, at import.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from vla.errors import Missing
from vla.types import Image

__all__ = ["Look", "mujoco", "render"]

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

_MOST_RENDERERS = 24
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


_renderers: OrderedDict[tuple[int, int, int, Look], tuple[Any, Any, Any]] = OrderedDict()


def render(model: Any, data: Any, camera: str, height: int, width: int, look: Look = Look()) -> Image:
    """Draw one upright (height, width, 3) uint8 RGB image of an `mjData` whose positions are up to date.

    Raises:
        Missing: this machine cannot draw; says what to install.
    """
    renderer, options = _renderer(model, height, width, look)
    mujoco.mj_camlight(model, data)
    renderer.update_scene(data, camera, options)
    image: Image = renderer.render()
    return image


def _renderer(model: Any, height: int, width: int, look: Look) -> tuple[Any, Any]:
    key = (id(model), height, width, look)
    if key not in _renderers:
        model.vis.quality.offsamples = look.samples  # read once, when the context is made
        try:
            renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # each GL backend raises its own
            backend = os.environ.get("MUJOCO_GL", "")
            raise Missing(f"cannot create an OpenGL context with MUJOCO_GL={backend!r}: {error}. {_HELP}") from error
        if not _renderers:  # after MuJoCo's own exit handler was registered, so that this one runs before it
            atexit.register(_close)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = look.shadows
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = look.reflections
        options = mujoco.MjvOption()
        options.geomgroup[:] = look.geom_groups
        _renderers[key] = (renderer, options, model)  # the model too, so that its id stays its own
        if len(_renderers) > _MOST_RENDERERS:
            _renderers.popitem(last=False)[1][0].close()
    _renderers.move_to_end(key)
    return _renderers[key][:2]


def _close() -> None:
    """Free GL contexts while the display is still open; later each of them complains."""
    while _renderers:
        _renderers.popitem()[1][0].close()
