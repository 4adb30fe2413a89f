"""mailgw check-config, as an operator sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailgw.cli import main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(text: str, *arguments: str, environ: dict[str, str] | None = None) -> Result:
    Path("mailgw.conf").write_text(text, encoding="utf-8")
    command = ["check-config", "--config-file", "mailgw.conf", *arguments]
    return CliRunner().invoke(main, command, env=environ, catch_exceptions=False)


QUIET = "smtp-ip: ::1\nrabbitmq-address:\nqueue-store: queue.sqlite\n"


def test_a_sound_configuration_says_nothing_and_exits_with_0() -> None:
    done = check(QUIET)

    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "no errors, no warnings, no notes\n"


def test_errors_warnings_and_notes_are_one_line_each_and_told_apart() -> None:
    done = check(
        QUIET + "smtp-maxsize: 32Q\noutput: null\nrabbitmq-qos: 5\n",
        "--smtp-threads=8",
        environ={"MAILGW_DAEMON": "true"},
    )

    assert done.exit_code == 2
    assert done.stdout.splitlines() == [
        'mailgw.conf:4: smtp-maxsize: "32Q" is not a size (try 32MB)',
        "mailgw.conf:5: output: warning: accepts mail and drops it, for benchmarks only",
        "mailgw.conf:6: rabbitmq-qos: note: only concerns sending, not used here",
        'command line: smtp-threads: "8" is not available yet (only 1)',
        "environment: daemon: is not available yet (leave it empty)",
    ]
    assert done.stderr == "3 errors, 1 warning, 1 note\n"


def test_warnings_alone_exit_with_0() -> None:
    done = check(QUIET + "smtp-bare-newlines: carry\n")

    assert done.exit_code == 0
    assert done.stderr == "no errors, 1 warning, no notes\n"


@pytest.mark.parametrize("name", ["gone.conf", ".", "/dev/zero"])
def test_a_file_that_is_none_is_an_error_and_no_traceback(name: str) -> None:
    done = check(QUIET, "--config-file", name)

    assert done.exit_code == 2
    assert done.stdout.startswith(f"{name}: ")


def test_an_undecodable_file_is_an_error_and_no_traceback() -> None:
    Path("latin1.conf").write_bytes("smtp-key: /schlüssel\n".encode("latin-1"))

    done = check(QUIET, "--config-file", "latin1.conf")

    assert done.stdout == "latin1.conf:1: is not UTF-8 text (octet 0xfc)\n"


def test_it_binds_nothing_and_makes_nothing() -> None:
    done = check(QUIET)

    assert done.exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["mailgw.conf"]


def test_a_password_is_never_printed() -> None:
    done = check(QUIET, "--smtp-password=sesame", "--rabbitmq-address=amqp://a:sesame@b:c/")

    assert done.exit_code == 2
    assert "sesame" not in done.output
