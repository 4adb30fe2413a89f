"""This product's own holes, G01-G09 and G12: x-mq-*, many recipients, patterns, ceilings, names.

Where a row speaks of checks (G04, G05), what is held here is what they read: the octets. What
they find stands in test_signatures.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest

from client import Client, stuffed
from gateway import Gateway, content
from hostile.world import LOCALS, MESSAGE, Stranger, codes, contents, only, peak, taken
from mailgw.mail.identifiers import Identifiers
from mailgw.outlets.store_file import depths
from rabbitmq import wait_until

KEYS: dict[str, object] = {
    "smtp-username": "anna",
    "smtp-password": "opensesame",
    "smtp-auth-insecure-range": "127.0.0.0/8",
    "smtp-proxy": "127.0.0.9",
    "smtp-range": "127.0.0.0/8; 203.0.113.0/24",
    "smtp-mappable-ips": "192.0.2.0/24",
    "smtp-default-ips": "192.0.2.200",
    "smtp-received": "true",
}
ANNA = "AUTH PLAIN AGFubmEAb3BlbnNlc2FtZQ=="

WISHES = (
    b"x-mq-envelope: <evil@evil.test>\r\nX-MQ-IP: 198.51.100.7\r\n"
    b"x-mq-results-queue: secrets\r\nx-mq-dsn-queue: inbox2\r\nx-mq-priority: 9\r\n"
    b"x-mq-smarthost-hostname: evil.test\r\nx-mq-smarthost-password: geheim\r\n"
    b"x-mq-queue: other\r\nx-mq-routing-key: other\r\n"
)
ASKED_FOR = {"queues", "smarthost", "priority", "queue", "routing-key"}


def without_trace(document: dict[str, str]) -> bytes:
    """The message less the Received field on top, which is ours."""
    octets = content(document)
    assert octets.startswith(b"Received: from ")
    end = octets.index(b"+0000\r\n") + 7
    return octets[end:]


def send(server: Gateway, message: bytes, *, login: bool = False) -> None:
    with Client(server.port) as client:
        client.hello()
        if login:
            assert client.ask(ANNA).startswith("235 ")
        assert client.mail(message).startswith("250-2.0.0 ")


ONLY_TRUSTED = pytest.mark.parametrize(
    "mx",
    [{"smtp-extract": "authenticated"}, {"smtp-extract": "203.0.113.0/24; 127.0.0.8"}],
    ids=["authenticated", "networks"],
    indirect=True,
)


@ONLY_TRUSTED
def test_G01_from_a_stranger_x_mq_is_taken_out_unread(mx: Gateway) -> None:
    for message in (WISHES + MESSAGE, MESSAGE.replace(b"\r\n\r\n", b"\r\n" + WISHES + b"\r\n")):
        send(mx, message)
        document = only(mx)
        assert without_trace(document) == MESSAGE
        assert document["envelope"] == "joe@there.test"
        assert document["ips"] == ["192.0.2.200"]
        assert not ASKED_FOR & document.keys()
    assert "geheim" not in mx.log


@ONLY_TRUSTED
def test_G01_who_is_trusted_is_heard_and_chooses_no_queue_for_this_mail(mx: Gateway) -> None:
    with Stranger(mx.port, "127.0.0.8") as client:
        client.hello()
        assert client.ask(ANNA).startswith("235 ")
        assert client.mail(WISHES + MESSAGE).startswith("250-2.0.0 ")
    assert depths(mx.folder / "queue.sqlite") == {"inbox": 1}
    document = only(mx)
    assert document["envelope"] == "evil@evil.test"
    assert document["queues"] == {"results": "secrets", "dsn": "inbox2"}
    assert without_trace(document) == MESSAGE


@ONLY_TRUSTED
def test_G01_the_address_that_is_trusted_is_the_clients_not_the_proxys(mx: Gateway) -> None:
    trusted = []
    for address in ("203.0.113.7", "127.0.0.7"):
        with Stranger(mx.port, "127.0.0.9") as client:
            client.send(f"PROXY TCP4 {address} 198.51.100.1 4000 25\r\n".encode())
            client.hello()
            client.mail(WISHES + MESSAGE)
        trusted.append("queues" in only(mx))
    assert trusted == ["203.0.113" in str(mx.keys["smtp-extract"]), False]


def test_G02_names_of_the_document_are_never_overwritten(mx: Gateway) -> None:
    names = [
        *("mime", "mime-size", "mime-sha256", "mime-encoding", "mime-anything"),
        *("recipient", "key", "connection", "checks", "message-id", "transaction-id"),
        *("received", "hostname", "dedupe", "report", "decision", "dsn", "queues", "smarthost"),
        *("nextattempt", "ips", "tags", "results", "extracted", "__proto__", "constructor "),
    ]
    header = "".join(f"X-MQ-{name}: forged\r\n" for name in names).encode()
    send(mx, MESSAGE)
    usual = only(mx)
    send(mx, header + MESSAGE)
    document = only(mx)
    assert document.keys() - {"constructor"} == usual.keys()
    assert "forged" not in {str(value) for key, value in document.items() if key != "constructor"}
    assert without_trace(document) == MESSAGE
    mx.saw("xmq.rejected")


def test_G03_x_mq_in_every_broken_form_has_one_reading(mx: Gateway) -> None:
    forms: dict[bytes, dict[str, str]] = {
        b"x-mq-a: one\r\n two\r\n\tthree\r\n": {"a": "one two\tthree"},
        b"x-mq-a: first\r\nX-Mq-A: second\r\n": {"a": "first"},
        b"x-mq-a: =?utf-8?q?a=22=2C=22queues=22?=\r\n": {"a": "=?utf-8?q?a=22=2C=22queues=22?="},
        b'x-mq-a: ","queues":{"results":"x"},"b":"\r\n': {"a": '","queues":{"results":"x"},"b":"'},
        b"x-mq-a: one\0two\r\n": {},
        b"x-mq-a: \xff\xfe\r\n": {},
        b"x-mq-a: " + b"x" * 1_000_000 + b"\r\n": {},
        b"x-mq-: x\r\nx-mq-" + b"n" * 200 + b": x\r\n": {},
        b"x-mq-__class__: x\r\nx-mq-__proto__: x\r\nx-mq-.: x\r\nx-mq--: x\r\n": {},
        b"x-mq-\xc3\xa9: x\r\n": {},
        b"no header field\r\nx-mq-a: behind it\r\n": {"a": "behind it"},
        b"x-mq-a : blank before the colon\r\n": {"a": "blank before the colon"},
        b"x-mq-a:\r\n": {"a": ""},
    }
    for header, custom in forms.items():
        send(mx, header + MESSAGE)
        first = only(mx)
        send(mx, header + MESSAGE)
        second = only(mx)
        # The trace field on top has a time and a name in it.
        known = {"connection", "message-id", "transaction-id", "received"}
        known |= {"mime", "mime-sha256", "mime-size"}
        assert {k: v for k, v in first.items() if k not in known} == (
            {k: v for k, v in second.items() if k not in known}
        )
        assert {name: first[name] for name in ("a", "b", "queues") if name in first} == custom
        assert "x-mq-" not in content(first).decode("latin-1") or b"\xc3\xa9" in header


def test_G03_ten_thousand_names_cost_little_and_parts_are_not_touched(mx: Gateway) -> None:
    header = b"".join(b"x-mq-n%d: %d\r\n" % (n, n) for n in range(10_000))
    with peak(mx) as grown:
        begin = time.perf_counter()
        send(mx, header + MESSAGE)
        assert time.perf_counter() - begin < 2.0
        assert grown() < 16_000_000
    document = only(mx)
    assert sum(name.startswith("n") and name[1:].isdigit() for name in document) == 500
    parts = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nx-mq-envelope: <evil@evil.test>\r\nx-mq-a: in a part\r\n\r\nx\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\n\r\n"
        b"x-mq-b: in a mail in a mail\r\n\r\nx\r\n--b--\r\n"
    )
    send(mx, parts)
    document = only(mx)
    assert without_trace(document) == parts
    assert document["envelope"] == "joe@there.test"
    assert not {"a", "b"} & document.keys()


def test_G04_what_is_left_of_a_signed_mail_is_octet_by_octet_what_was_signed(
    mx: Gateway,
) -> None:
    # What a signature covers besides x-mq-*, spelled as only its signer would spell it.
    signed = (
        b"DKIM-Signature: v=1; a=rsa-sha256; h=from : x-mq-tag:subject;\r\n\tb=AAAA\r\n  BBBB;\r\n"
        b"from:  Joe\t<joe@there.test>  \r\nX-MQ-Tag: one\r\n two\r\nSUBJECT:x\r\n \r\n\r\n"
        b"body  \r\n\r\nx-mq-tag: in the body\r\n\r\n\r\n"
    )
    send(mx, signed)
    document = only(mx)
    assert document["tags"] == ["one two"]
    assert without_trace(document) == signed.replace(b"X-MQ-Tag: one\r\n two\r\n", b"")
    # The digest over what was received stands in what makes the mail known again.
    digest = hashlib.sha256(signed).hexdigest()
    text = f"14:joe@there.testbob@ours.test:{digest}"
    assert document["dedupe"] == hashlib.sha256(text.encode()).hexdigest()


def test_G05_no_recipient_learns_of_another(mx: Gateway) -> None:
    message = b"To: friends:;\r\nBcc: left in by its sender\r\n" + MESSAGE
    names = ["bob@ours.test", "x@other.test", "eve@ours.test"]
    with Client(mx.port) as client:
        client.hello()
        assert client.ask(ANNA).startswith("235 ")
        assert client.mail(message, *names).count(" for ") == 3
    documents = taken(mx)
    assert [each["recipient"] for each in documents] == names
    for document in documents:
        others = [name for name in names if name != document["recipient"]]
        assert not any(name in str(document) for name in others)
        # There is no `for` in the trace field, and the sender's own header is the sender's.
        assert without_trace(document) == message
    assert len({each["mime-sha256"] for each in documents}) == 1
    assert len({each["dedupe"] for each in documents}) == 3


def test_G06_a_thousand_recipients_share_the_message(mx: Gateway) -> None:
    message = b"Subject: x\r\n\r\n" + (b"x" * 98 + b"\r\n") * 1_000
    names = [f"user{n}@ours.test" for n in range(1_000)]
    with peak(mx) as grown:
        with Client(mx.port) as client:
            client.hello()
            client.send(
                b"MAIL FROM:<joe@there.test>\r\n"
                + b"".join(f"RCPT TO:<{each}>\r\n".encode() for each in names)
                + b"DATA\r\n"
            )
            assert {client.reply()[:3] for _ in range(1_001)} == {"250"}
            assert client.reply().startswith("354 ")
            client.send(stuffed(message))
            assert client.reply().count(" for ") == 1_000
        # A hundred megabytes are published.
        assert grown() < 40_000_000
    assert [each["recipient"] for each in taken(mx)] == names


def no_large_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000_000, 200_000_000))


def test_G06_ten_gigabytes_end_at_the_disk_and_publish_nothing(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway({"smtp-confirm-timeout": 20, "spool-memory": "1MB"}, before=no_large_files)
    message = b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 10_000
    with Client(server.port) as client:
        client.socket.settimeout(60)
        client.hello()
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
        with peak(server) as grown:
            said = client.mail(message, *(f"user{n}@ours.test" for n in range(1_000)))
            assert said.startswith(("452 4.3.1 ", "451 4.3.0 "))
            assert grown() < 4 * len(message)
    # For a moment mail is refused before it is sent; then the disk is tried again.
    wait_until(lambda: takes_mail(server), "small mail is taken again")
    assert contents(server) == [MESSAGE] * 2


def takes_mail(server: Gateway) -> bool:
    with Client(server.port) as client:
        client.hello()
        return client.mail(MESSAGE).startswith("250-2.0.0 ")


# --- patterns -----------------------------------------------------------------------


def reload(server: Gateway, outcome: str) -> None:
    count = server.log.count(f" {outcome}") + 1
    server.signal(signal.SIGHUP)
    server.saw(outcome, count)


def is_local(server: Gateway, address: str) -> bool:
    with Client(server.port) as client:
        client.hello()
        return codes(client, "MAIL FROM:<>", f"RCPT TO:<{address}>") == ["250", "250"]


BAD_PATTERNS = [
    r"regex (a+)+$",
    r"regex (a|aa)*b@ours\.test",
    r"regex (.*)(.*)(.*)(.*)x",
    r"regex (\w+\s?)*@ours\.test",
    r"regex (a)\1*",
    "regex (",
    "regex [z-a]@ours.test",
    "fnmatch",
    "soundex bob@ours.test",
    "bob",
    "@",
    "\x00@ours.test",
    "b\x00o\x00b\x00",
    "bob@ours.test.",
]


def test_G07_a_pattern_that_could_hang_or_is_none_leaves_the_good_list_in_force(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway({"smtp-recipients": "local", "smtp-max-errors": 1000})
    with Client(server.port) as session:
        session.hello()
        assert codes(session, "MAIL FROM:<>", "RCPT TO:<bob@ours.test>") == ["250", "250"]
        for pattern in BAD_PATTERNS:
            said = server.log.count("locals:2: ")
            (server.folder / "locals").write_text(f"@also.test\n{pattern}\n", encoding="utf-8")
            reload(server, "reload.refused")
            assert server.log.count("locals:2: ") > said, pattern
            assert is_local(server, "bob@ours.test")
            assert not is_local(server, "bob@also.test")
        assert codes(session, "RCPT TO:<eve@ours.test>", "DATA") == ["250", "354"]
        session.send(MESSAGE + b".\r\n")
        assert session.reply().startswith("250-2.0.0 ")
    assert len(taken(server)) == 2


def test_G07_hostile_addresses_against_many_patterns_take_no_time(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway({"smtp-recipients": "local"})
    (server.folder / "locals").write_text(
        "regex .*.*@ours\\.test\nfnmatch *a*a*a*a*a*a*a*a*b@ours.test\nfnmatch [@ours.test\n"
        + "".join(f"user{n}@many.test\n" for n in range(95_000))
        + "".join(f"wild{n}-*@many.test\n" for n in range(5_000))
        + LOCALS
    )
    reload(server, "reload.done")
    wait_until(lambda: is_local(server, "user94999@many.test"), "the list is in force")
    with Client(server.port) as client:
        client.hello()
        client.ask("MAIL FROM:<>")
        begin = time.perf_counter()
        for local in ("a" * 64, "aab" * 21, "[" * 64, "*" * 64, "a.a" * 20):
            for domain in ("ours.test", "many.test", "a" * 60 + ".test"):
                client.ask(f"RCPT TO:<{local}@{domain}>")
        assert time.perf_counter() - begin < 2.0
    assert is_local(server, "wild4999-x@many.test")
    assert not is_local(server, "wild5000-x@many.test")


# --- who is who ---------------------------------------------------------------------


def test_G08_each_rule_sees_the_address_that_the_readme_says(mx: Gateway) -> None:
    # The header's client for ranges; where it connected to, also the header's, is mapped.
    for address, arrival, code, ips in [
        ("203.0.113.5", "192.0.2.9", "220", ["192.0.2.9"]),
        ("203.0.113.5", "198.51.100.1", "220", ["192.0.2.200"]),
        ("198.51.100.66", "192.0.2.9", "554", None),
    ]:
        with Stranger(mx.port, "127.0.0.9") as client:
            client.send(f"PROXY TCP4 {address} {arrival} 4000 25\r\n".encode())
            assert client.reply()[:3] == code
            if ips is not None:
                client.ask("EHLO client.test")
                client.ask("MAIL FROM:<joe@there.test>")
                assert codes(client, "RCPT TO:<bob@ours.test>", "DATA") == ["250", "354"]
                client.send(MESSAGE + b".\r\n")
                assert client.reply().startswith("250-2.0.0 ")
                assert only(mx)["ips"] == ips
    # Who is no balancer cannot say where it came from or to.
    with Client(mx.port) as client:
        client.hello()
        assert client.ask("PROXY TCP4 203.0.113.5 192.0.2.9 1 2").startswith("500 ")
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    assert only(mx)["ips"] == ["192.0.2.200"]


@pytest.mark.parametrize("workers", [1, 3])
def test_G09_above_the_ceiling_clients_wait_and_are_served(
    gateway: Callable[..., Gateway], workers: int
) -> None:
    # Two places for three workers, both with idle clients of one network.
    server = gateway({"smtp-connections-in": 2, "smtp-threads": workers, "smtp-timeout": 1})
    with ExitStack() as crowd:
        idle = [crowd.enter_context(Stranger(server.port, f"127.0.0.{n}")) for n in (2, 3)]
        assert {each.reply()[:3] for each in idle} == {"220"}
        waiting = [crowd.enter_context(Stranger(server.port, f"127.0.0.{n}")) for n in (4, 5, 6)]
        # The idle ones are let go by their deadline, and the others come in by that.
        for client in waiting:
            client.hello()
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
            assert client.ask("QUIT").startswith("221 ")
        assert [each.reply()[:3] for each in idle] == ["421", "421"]
    assert len(taken(server)) == 3


# --- names --------------------------------------------------------------------------


def names(count: int) -> Iterable[str]:
    identifiers = Identifiers("1")
    return [identifiers.next() for _ in range(count)]


def test_G12_a_million_names_of_two_processes_differ_though_the_clock_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as others:
        found = [others.apply_async(names, (250_000,)) for _ in range(2)]
        here = set(names(250_000))
        now = time.time()
        # One hour back, and the same second for ever: no name is made of it.
        monkeypatch.setattr(time, "time", lambda: now - 3600)
        monkeypatch.setattr(time, "time_ns", lambda: int((now - 3600) * 1e9))
        monkeypatch.setattr(time, "monotonic", lambda: 0.0)
        again = set(names(250_000))
        monkeypatch.undo()
        elsewhere = [set(each.get(60)) for each in found]
    assert len(here | again | elsewhere[0] | elsewhere[1]) == 1_000_000


def test_G12_the_documents_of_all_workers_and_of_a_restart_have_names_of_their_own(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    store = {"queue-store": tmp_path / "queue.sqlite", "smtp-threads": 2}
    found = []
    for _ in range(2):
        server = gateway(store)
        for _ in range(20):
            send(server, MESSAGE)
        found += [each["message-id"] for each in server.consume()]
        assert server.stop() == 0
    assert len(set(found)) == len(found) == 40
