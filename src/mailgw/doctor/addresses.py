"""The local addresses: can the list be read, and is anybody in it?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mailgw.doctor import rights
from mailgw.doctor.observation import Observation, error, ok, warning

# Complaints that are shown; `mailgw locals list` has them all.
_MOST = 5


def look_at_addresses(
    count: Callable[[], int], *, file: Path | None, database: bool, user: str
) -> list[Observation]:
    """`count` reads the list as the gateway does, and says how many patterns there are; or
    raises ValueError with a line for each that is wrong."""
    subject = "local addresses"
    places = [name for name, there in (("file", file), ("table", database)) if there]
    try:
        number = count()
    except ValueError as trouble:
        lines = str(trouble).splitlines() or ["the list cannot be read"]
        rest = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
        return [error(subject, line) for line in (*lines[:_MOST], *rest)]
    seen = f"{number} pattern{'' if number == 1 else 's'} in the {' and the '.join(places)}"
    found = [ok(subject, seen) if number else warning(subject, f"{seen}: no address is local")]
    if file is not None and user and not rights.may(file, rights.READ, user):
        text = f"{user} may not read {file}: the start as root can, a reload cannot"
        found.append(warning(subject, text, f"chown or chmod it for {user}"))
    return found
