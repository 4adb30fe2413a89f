"""Local addresses from a table, while clients are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from client import Client
from gateway import Gateway
from tables import Table, sqlite_table


def mail(client: Client) -> None:
    client.reply()
    client.ask("EHLO client.test")
    client.ask("MAIL FROM:<joe@there.test>")


def rcpt(client: Client, address: str) -> str:
    return client.ask(f"RCPT TO:<{address}>")[:3]


def test_a_session_meets_the_new_list_in_the_middle_and_keeps_what_was_decided(
    gateway: Callable[..., Gateway], table: Table
) -> None:
    table.filled("'exact', 'bob@ours.test'")
    server = gateway(
        {
            "database-address": table.url,
            "database-ttl": 1,
            "smtp-recipients": "local",
            "rabbitmq-local": "local",
        }
    )
    with Client(server.port) as client:
        mail(client)
        before = [rcpt(client, "bob@ours.test"), rcpt(client, "ann@ours.test")]
        loaded = server.log.count(" locals.loaded ")
        table.execute(
            "DELETE FROM locals WHERE address = 'bob@ours.test'",
            "INSERT INTO locals VALUES ('fnmatch', 'ann@*')",
        )
        server.saw("locals.loaded exact=0 patterns=1")
        after = [rcpt(client, "bob@ours.test"), rcpt(client, "ann@ours.test")]
        client.ask("DATA")
        taken = client.ask("Subject: hello\r\n\r\nHello.\r\n.")
        client.ask("QUIT")

    assert loaded >= 1
    assert before == ["250", "550"]
    assert after == ["550", "250"]
    assert taken.startswith("250")
    recipients = sorted(document["recipient"] for document in server.consume("local"))
    assert recipients == ["ann@ours.test", "bob@ours.test"]
    assert table.url.partition("@")[0] not in server.log
    assert server.stop() == 0


def test_a_bad_row_changes_nothing_for_clients(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    table = sqlite_table(tmp_path).filled("'exact', 'bob@ours.test'")
    server = gateway({"database-address": table.url, "database-ttl": 1, "smtp-recipients": "local"})
    table.execute("DELETE FROM locals", "INSERT INTO locals VALUES ('regex', '(a+)+')")

    server.saw("locals.kept")

    with Client(server.port) as client:
        mail(client)
        assert rcpt(client, "bob@ours.test") == "250"
        client.ask("QUIT")
