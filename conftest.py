"""What this repository's tests share; the engine's plugin is installed (`pip install -e .`, as `nox` does)."""
