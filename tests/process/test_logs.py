"""The logs as they are configured: opened all or none, and left to who runs with them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mailgw.config import Settings, load
from mailgw.observe.destinations import CannotLog
from mailgw.process.logs import logs_of, received_log_of


def settings(**keys: object) -> Settings:
    usual: dict[str, object] = {"rabbitmq-address": "", "queue-store": "/tmp/queue.sqlite"}
    written = {name.replace("_", "-"): value for name, value in keys.items()}
    return load((), {}, [(name, str(value)) for name, value in (usual | written).items()])


def test_what_is_named_is_opened_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "mailgw.log"
    logs = logs_of(settings(application_log=f"stdout,{file},stderr", application_log_level="error"))
    assert [each.name for each in logs.destinations] == ["stdout", str(file), "stderr"]
    assert logs.level == "error"
    assert file.read_text() == ""


def test_an_empty_key_is_no_log_at_all(tmp_path: Path) -> None:
    assert logs_of(settings(application_log="")).destinations == ()
    assert received_log_of(settings(received_log_file="")) is None
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_cannot_be_read_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "received.log"
    with pytest.raises(CannotLog, match=r"received-log-format: at 3: \{\$x-y\} is not understood"):
        received_log_of(settings(received_log_file=file, received_log_format="a {$x-y}"))
    assert not file.exists()


def test_the_default_format_can_be_read(tmp_path: Path) -> None:
    assert received_log_of(settings(received_log_file=tmp_path / "received.log")) is not None


def test_what_root_makes_belongs_to_the_user_and_what_was_there_stays(tmp_path: Path) -> None:
    # Who is not root has nothing to give away, and keeps it.
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    made, there, received = (tmp_path / name for name in ("made.log", "there.log", "received.log"))
    there.touch()
    keys = settings(user="nobody", application_log=f"{made},{there}", received_log_file=received)
    held = logs_of(keys), received_log_of(keys)
    assert None not in held
    assert [(each.stat().st_uid, each.stat().st_gid) for each in (made, received)] == [
        (owner.pw_uid, owner.pw_gid)
    ] * 2
    assert there.stat().st_uid == os.geteuid()
