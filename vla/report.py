"""One self-contained HTML page about a few runs, made from their folders alone.

What a run folder may hold, and what becomes of it:
    run.json           where the results come from: revision, machine, command, config
    episodes.jsonl     success per skill with intervals, time and smoothness, paired tests, failures by phase
    failures/          <phase>_<seed>.jpg: episodes that failed
    crashes.log        a line for each process that crashed and was replaced
    log.jsonl          the learning curve
    oracle_error.json  error of the best of K candidates against K: {"k": [...], "error": [...]}
    reliability.png    probabilities that a verifier said, against how often they came true
    videos/            rollouts: *.mp4, *.png, *.jpg; the caption is the file's name
"""

from __future__ import annotations

import base64
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vla import report_plots
from vla.comparison import ALL, MEASURES, Comparison, by_seed, compare, counted, intention, mean_of_successes, rates
from vla.errors import BadConfig, BadDataset, Missing
from vla.runs import Run, revision, write_text
from vla.statistics import Rate, power_law

EVIDENCE = ("run.json", "episodes.jsonl", "log.jsonl", "oracle_error.json", "videos")
"""A folder with one of these can be reported on."""

SHOWN = 4
"""Failures of each arm that are shown for a phase."""
ALL_PAIRS = 4
"""Up to so many arms each is compared with each; of more, all with the first."""

DIGITS = {"seconds": "%.2f", "path": "%.3f", "smoothness": "%.1f"}
"""How the means of MEASURES are written."""

MEDIA = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Arm:
    """One evaluation: a policy, a verifier and settings, over a set of seeds."""

    name: str
    run: Run
    rates: dict[str, Rate]
    means: dict[str, float | None]
    """Of the measures, over the episodes that succeeded."""
    intention: Rate | None
    """Went for the right object first."""
    phases: Counter[str]
    """Failed episodes by the farthest part of the task they reached."""
    failures: Counter[str]
    """The same by the simulator's reason."""
    held: tuple[int, int]
    """Decisions in which no candidate was taken, and all."""
    crashes: list[str]
    colour: int
    """Number of its colour on the page."""


@dataclass(frozen=True)
class Pair:
    """Two arms that ran the same episodes."""

    a: Arm
    b: Arm
    found: Comparison


@dataclass(frozen=True)
class Failure:
    """One episode that failed, to look at."""

    phase: str
    arm: Arm
    caption: str
    data: str
    """Base64 JPEG."""


@dataclass(frozen=True)
class Clip:
    """One rollout to look at."""

    arm: str
    caption: str
    mime: str
    data: str
    """Base64."""


@dataclass(frozen=True)
class Figure:
    """A headline number."""

    label: str
    value: str
    detail: str = ""


def write(out: Path, runs: list[Path], title: str, summary: Mapping[str, Any] | None = None) -> None:
    """Write the page.

    Args:
        out: the HTML file.
        runs: run folders, in the order they are to appear.
        title: of the page.
        summary: headline numbers, as in summary.json: rates {k, n, low, high} and plain numbers.

    Raises:
        BadConfig: none of the folders holds anything to report.
        BadDataset: a file in one of them is broken.
        Missing: the page's template engine is not installed, or the disk is full.
    """
    try:
        import jinja2
    except ImportError as error:
        raise Missing("a report needs jinja2 and matplotlib: uv pip install 'vla-stack[train]'") from error
    found = [run for run in runs if any((run / name).exists() for name in EVIDENCE)]
    names = dict(zip(found, _short_names(found), strict=True))
    arms = list(_arms(names))
    skills = sorted({skill for arm in arms for skill in arm.rates if skill != ALL})
    curves = {name: curve for run, name in names.items() if (curve := _oracle_error(run / "oracle_error.json"))}
    logs = {name: log for run, name in names.items() if (log := _log(run / "log.jsonl"))}
    clips = [clip for run, name in names.items() for clip in _clips(run, name, {arm.name: arm for arm in arms})]
    sources = [(name, _source(run)) for run, name in names.items() if (run / "run.json").exists()]
    if not (arms or curves or logs or clips or sources):
        raise BadConfig(f"nothing to report in {', '.join(map(str, runs)) or 'no folder'}: no {', '.join(EVIDENCE)}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        points=_points,
        title=title,
        figures=list(_figures(summary or {})),
        arms=arms,
        groups=[ALL, *skills],
        pairs=list(_pairs(arms)),
        measures=[name for name in MEASURES if any(arm.means[name] is not None for arm in arms)],
        measure_names=MEASURES,
        digits=DIGITS,
        learning=report_plots.learning_curves(logs) if logs else "",
        oracle=report_plots.oracle_errors(curves) if curves else "",
        clips=clips,
        phases=_by_frequency(arm.phases for arm in arms),
        reasons=_by_frequency(arm.failures for arm in arms),
        failed=[failure for arm in arms for failure in _failed(arm)],
        sources=sources,
        revision=revision(),
        written=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)


