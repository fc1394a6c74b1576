"""Where the project is: the same layout on the host and, at /harness, in a guest."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
