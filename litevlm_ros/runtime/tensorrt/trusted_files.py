"""Whether others could have changed a file. An engine is code for the GPU, so nobody else may have had a hand in it."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

_WHY = "an engine is code, so it is loaded only from where nobody but you and root can write"


def distrust(file: Path) -> str | None:
    """Why somebody else could have changed `file` or put it there, with the fix; None if nobody could.

    It and every directory above it must belong to this user or to root and be writable by no one else. A directory
    like /tmp, in which everyone removes only what is theirs, may lie above; so may a group that is one user's own, as
    Ubuntu makes them. Raises OSError.
    """
    near = dict.fromkeys((file.resolve(), file.resolve().parent, file.parent.resolve()))
    for path in dict.fromkeys((*near, *(above for each in near for above in each.parents))):
        found = path.stat()
        if found.st_uid not in (0, os.geteuid()):
            return (
                f"{path} belongs to {_user(found.st_uid)}: {_WHY}; run this as that user, or copy the model directory "
                "to one of your own"
            )
        others = stat.S_IWOTH if _is_private(found.st_gid) else stat.S_IWOTH | stat.S_IWGRP
        sticky = path not in near and found.st_mode & stat.S_ISVTX
        if found.st_mode & others and not sticky:
            return f"{path} can be written by other users: {_WHY}; `chmod go-w {path}`, if you trust what is there"
    return None


def _is_private(group: int) -> bool:
    """Whether a group has the name of this user, or root's, and no other member."""
    try:
        found, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return found.gr_name in (user, "root") and set(found.gr_mem) <= {user, "root"}


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
