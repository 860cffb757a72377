"""Tells whether somebody else could have changed a file that is run as code, such as an engine."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

_WHY = "an engine is code, so it is loaded only from where nobody but you and root can write"

_MOST_LINKS = 40
"""Symbolic links in one path after which Linux gives up too."""

_ACCESS_LIST = "system.posix_acl_access"
"""The attribute of a file that lets further users and groups in; the group's permission bits are its bound."""


def distrust(file: Path) -> str | None:
    """Says why somebody else could have changed `file` or put it there, with the fix; returns None if nobody could.

    Every step from the root directory to the file is looked at: directories, symbolic links, and again all directories
    that a link's target is in. Each must belong to this user or to root, and directories and the file must be writable
    by no one else. Two things are allowed: directories in which everyone removes only their own files, such as /tmp,
    unless they hold the file itself or a link to it; and groups with one user, which Ubuntu makes for everyone. Raises
    OSError.
    """
    for path, found, holds_file in _steps(file):
        if found.st_uid not in (0, os.geteuid()):
            return (
                f"{path} belongs to {_user(found.st_uid)}: {_WHY}; run this as that user (in a container: "
                f"`--user {found.st_uid}`), or copy the model directory to one of your own"
            )
        if stat.S_ISLNK(found.st_mode):  # whoever can write the directory of a link can replace it, and no one else
            continue
        is_private = _is_private(found.st_gid) and not _has_access_list(path)
        others = stat.S_IWOTH if is_private else stat.S_IWOTH | stat.S_IWGRP
        sticky = not holds_file and found.st_mode & stat.S_ISVTX
        if found.st_mode & others and not sticky:
            return f"{path} can be written by other users: {_WHY}; `chmod go-w {path}`, if you trust what is there"
    return None


def _steps(file: Path) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Yields all that the system goes through to open `file`, and whether that is the file or holds its last name.

    The path of each step has no links in it but the last, where the step is a link itself. Raises OSError.
    """
    current, links = Path("/"), 0
    names = _names(file.absolute())
    while names:
        name = names.pop()
        yield current, current.lstat(), not names
        if name == "..":
            current = current.parent
            continue
        step = current / name
        if not step.is_symlink():
            current = step
            continue
        yield step, step.lstat(), False
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file))
        target = Path(os.readlink(step))
        names += _names(target)
        current = Path("/") if target.is_absolute() else current
    yield current, current.lstat(), True


def _names(path: Path) -> list[str]:
    """Returns the names in a path, the last first."""
    return [name for name in reversed(path.parts) if name != path.anchor]


def _is_private(group: int) -> bool:
    """Tells whether a group has the name of this user, or root's, and no other member."""
    try:
        found, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return found.gr_name in (user, "root") and set(found.gr_mem) <= {user, "root"}


def _has_access_list(path: Path) -> bool:
    with contextlib.suppress(OSError):  # the file system has no such attributes
        return _ACCESS_LIST in os.listxattr(path)
    return False


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
