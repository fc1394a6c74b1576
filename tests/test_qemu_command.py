"""The command of QEMU that is kept for the next restored guest."""

from __future__ import annotations

from pathlib import Path

from kernel_matrix.relay.saved import qemu_command

#: parts of what virtme-ng 1.42 runs
WORDS = [
    "/usr/bin/qemu-system-x86_64",
    *("-fsdev", "local,id=virtfs9,path=/env/virtme/guest,security_model=none,readonly=on,multidevs=remap"),
    *("-chardev", "file,id=console,path=/proc/self/fd/2"),
    *("-chardev", "file,id=ret,path=/tmp/h/0/virtme_retx"),
    *("-append", "root=/dev/vda path=/a,b", "-initrd", "/proc/self/fd/4", "-pidfile", "/tmp/h/0/pid"),
]


def test_what_only_a_boot_reads_is_not_in_the_command() -> None:
    assert list(qemu_command.general(WORDS, Path("/tmp/h/0"))) == [
        "/usr/bin/qemu-system-x86_64",
        *("-fsdev", "local,id=virtfs9,path={folder}/nothing,security_model=none,readonly=on,multidevs=remap"),
        *("-chardev", "file,id=console,path=/proc/self/fd/2"),
        *("-chardev", "file,id=ret,path={folder}/virtme_retx"),
        *("-append", "root=/dev/vda path=/a,b", "-pidfile", "{folder}/pid"),
    ]


def test_a_folder_that_options_quote_has_no_command(tmp_path: Path) -> None:
    """QEMU takes a comma in a value as two: virtme-ng makes the command for such a folder."""
    (tmp_path / qemu_command.NAME).write_text('["{folder}"]')
    for name, command in (("a", [str(tmp_path / "a")]), ("a,b", None)):
        (tmp_path / name).mkdir()
        assert qemu_command.recall(tmp_path, tmp_path / name) == command
