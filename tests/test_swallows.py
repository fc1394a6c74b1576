"""Nothing swallows a failure that it does not expect; what looks like that is listed here, each with its reason.

Ruff has the rest: BLE001 (`except Exception`), S110 and S112 (`pass`, `continue` for it), PLW1510 (no ``check=``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".ci", ".github", "bpf", "harness", "suites", "tests", "vmimages")
#: caught without a look at the errno, they hold what nobody thought of
BROAD = {"Exception", "BaseException", "OSError", "IOError", "EnvironmentError"}
#: what C libraries are called: their functions return their errors, but for those that return nothing
LIBRARY = re.compile(r"_?(lib|libc|libbpf|library|CDLL)")
VOID = {"bpf_object__close", "ring_buffer__free", "perf_buffer__free", "btf__free", "bpf_free_ringbuf"}
#: what hides that a shell's command has failed, or why
SHELL = re.compile(
    r"\|\|\s*(?:true|:)(?=$|[\s;)\"'])|2>\s*/dev/null|&>\s*/dev/null|>\s*/dev/null\s+2>&1|set \+[a-z]*e\b"
    r"|continue-on-error"
)
_GENERATED = "generated scripts call it on every kind of socket; where it is refused, what follows is another case"
#: (file, what is there) -> why it hides nothing
ALLOWED = {
    ("suites/sockets/raw.py", "bind() unchecked"): _GENERATED,
    ("suites/sockets/raw.py", "listen() unchecked"): _GENERATED,
    ("suites/sockets/raw.py", "setsockopt() unchecked"): _GENERATED,
    ("suites/sockets/raw.py", "shutdown() unchecked"): _GENERATED,
    ("tests/faults/cases/case_limit.py", "pthread_mutex_lock() unchecked"): "it never returns: that is the case",
    (".github/actions/kernel-matrix/action.yml", "continue-on-error"): "what has no image is a red cell of the run",
    ("harness/kernel_matrix/guest/bpf/library.py", "libbpf_strerror() unchecked"): "it writes a text for any number",
    (
        "harness/kernel_matrix/guest/bpf/foreign/configuring.py",
        "bpf_program__set_ifindex() unchecked",
    ): "it returns nothing",
    (
        "harness/kernel_matrix/guest/bpf/loader_support/bcc_compiler.py",
        "libbpf_set_print() unchecked",
    ): "it returns the printer before",
    (
        "harness/kernel_matrix/guest/system/privilege.py",
        "except Exception",
    ): "pickling fails in any way; the text goes on",
    (
        "harness/kernel_matrix/images/cache.py",
        "suppress(OSError)",
    ): "why an image was not made goes on; `prune` deletes the rest",
    (
        "harness/kernel_matrix/remote/guest_hosts.py",
        "except OSError",
    ): "execnet's, without an errno, for a connection that is gone",
    # of what may be lost, and is not yet named by its errno
}


def test_every_swallowed_failure_is_named_or_listed() -> None:
    failures = {(name, failure) for name, text in sources() for failure in swallowed(name, text)}
    assert sorted(failures - set(ALLOWED)) == []
    assert sorted(set(ALLOWED) - failures) == [], "no longer there: take them off the list"
    assert all(ALLOWED.values())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("try: f()\nexcept OSError: pass", "except OSError"),
        ("try: f()\nexcept (KeyError, Exception) as e: g()", "except Exception"),
        ("try: f()\nexcept: pass", "except BaseException"),
        ("with suppress(KeyError, OSError): f()", "suppress(OSError)"),
        ("shutil.rmtree(x, ignore_errors=True)", "ignore_errors"),
        ("for x in os.walk(y): f(x)", "os.walk without onerror"),
        ("path.unlink(missing_ok=True)", "missing_ok"),
        ("subprocess.run(x, check=False)", "check=False, unused"),
        ("Popen(x, stderr=subprocess.DEVNULL)", "stderr=DEVNULL"),
        ("libbpf().bpf_link__destroy(x)", "bpf_link__destroy() unchecked"),
        ("self._lib.bpf_prog_detach2(x)", "bpf_prog_detach2() unchecked"),
        ("stack.callback(lib.bpf_link__destroy, x)", "bpf_link__destroy() unchecked"),
        ("stack.callback(lambda: lib.bpf_link__destroy(x))", "bpf_link__destroy() unchecked"),
        ("ctypes.CDLL(None).syscall(1)", "syscall() unchecked"),
        ("try: f()\nfinally: os._exit(0)", "os._exit(0)"),
        ("while step(x) == 0: g()", "while ... == 0"),
        ("run = 'make || true'", "|| true"),
        ("run = f'{x} 2>/dev/null'", "2>/dev/null"),
    ],
)
def test_a_swallow_of_python_is_seen(text: str, what: str) -> None:
    assert list(swallowed("x.py", text)) == [what]


@pytest.mark.parametrize(
    "text",
    [
        "try: f()\nexcept OSError as e: g(e)",
        "try: f()\nexcept OSError: raise X from None",
        "try: f()\nexcept BaseException: traceback.print_exc()",
        "try: f()\nexcept FileNotFoundError: pass",
        "with suppress(FileNotFoundError): f()",
        "done = subprocess.run(x, check=False)",
        "checked(libbpf().bpf_link__destroy(x))",
        "stack.callback(lambda: checked(lib.bpf_link__destroy(x)))",
        "stack.callback(lib.bpf_object__close, x)",
        "try: f()\nfinally: os._exit(status)",
    ],
)
def test_what_looks_at_its_failure_is_none(text: str) -> None:
    assert list(swallowed("x.py", text)) == []


@pytest.mark.parametrize(
    "text", ["a || true", "(a || :)", "a 2>/dev/null", "a >/dev/null 2>&1", "a &>/dev/null", "set +e"]
)
def test_a_swallow_of_a_shells_is_seen(text: str) -> None:
    assert len(list(swallowed("x", f"#!/bin/sh\n{text}\n"))) == 1


def sources() -> Iterator[tuple[str, str]]:
    """Yield the files of the project that run, and their text."""
    paths = [entry for name in FOLDERS for entry in (ROOT / name).rglob("*")] + [*ROOT.glob("*.py")]
    for path in sorted(paths):
        name = str(path.relative_to(ROOT))
        if (
            path.suffix in {".py", ".yml", ".j2", ".toml", ".9p", ""}
            and path.is_file()
            and path.name != "test_swallows.py"
        ):
            yield name, path.read_text(encoding="utf-8")


def swallowed(name: str, text: str) -> Iterator[str]:
    """Yield what a file swallows, in short."""
    if not name.endswith(".py"):
        if text.startswith("#!") or name.endswith((".yml", ".j2", ".toml")):
            yield from (match[0] for match in SHELL.finditer(text))
        return
    for node in ast.walk(ast.parse(text)):
        for kind, look in LOOKS:
            if isinstance(node, kind):
                yield from look(node)


def of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func).rpartition(".")[2]
    if name == "suppress" and (broad := BROAD & {error for argument in call.args for error in _names(argument)}):
        yield f"suppress({', '.join(sorted(broad))})"
    if (
        name == "walk"
        and ast.unparse(call.func) == "os.walk"
        and all(option.arg != "onerror" for option in call.keywords)
    ):
        yield "os.walk without onerror"
    if name == "callback":
        yield from _unlooked(call.args[0])
    for keyword in call.keywords:
        if keyword.arg in {"ignore_errors", "missing_ok"} and ast.unparse(keyword.value) == "True":
            yield keyword.arg
        if keyword.arg == "stderr" and ast.unparse(keyword.value).endswith("DEVNULL"):
            yield "stderr=DEVNULL"


def _unlooked(function: ast.expr) -> Iterator[str]:
    """Yield the function of a C library's that is called for nothing: ``lib.x``, ``libbpf().x``, ``self._lib.x``."""
    if isinstance(function, ast.Lambda) and isinstance(function.body, ast.Call):
        function = function.body.func
    if isinstance(function, ast.Attribute) and function.attr not in VOID:
        owner = function.value.func if isinstance(function.value, ast.Call) else function.value
        if LIBRARY.fullmatch(ast.unparse(owner).rpartition(".")[2]):
            yield f"{function.attr}() unchecked"


