"""mailgw show-config, as an operator sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailgw.cli import main
from mailgw.config.settings import KEYS


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def show(text: str, *arguments: str, environ: dict[str, str] | None = None) -> Result:
    Path("mailgw.conf").write_text(text, encoding="utf-8")
    command = ["show-config", "--config-file", "mailgw.conf", *arguments]
    return CliRunner().invoke(main, command, env=environ, catch_exceptions=False)


def rows(done: Result) -> dict[str, list[str]]:
    """Each line of the table by its key: value, default, origin."""
    cells = (re.split(r" {2,}", line) for line in done.stdout.splitlines()[1:])
    return {key: rest for key, *rest in cells}


def test_every_key_has_a_value_a_default_and_an_origin() -> None:
    done = show(
        "# mine\nsmtp-port: 2525\nlocal-addresses:\n",
        "--smtp-maxsize=1MiB",
        environ={"MAILGW_HOSTNAME": "mx.example.com"},
    )

    found = rows(done)
    assert done.exit_code == 0
    assert list(found) == list(KEYS)
    assert found["smtp-port"] == ["2525", "25", "mailgw.conf:2"]
    assert found["local-addresses"] == ["(empty)", "(empty)", "mailgw.conf:3"]
    assert found["smtp-maxsize"] == ["1MiB", "100MB", "command line"]
    assert found["hostname"] == ["mx.example.com", "(empty)", "environment"]
    assert found["smtp-timeout"] == ["300", "300", "default"]


def test_columns_are_aligned() -> None:
    done = show("smtp-port: 2525,2526,2527\n")

    head, *lines = done.stdout.splitlines()
    starts = [head.index(name) for name in ("value", "default", "from")]
    assert all(line[start - 1] == " " != line[start] for line in lines for start in starts)


def test_secrets_are_masked_wherever_they_come_from() -> None:
    done = show(
        "rabbitmq-address: amqp://anna:sesame@localhost/v,amqps://anna:sesame@b/\n"
        "www-password: sesame\n",
        "--smtp-password=sesame",
        environ={"MAILGW_SMTP_USERNAME": "anna", "MAILGW_SMTP_AUTH_INSECURE_RANGE": "::1"},
    )

    found = rows(done)
    assert done.exit_code == 0
    assert "sesame" not in done.output
    assert found["smtp-password"][0] == "***"
    assert found["www-password"][0] == "***"
    assert found["rabbitmq-address"][0] == "amqp://anna:***@localhost/v, amqps://anna:***@b/"


def test_keys_without_use_here_are_shown_where_they_are_written() -> None:
    found = rows(show("rabbitmq-qos: 5\nspool-directory:\n"))

    assert found["rabbitmq-qos"] == [
        "5",
        "(empty)",
        "mailgw.conf:1 (not applicable, only concerns sending)",
    ]
    assert found["spool-directory"] == ["(empty)", "(empty)", "mailgw.conf:2 (off)"]


def test_json_holds_the_same() -> None:
    done = show("smtp-port: 2525\n", "--json", "--smtp-password=sesame")
    assert done.exit_code == 2  # a password without a user name

    done = show("smtp-port: 2525\n", "--json")

    found = json.loads(done.stdout)
    assert list(found) == list(KEYS)
    assert found["smtp-port"] == {
        "value": "2525",
        "default": "25",
        "origin": "mailgw.conf:1",
        "remark": "",
    }


def test_errors_are_shown_instead() -> None:
    done = show("smtp-port: x\noutput: null\n")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        'mailgw.conf:1: smtp-port: "x" is not a list of ports (try 25,2525 or 1024-1026)\n'
    )
