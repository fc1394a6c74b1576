"""The marks about kernels: what they select, what they demand, and what they refuse."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

_FACTS = """
import pytest
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.guest.pytest.marks import GUEST_FACTS

def pytest_configure(config):
    config.stash[GUEST_FACTS] = GuestFacts(
        kernel="5.10",
        features=frozenset({"ringbuf"}),
        all_features=frozenset({"ringbuf", "xdp_frags", "arena"}),
        kernels={"5.10": frozenset({"ringbuf"}), "6.1": frozenset({"ringbuf", "xdp_frags"})},
    )

@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    if report.when == "call":
        print("SEEN", report.nodeid.split("::")[1], report.outcome, report.user_properties)
"""

_HEAD = """
import errno
import os
import pytest
from kernel_matrix.guest.pytest.marks import boots_with, known_issue, refused_without, requires
from kernel_matrix.guest.bpf.step_error import StepError
"""


def _run(pytester: pytest.Pytester, body: str, *, facts: bool = True) -> pytest.RunResult:
    if facts:
        pytester.makeconftest(_FACTS)
    pytester.makepyfile(_HEAD + body)
    plugins = ("-p", "kernel_matrix.guest.pytest.marks", "-p", "kernel_matrix.guest.pytest.refusal")
    return pytester.runpytest_inprocess(*plugins, "-s", "-ra", "--strict-markers")


def test_requires_skips_by_the_manifest_and_names_the_feature(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        """
@requires("ringbuf")
def test_has(): pass

@requires("ringbuf", "xdp_frags")
def test_has_not(): assert False
""",
    )
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*feature xdp_frags: not on kernel 5.10 (manifest)"])


@pytest.mark.parametrize(
    ("mark", "line"),
    [
        ('requires("ringbuff")', "*test_x: unknown feature 'ringbuff' (known: arena, ringbuf, xdp_frags)"),
        ('refused_without("frags", errno.EINVAL, stage="load")', "*test_x: unknown feature 'frags'*"),
        ('refused_without("arena", errno.EINVAL, stage="lod")', "*test_x: unknown stage 'lod' (known: attach, *"),
        (
            'known_issue("5.4", reason="r", ref="f", raises=OSError)',
            "*test_x: unknown kernel '5.4' (known: 5.10, 6.1)",
        ),
        ('requires("ringbuf", "arena")', "*test_x: no kernel of the manifest has arena and ringbuf"),
    ],
)
def test_a_name_the_manifest_does_not_know_stops_the_run(pytester: pytest.Pytester, mark: str, line: str) -> None:
    result = _run(pytester, f"@{mark}\ndef test_x(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])


def test_marks_in_a_run_that_knows_no_kernel_stop_it(pytester: pytest.Pytester) -> None:
    result = _run(pytester, '@requires("ringbuf")\ndef test_x(): pass\n', facts=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_x: has marks about kernels, but this run knows no kernel"])


def test_the_declared_refusal_passes_and_is_reported_as_refused(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        """
@refused_without("xdp_frags", errno.EINVAL, stage="load")
def test_refused(): raise StepError(errno.EINVAL, "load", "xdp")

@refused_without("ringbuf", errno.EINVAL, stage="map_create")
def test_not_refused_where_the_feature_is(): pass
""",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "*SEEN test_refused passed [[]('outcome', 'refused')[]]",
            "*SEEN test_not_refused_where_the_feature_is passed [[][]]",
        ]
    )


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        ("pass", "succeeded"),
        ("raise StepError(errno.EPERM, 'load', 'xdp')", "ended with load refused with EPERM: *"),
        ("raise StepError(errno.EINVAL, 'attach', 'xdp')", "ended with attach refused with EINVAL: *"),
        ("raise OSError(errno.EINVAL, 'no')", "ended with EINVAL from no step: *"),
        ("os.setxattr('/proc/self/status', 'no.such', b'')", "ended with EOPNOTSUPP from no step: *"),
        ("assert 1 == 2", "raised AssertionError: *"),
    ],
)
def test_anything_but_the_declared_refusal_fails_with_one_line(
    pytester: pytest.Pytester, body: str, ending: str
) -> None:
    result = _run(pytester, f'@refused_without("xdp_frags", errno.EINVAL, stage="load")\ndef test_x(): {body}\n')
    result.assert_outcomes(failed=1)
    line = f"expected load refused with EINVAL because kernel 5.10 lacks xdp_frags, but it {ending}"
    result.stdout.fnmatch_lines([line])
    assert "refused')" not in result.stdout.str()


def test_a_failure_where_the_feature_exists_is_a_failure(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        '@refused_without("ringbuf", errno.EINVAL, stage="load")\n'
        'def test_x(): raise StepError(errno.EINVAL, "load", "xdp")\n',
    )
    result.assert_outcomes(failed=1)


def test_a_known_issue_is_strict_and_for_one_kernel_only(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        """
here = known_issue("5.10", reason="counts twice", ref="abc", raises=ValueError)
there = known_issue("6.1", reason="counts twice", ref="abc", raises=ValueError)