def of_statement(statement: ast.Expr) -> Iterator[str]:
    if isinstance(statement.value, ast.Call):
        yield from _unlooked(statement.value.func)
        if any(
            keyword.arg == "check" and ast.unparse(keyword.value) == "False" for keyword in statement.value.keywords
        ):
            yield "check=False, unused"


def of_handler(handler: ast.ExceptHandler) -> Iterator[str]:
    caught = BROAD & ({"BaseException"} if handler.type is None else _names(handler.type))
    body = [node for statement in handler.body for node in ast.walk(statement)]
    looks = {handler.name, "traceback"}
    if not any(isinstance(node, ast.Raise) or (isinstance(node, ast.Name) and node.id in looks) for node in body):
        yield from (f"except {error}" for error in sorted(caught))


def of_try(block: ast.Try) -> Iterator[str]:
    ends = [node for statement in block.finalbody for node in ast.walk(statement)]
    yield from (text for node in ends if isinstance(node, ast.Call) and (text := ast.unparse(node)) == "os._exit(0)")


def of_loop(loop: ast.While) -> Iterator[str]:
    test = loop.test
    if isinstance(test, ast.Compare) and isinstance(test.left, ast.Call) and ast.unparse(test).endswith(" == 0"):
        yield "while ... == 0"


def of_text(constant: ast.Constant) -> Iterator[str]:
    if isinstance(constant.value, str):
        yield from (match[0] for match in SHELL.finditer(constant.value))


def _names(node: ast.expr) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


LOOKS: tuple[tuple[type[ast.AST], Callable[[Any], Iterator[str]]], ...] = (
    (ast.Call, of_call),
    (ast.Expr, of_statement),
    (ast.ExceptHandler, of_handler),
    (ast.Try, of_try),
    (ast.While, of_loop),
    (ast.Constant, of_text),
)
