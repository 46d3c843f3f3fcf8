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
from vla.sequential import anytime_rate

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
    assert page.says("0.00098")
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
    (tmp_path / "dataset" / "videos" / "chunk-000").mkdir(parents=True)  # as a LeRobotDataset has it
    assert cli.main(["report", str(tmp_path / "dataset"), "--out", str(tmp_path / "page.html")]) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("oracle_error.json", "{"),
        ("oracle_error.json", '{"k": [1, 2], "error": [1, 2]}'),
        ("oracle_error.json", '{"k": [1, 2, 4], "error": [3, 0, 1]}'),
        ("log.jsonl", "garbage\n"),
        ("log.jsonl", "\udcff\n"),
        ("log.jsonl", '{"step": 1}\n'),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, errors="surrogateescape")
    with pytest.raises(BadDataset, match=name):
        report.write(tmp_path / "report.html", [tmp_path], "t")


def failing(path: Path, phase: str, seeds: range, **row: Any) -> Path:
    """A run whose episodes all fail in one phase, each with a picture."""
    run = Run.create(path, "eval", {"suite": "tabletop"})
    (path / "failures").mkdir()
    for seed in seeds:
        told = {"instruction": "pick up the red cube", "target": "red", "approached": "blue"}
        run.append({"seed": seed, "success": False, "failure": "timeout", "phase": phase, **told, **row})
        (path / "failures" / f"{phase}_{seed}.jpg").write_bytes(f"{path.name}{seed}".encode())
    return path


def test_a_run_that_does_not_say_where_it_comes_from_is_refused(tmp_path: Path) -> None:
    run = evaluate(tmp_path / "a", [True])
    meta = json.loads((run / "run.json").read_text())
    for broken in ({k: v for k, v in meta.items() if k != "revision"}, meta | {"versions": ["numpy"]}):
        (run / "run.json").write_text(json.dumps(broken))
        with pytest.raises(BadDataset, match=r"run\.json does not say its (revision|versions)"):
            report.write(tmp_path / "page.html", [run], "title")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("summary", ['{"success": 5}', '{"success": {"k": 1}}', '{"minutes": "long"}', "[" * 100_000])
def test_a_summary_that_holds_something_else_is_one_line(
    summary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(tmp_path / "runs" / "a", [True])
    (tmp_path / "runs" / "summary.json").write_text(summary)
    assert cli.main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "page.html")]) == 2
    assert "summary.json" in capsys.readouterr().err


def test_failures_are_grouped_by_phase_with_a_few_pictures_each(tmp_path: Path) -> None:
    runs = failing(tmp_path / "a", "grasp", range(9)), failing(tmp_path / "b", "carry", range(2))
    page = render(tmp_path, *runs)
    shown = [base64.b64decode(r.partition(",")[2]).decode() for r in page.resources if r.startswith("data:image/jpeg")]
    assert shown == [*(f"a{seed}" for seed in range(report.SHOWN)), "b0", "b1"], "the most frequent phase first"
    assert page.says("pick up the red cube: timeout, went for blue first (seed 0)")
    counts = (tmp_path / "report.html").read_text()
    assert re.search(r'>a</span></td>\s*<td class="number" data-value="9">9</td>\s*<td class="number zero"', counts)


def test_a_picture_of_an_episode_that_is_not_there_or_did_not_fail_is_left_out(tmp_path: Path) -> None:
    run = failing(tmp_path / "a", "grasp", range(1))
    Run.open(run).append({"seed": 1, "success": True, "failure": "", "phase": "lift"})
    for name in ("grasp_1.jpg", "grasp_7.jpg", "grasp_x.jpg"):
        (run / "failures" / name).write_bytes(b"no")
    page = render(tmp_path, run)
    assert [r for r in page.resources if r.startswith("data:image/jpeg")] == [
        "data:image/jpeg;base64," + base64.b64encode(b"a0").decode()
    ]


