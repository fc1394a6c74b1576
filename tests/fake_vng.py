#!/usr/bin/env python3
"""A fake virtme-ng and QEMU for the relay's tests: the "guest" is a process on the host.

HARNESS_FAKE sets its behaviour: well, unsavable, stuck (its monitor never answers a save), gone (ends at a save),
failing (a save fails), deaf (never answers once it is restored), mute (never connects), dies (before it is ready),
raises (as virtme-ng where a program is missing), panics or vanishes (ends after its hello). Other modes fall silent
after their hello. Then only one part still answers: the agent (silent), the kernel its keyboard (starved) or an NMI
(masked), QEMU's monitor (frozen), nothing (stopped).
"""

from __future__ import annotations

import json
import mmap
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

#: offset of a worker's mark in the guest's memory, which is four times as large
MARK = 1 << 18


def monitor(path: str, mode: str) -> None:
    """Answer the requests of a save or a restore to QEMU's monitor, one connection after another."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        converse(listener.accept()[0], mode)


def converse(connection: socket.socket, mode: str) -> None:
    stream = connection.makefile("rwb", buffering=0)
    stream.write(b'{"QMP": {}}\n')
    while line := stream.readline():
        command = json.loads(line)
        if mode == "stopped":
            continue
        if command["execute"] == {"starved": "send-key", "masked": "inject-nmi"}.get(mode):
            keys = [key["data"] for key in command["arguments"].get("keys", [])]
            print("[   10.0] sysrq: Show" if keys else "[   10.0] Uhhuh. NMI received", *keys, flush=True)
            print("[   10.1] Kernel panic - not syncing: what it is asked for ends it", flush=True)
        if command["execute"] == "human-monitor-command":
            stream.write(b'{"return": "RIP=ffffffff81000000"}\n')
            continue
        if mode == "unsavable" and command["execute"] == "migrate-set-capabilities":
            stream.write(b'{"error": {"desc": "no such capability"}}\n')
            continue
        if command["execute"] == "stop" and mode == "stuck":
            continue
        if command["execute"] == "stop" and mode == "gone":
            os._exit(1)
        stream.write(b'{"timestamp": {}, "event": "STOP"}\n{"return": {}}\n')
        if command["execute"].startswith("migrate") and "uri" in command["arguments"]:
            subprocess.run(command["arguments"]["uri"].removeprefix("exec:"), shell=True, input=b"state", check=True)
            stream.write(b'{"event": "MIGRATION", "data": {"status": "active"}}\n')
            if mode == "failing":
                stream.write(b'{"event": "MIGRATION", "data": {"status": "failed"}}\n')
                continue
            stream.write(b'{"event": "MIGRATION", "data": {"status": "completed"}}\n')


def connected(words: list[str], identity: str) -> socket.socket:
    """Offer a port and wait for the host."""
    chardev = next(word for word in words if word.startswith(f"socket,id={identity}"))
    path = dict(part.partition("=")[::2] for part in chardev.split(","))["path"]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener.accept()[0]


def mapped(words: list[str]) -> mmap.mmap:
    """Map the guest's memory as QEMU does, and write the mark of a guest or of a worker that collects."""
    backend = next(word for word in words if "mem-path=" in word)
    options = dict(part.partition("=")[::2] for part in backend.split(","))
    shared = options["share"] == "on"
    with Path(options["mem-path"]).open("a+b") as file:
        if shared:
            file.truncate(4 * MARK)
        memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE)
    if shared:
        at = MARK if "-incoming" in words else 0
        memory[at : at + 6] = b"worker" if at else b"guest "
    return memory


def answer_wakes(port: socket.socket, memory: mmap.mmap | None, marks_file: Path, mode: str) -> None:
    stream = port.makefile("rb", buffering=0)
    while line := stream.readline():
        if "stacks" in json.loads(line):
            if mode == "silent":
                port.sendall(b'{"stacks": "File fake.py, line 1 in hangs"}\n')
            continue
        assert json.loads(line)["entropy"]
        if memory is not None:
            # the console is not written at once
            marks_file.write_bytes(b" ".join(memory[at : at + 6].strip(b"\0 ") for at in (0, MARK)))
        seconds = float(os.environ.get("HARNESS_FAKE_SECONDS", "0.0006"))
        port.sendall(json.dumps({"seconds": seconds}).encode() + b"\n")
        limits = json.loads(stream.readline())["limits"]
        marks_file.with_name("limits").write_text(json.dumps(limits))
        os.environ.update(limits)
        port.sendall(b"awake\n")


def exactly(stream: socket.SocketIO, size: object) -> bytes:
    data = bytearray()
    while len(data) < int(str(size)):
        data += stream.read(int(str(size)) - len(data)) or b""
    return bytes(data)


def receive_payload(stream: socket.SocketIO) -> dict[str, object]:
    header: dict[str, object] = json.loads(stream.readline())
    exactly(stream, header["bytes"])
    os.environ.update(header["environment"])  # type: ignore[call-overload]
    return header


def serve(mode: str) -> None:
    options = next(argument for argument in sys.argv if argument.startswith("--qemu-opts="))
    words = shlex.split(options.partition("=")[2])
    restored = "-incoming" in words
    memory = None
    pidfile = Path(words[words.index("-pidfile") + 1])
    pidfile.write_text(f"{os.getpid()}\n")
    if any("mem-path=" in word for word in words):
        memory = mapped(words)
    address = words[words.index("-qmp") + 1].removeprefix("unix:").split(",")[0]
    threading.Thread(target=monitor, args=(address, mode), daemon=True).start()
    if restored and mode == "deaf":
        signal.pause()
    port = connected(words, "channel")
    woken = (connected(words, "wake"), memory, pidfile.with_name("memory"), mode)
    threading.Thread(target=answer_wakes, args=woken, daemon=True).start()
    if not restored:
        port.sendall(json.dumps({"release": "6.0.0-fake"}).encode() + b"\n")
    stream = port.makefile("rb", buffering=0)
    # a prepared guest has received the first header
    header = receive_payload(stream)
    if header.get("rehearse", "no") != "no":
        if header["rehearse"] == {}:
            port.sendall(b"prepared\n")
        header = receive_payload(stream)
    if mode in {"silent", "starved", "masked", "frozen", "stopped"}:
        signal.pause()
    if mode == "vanishes":
        return
    if mode == "panics":
        print("[    9.0] BUG: kernel NULL pointer dereference, address: 0", flush=True)
        print("[    9.1] Kernel panic - not syncing: Fatal exception", flush=True)
        return
    bootstrap = exactly(stream, header["bootstrap"])
    os.dup2(port.fileno(), 0)
    os.dup2(port.fileno(), 1)
    exec(eval(bootstrap.decode()), {"__name__": "__main__"})


def main() -> None:
    mode = os.environ["HARNESS_FAKE"]
    print("[    0.0] Linux version 6.0.0-fake", flush=True)
    if mode == "mute":
        signal.pause()
    if mode == "raises":
        raise FileNotFoundError(2, "No such file or directory", "file")
    if mode != "dies":
        serve(mode)


main()
