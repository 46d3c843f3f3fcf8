"""Films episodes while they run, for reports."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.types import Image
from vla_sim.env import Env


class Recorder:
    """A camera on chosen episodes: hand `frame` to `run_episodes` as both `on_step` and `on_end`.

    With `stage`, an environment that looks better than the one the policy sees, each moment is re-enacted there.
    """

    def __init__(self, indices: Collection[int], camera: str, size: int = 256, stage: Env | None = None) -> None:
        self.frames: dict[int, list[Image]] = {index: [] for index in indices}
        """(size, size, 3) images of each episode, by its index."""
        self._camera, self._size, self._stage = camera, size, stage

    def frame(self, index: int, env: Env) -> None:
        """Take a picture, if this episode is filmed."""
        if index not in self.frames:
            return
        scene = env
        if self._stage is not None:
            self._stage.restore(env.snapshot())
            scene = self._stage
        self.frames[index].append(scene.render(self._camera, self._size, self._size))


def save_video(path: Path, frames: Sequence[Image], fps: float) -> None:
    """Write (h, w, 3) images as an mp4 that browsers play; h and w even. The last frame stays for half a second."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [*frames, *[frames[-1]] * round(fps / 2)]
    height, width, _ = frames[0].shape
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as video:
        stream: Any = video.add_stream("libx264", round(fps), options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        video.mux(stream.encode())