@here
def test_xfails(): raise ValueError

@here
def test_other_exception_fails(): raise KeyError

@here
def test_unexpected_pass_fails(): pass

@there
def test_other_kernel_fails(): raise ValueError
""",
    )
    result.assert_outcomes(xfailed=1, failed=3)
    result.stdout.fnmatch_lines(["XFAIL*test_xfails - counts twice (abc)"])


def test_the_refused_fixture_demands_errno_and_stage(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        """
def test_exact(refused):
    with refused(errno.EBUSY, stage="attach"):
        raise StepError(errno.EBUSY, "attach", "busy")

def test_success(refused):
    with refused(errno.EBUSY, stage="attach"):
        pass

def test_other_errno(refused):
    with refused(errno.EBUSY, stage="attach"):
        raise StepError(errno.EPERM, "attach", "no")

def test_other_stage(refused):
    with refused(errno.EBUSY, stage="load"):
        raise StepError(errno.EBUSY, "attach", "busy")

def test_no_step(refused):
    with refused(errno.EPERM, stage="attach"):
        raise PermissionError(errno.EPERM, "of a file")

def test_a_stage_of_its_own(refused):
    error = OSError(errno.EPERM, "pretends")
    error.stage = "attach"
    with refused(errno.EPERM, stage="attach"):
        raise error

def test_refused_and_then_wrong(refused):
    with refused(errno.EBUSY, stage="attach"):
        raise StepError(errno.EBUSY, "attach", "busy")
    assert False
""",
    )
    result.assert_outcomes(passed=1, failed=6)
    result.stdout.fnmatch_lines(["*SEEN test_exact passed [[]('outcome', 'refused')[]]"])
    result.stdout.fnmatch_lines(
        [
            "E*expected attach refused with EBUSY, but it succeeded",
            "expected attach refused with EBUSY, found attach refused with EPERM: *",
            "expected load refused with EBUSY, found attach refused with EBUSY: *",
            "expected attach refused with EPERM, found EPERM from no step: *",
            "expected attach refused with EPERM, found EPERM from no step: *",
        ]
    )


_VARIANTS = """
@boots_with("quiet")
def test_quiet(): pass

@boots_with("quiet", "loud")
def test_both(): pass

def test_plain(): pass
"""


@pytest.mark.parametrize(
    ("kernel", "run"),
    [("5.10", {"test_plain"}), ("5.10+quiet", {"test_quiet", "test_both"}), ("5.10+loud", {"test_both"})],
)
def test_a_guest_runs_the_tests_of_its_own_command_line(pytester: pytest.Pytester, kernel: str, run: set[str]) -> None:
    facts = _FACTS.replace('kernel="5.10"', f'kernel="{kernel}"')
    pytester.makeconftest(facts.replace("kernels={", 'kernels={"5.10+quiet": frozenset(), "5.10+loud": frozenset(), '))
    pytester.makepyfile("from kernel_matrix.guest.pytest.marks import boots_with\n" + _VARIANTS)
    result = pytester.runpytest_inprocess("-p", "kernel_matrix.guest.pytest.marks", "-s", "--strict-markers")
    result.assert_outcomes(passed=len(run), deselected=3 - len(run))
    for test in run:
        result.stdout.fnmatch_lines([f"*SEEN {test} passed*"])


def test_an_unknown_variant_stops_the_run(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "from kernel_matrix.guest.pytest.marks import boots_with\n" + _VARIANTS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_quiet: unknown variant 'quiet' (known: )"])


def test_what_spoils_its_guest_comes_after_all_others(pytester: pytest.Pytester) -> None:
    """In the order of the file among themselves, and without any facts about kernels."""
    result = _run(
        pytester,
        """