def _source(path: Path) -> Run:
    """A run that says where it comes from. Raises BadDataset."""
    run = Run.open(path)
    lacking = [key for key in ("revision", "command", "created", "machine", "versions") if key not in run.meta]
    if lacking or not isinstance(run.meta["versions"], dict):
        raise BadDataset(f"{path / 'run.json'} does not say its {', '.join(lacking) or 'versions'}; restore it")
    return run


def _arms(names: Mapping[Path, str]) -> Iterator[Arm]:
    evaluations = [path for path in names if (path / "episodes.jsonl").exists()]
    # More arms than colours: one for the first, which all others are compared with, and one for these.
    few = len(evaluations) <= report_plots.ARM_COLOURS
    colours = itertools.count() if few else itertools.chain([0], itertools.repeat(report_plots.ARM_COLOURS - 1))
    for path, name in names.items():
        if not (path / "run.json").exists():
            continue
        run = Run.open(path)
        rows = run.rows()
        if rows and "success" in rows[0] and (known := counted(run)):
            failed = [row for row in known.values() if not row["success"]]
            crashes = path / "crashes.log"
            yield Arm(
                name,
                run,
                rates(run),
                {measure: mean_of_successes(run, measure) for measure in MEASURES},
                intention(run),
                Counter(_phase(row) for row in failed),
                Counter(_reason(row) for row in failed),
                (_total(known, "holds"), _total(known, "decisions")),
                crashes.read_text(errors="replace").splitlines() if crashes.exists() else [],
                next(colours),
            )


def _total(rows: Mapping[int, Mapping[str, Any]], count: str) -> int:
    values = [row.get(count) for row in rows.values()]
    return sum(value for value in values if type(value) is int)


def _pairs(arms: list[Arm]) -> Iterator[Pair]:
    """Arms that can be paired; those over other episodes have no row."""
    chosen = itertools.combinations(arms, 2) if len(arms) <= ALL_PAIRS else ((arms[0], arm) for arm in arms[1:])
    for b, a in chosen:
        try:
            yield Pair(a, b, compare(a.run, b.run)[ALL])
        except BadConfig:
            continue


def _points(share: float) -> str:
    """A difference of two rates in percentage points."""
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def _by_frequency(counters: Iterable[Counter[str]]) -> list[str]:
    """What is counted, the most frequent first."""
    total: Counter[str] = sum(counters, Counter())
    return [name for name, _ in total.most_common()]


def _phase(row: Mapping[str, Any]) -> str:
    """Where an episode failed, as far as its suite tells; else how."""
    return str(row.get("phase") or _reason(row))


def _reason(row: Mapping[str, Any]) -> str:
    return str(row.get("failure") or "unknown")


