"""Who may read and write what: for the user that the gateway will be, not for who asks."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

READ, WRITE, SEARCH = os.R_OK, os.W_OK, os.X_OK


def may(path: Path, wanted: int, user: str = "") -> bool:
    """Whether `user`, or who we are, may do that; False too for what is not there.

    For another user the mode decides; lists of rights beyond it (ACL) are not looked at.
    """
    try:
        other = pwd.getpwnam(user) if user else None
    except KeyError:
        other = None
    if other is None or other.pw_uid == os.geteuid():
        return os.access(path, wanted)
    return all(_allowed(each, SEARCH, other) for each in path.absolute().parents) and _allowed(
        path, wanted, other
    )


def _allowed(path: Path, wanted: int, user: pwd.struct_passwd) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    if user.pw_uid == 0:
        return True
    if status.st_uid == user.pw_uid:
        shift = 6
    elif status.st_gid in os.getgrouplist(user.pw_name, user.pw_gid):
        shift = 3
    else:
        shift = 0
    return status.st_mode >> shift & wanted == wanted
