"""What long work says where there is no terminal to draw a bar on."""

from __future__ import annotations

import pytest

from vla import progress


def test_a_log_file_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who follows the log of an hour's work sees that it goes on."""
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    with progress.bar("collect") as show:
        show(0.25, "25 of 100")
        show(0.5, "50 of 100")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("collect: 25%  25 of 100")
    assert lines[1].startswith("collect: 50%  50 of 100")
    assert lines[2] == "collect: done  50 of 100"


def test_quick_work_says_only_that_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("collect") as show:
        show(0.5, "half")
    assert capsys.readouterr().err == "collect: done  half\n"
