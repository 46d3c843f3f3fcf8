"""`vla`: verbs are found without importing them, errors are one line, exit codes mean something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vla import cli

GREET = '''"""Say hello.

More about it.
"""
from dataclasses import dataclass
from vla.errors import BadConfig, Missing

@dataclass(frozen=True)
class Args:
    name: str = "world"
    """Whom to greet."""

def main(args):
    if args.name == "nobody":
        raise BadConfig("--name must be somebody")
    if args.name == "disk":
        raise Missing("the disk is full")
    if args.name == "file":
        open("/nowhere/at/all")
    if args.name == "ctrl-c":
        raise KeyboardInterrupt
    print("hello", args.name)
    return 1 if args.name == "failure" else 0
'''


@pytest.fixture
def greet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `vla` with the one verb `say-hello`."""
    (tmp_path / "say_hello.py").write_text(GREET)
    (tmp_path / "_private.py").write_text("raise RuntimeError")
    monkeypatch.setattr(cli, "VERBS", tmp_path)
    import vla.verbs

    monkeypatch.setattr(vla.verbs, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "vla.verbs.say_hello", raising=False)


@pytest.mark.usefixtures("greet")
class TestOneVerb:
    def test_the_overview_lists_it_with_its_first_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main([]) == cli.main(["--help"]) == 0
        out = capsys.readouterr().out
        assert "say-hello  Say hello." in out
        assert "private" not in out
        assert "vla.verbs.say_hello" not in sys.modules

    def test_its_options_are_the_fields_of_args(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["say-hello", "--name", "robot"]) == 0
        assert capsys.readouterr().out == "hello robot\n"
        with pytest.raises(SystemExit, match="0"):
            cli.main(["say-hello", "--help"])
        help_text = capsys.readouterr().out
        assert "Whom to greet." in help_text
        assert "More about it." in help_text

    @pytest.mark.parametrize(("name", "code"), [("world", 0), ("failure", 1), ("disk", 1), ("file", 1), ("nobody", 2)])
    def test_exit_codes(self, name: str, code: int) -> None:
        assert cli.main(["say-hello", "--name", name]) == code

    def test_an_interrupt_is_quiet(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["say-hello", "--name", "ctrl-c"]) == 130
        assert capsys.readouterr() == ("", "")

    def test_a_file_that_cannot_be_read_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        cli.main(["say-hello", "--name", "file"])
        assert "No such file or directory: '/nowhere/at/all'" in capsys.readouterr().err

    def test_an_error_is_one_line_unless_debugging(self, capsys: pytest.CaptureFixture[str]) -> None:
        cli.main(["say-hello", "--name", "nobody"])
        assert capsys.readouterr().err == "error: --name must be somebody\n"
        cli.main(["say-hello", "--name", "nobody", "--debug"])
        assert "Traceback" in capsys.readouterr().err

    def test_an_unknown_verb_is_answered_with_a_near_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["say-helo"]) == 2
        assert "did you mean 'say-hello'?" in capsys.readouterr().err

    def test_an_unknown_option_is_a_usage_error(self) -> None:
        with pytest.raises(SystemExit, match="2"):
            cli.main(["say-hello", "--nmae", "x"])


@pytest.mark.parametrize("verb", sorted(cli.verbs()))
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.verbs()[verb].endswith(".")
    with pytest.raises(SystemExit, match="0"):
        cli.main([verb, "--help"])
    assert f"vla {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run --policy nowhere --episodes 0", "episodes must be at least 1"),
        ("run --policy nowhere --seed -1", "seed not negative, got 5 and -1"),
        ("up --bundle nowhere --seed -1", "seed must not be negative, got -1"),
        ("fit-verifier --policy nowhere --episodes 0", "episodes must be at least 1"),
        ("fit-verifier --policy nowhere --seed -1", "seed not negative, got 500 and -1"),
        ("fit-verifier --policy nowhere --verifier nope", "no verifier is called 'nope'"),
        ("train --dataset nowhere --out x --head nope", "no head is called 'nope'"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_begun(
    command: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = "import sys, vla.cli; print('first', flush=True); input(); sys.exit(vla.cli.main(['list']))"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == b"first\n"
    child.stdout.close()
    _, errors = child.communicate(b"\n", timeout=60)
    assert (child.returncode, errors) == (0, b"")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, vla.cli; vla.cli.main(['--help'])\n"
        "print([m for m in ('torch', 'mujoco', 'tyro', 'rich', 'onnxruntime', 'rclpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
