"""A pytest that has collected tests and forks a child for each mutant of a function.

The child gives the function the mutant's code: nothing is imported or collected again, so a trial costs its tests.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import socket
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import mutant_trials
import pytest
from _pytest.runner import runtestprotocol

#: file and name -> the functions of that name
_Functions = Mapping[tuple[str, str], Sequence[FunctionType]]
_Cache = functools._lru_cache_wrapper  # noqa: SLF001 - the type has no other name


class Server:
    """The server's side of a worker: start it, ask it, end it."""

    def __init__(self, root: Path, files: Collection[str]) -> None:
        self.channel, other = socket.socketpair()
        self.child = os.fork()
        if self.child == 0:
            self.channel.close()
            mutant_trials.become(root, lambda: _serve(root, files, other), root / "server.log")
        other.close()
        self.answers = self.channel.makefile("r")

    def attempt(self, path: str, text: str, function: str, tests: Mapping[str, float]) -> int | None:
        """Run tests with another text of a function; return as `mutant_trials.attempt` does."""
        order = sorted(tests, key=tests.__getitem__)
        request = {"path": path, "text": text, "function": function, "tests": order, "seconds": sum(tests.values())}
        self.channel.sendall(json.dumps(request).encode() + b"\n")
        answer: int | None = json.loads(self.answers.readline())
        return answer


def _serve(root: Path, files: Collection[str], channel: socket.socket) -> int:
    return int(pytest.main([*mutant_trials.OPTIONS, *files], plugins=[_Loop(root, channel)]))


class _Loop:
    """Serve requests in place of running the tests."""

    def __init__(self, root: Path, channel: socket.socket) -> None:
        self.root = root
        self.channel = channel

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Answer requests until the worker closes the channel."""
        items = {item.nodeid: item for item in session.items}
        functions = _functions(self.root)
        caches = [thing for thing in gc.get_objects() if type(thing) is _Cache]
        # what is there is not looked through again by the children, which would copy it
        gc.freeze()
        for line in self.channel.makefile("r"):
            status = self._answer(json.loads(line), items, functions, caches)
            self.channel.sendall(json.dumps(status).encode() + b"\n")
        return True

    def _answer(
        self,
        request: Mapping[str, Any],
        items: Mapping[str, pytest.Item],
        functions: _Functions,
        caches: Sequence[_Cache[Any]],
    ) -> int | None:
        code = _code(compile(request["text"], request["path"], "exec", dont_inherit=True), request["function"])
        changed = functions.get((str(self.root / request["path"]), request["function"]), ())
        if code is None or not changed:
            return mutant_trials.BROKEN

        def task() -> int:
            for cache in caches:
                cache.cache_clear()
            for function in changed:
                function.__code__ = code
            return _passed([items[test] for test in request["tests"]])

        return mutant_trials.run(self.root, task, self.root / "trial.log", *mutant_trials.limits(request["seconds"]))


def _passed(items: Sequence[pytest.Item]) -> int:
    for item, behind in zip(items, [*items[1:], None], strict=True):
        reports = runtestprotocol(item, log=False, nextitem=behind)
        if any(report.failed for report in reports):
            print(*(report.longrepr for report in reports if report.failed), sep="\n")
            return pytest.ExitCode.TESTS_FAILED
    return pytest.ExitCode.OK


def _functions(root: Path) -> _Functions:
    """Return the functions of the project's modules by file and name."""
    functions: dict[tuple[str, str], list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith(f"{root}/"):
            functions[thing.__code__.co_filename, thing.__code__.co_qualname].append(thing)
    return functions


def _code(code: CodeType, name: str) -> CodeType | None:
    """Return the code of a function or method within that of its module; None where there is none."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    for candidate in inner:
        if candidate.co_qualname == name:
            return candidate
        if name.startswith(f"{candidate.co_qualname}."):
            return _code(candidate, name)
    return None
