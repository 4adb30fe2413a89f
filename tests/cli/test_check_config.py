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


def honoured(*places: str) -> list[str]:
    return [f"mailgw.conf:{place}: honoured" for place in places]


OURS = honoured("1: smtp-ip", "2: rabbitmq-address", "3: queue-store")


def test_a_sound_configuration_is_honoured_key_by_key() -> None:
    done = check(QUIET)

    assert done.exit_code == 0
    assert done.stdout.splitlines()[:3] == OURS
    assert done.stderr == "no errors, no warnings, 3 notes\n"


def test_a_default_that_is_not_mailerqs_is_noted() -> None:
    done = check(QUIET)

    noted = [line.split(": note: not MailerQ's default: ") for line in done.stdout.splitlines()[3:]]
    assert [key for key, _ in noted] == [
        "default: application-log",
        "default: daemon",
        "default: lock",
    ]
    assert check(QUIET + "application-log:\ndaemon: false\nlock: l.pid\n").stderr == (
        "no errors, no warnings, no notes\n"
    )


def test_errors_warnings_and_notes_are_one_line_each_and_told_apart() -> None:
    done = check(
        QUIET + "smtp-maxsize: 32Q\noutput: null\nrabbitmq-qos: 5\n",
        "--rabbitmq-outage=wait",
        "--application-log=",
        environ={"MAILGW_SPOOL_DIRECTORY": "/s", "MAILGW_DAEMON": "no", "MAILGW_LOCK": ""},
    )

    assert done.exit_code == 2
    said = [line for line in done.stdout.splitlines() if not line.endswith(": honoured")]
    assert said == [
        'mailgw.conf:4: smtp-maxsize: "32Q" is not a size (try 32MB)',
        "mailgw.conf:5: output: warning: accepts mail and drops it, for benchmarks only",
        "mailgw.conf:6: rabbitmq-qos: note: not applicable, only concerns sending",
        'command line: rabbitmq-outage: "wait" is not one of its words (try refuse or store)',
        "environment: spool-directory: is not available yet (leave it empty)",
    ]
    assert done.stderr == "3 errors, 1 warning, 1 note\n"


def test_warnings_alone_exit_with_0() -> None:
    done = check(QUIET + "smtp-bare-newlines: carry\n")

    assert done.exit_code == 0
    assert done.stderr == "no errors, 1 warning, 3 notes\n"


@pytest.mark.parametrize("name", ["gone.conf", ".", "/dev/zero"])
def test_a_file_that_is_none_is_an_error_and_no_traceback(name: str) -> None:
    done = check(QUIET, "--config-file", name)

    assert done.exit_code == 2
    assert [line for line in done.stdout.splitlines() if line.startswith(f"{name}: ")]


def test_an_undecodable_file_is_an_error_and_no_traceback() -> None:
    Path("latin1.conf").write_bytes("smtp-key: /schlüssel\n".encode("latin-1"))

    done = check(QUIET, "--config-file", "latin1.conf")

    assert "latin1.conf:1: is not UTF-8 text (octet 0xfc)" in done.stdout.splitlines()


def test_it_binds_nothing_and_makes_nothing() -> None:
    done = check(QUIET)

    assert done.exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["mailgw.conf"]


def test_a_password_is_never_printed() -> None:
    done = check(QUIET, "--smtp-password=sesame", "--rabbitmq-address=amqp://a:sesame@b:c/")

    assert done.exit_code == 2
    assert "sesame" not in done.output


def test_a_template_that_cannot_be_read_is_told_with_its_line() -> None:
    done = check(QUIET + "received-log-format: [{$date}] {$json.mime}\n")

    assert done.exit_code == 2
    assert [line for line in done.stdout.splitlines() if "received-log-format" in line] == [
        "mailgw.conf:4: received-log-format: at 11: $json.mime is never logged"
    ]


def test_a_hook_that_cannot_be_loaded_is_an_error_of_its_line() -> None:
    done = check(QUIET + "hook: os.path:join\nhook: nowhere:Greylist\n")

    assert done.exit_code == 2
    assert done.stdout.splitlines()[0] == (
        "mailgw.conf:4: hook: os.path:join: cannot be made: TypeError: join() missing 1 required "
        "positional argument: 'a'"
    )
    assert not [line for line in done.stdout.splitlines() if line.endswith(": hook: honoured")]


def test_the_hook_that_is_wrong_is_the_one_that_is_named() -> None:
    done = check(QUIET + "hook: fractions:Fraction\n")

    assert done.exit_code == 2
    assert "mailgw.conf:4: hook: fractions:Fraction: has none of the methods connect" in done.stdout
