"""Threads that sleep in a call, and a reader that sleeps until a ring buffer has something."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from pathlib import Path

from kernel_matrix.guest.bpf.loaders import Object
from kernel_matrix.guest.bpf.loaders.libbpf import Map
from kernel_matrix.guest.system.deadline import limit, wait_until

#: asm/unistd_64.h
_EPOLL_WAIT = 232


def wait_inside(call: int, thread: threading.Thread) -> None:
    """Return once the thread sleeps in that call (proc(5), /proc/pid/syscall: "running" while it does not)."""
    state = Path(f"/proc/self/task/{thread.native_id}/syscall")
    wait_until(lambda: state.read_text().startswith(f"{int(call)} "), f"a thread in call {int(call)}")


def woken(obj: Object, ring: str, action: Callable[[], object]) -> bool:
    """Return whether a thread that sleeps in epoll_wait() on a ring buffer of libbpf's is woken by the action.

    A thread that asks afterwards would be told of what is there, woken or not.
    """
    answers: list[int] = []
    events = obj.map(ring)
    assert isinstance(events, Map)
    with select.epoll() as epoll:
        epoll.register(events.fd, select.EPOLLIN)
        thread = threading.Thread(target=lambda: answers.append(len(epoll.poll(limit(3)))))
        thread.start()
        wait_inside(_EPOLL_WAIT, thread)
        action()
        thread.join()
    return answers == [1]
