"""Node processes that never outlive their session: not after Ctrl-C, not after a kill -9 of the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vla.errors import VlaError

PARENT = "VLA_PARENT_PID"
"""Environment variable: the process a node must not outlive; `vla_ros.node` sees to it."""
_PATIENCE_S = 5.0


class NodeDied(VlaError):
    """A node process ended on its own."""


class Child:
    """One node process in a session of its own, so that a Ctrl-C reaches only the parent, which ends it in order."""

    def __init__(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path, talks: bool = False
    ) -> None:
        """Start it. If it `talks`, somebody reads its stdout; else that goes to the log: a full pipe would halt it."""
        self.name = name
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                argv,
                env={**environment, PARENT: str(os.getpid())},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else file,
                stderr=file,
                start_new_session=True,
            )

    def require_alive(self) -> None:
        """Raises NodeDied, with the last lines it wrote."""
        code = self.process.poll()
        if code is not None:
            said = "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])
            raise NodeDied(f"the {self.name} node ended with code {code}; the end of {self._log}:\n{said}")

    def kill(self) -> int:
        """kill -9; returns when [ns, monotonic]."""
        now = time.monotonic_ns()
        self.process.kill()
        self.process.wait()
        return now

    def end(self) -> None:
        """SIGTERM, and after some patience SIGKILL."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
