"""The examples of how the engine is extended; what needs guests runs them from tests/faults/test_extending.py."""

collect_ignore = ["one_program"]