def test_time_smoothness_and_intention_are_shown_and_compared(tmp_path: Path) -> None:
    for name, slower in (("a", 1.0), ("b", 0.0)):
        run = Run.create(tmp_path / name, "eval", {"suite": "tabletop"})
        for seed in range(5):
            row = {"seed": seed, "success": True, "seconds": 2.0 + slower + 0.1 * seed * slower, "smoothness": -9.5}
            run.append({**row, "target": "red", "approached": "red" if seed else "blue"})
    page = render(tmp_path, tmp_path / "b", tmp_path / "a")
    assert page.says("time to success [s]")
    assert page.says("-9.5")
    assert page.says("80.0% [37.6, 96.4] n=5")
    assert page.says("+1.20 [+1.00, +1.40]")
    assert not page.says("path [m or rad]")


def test_a_run_that_was_to_stop_early_is_marked(tmp_path: Path) -> None:
    base = evaluate(tmp_path / "base", [False] * 40)
    run = Run.create(tmp_path / "stopped", "eval", {"suite": "tabletop", "against": "base", "seed": 0, "alpha": None})
    for seed in range(20):
        run.append({"seed": seed, "task": "t", "skill": "pick", "success": True})
    page = render(tmp_path, base, tmp_path / "stopped")
    assert page.says("*")
    assert page.says("hold whenever one stops")
    assert page.says(str(anytime_rate(20, 20)))


def stopping(path: Path, seeds: range, success: bool, **config: Any) -> Path:
    run = Run.create(path, "eval", {"suite": "tabletop", "against": "base", "seed": 0, **config})
    for seed in seeds:
        row = {"seed": seed, "task": "t", "skill": "pick", "success": success}
        run.append(row | {"failure": "" if success else "moved_other"})
    return path


def test_a_run_that_was_to_stop_early_does_not_end_the_report(tmp_path: Path) -> None:
    """Not over other seeds than another arm's, and not while its first seeds are still running."""
    base = evaluate(tmp_path / "base", [True] * 4)
    elsewhere = stopping(tmp_path / "elsewhere", range(100, 104), True, seed=100)
    begun = stopping(tmp_path / "begun", range(2, 4), True)
    page = render(tmp_path, base, elsewhere, begun)
    assert not page.says("Paired differences")
    assert not page.says("nan")


def test_failures_are_counted_over_the_episodes_that_count(tmp_path: Path) -> None:
    gap = stopping(tmp_path / "gap", range(3), False)
    for seed in (5, 6):
        Run.open(gap).append({"seed": seed, "task": "t", "skill": "pick", "success": False, "failure": "moved_other"})
    assert "gap 3 3" in " ".join(" ".join(render(tmp_path, gap).text).split())


def test_a_loss_below_zero_is_drawn_and_a_name_is_no_formula(tmp_path: Path) -> None:
    for name in ("a$b$", "c"):
        (tmp_path / name).mkdir()
        log = [json.dumps({"step": i, "loss": 1.0 - i, "seconds": 6.0 * i}) for i in range(5)]
        (tmp_path / name / "log.jsonl").write_text("\n".join(log) + "\n")
    page = render(tmp_path, tmp_path / "a$b$", tmp_path / "c")
    assert page.says("\N{MINUS SIGN}2.5")
    assert page.text.count("a$b$") == 1


def test_crashes_are_told(tmp_path: Path) -> None:
    run = evaluate(tmp_path / "a", [True, False])
    (run / "crashes.log").write_text("2026-01-01 a worker process died\n")
    assert render(tmp_path, run).says("1; the processes were replaced and their episodes run again")


def test_many_arms_are_compared_with_the_one_begun_first(tmp_path: Path) -> None:
    folder = tmp_path / "probe"
    for i, name in enumerate(("unchanged", "a", "b", "c", "d")):
        run = evaluate(folder / name, [True] * (5 - i) + [False] * i)
        meta = json.loads((run / "run.json").read_text()) | {"created": f"2026-01-01T00:00:0{i}"}
        (run / "run.json").write_text(json.dumps(meta))
    out = tmp_path / "page.html"
    assert cli.main(["report", str(folder), "--out", str(out)]) == 0
    table = out.read_text().partition("Paired differences")[2].partition("</table>")[0]
    names = re.findall(r'<span class="arm"[^>]*>(\w+)</span>', table)
    assert names == ["a", "unchanged", "b", "unchanged", "c", "unchanged", "d", "unchanged"]
