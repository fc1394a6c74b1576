"""What is to be added to the table for objects of which only their loaders know something: lines of TOML. Pure."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator

#: what stands before the line in a cell's text
_MARK = "add to the table: "
#: sections that name a function of the kernel behind a slash, without which libbpf cannot load
NAMING = frozenset({"fentry", "fexit", "fmod_ret", "tp_btf", "lsm", "lsm_cgroup", "iter", "struct_ops"})
#: those that libbpf loads without a target, which their loader chooses -> an example of it
CHOSEN = {
    "kprobe": "FUNCTION", "kretprobe": "FUNCTION", "ksyscall": "CALL", "kretsyscall": "CALL", "tp": "CATEGORY:NAME",
    "tracepoint": "CATEGORY:NAME", "raw_tp": "NAME", "raw_tracepoint": "NAME", "kprobe.multi": "PATTERN",
    "kretprobe.multi": "PATTERN",
}  # fmt: skip
#: the example of a map's number of entries
ENTRIES = "1024  # as its loader does"
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_EXPECT = re.compile(r"\[\[expect\]\] (?P<fields>.*)")
_LINE = re.compile(r'object\."(?P<object>[^"]+)"\.(?P<key>[\w-]+)(?P<of>\.\S+)? = (?P<value>.*)')


def setting(name: str, key: str, of: str, example: str) -> str:
    """Return the line by which a setting of an object is declared: ``object."NAME".KEY.OF = EXAMPLE``."""
    return f'object."{name}".{key}.{of if _BARE.fullmatch(of) else json.dumps(of)} = {example}'


def listing(name: str, key: str, of: str) -> str:
    """Return the line by which a setting that is a list is declared."""
    return f'object."{name}".{key} = ["{of}"]'


def value_size(*, stacks: bool) -> str:
    """Return the example of the bytes of a map's values: of stacks, those of 127 frames (PERF_MAX_STACK_DEPTH)."""
    return "1016  # 127 frames" if stacks else "8  # as its loader does"


def section(near: str = "") -> str:
    """Return the example of a program's section; ``near``: one that its own resembles, empty for none."""
    return f'"{near}"' if near else '"SECTION"  # such as "tc"'


def optional(cells: str) -> str:
    """Return the line by which nobody expects that some cells pass."""
    return f'[[expect]] cells = "{cells}", optional = true'


def text(why: str, line: str) -> str:
    """Return the text of a cell that is undeclared."""
    return f"{why}\n{_MARK}{line}"


def of_texts(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines that the texts of cells propose."""
    for line in (line for one in texts for line in one.splitlines()):
        if line.startswith(_MARK):
            yield line.removeprefix(_MARK)


def tables(lines: Iterable[str], above: str = "") -> list[str]:
    """Return such lines as tables of TOML, one for each object, each setting once, and then what is not expected.

    ``above``: the table that they are in, such as ``tool.kernel-matrix``.
    """
    objects: dict[str, dict[str, str]] = {}
    expected: dict[str, None] = {}
    for line in lines:
        if match := _EXPECT.fullmatch(line):
            expected[match["fields"]] = None
        if (match := _LINE.fullmatch(line)) is None:
            continue
        settings = objects.setdefault(match["object"], {})
        key = match["key"] + (match["of"] or "")
        known = settings.setdefault(key, match["value"])
        if not match["of"] and known != match["value"]:
            both = [tomllib.loads(f"value = {value}")["value"] for value in (known, match["value"])]
            settings[key] = json.dumps(list(dict.fromkeys([*both[0], *both[1]])))
    made = []
    for name, settings in sorted(objects.items()):
        head = f'{above}.object."{name}"'.removeprefix(".")
        made += ["", f"[{head}]", *(f"{key} = {value}" for key, value in sorted(settings.items()))]
    for fields in expected:
        made += ["", f"[[{f'{above}.expect'.removeprefix('.')}]]", *fields.split(", ")]
    return made[1:]
