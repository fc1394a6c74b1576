"""A client of QEMU's monitor (QMP), with the few commands for saving and restoring a guest."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any


class QmpError(Exception):
    """QEMU refused a command, ended, or did not answer in time; the text is one line."""


class QmpRefused(QmpError):
    """QEMU answered a command with an error, which it would repeat."""


class Monitor:
    """A connection to a monitor; every wait ends ``seconds`` after the constructor or `extend`."""

    def __init__(self, path: Path, *, seconds: float) -> None:
        """Connect and negotiate; raises QmpError, FileNotFoundError, or ConnectionRefusedError (not listening yet)."""
        self._end = time.monotonic() + seconds
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
            self._read()  # the greeting
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def execute(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Run a command and return its result; events before the answer are dropped."""
        message = {"execute": command, "arguments": arguments}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{command}: QEMU ended ({error.strerror})") from error
        while True:
            answer = self._read()
            if "error" in answer:
                raise QmpRefused(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait_for_migration(self) -> None:
        """Wait until the started migration is complete; needs the capability ``events``."""
        while True:
            message = self._read()
            if message.get("event") == "MIGRATION":
                status = message["data"]["status"]
                if status == "completed":
                    return
                if status in {"failed", "cancelled"}:
                    raise QmpError(
                        f"migration {status}: {self.execute('query-migrate').get('error-desc', 'no reason')}"
                    )

    def extend(self, seconds: float) -> None:
        """Set the deadline of all waits to ``seconds`` from now."""
        self._end = time.monotonic() + seconds

    def close(self) -> None:
        """Close the connection; the guest continues."""
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            remaining = self._end - time.monotonic()
            if remaining <= 0:
                raise QmpError("QEMU's monitor did not answer in time")
            self._socket.settimeout(remaining)
            try:
                chunk = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise QmpError(f"QEMU ended ({error.strerror})") from error
            if not chunk:
                raise QmpError("QEMU ended")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
