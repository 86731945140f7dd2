"""What this process may use of the machine."""

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

#: Quota and period of the control group of this process, version 2.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
#: What Linux says of the processors.
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Processor:
    """name: as the system calls it; flags: its instruction sets, sorted, none where the system does not say."""

    name: str
    flags: tuple[str, ...]


def processor() -> Processor:
    """The first processor of this machine."""
    try:
        first = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:  # another system
        first = ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = fields.get("flags", fields.get("Features", ""))  # x86, ARM
    name = fields.get("model name") or " ".join(fields.get(key, "") for key in ("CPU implementer", "CPU part")).strip()
    return Processor(name or platform.processor() or platform.machine(), tuple(sorted(set(flags.split()))))


def available_cores() -> int:
    """Cores that this process may use, at least 1: a job often has fewer than the machine.

    The least of the affinity and of the control group's quota, rounded up.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no quota, or another system
        pass
    return max(1, cores)