from kernel_matrix.guest.pytest.marks import spoils_guest

@spoils_guest("stays")
def test_a(): print("RUN a")

def test_b(): print("RUN b")

@spoils_guest("stays too")
def test_c(): print("RUN c")

def test_d(): print("RUN d")
""",
        facts=False,
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*RUN b*", "*RUN d*", "*RUN a*", "*RUN c*"])


@pytest.mark.parametrize(
    ("marks", "line"),
    [
        (
            "\n".join(f'@refused_without("{name}", errno.EINVAL, stage="load")' for name in ("arena", "xdp_frags")),
            "*test_x: 2 refused_without marks, but a test ends with one refusal",
        ),
        (
            '@requires("xdp_frags")\n@refused_without("xdp_frags", errno.EINVAL, stage="load")',
            "*test_x: skipped without xdp_frags, so never refused without it",
        ),
        (
            '@known_issue("6.1", reason="r", ref="f", raises=BaseException)',
            "*test_x: a known issue raises an Exception, not any BaseException",
        ),
        (
            '@pytest.mark.refused_without("xdp_frags", errno.EINVAL)',
            "*test_x: a refusal is refused_without(feature, errno, stage=...)",
        ),
    ],
)
def test_marks_that_contradict_each_other_stop_the_run(pytester: pytest.Pytester, marks: str, line: str) -> None:
    result = _run(pytester, f"{marks}\ndef test_x(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])


def test_a_test_that_no_variant_of_a_kernel_runs_stops_it(pytester: pytest.Pytester) -> None:
    """6.1 has the feature, and only 5.10 boots with the variant."""
    pytester.makeconftest(_FACTS.replace("kernels={", 'kernels={"5.10+quiet": frozenset({"ringbuf"}), ', 1))
    pytester.makepyfile(_HEAD + '@boots_with("quiet")\n@requires("xdp_frags")\ndef test_x(): pass\n')
    facts = _FACTS.replace('kernel="5.10"', 'kernel="5.10+quiet"')
    pytester.makeconftest(facts.replace("kernels={", 'kernels={"5.10+quiet": frozenset({"ringbuf"}), ', 1))
    result = pytester.runpytest_inprocess("-p", "kernel_matrix.guest.pytest.marks", "--strict-markers")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_x: no kernel of the manifest has xdp_frags and boots with quiet"])


#: every way to be skipped, or expected to fail, that pytest has; the reason, and what it is called
_OTHERS_WAYS = {
    'def test_x(): pytest.skip("why")': "skipped * why",
    'def test_x(subtests):\n    with subtests.test("a"): pytest.skip("why")': "skipped * why",
    "def test_x(): pytest.importorskip('no_such_module')": "skipped * could not import 'no_such_module'*",
    'def test_x():\n    import unittest\n    raise unittest.SkipTest("why")': "skipped * why",
    '@pytest.mark.skip(reason="why")\ndef test_x(): pass': "skipped * why",
    "@pytest.mark.skip\ndef test_x(): pass": "skipped * unconditional skip",
    '@pytest.mark.skipif(True, reason="why")\ndef test_x(): pass': "skipped * why",
    '@pytest.mark.skipif("os.name")\ndef test_x(): pass': "skipped * condition: os.name",
    '@pytest.mark.parametrize("y", [])\ndef test_x(y): pass': "skipped * got empty parameter set*",
    '@pytest.fixture\ndef y(): pytest.skip("why")\ndef test_x(y): pass': "skipped * why",
    '@pytest.fixture\ndef y():\n    yield\n    pytest.skip("why")\ndef test_x(y): pass': "skipped * why",
    'import unittest\nclass TestX(unittest.TestCase):\n    @unittest.skip("why")\n    def test_x(self): pass': (
        "skipped * why"
    ),
    'def test_x(): pytest.xfail("why")': "expected to fail * why",
    '@pytest.mark.xfail(reason="why")\ndef test_x(): assert False': "expected to fail * why",
    "@pytest.mark.xfail\ndef test_x(): assert False": "expected to fail * no reason given",
    '@pytest.fixture\ndef y(): pytest.xfail("why")\ndef test_x(y): pass': "expected to fail * why",
    # beside marks of ours that do not apply here, or do
    '@requires("ringbuf")\ndef test_x(): pytest.skip("why")': "skipped * why",
    '@known_issue("5.10", reason="r", ref="f", raises=KeyError)\ndef test_x(): pytest.skip("why")': "skipped * why",
}


@pytest.mark.parametrize("body", _OTHERS_WAYS)
def test_a_skip_that_no_mark_of_ours_made_is_red(pytester: pytest.Pytester, body: str) -> None:
    result = _run(pytester, body)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "skipped" not in result.parseoutcomes()
    assert "xfailed" not in result.parseoutcomes()
    what, _, reason = _OTHERS_WAYS[body].partition(" * ")
    result.stdout.fnmatch_lines([f"*{what} by no mark of the matrix: {reason}", "*@requires(feature)*"])


@pytest.mark.parametrize(
    "body", ['pytest.skip("why", allow_module_level=True)', 'pytest.importorskip("no_such_module")']
)
def test_a_file_that_skips_itself_is_red(pytester: pytest.Pytester, body: str) -> None:
    result = _run(pytester, f"{body}\ndef test_x(): pass\n")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*skipped as a whole: *", "*@requires(feature)*"])


_LOADERS = (
    _FACTS.replace(
        'kernels={"5.10"',
        'loaders={"libbpf": "", "aya": "", "bcc": "bcc: no headers"}, all_loaders=("libbpf", "aya", "bcc", "cilium"),'
        '\n        kernels={"5.10"',
    )
    + """
