"""What this process may use of the machine."""

import math
import os
from pathlib import Path

#: Quota and period of the control group of this process, version 2.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


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
