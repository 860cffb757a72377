"""What a process takes of this machine, from Linux's /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """`resident_mb` in MB of 10^6 bytes; `cpu_seconds` since the process began; threads and open files."""

    resident_mb: float
    cpu_seconds: float
    threads: int
    files: int

    @classmethod
    def of(cls, process: int) -> Usage:
        """Raises OSError where there is no such process."""
        folder = Path("/proc", str(process))
        # Fields 14, 15 and 20 of proc(5); the name in field 2 may hold spaces.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        pages = int((folder / "statm").read_text().split()[1])
        return cls(
            resident_mb=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            cpu_seconds=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
            threads=int(fields[17]),
            files=len(list((folder / "fd").iterdir())),
        )