def pytest_generate_tests(metafunc):
    from kernel_matrix.guest.pytest import marks
    marks.parametrize_loader(metafunc, metafunc.config.stash[GUEST_FACTS].loaders)

@pytest.fixture(scope="module")
def loader(request):
    return request.param
"""
)
_LOADER_HEAD = "from kernel_matrix.guest.pytest.marks import refused_by\n"


def _run_loaders(pytester: pytest.Pytester, body: str) -> pytest.RunResult:
    pytester.makeconftest(_LOADERS)
    return _run(pytester, _LOADER_HEAD + body, facts=False)


def test_a_test_that_loads_runs_with_each_loader(pytester: pytest.Pytester) -> None:
    result = _run_loaders(pytester, "def test_x(loader): assert loader\ndef test_y(): pass\n")
    result.assert_outcomes(passed=3, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*SEEN test_x[[]libbpf[]] passed*",
            "*SEEN test_x[[]aya[]] passed*",
            "*SEEN test_y passed*",
            "SKIPPED*bcc: no headers",
        ]
    )


def test_a_file_s_tests_run_loader_by_loader(pytester: pytest.Pytester) -> None:
    """So that a loader with a process of its own starts it once for a file."""
    result = _run_loaders(pytester, "def test_x(loader): pass\ndef test_y(loader): pass\n")
    order = [line.split()[1] for line in result.outlines if "SEEN" in line for line in [line[line.index("SEEN") :]]]
    assert order == ["test_x[libbpf]", "test_y[libbpf]", "test_x[aya]", "test_y[aya]"]


_REFUSING = """
@refused_by("aya", errno.EINVAL, stage="attach", reason="aya wants a link"{without})
def test_x(loader):
    if loader == "aya":
        {aya}
