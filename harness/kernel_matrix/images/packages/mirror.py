"""Find the archives of packages in the machine's apt configuration or a setting. Parsing is pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.shared.errors import ImageError

_SUITE = re.compile(
    r"^(?:oldoldstable|oldstable|stable|testing|unstable|sid|bullseye|bookworm|trixie|forky|duke)(?:-[a-z-]+)?/?$"
)
_ONE_LINE = re.compile(r"^deb\s+(?:\[[^\]]*\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.*)$")


@dataclass(frozen=True, slots=True)
class Source:
    """One archive and one suite that the machine uses."""

    uri: str
    suite: str
    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mirror:
    """The base addresses of Debian's two archives."""

    main: str
    security: str

    def uri(self, suite: str) -> str:
        """Return the archive of a suite."""
        return self.security if suite.endswith("-security") else self.main


def find(etc: Path = Path("/etc/apt")) -> Mirror:
    """Return the mirrors of KERNEL_MATRIX_MIRROR and KERNEL_MATRIX_SECURITY_MIRROR, or else of the apt sources."""
    sources = list(_read(etc))
    main = os.environ.get("KERNEL_MATRIX_MIRROR") or _first(sources, security=False)
    security = os.environ.get("KERNEL_MATRIX_SECURITY_MIRROR") or _first(sources, security=True)
    if main and not security:
        # on a full mirror the two archives have the same parent
        security = re.sub(r"/debian/*$", "/debian-security", main)
    if not main or not security:
        raise ImageError(
            "no Debian mirror: the machine's apt sources name none; "
            "set KERNEL_MATRIX_MIRROR and KERNEL_MATRIX_SECURITY_MIRROR"
        )
    return Mirror(main.rstrip("/"), security.rstrip("/"))


def _first(sources: list[Source], *, security: bool) -> str | None:
    for source in sources:
        if (
            _SUITE.match(source.suite)
            and "main" in source.components
            and ("-security" in source.suite or source.uri.rstrip("/").endswith("-security")) == security
        ):
            return source.uri
    return None


def _read(etc: Path) -> Iterator[Source]:
    paths = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for path in paths:
        if not path.is_file():
            continue
        if path.suffix == ".sources":
            yield from parse_deb822(path.read_text())
        elif path.suffix == ".list":
            yield from parse_one_line(path.read_text())


def parse_one_line(text: str) -> Iterator[Source]:
    """Parse the one-line style of sources.list(5)."""
    for line in text.splitlines():
        if match := _ONE_LINE.match(line.partition("#")[0].strip()):
            yield Source(match["uri"], match["suite"], tuple(match["components"].split()))


def parse_deb822(text: str) -> Iterator[Source]:
    """Parse the deb822 style of sources.list(5)."""
    from debian.deb822 import Deb822

    for fields in Deb822.iter_paragraphs(text.splitlines()):
        if "deb" not in fields.get("Types", "").split() or fields.get("Enabled", "yes").strip().lower() == "no":
            continue
        for uri in fields.get("URIs", "").split():
            for suite in fields.get("Suites", "").split():
                yield Source(uri, suite, tuple(fields.get("Components", "").split()))
