"""The report is one file, shows what the run folders hold, and nothing that they do not."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from vla import cli, report
from vla.errors import BadConfig, BadDataset
from vla.runs import Run, write_json

VIDEO = bytes(range(256))


class Page(HTMLParser):
    """The parts of a page that tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.resources: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.resources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def says(self, words: str) -> bool:
        return words in " ".join(" ".join(self.text).split())


def evaluate(path: Path, successes: list[bool], **config: Any) -> Path:
    run = Run.create(path, "eval", {"suite": "tabletop", **config})
    for seed, success in enumerate(successes):
        failure = "" if success else "moved_other"
        run.append({"seed": seed, "task": "t", "skill": "pick", "success": success, "failure": failure})
    return path


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """Two arms, a training log with a torn line, an oracle curve, a video and a summary."""
    demo = tmp_path / "demo"
    evaluate(demo / "single", [True] * 10 + [False] * 10)
    verified = evaluate(demo / "verified", [True] * 20)
    (verified / "videos").mkdir()
    (verified / "videos" / "seed_3_pick.mp4").write_bytes(VIDEO)
    write_json(verified / "oracle_error.json", {"k": [1, 4, 16], "error": [0.2, 0.15, 0.11]})
    (demo / "policy").mkdir()
    log = [json.dumps({"step": i, "loss": 1 / (i + 1), "seconds": 6.0 * i}) for i in range(9)]
    (demo / "policy" / "log.jsonl").write_text("\n".join(log) + '\n{"step": 9, "lo')
    write_json(demo / "summary.json", {"success": {"k": 10, "n": 20, "low": 0.299, "high": 0.701}, "minutes": 9.87})
    return demo


def render(tmp_path: Path, *runs: Path, **options: Any) -> Page:
    report.write(tmp_path / "report.html", list(runs), "A title", **options)
    return Page((tmp_path / "report.html").read_text())


def test_the_verb_reports_on_all_runs_in_a_folder(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert cli.main(["report", str(demo), "--out", str(out), "--title", "The demo"]) == 0
    page = Page(out.read_text())
    assert page.says("The demo")
    assert page.says("50.0% [29.9, 70.1] n=20")
    assert page.says("100.0% [83.9, 100.0] n=20")
    assert page.says("9.9 min")
    assert page.says("+50.0")
    assert page.says("0.002")
    assert page.says("moved other")
    assert page.tags.count("svg") == 2
    assert page.says("R² ")


def test_the_page_needs_no_other_file(demo: Path, tmp_path: Path) -> None:
    page = render(tmp_path, *sorted(demo.iterdir())[:3])
    assert page.resources
    assert all(resource.startswith("data:") for resource in page.resources)
    assert "default-src 'none'" in (tmp_path / "report.html").read_text()


def test_a_video_is_in_the_page_byte_for_byte(demo: Path, tmp_path: Path) -> None:
    page = render(tmp_path, demo / "verified")
    video = next(r for r in page.resources if r.startswith("data:video/mp4;base64,"))
    assert base64.b64decode(video.partition(",")[2]) == VIDEO
    assert page.says("seed 3 pick")


def test_provenance_is_shown(demo: Path, tmp_path: Path) -> None:
    page = render(tmp_path, demo / "verified")
    meta = Run.open(demo / "verified").meta
    assert all(page.says(meta[key]) for key in ("revision", "machine", "command", "created"))


def test_what_a_run_says_is_text_not_markup(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    run = evaluate(tmp_path / "a", [True, False], policy=hostile)
    Run.open(run).append({"seed": 9, "task": "t", "skill": hostile, "success": False, "failure": hostile})
    page = render(tmp_path, run)
    assert page.tags.count("script") == 1
    assert page.says(hostile)


def test_runs_over_other_episodes_have_no_paired_row(tmp_path: Path) -> None:
    page = render(tmp_path, evaluate(tmp_path / "a", [True] * 3), evaluate(tmp_path / "b", [True] * 4))
    assert not page.says("Paired differences")
    assert page.says("n=3")
    assert page.says("n=4")


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    page = render(tmp_path, evaluate(tmp_path / "x" / "a", [True]), evaluate(tmp_path / "y" / "a", [True]))
    assert page.says("x/a")
    assert page.says("y/a")


def test_the_same_folders_give_the_same_curves(demo: Path, tmp_path: Path) -> None:
    def curves() -> list[str]:
        render(tmp_path, demo / "verified", demo / "policy")
        return re.findall(r"<svg.*?</svg>", (tmp_path / "report.html").read_text(), re.DOTALL)

    assert curves() == curves()


def test_nothing_to_report_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="nothing to report"):
        report.write(tmp_path / "report.html", [tmp_path], "t")
    assert cli.main(["report", str(tmp_path / "nothing")]) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("oracle_error.json", "{"),
        ("oracle_error.json", '{"k": [1, 2], "error": [1, 2]}'),
        ("oracle_error.json", '{"k": [1, 2, 4], "error": [3, 0, 1]}'),
        ("log.jsonl", "garbage\n"),
        ("log.jsonl", '{"step": 1}\n'),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadDataset, match=name):
        report.write(tmp_path / "report.html", [tmp_path], "t")