"""


@pytest.mark.parametrize(
    ("without", "aya", "outcome", "said"),
    [
        ("", "raise StepError(errno.EINVAL, 'attach', 'x')", "passed", "'refused'"),
        ("", "raise StepError(errno.EPERM, 'attach', 'x')", "failed", "*ended with attach refused with EPERM*"),
        ("", "raise StepError(errno.EINVAL, 'load', 'x')", "failed", "*ended with load refused with EINVAL*"),
        ("", "raise OSError(errno.EINVAL, 'x')", "failed", "*from no step*"),
        ("", "pass", "failed", "*expected attach refused with EINVAL because aya wants a link, but it succeeded*"),
        # the kernel has ringbuf: nothing is expected there
        (', without="ringbuf"', "pass", "passed", "SEEN test_x*aya* passed []"),
        (', without="xdp_frags"', "raise StepError(errno.EINVAL, 'attach', 'x')", "passed", "'refused'"),
        (', without="xdp_frags"', "pass", "failed", "*but it succeeded*"),
    ],
)
def test_a_loader_must_refuse_exactly_as_declared(
    pytester: pytest.Pytester, without: str, aya: str, outcome: str, said: str
) -> None:
    result = _run_loaders(pytester, _REFUSING.format(without=without, aya=aya))
    if outcome == "passed":
        result.assert_outcomes(passed=2, skipped=1)
    else:
        result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines([f"*{said}*"])


@pytest.mark.parametrize(
    ("mark", "why"),
    [
        ('refused_by("nobody", 1, stage="load", reason="x")', "*unknown loader 'nobody'*"),
        ('refused_by("aya", 1, stage="dance", reason="x")', "*unknown stage 'dance'*"),
        ('refused_by("aya", 1, stage="load")', "*refused_by(loader, errno, stage=...*"),
        ('refused_by("aya", 1, stage="load", reason="x", without="nothing")', "*unknown feature 'nothing'*"),
        ('known_issue("5.10", reason="x", ref="y", raises=ValueError, loader="nobody")', "*unknown loader*"),
    ],
)
def test_a_wrong_mark_about_a_loader_stops_the_run(pytester: pytest.Pytester, mark: str, why: str) -> None:
    mark = mark.replace('refused_by("aya", 1, stage="load")', 'pytest.mark.refused_by("aya", 1, stage="load")')
    result = _run_loaders(pytester, f"@{mark}\ndef test_x(loader): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([why])


def test_a_mark_about_a_loader_needs_a_test_with_one(pytester: pytest.Pytester) -> None:
    result = _run_loaders(pytester, '@refused_by("aya", 1, stage="load", reason="x")\ndef test_x(): pass\n')
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the test runs with none*"])


def test_a_mark_may_name_a_loader_that_this_run_leaves_out(pytester: pytest.Pytester) -> None:
    result = _run_loaders(pytester, '@refused_by("cilium", 1, stage="load", reason="x")\ndef test_x(loader): pass\n')
    result.assert_outcomes(passed=2, skipped=1)


def test_two_refusals_of_one_test_stop_the_run(pytester: pytest.Pytester) -> None:
    marks = '@refused_by("aya", 1, stage="load", reason="x")\n@refused_by("aya", 2, stage="load", reason="y")\n'
    result = _run_loaders(pytester, f"{marks}def test_x(loader): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*two refusals expected*"])


def test_a_known_issue_may_be_one_loader_s(pytester: pytest.Pytester) -> None:
    mark = '@known_issue("5.10", reason="too old", ref="commit", raises=ValueError, loader="aya")\n'
    result = _run_loaders(pytester, f"{mark}def test_x(loader):\n    if loader == 'aya': raise ValueError\n")
    result.assert_outcomes(passed=1, xfailed=1, skipped=1)


def test_a_loader_may_have_nothing_to_do_with_a_test(pytester: pytest.Pytester) -> None:
    body = (
        "from kernel_matrix.guest.pytest.marks import not_with\n"
        '@pytest.mark.parametrize("x", ["c", pytest.param("rust", marks=not_with("aya", reason="takes none"))])\n'
        "def test_x(loader, x): assert (loader, x) != ('aya', 'rust')\n"
    )
    result = _run_loaders(pytester, body)
    result.assert_outcomes(passed=3, skipped=3)
    result.stdout.fnmatch_lines(["SKIPPED*aya: takes none"])


def test_an_object_that_was_not_compiled_skips(pytester: pytest.Pytester) -> None:
    (pytester.mkdir("build") / "rust").mkdir()
    (pytester.path / "build" / "rust" / "packets.bpf.unavailable").write_text("rust objects: no linker\n")
    body = (
        "from kernel_matrix.guest.pytest.marks import requires_object\n"
        '@requires_object("rust/packets")\ndef test_x(): assert False\n'
        '@requires_object("rust/others")\ndef test_y(): pass\n'
    )
    result = _run(pytester, body)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*rust objects: no linker"])


def test_a_test_about_some_loaders_runs_with_these(pytester: pytest.Pytester) -> None:
    """One about loaders that the run leaves out is deselected, not skipped."""
    body = (
        "from kernel_matrix.guest.pytest.marks import with_loaders\n"
        '@with_loaders("aya", "cilium")\ndef test_x(loader): assert loader == "aya"\n'
        '@with_loaders("cilium")\ndef test_y(loader): assert False\n'
    )
    result = _run_loaders(pytester, body)
    result.assert_outcomes(passed=1, deselected=1)
