"""ROS domains that nobody else on this machine uses: other tests, other test runs, other programs."""

from __future__ import annotations

import os
import socket
from collections import deque

LAST = 101
"""Linux takes the ports of higher domains for outgoing connections."""

_PROBED_PARTICIPANTS = 8
_KEPT = 24
"""Domains that a process reserves at a time. What it used before those has ended by then."""

_reserved: deque[socket.socket] = deque()
_next = os.getpid()


def next_domain() -> int:
    """Reserves a domain, 1 to 101, for a test, so that one that ends late is not seen by the next.

    Other test processes see the reservation, which ends with this process. Raises RuntimeError if all are in use.
    """
    global _next
    while len(_reserved) >= _KEPT:
        _reserved.popleft().close()
    for _ in range(LAST):
        _next += 1
        domain = 1 + _next % LAST
        reservation = _reserve(domain)
        if reservation is None:
            continue
        if _has_participants(domain):
            reservation.close()
            continue
        _reserved.append(reservation)
        return domain
    raise RuntimeError(f"all ROS domains from 1 to {LAST} are in use on this machine; stop other ROS processes")


def _reserve(domain: int) -> socket.socket | None:
    """Binds a name that is the machine's, not a file's: the kernel gives it back when this process ends."""
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        reservation.bind(f"\0litevlm_ros/test/domain/{domain}")
    except OSError:
        reservation.close()
        return None
    return reservation


def _has_participants(domain: int) -> bool:
    """Returns True if a program on this machine takes part in the domain: participant P listens on the UDP port
    7410 + 250 domain + 2 P (DDSI-RTPS 2.5, 9.6.2.4)."""
    for participant in range(_PROBED_PARTICIPANTS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain + 2 * participant))
            except OSError:
                return True
    return False
