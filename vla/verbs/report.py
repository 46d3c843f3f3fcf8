"""Write a self-contained HTML page about runs: success with intervals, paired tests, curves, videos, provenance.

A folder that is not itself a run stands for the runs directly in it, in the order they were begun: `vla report
runs/demo` shows all of runs/demo/*, with the headline numbers of runs/demo/summary.json. Up to four evaluations are
compared each with each, more of them all with the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Args:
    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, in the order they are to appear."""
    out: Path = Path("report.html")
    """The page."""
    title: str = ""
    """Of the page; the folders' names when empty."""


def main(args: Args) -> int:
    """Write the page and say where it is."""
    import json

    from vla import report
    from vla.errors import BadConfig, BadDataset

    runs: list[Path] = []
    summary = None
    for folder in args.runs:
        if not folder.is_dir():
            raise BadConfig(f"{folder} is not a folder; `vla list` shows the runs there are")
        is_run = any((folder / name).exists() for name in report.EVIDENCE)
        runs += [folder] if is_run else sorted((child for child in folder.iterdir() if child.is_dir()), key=_begun)
        if summary is None and (folder / "summary.json").exists():
            try:
                summary = json.loads((folder / "summary.json").read_text())
            except (ValueError, RecursionError) as error:
                raise BadDataset(f"{folder / 'summary.json'} is not JSON: {error}") from error
    report.write(args.out, runs, args.title or " · ".join(folder.name for folder in args.runs), summary)
    print(f"{args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _begun(folder: Path) -> tuple[str, str]:
    """When a run was begun, then its name; what is no run comes last."""
    from vla.runs import Run

    created = str(Run.open(folder).meta.get("created", "")) if (folder / "run.json").is_file() else "~"
    return created, folder.name
