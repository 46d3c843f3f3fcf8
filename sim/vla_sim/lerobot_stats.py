"""The statistics a LeRobotDataset carries: for each episode and, pooled, for the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vla.types import Image

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}

Statistics = dict[str, Any]
"""min, max, mean, std, the quantiles and count, as plain lists."""


def statistics(values: npt.NDArray[Any]) -> Statistics:
    """LeRobot's statistics of (T, D) numbers."""
    found = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0, dtype=np.float64),
        "std": values.std(0, dtype=np.float64),
    }
    found |= dict(zip(_QUANTILES, np.quantile(values, list(_QUANTILES.values()), axis=0), strict=True))
    return {name: np.asarray(value, np.float64).tolist() for name, value in found.items()} | {"count": [len(values)]}


def image_statistics(images: Image) -> Statistics:
    """The same of (T, h, w, 3) images, a channel at a time in [0, 1], from every fourth pixel each way."""
    pixels = images[:, ::4, ::4].reshape(-1, 3).astype(np.float32) / np.float32(255)
    found = statistics(pixels)
    shaped = {name: [[[x]] for x in value] for name, value in found.items() if name != "count"}
    return shaped | {"count": [len(images)]}


def pool(stats: Sequence[dict[str, Statistics]]) -> dict[str, Statistics]:
    """Statistics of all episodes from those of each, as LeRobot pools them: quantiles are averaged by count."""
    pooled: dict[str, Statistics] = {}
    for key in stats[0]:
        parts = {name: np.array([s[key][name] for s in stats], np.float64) for name in stats[0][key]}
        count = parts["count"].reshape(-1, *[1] * (parts["mean"].ndim - 1))
        weight = count / count.sum()
        mean = (parts["mean"] * weight).sum(0)
        variance = ((parts["std"] ** 2 + (parts["mean"] - mean) ** 2) * weight).sum(0)
        pooled[key] = {"min": parts["min"].min(0), "max": parts["max"].max(0), "mean": mean, "std": np.sqrt(variance)}
        pooled[key] |= {name: (parts[name] * weight).sum(0) for name in _QUANTILES}
        pooled[key] = {name: value.tolist() for name, value in pooled[key].items()}
        pooled[key]["count"] = [int(count.sum())]
    return pooled
