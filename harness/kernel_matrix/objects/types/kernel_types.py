"""What a kernel's files say without booting it: its types, and its configuration. Pure."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from kernel_matrix.shared.bpf.btf import Btf, BtfError, Kind

#: a line of a kernel's configuration
_OPTION = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)
#: the tag of functions that programs may call; older kernels have no such tags
_CALLABLE = "bpf_kfunc"


@dataclass(frozen=True)
class KernelTypes:
    """A kernel's BTF and configuration."""

    name: str
    btf: Btf
    #: option -> value; an option that is off is not in it
    config: Mapping[str, str]

    def has(self, enumeration: str, enumerator: str) -> bool:
        """Whether an enum of the kernel has an enumerator."""
        return enumerator in self._names(enumeration)

    def named(self, enumeration: str, value: int) -> str:
        """Return the first enumerator of a value, later ones are its older names; empty when there is none."""
        return next((name for name, number in self._names(enumeration).items() if number == value), "")

    def _names(self, enumeration: str) -> Mapping[str, int]:
        if enumeration not in self._enums:
            number = self.btf.find(enumeration, Kind.ENUM, Kind.ENUM64)
            self._enums[enumeration] = dict(self.btf.enumerators(self.btf.type(number))) if number else {}
        return self._enums[enumeration]

    @cached_property
    def _enums(self) -> dict[str, dict[str, int]]:
        return {}

    @cached_property
    def callable_functions(self) -> frozenset[int]:
        """The functions that are marked as callable; none on a kernel that marks none."""
        return self.btf.tagged(_CALLABLE)


def btf_of(vmlinux: bytes) -> Btf:
    """Return the types in an uncompressed kernel; raises BtfError."""
    try:
        section = ELFFile(io.BytesIO(vmlinux)).get_section_by_name(".BTF")
    except (ELFError, ConstructError, OverflowError) as error:
        raise BtfError(f"no ELF file: {error}") from error
    if section is None:
        raise BtfError("the kernel has no BTF (CONFIG_DEBUG_INFO_BTF)")
    return Btf(section.data())


def options(config: str) -> dict[str, str]:
    """Return the options of a kernel's configuration that are on, with their values."""
    return dict(_OPTION.findall(config))
