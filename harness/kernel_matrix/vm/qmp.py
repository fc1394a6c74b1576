"""Talking to QEMU's monitor (QMP): the handful of commands that saving and restoring a guest needs."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any


class QmpError(Exception):
    """QEMU refused a command, ended, or did not answer in time; the text is one line."""


class QmpRefused(QmpError):
    """QEMU's answer to a command is that it does not do it, which it will say again."""


class Monitor:
    """One connection to a monitor; every wait ends so many seconds after the constructor, or `extend`."""

    def __init__(self, path: Path, *, seconds: float) -> None:
        """Connect and negotiate; raises QmpError, FileNotFoundError or ConnectionRefusedError (not there yet)."""
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
        """Run a command and return what it returns; events that come before its answer are dropped."""
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
        """Wait until the migration that was begun is complete; needs the capability ``events``."""
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
        """Let every wait from now on end so many seconds from now."""
        self._end = time.monotonic() + seconds

    def close(self) -> None:
        """Close the connection; the guest goes on."""
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = self._end - time.monotonic()
            if left <= 0:
                raise QmpError("QEMU's monitor did not answer in time")
            self._socket.settimeout(left)
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
