"""The local addresses as the doctor sees them."""

from __future__ import annotations

from pathlib import Path

from doctor.looking import lines
from mailgw.doctor.addresses import look_at_addresses


def test_the_patterns_are_counted(tmp_path: Path) -> None:
    seen = look_at_addresses(lambda: 3, file=tmp_path, database=True, user="")

    assert lines(seen) == ["ok local addresses: 3 patterns in the file and the table"]


def test_a_list_without_anybody_is_a_warning(tmp_path: Path) -> None:
    seen = look_at_addresses(lambda: 0, file=tmp_path, database=False, user="")

    assert lines(seen) == ["warning local addresses: 0 patterns in the file: no address is local"]


def test_what_is_wrong_is_told_line_by_line_up_to_a_bound(tmp_path: Path) -> None:
    def count() -> int:
        raise ValueError("\n".join(f"list:{number}: is none" for number in range(1, 9)))

    seen = lines(look_at_addresses(count, file=tmp_path, database=False, user=""))

    assert seen[0] == "error local addresses: list:1: is none"
    assert seen[-1] == "error local addresses: and 3 more"
    assert len(seen) == 6


def test_a_reload_by_a_user_who_may_not_read_it_is_foreseen(tmp_path: Path) -> None:
    file = tmp_path / "local"
    file.touch(0o600)

    seen = lines(look_at_addresses(lambda: 1, file=file, database=False, user="daemon"))

    assert f"warning local addresses: daemon may not read {file}" in seen[1]
