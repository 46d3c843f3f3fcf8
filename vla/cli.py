"""`vla`: one command, one file a verb.

`vla/verbs/fit_verifier.py` is `vla fit-verifier`: its docstring's first line is the help, its frozen dataclass `Args`
the options, `main(args)` the work. Listing the verbs reads their docstrings without importing them, so that
`vla --help` is quick and works on a robot that has neither torch nor MuJoCo.

Exit codes: 0 done, 1 failed or a target missed, 2 wrong usage or bad input, 130 interrupted.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from vla.errors import Missing, VlaError

VERBS = Path(__file__).parent / "verbs"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args or bool(os.environ.get("VLA_DEBUG"))
    args = [a for a in args if a != "--debug"]
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0
    try:
        return _run(args[0], args[1:])
    except VlaError as error:
        if debug:
            traceback.print_exc()
        _print_error(str(error))
        return 1 if isinstance(error, Missing) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `vla list | head`: whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return 0
    except OSError as error:  # a file that cannot be read or written; its message names it
        if debug:
            traceback.print_exc()
        if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError)):
            _print_error(f"{error.filename}: {error.strerror}; choose another path")
            return 2
        _print_error(f"{error}. --debug shows where.")
        return 1


def verbs() -> dict[str, str]:
    """Every verb and its line of help, without importing it."""
    return {
        file.stem.replace("_", "-"): first_line(file)
        for file in sorted(VERBS.glob("*.py"))
        if not file.stem.startswith("_")
    }


def first_line(file: Path) -> str:
    """The first line of a Python file's docstring, without importing it; "" when it has none."""
    docstring = ast.get_docstring(ast.parse(file.read_text()))
    return docstring.splitlines()[0] if docstring else ""


def _run(verb: str, args: list[str]) -> int:
    known = verbs()
    if verb not in known:
        close = difflib.get_close_matches(verb, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`vla --help` lists the verbs."
        _print_error(f"there is no verb {verb!r}: {hint}")
        return 2
    import tyro

    module = importlib.import_module(f"vla.verbs.{verb.replace('-', '_')}")
    parsed = tyro.cli(
        module.Args,
        prog=f"vla {verb}",
        description=module.__doc__,
        args=args,
        config=(tyro.conf.FlagCreatePairsOff,),  # --json, and no --no-json beside it
    )
    code: int = module.main(parsed)
    return code


def _overview() -> str:
    known = verbs()
    width = max(map(len, known), default=0)
    lines = [f"  {verb:{width}}  {help_line}" for verb, help_line in known.items()]
    return "\n".join(
        ["usage: vla VERB [options]", "", *lines, "", "`vla VERB --help` explains one. --debug shows tracebacks."]
    )


def _print_error(message: str) -> None:
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{red}error:{plain} {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
