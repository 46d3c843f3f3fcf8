"""MuJoCo without a screen: one renderer a model, size and process, shared by all environments.

Importing this module is how `vla_sim` imports MuJoCo: its GL backend is chosen by environment variables that are read
once, at import.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

from vla.errors import Missing
from vla.types import Image

__all__ = ["mujoco", "render"]

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

_renderers: dict[tuple[int, int, int], tuple[Any, Any]] = {}


def render(model: Any, data: Any, camera: str, height: int, width: int) -> Image:
    """Draw one (height, width, 3) uint8 RGB image of an `mjData` whose positions are up to date.

    Raises:
        Missing: this machine cannot draw; says what to install.
    """
    renderer = _renderer(model, height, width)
    mujoco.mj_camlight(model, data)
    renderer.update_scene(data, camera)
    image: Image = renderer.render()
    return image


def _renderer(model: Any, height: int, width: int) -> Any:
    key = (id(model), height, width)
    if key not in _renderers:
        try:
            renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # each GL backend raises its own
            backend = os.environ.get("MUJOCO_GL", "")
            raise Missing(f"cannot create an OpenGL context with MUJOCO_GL={backend!r}: {error}. {_HELP}") from error
        if not _renderers:  # after MuJoCo's own exit handler was registered, so that this one runs before it
            atexit.register(_close)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        _renderers[key] = (renderer, model)  # the model too, so that its id stays its own
    return _renderers[key][0]


def _close() -> None:
    """Free GL contexts while the display is still open; later each of them complains."""
    while _renderers:
        _renderers.popitem()[1][0].close()
