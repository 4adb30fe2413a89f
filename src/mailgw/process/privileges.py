"""From root to a user of the system, for good."""

from __future__ import annotations

import os
import pwd


class CannotBecome(Exception):
    """The user does not exist, or we may not become it; the text says which."""


def become(name: str) -> None:
    """Take the user's id, its group and its other groups. Raises CannotBecome.

    Whoever is the user already stays as he is.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise CannotBecome(f"user: there is no user {name}") from None
    if os.getuid() == os.geteuid() == user.pw_uid:
        return
    try:
        # The groups while we may still choose them; the user last.
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except PermissionError:
        raise CannotBecome(f"user: only root can become {name}") from None
    _check_there_is_no_way_back()


def _check_there_is_no_way_back() -> None:
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise CannotBecome("user: the way back to root is open")
