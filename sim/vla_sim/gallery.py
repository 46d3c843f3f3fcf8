"""Pictures of episodes that failed: four moments from start to end, side by side, a few for each phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_sim.env import Env, HasProgress

_MOMENTS = 4
_SIZE = 160


class Gallery:
    """Hand `step` and `end` to `run_episodes` as `on_step` and `on_end`.

    Nothing is drawn while an episode runs; one that failed is put back to the moments that are shown.
    """

    def __init__(self, folder: Path, seeds: Sequence[int], camera: str, most: int) -> None:
        """Pictures go to `folder/<phase>_<seed>.jpg`, at most `most` a phase over all processes, or hardly more."""
        self._folder, self._seeds, self._camera, self._most = folder, seeds, camera, most
        self._moments: dict[int, list[Any]] = {}

    def step(self, index: int, env: Env) -> None:
        """Remember this moment."""
        self._moments.setdefault(index, []).append(env.snapshot())

    def end(self, index: int, env: Env) -> None:
        """Draw the episode if it failed. The environment is left at its end, where it was."""
        moments = [*self._moments.pop(index, []), env.snapshot()]
        if env.success or env.steps == 0:  # refused before it began: nothing to see
            return
        phase = (env.progress.phase if isinstance(env, HasProgress) else "") or env.failure or "stopped"
        self._folder.mkdir(parents=True, exist_ok=True)
        if len(list(self._folder.glob(f"{phase}_*.jpg"))) >= self._most:
            return
        shown = []
        for i in np.linspace(0, len(moments) - 1, min(_MOMENTS, len(moments))).round().astype(int):
            env.restore(moments[i])
            shown.append(env.render(self._camera, _SIZE, _SIZE))
        save(self._folder / f"{phase}_{self._seeds[index]}.jpg", np.hstack(shown))


def save(path: Path, image: Any) -> None:
    """Write an (h, w, 3) uint8 image as JPEG."""
    from PIL import Image

    Image.fromarray(image).save(path, quality=80)
