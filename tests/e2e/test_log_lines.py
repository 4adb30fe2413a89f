"""What an operator reads: a line for each decision, with its rule, and a line for each mail."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from client import Client
from gateway import COMMAND, ENVIRONMENT, Certificate, Gateway
from rabbitmq import wait_until

MESSAGE = b"Subject: hello\r\n\r\nA secret of the sender.\r\n"
FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^" ]+)')


def fields(server: Gateway, event: str) -> list[dict[str, str]]:
    """The fields of every such event in the log."""
    lines = [line for line in server.log.splitlines() if line.split(" ")[2:3] == [event]]
    return [dict(FIELD.findall(line)) for line in lines]


# --- the received log -----------------------------------------------------------------


def test_the_default_format_has_a_line_for_each_recipient(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    log = tmp_path / "received.log"
    server = gateway({"received-log-file": log})
    with Client(server.port) as client:
        client.hello()
        client.mail(MESSAGE, "bob@ours.test", "eve@ours.test")
        client.mail(MESSAGE, "nil@ours.test", sender="<>")
    wait_until(lambda: log.read_text().count("\n") == 3, "three lines")
    assert server.stop() == 0
    one, other, nil = server.consume()
    date = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]"
    expected = [
        f"{date} {one['message-id']} <joe@there.test> <bob@ours.test>",
        f"{date} {other['message-id']} <joe@there.test> <eve@ours.test>",
        f"{date} {nil['message-id']} <> <nil@ours.test>",
    ]
    ends = r" \[127\.0\.0\.1\] \[127\.0\.0\.1\]"
    for line, pattern in zip(log.read_text().splitlines(), expected, strict=True):
        assert re.fullmatch(pattern + ends, line), line


def test_what_was_not_taken_has_no_line(gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    log = tmp_path / "received.log"
    server = gateway({"received-log-file": log, "smtp-maxsize": "1KB"})
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE + b"x" * 2000 + b"\r\n").startswith("552 ")
        assert client.mail(b"Received: x\r\n" * 20 + MESSAGE).startswith("250")
    wait_until(lambda: log.read_text() != "", "a line")
    assert server.stop() == 0
    assert log.read_text().count("\n") == 1


def test_hostile_values_stay_in_their_line(gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    log = tmp_path / "received.log"
    server = gateway(
        {
            "received-log-file": log,
            "received-log-format": "<{$json.envelope}> [{$json.campaign}] {$json.connection.helo}",
        }
    )
    header = "x-mq-campaign: a\u2028b\u202e ${jndi:x} {$json.mime} %n\r\n".encode()
    with Client(server.port) as client:
        client.hello()
        client.mail(header + MESSAGE, sender=r'<"x> [192.0.2.1]"@there.test>')
    wait_until(lambda: log.read_text() != "", "a line")
    assert log.read_text() == (
        '<"x>\\x20[192.0.2.1]"@there.test> '
        "[a\\u2028b\\u202e\\x20${jndi:x}\\x20{$json.mime}\\x20%n] client.test\n"
    )


def test_both_logs_may_be_one_file_and_are_opened_again_on_sighup(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    log, old = tmp_path / "mailgw.log", tmp_path / "mailgw.log.1"
    server = gateway(
        {
            "application-log": f"stderr,{log}",
            "received-log-file": log,
            "received-log-format": "{$json.recipient}",
            "smtp-threads": 2,
        }
    )
    with Client(server.port) as client:
        client.hello()
        client.mail(MESSAGE, "before@ours.test")
        wait_until(lambda: "\nbefore@ours.test\n" in log.read_text(), "a line")
        log.rename(old)
        server.signal(signal.SIGHUP)
        server.saw("reload.done")
        client.mail(MESSAGE, "after@ours.test")
    server.saw("client.gone")
    assert server.stop() == 0
    assert "\nafter@ours.test\n" not in old.read_text()
    assert "\nafter@ours.test\n" in log.read_text()
    ours = [line for line in (old.read_text() + log.read_text()).splitlines() if " info " in line]
    assert sorted(ours) == sorted(server.log.splitlines())


def test_a_full_disk_costs_lines_and_no_mail(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"application-log": "/dev/full,stderr", "received-log-file": "/dev/full"})
    with Client(server.port) as client:
        client.hello()
        for _ in range(20):
            assert client.mail(MESSAGE).startswith("250")
    server.saw("log.stuck", 2)
    assert server.stop() == 0
    assert len(server.consume()) == 20


# --- one event a decision -------------------------------------------------------------


def test_a_mail_is_followed_by_its_ids(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"application-log-level": "debug"})
    with Client(server.port) as client:
        client.hello()
        client.mail(MESSAGE, "bob@ours.test")
        client.mail(MESSAGE, "bob@ours.test", "eve@ours.test")
    server.saw("client.gone")
    assert server.stop() == 0
    documents = server.consume()
    [came] = fields(server, "client.connected")
    single, double = fields(server, "message.taken")
    assert single["id"] == double["id"] == came["id"]
    assert single["transaction"] == documents[0]["transaction-id"]
    assert (single["message"], single["recipients"]) == (documents[0]["message-id"], "1")
    assert double["transaction"] == documents[1]["transaction-id"]
    assert ("message" in double, double["recipients"]) == (False, "2")
    assert [each["message"] for each in fields(server, "message.document")] == [
        document["message-id"] for document in documents[1:]
    ]


REFUSALS = [
    ({}, ["EHLO c.test", "NONSENSE"], {"command.refused": [("500", None)]}),
    ({}, ["MAIL FROM:<a@b.test>"], {"command.refused": [("503", None)]}),
    (
        {"smtp-max-errors": 2},
        ["ONE", "TWO"],
        {"command.refused": [("500", None), ("500", None), ("421", "smtp-max-errors")]},
    ),
    (
        {"smtp-maxsize": "1KB"},
        ["EHLO c.test", "MAIL FROM:<a@b.test> SIZE=2000"],
        {"command.refused": [("552", "smtp-maxsize")]},
    ),
    (
        {"smtp-recipients": "local"},
        ["EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<b@c.test>"],
        {"rcpt.refused": [("550", "smtp-recipients")]},
    ),
    ({"smtp-range": "192.0.2.0/24"}, [], {"client.refused": [("554", "smtp-range")]}),
]


@pytest.mark.parametrize(("keys", "commands", "said"), REFUSALS)
def test_a_refusal_is_one_line_with_its_rule(
    gateway: Callable[..., Gateway],
    tmp_path: Path,
    keys: dict[str, object],
    commands: list[str],
    said: dict[str, list[tuple[str, str | None]]],
) -> None:
    (tmp_path / "locals").write_text("@ours.test\n")
    server = gateway({"local-addresses": tmp_path / "locals"} | keys)
    with Client(server.port) as client:
        client.reply()
        for command in commands:
            client.ask(command)
    [(event, expected)] = said.items()
    server.saw(event, len(expected))
    assert server.stop() == 0
    found = fields(server, event)
    assert [(each["reply"], each.get("rule")) for each in found] == expected
    assert all(each["id"] and each["peer"] == "127.0.0.1" for each in found)
    assert server.log.count(".refused ") == len(expected)


def test_neither_credentials_nor_message_text_are_in_any_log(
    gateway: Callable[..., Gateway], certificate: Certificate, tmp_path: Path
) -> None:
    received = tmp_path / "received.log"
    server = gateway(
        certificate.keys
        | {
            "application-log-level": "debug",
            "received-log-file": received,
            "smtp-username": "joe",
            "smtp-password": "geheim",
        }
    )
    wrong = base64.b64encode(b"\0joe\0fast-geheim").decode()
    right = base64.b64encode(b"\0joe\0geheim").decode()
    with Client(server.secure_port) as client:
        client.handshake(certificate.authority)
        client.hello()
        assert client.ask(f"AUTH PLAIN {wrong}").startswith("535 ")
        assert client.ask("AUTH PLAIN Z2VoZWlt").startswith("501 ")
        assert client.ask(f"AUTH PLAIN {right}").startswith("235 ")
        assert client.mail(MESSAGE).startswith("250")
    server.saw("client.gone")
    assert server.stop() == 0
    both = server.log + received.read_text()
    assert [each["rule"] for each in fields(server, "auth.refused")] == ["smtp-auth"]
    assert "bob@ours.test" in both
    for secret in ("geheim", "Z2Vo", wrong, right, "hello", "secret of the sender"):
        assert secret not in both


# --- the start ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"application-log": "stderr,{folder}/pipe"},
            "mailgw: cannot log to {folder}/pipe: No such device or address",
        ),
        (
            {"received-log-file": "{folder}/pipe"},
            "mailgw: cannot log to {folder}/pipe: No such device or address",
        ),
        (
            {"received-log-format": "[{{$date}}] {{$json.mime}}"},
            "command line: received-log-format: at 11: $json.mime is never logged",
        ),
        (
            {"received-log-format": "{{if $report}}x"},
            "command line: received-log-format: at 1: {{if}} has no {{/if}}",
        ),
    ],
)
def test_a_log_that_cannot_be_had_keeps_it_from_starting(
    tmp_path: Path, keys: dict[str, str], said: str
) -> None:
    os.mkfifo(tmp_path / "pipe")  # that nobody reads
    usual = {"smtp-ip": "127.0.0.1", "smtp-port": "0", "rabbitmq-address": ""}
    usual |= {"queue-store": f"{tmp_path}/queue.sqlite"}
    keys = {key: value.format(folder=tmp_path) for key, value in keys.items()}
    ended = subprocess.run(
        [*COMMAND, "serve", *(f"--{key}={value}" for key, value in (usual | keys).items())],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [said.format(folder=tmp_path)]


def test_a_reload_changes_level_and_destination_and_a_bad_one_changes_nothing(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    conf, log = tmp_path / "mailgw.conf", tmp_path / "other.log"
    conf.write_text("smtp-maxsize: 1000000\n")
    server = gateway({"config-file": conf})
    os.mkfifo(tmp_path / "pipe")  # that nobody reads
    bads = (f"application-log: {tmp_path}/pipe", "received-log-format: {$x}")
    for number, bad in enumerate(bads, 1):
        conf.write_text(f"smtp-maxsize: 2000000\n{bad}\n")
        server.signal(signal.SIGHUP)
        server.saw("reload.refused", number)
    conf.write_text(
        f"smtp-maxsize: 3000000\napplication-log: {log}\napplication-log-level: warning\n"
    )
    server.signal(signal.SIGHUP)
    wait_until(lambda: announces(server, "3000000"), "the new configuration is in force")
    with Client(server.port) as client:
        client.hello()
        client.mail(MESSAGE)
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_until(lambda: " error worker.died " in log.read_text(), "the supervisor's line")
    assert server.stop() == 0
    assert f"cannot log to {tmp_path}/pipe: No such device or address" in server.log
    assert "received-log-format: at 1: $x is not known" in server.log
    assert " info " not in log.read_text()
    assert "message.taken" not in server.log


def announces(server: Gateway, size: str) -> bool:
    with Client(server.port) as client:
        return f"SIZE {size}" in client.hello()