def _failed(arm: Arm) -> Iterator[Failure]:
    """A few pictures for each phase, those of the lowest seeds."""
    rows, shown = by_seed(arm.run), Counter[str]()
    for file in sorted((arm.run.path / "failures").glob("*.jpg")):
        seed = file.stem.rpartition("_")[2]
        row = rows.get(int(seed)) if seed.isdecimal() else None
        if row is None or row["success"] or shown[_phase(row)] >= SHOWN:
            continue
        shown[_phase(row)] += 1
        yield Failure(_phase(row), arm, _caption(row), base64.b64encode(file.read_bytes()).decode())


def _caption(row: Mapping[str, Any]) -> str:
    """What the policy was told, and what came of it."""
    wrong = row.get("target") and row.get("approached") not in ("", row["target"])
    went = f", went for {row['approached']} first" if wrong else ""
    end = "success" if row["success"] else _reason(row)
    told = row.get("instruction", row.get("task", ""))
    return f"{told}: {end}{went} (seed {row['seed']})".replace("_", " ")


_RATES = {
    "success_verified": "success, verified",
    "success": "success, single sample",
    "success_onnx": "success on ONNX Runtime",
    "ros_success": "success through ROS 2",
    "swapped_instruction": "success, instruction swapped",
}

_NUMBERS = {
    "latency_ratio_k16": ("time of K=16 verified to K=1", "{:.2f}×"),
    "parity_max_abs": ("ONNX against torch, largest difference", "{:.1e}"),
    "ros_overhead_p99_ms": ("ROS overhead, p99", "{:.1f} ms"),
    "ros_hold_after_kill_ms": ("kill −9 to HOLD", "{:.0f} ms"),
    "parameters": ("parameters", "{:,}"),
    "train_minutes": ("training", "{:.1f} min"),
    "minutes": ("everything", "{:.1f} min"),
}


def _figures(summary: Mapping[str, Any]) -> Iterator[Figure]:
    try:
        yield from _known_figures(summary)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadDataset(
            f"summary.json holds something else than rates and numbers: {error!r}; make it again"
        ) from error


def _known_figures(summary: Mapping[str, Any]) -> Iterator[Figure]:
    for key, label in _RATES.items():
        if rate := summary.get(key):
            known = Rate(rate["k"], rate["n"], rate["low"], rate["high"])
            value, _, detail = str(known).partition(" ")
            yield Figure(label, value, detail)
    for key, (label, form) in _NUMBERS.items():
        if (number := summary.get(key)) is not None:
            yield Figure(label, form.format(number))


def _clips(run: Path, name: str, arms: Mapping[str, Arm]) -> Iterator[Clip]:
    rows = by_seed(arms[name].run) if name in arms else {}
    for file in [*run.glob("reliability.png"), *sorted((run / "videos").glob("*"))]:
        if mime := MEDIA.get(file.suffix):
            seed = file.stem.partition("_")[0]
            row = rows.get(int(seed)) if seed.isdecimal() else None
            caption = _caption(row) if row is not None else file.stem.replace("_", " ")
            yield Clip(name, caption, mime, base64.b64encode(file.read_bytes()).decode())


def _short_names(runs: list[Path]) -> list[str]:
    """The folders' names, with as many parents as it takes to tell them apart."""
    parts = [run.resolve().parts for run in runs]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def _oracle_error(path: Path) -> dict[str, list[float]] | None:
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text())
        curve = {"k": [float(k) for k in data["k"]], "error": [float(error) for error in data["error"]]}
        power_law(curve["k"], curve["error"])
    except (ValueError, TypeError, KeyError) as error:
        raise BadDataset(f"{path} is not a curve: {error}; remove it or measure again") from error
    return curve


def _log(path: Path) -> list[dict[str, float]]:
    """The rows of a log that may still be growing: a last line without its end is left out."""
    if not path.exists():
        return []
    try:
        lines = path.read_text().split("\n")[:-1]
        rows = [json.loads(line) for line in lines]
        return [{"seconds": float(row["seconds"]), "loss": float(row["loss"])} for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise BadDataset(f"{path} has a line that is not a training step: {error}; train again") from error
