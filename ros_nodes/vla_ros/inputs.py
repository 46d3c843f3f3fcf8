"""The newest image of each camera and the newest state, put together when they belong to one moment."""

from __future__ import annotations

from vla.types import Floats, Image, Observation


class Inputs:
    """Collects what the sensors say until it makes an observation. Pure: no ROS, no clock."""

    def __init__(self, cameras: tuple[str, ...], tolerance_ns: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._images: dict[str, Image] = {}
        self._state: Floats | None = None
        self._stamps: dict[str, int | None] = dict.fromkeys((*cameras, "state"))

    def image(self, camera: str, image: Image, stamp_ns: int) -> None:
        """Take a camera's newest image."""
        self._images[camera] = image
        self._stamps[camera] = stamp_ns

    def state(self, state: Floats, stamp_ns: int) -> None:
        """Take the newest state."""
        self._state = state
        self._stamps["state"] = stamp_ns

    def forget(self) -> None:
        """The robot was started again: what was measured before lies on another clock."""
        self._stamps = dict.fromkeys(self._stamps)

    def missing(self) -> list[str]:
        """Cameras, or "state", of which nothing came yet or that lag behind the newest input."""
        newest = max((s for s in self._stamps.values() if s is not None), default=0)
        return [name for name, s in self._stamps.items() if s is None or newest - s > self._tolerance_ns]

    def observation(self, instruction: str) -> Observation | None:
        """All inputs of one moment, stamped with the oldest; None while one is missing."""
        if self.missing() or self._state is None:
            return None
        oldest = min(s for s in self._stamps.values() if s is not None)
        return Observation(dict(self._images), self._state, instruction, oldest)
