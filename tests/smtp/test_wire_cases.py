"""The wire cases: what a client may send to do harm, and what each must get.

`vectors/smtp/wire-cases.json` says it in words, this file in codes, over the gate of
the gateway: b@example.test is local, other domains are refused to strangers.
"""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from dialogue import unescape
from mailgw.gate.credentials import Hardcoded
from mailgw.gate.gate import Gate
from mailgw.gate.recipients import LocalAddresses
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Recipient
from mailgw.smtp import events, reply
from mailgw.smtp.data import NewlinePolicy
from mailgw.smtp.extensions import Rules
from mailgw.smtp.reply import Reply
from smtp.house import HOST, House

VECTORS = Path(__file__).parents[1] / "vectors" / "smtp" / "wire-cases.json"
CASES = {case["id"]: case for case in json.loads(VECTORS.read_text("utf-8"))["cases"]}

# What the step that matters may be answered: the last one, but for the NOOP that asks
# whether the session still stands.
ALLOWED: dict[str, set[int]] = {
    # Smuggling, and bodies in all shapes. A 250 is one message with the right octets.
    "S001": {250, 550, 554},
    "S003": {250, 550, 554},
    "S005": {250, 550, 554},
    "S007": {250},
    "S009": {250, 550, 554},
    "S011": {250, 550},
    "S013": {250, 550},
    "S015": {250},
    "S017": {250},
    "S021": {250},
    "S023": {250},
    # Order.
    "S025": {503},
    "S027": {503, 554},
    "S029": {503, 554},
    "S071": {503},
    # Parameters.
    "S031": {501},
    "S033": {501},
    "S035": {501, 555},
    "S037": {555},
    "S119": {501, 555},
    "S121": {501},
    "S123": {501, 552},
    "S125": {501, 555},
    "S127": {501, 555},
    "S129": {501, 555},
    "S131": {501},
    "S133": {501},
    "S135": {250, 501},
    # Addresses.
    "S039": {501, 550, 553},
    "S041": {501},
    "S045": {501},
    "S047": {501},
    "S049": {501, 555},
    "S051": {250},
    "S053": {250},
    "S055": {250},
    "S057": {250},
    "S059": {501, 553},
    "S061": {501, 553},
    "S063": {250},
    "S065": {501, 550},
    "S067": {250},
    "S069": {550},
    # Lines and verbs.
    "S043": {500, 501},
    "S073": {502, 550},
    "S075": {250},
    "S077": {500},
    "S079": {500},
    "S081": {501},
    "S083": {501},
    "S085": {501},
    "S087": {501},
    "S089": {501},
    # BDAT.
    "S091": {250},
    "S093": {501},
    # AUTH.
    "S095": {504},
    "S097": {535},
    "S099": {503},
    "S101": {500, 501},
    "S103": {501, 535},
}
# Told in words in the file, done by a test of their own below.
BY_PROGRAM = {"S019", "S105", "S107", "S109", "S111", "S113", "S115", "S117"}

# What is refused on the way to the step that matters.
REFUSED_BEFORE = {"S029": 550}

# Case -> who is asked about, as the gate sees it.
ASKED = {
    "S051": "a@example.org",
    "S053": '"a\\"b"@example.org',
    "S055": "a@[IPv6:2001:db8::1]",
    "S063": "postmaster",
    "S065": "x@other.test",
    "S067": "b@EXAMPLE.TEST",
    "S069": '"x@other.test"@example.test',
}

WAYS = [(policy, tls) for policy in ("refuse", "carry", "repair") for tls in (False, True)]


def gate(folder: Path, *, max_recipients: int = 1000) -> Callable[[events.Event, int], Reply]:
    """The gateway's own gate, asked without a connection."""
    addresses = folder / "locals"
    addresses.write_text("b@example.test\n")
    rules = Gate(
        HOST,
        LocalAddresses.load(addresses),
        max_recipients,
        trouble=lambda: None,
        logins=Hardcoded([("user", "pass")]),
        recipients="local",
    )
    peer = Peer("c1", "192.0.2.1", 50000, "192.0.2.2", 25)

    def ask(event: events.Event, accepted: int) -> Reply:
        match event:
            case events.Connected():
                return rules.connected(peer)
            case events.Hello():
                return rules.hello(peer)
            case events.Credentials():
                return asyncio.run(rules.credentials(peer, event.username, event.password))
            case events.MailFrom():
                return rules.sender(peer, event)
            case events.RcptTo():
                answer = rules.recipient(peer, event, accepted)
                return reply.RECIPIENT_OK if isinstance(answer, Recipient) else answer
            case events.DataRequested():
                return rules.data(peer)
            case events.StartTls():
                return reply.READY_FOR_TLS
            case _:
                return reply.OK

    return ask


def house(folder: Path, policy: NewlinePolicy = "refuse", *, tls: bool = False) -> House:
    rules = Rules(HOST, newlines=policy, starttls=True, auth=True, dsn=True)
    return House(rules, gate(folder), tls=tls, auth_in_clear=True)


def wanted_content(sent: bytes, policy: NewlinePolicy) -> bytes:
    """A message as it must come out, told line by line."""
    lines = sent.removesuffix(b".\r\n").split(b"\r\n")
    content = b"\r\n".join(line.removeprefix(b".") for line in lines)
    if policy != "repair":
        return content
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def test_every_case_of_the_file_is_judged() -> None:
    assert CASES.keys() == ALLOWED.keys() | BY_PROGRAM
    assert len(CASES) == 68


@pytest.mark.parametrize(("policy", "tls"), WAYS)
@pytest.mark.parametrize("case", ALLOWED)
def test_a_wire_case_gets_what_it_must(
    case: str, policy: NewlinePolicy, tls: bool, tmp_path: Path
) -> None:
    served = house(tmp_path, policy, tls=tls)
    assert served.codes() == [220]
    steps = [unescape(step) for step in CASES[case]["steps"]]
    *before, matter = steps[:-1] if steps[1:] and steps[-1] == b"NOOP\r\n" else steps

    first = [code for step in before for code in served.codes(step)]
    answered = served.codes(matter)

    refused = [code for code in first if code >= 400]
    assert refused == ([REFUSED_BEFORE[case]] if case in REFUSED_BEFORE else [])
    assert len(answered) == 1
    assert answered[0] in ALLOWED[case]
    assert served.codes(b"NOOP\r\n") == [250]
    body = before[-1:] == [b"DATA\r\n"]
    wanted = [wanted_content(matter, policy)] if body and answered == [250] else []
    wanted += [b"hello"] if case == "S091" else []
    assert [each.content for each in served.taken] == wanted


@pytest.mark.parametrize("case", ASKED)
def test_the_gate_is_asked_about_the_address_that_was_meant(case: str, tmp_path: Path) -> None:
    served = house(tmp_path)

    served.hear(*(unescape(step) for step in CASES[case]["steps"]))

    match served.events[-1]:
        case events.MailFrom(reverse_path=address) | events.RcptTo(recipient=address):
            assert address is not None
            assert address.written == ASKED[case]
        case other:
            pytest.fail(f"nobody was asked about: {other}")


# --- the cases that the file tells in words -----------------------------------------

ENVELOPE = b"EHLO c.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\n"


def test_s019_a_message_with_120_received_fields_leaves_the_session_standing(
    tmp_path: Path,
) -> None:
    served = house(tmp_path)
    trace = b"Received: from a by b; Fri, 20 Nov 2026 12:00:00 +0000\r\n" * 120

    codes = served.codes(ENVELOPE, b"DATA\r\n", trace + b"\r\nx\r\n.\r\n", b"NOOP\r\n")

    # Hops are counted where headers are read: not by the language.
    assert codes == [220, 250, 250, 250, 354, 250, 250]
    assert [each.content for each in served.taken] == [trace + b"\r\nx\r\n"]


def test_s105_what_is_injected_behind_starttls_is_not_answered_inside(tmp_path: Path) -> None:
    served = house(tmp_path)

    clear = served.codes(b"EHLO c.example.org\r\n", b"STARTTLS\r\nNOOP injected\r\nEHLO evil\r\n")
    served.session.tls_started()
    silence = served.codes()

    assert clear == [220, 250, 220]
    assert silence == []
    assert served.codes(b"MAIL FROM:<a@example.org>\r\n", b"EHLO c\r\n") == [503, 250]


def test_s107_octets_that_are_no_handshake_are_not_commands(tmp_path: Path) -> None:
    served = house(tmp_path)

    codes = served.codes(b"EHLO c.example.org\r\n", b"STARTTLS\r\n", ENVELOPE, b"\x00\n" * 1000)

    assert codes == [220, 250, 220]


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"get", b"PROPFIND"])
def test_s109_http_runs_no_line_of_its_body(method: bytes, tmp_path: Path) -> None:
    served = house(tmp_path)

    codes = served.codes(
        method + b" / HTTP/1.1\r\nHost: mx.example.test:25\r\nContent-Length: 200\r\n\r\n",
        ENVELOPE + b"DATA\r\nx\r\n.\r\n",
    )

    assert codes[-1] == 421
    assert set(codes[1:]) <= {421, 500}
    assert served.session.closed
    assert [type(event) for event in served.events] == [events.Connected]


def test_s111_a_tls_hello_on_the_plain_port_is_hung_up_on(tmp_path: Path) -> None:
    served = house(tmp_path)

    codes = served.codes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))

    assert codes == [220, 421]
    assert served.session.closed


def test_s113_recipients_above_the_limit_get_452_and_those_before_stand(tmp_path: Path) -> None:
    served = house(tmp_path)
    served.hear(ENVELOPE)

    codes = served.codes(b"RCPT TO:<b@example.test>\r\n" * 1499)

    assert codes == [250] * 999 + [452] * 500
    assert served.said[-1][0].startswith("452 4.5.3 ")
    assert served.codes(b"DATA\r\n", b".\r\n") == [354, 250]
    assert [len(each.recipients) for each in served.taken] == [1000]


@pytest.mark.parametrize(
    ("before", "codes"),
    [
        (b"EHLO c.example.org\r\n", [500]),
        (b"EHLO c.example.org\r\nAUTH PLAIN\r\n", [500]),
        (ENVELOPE + b"DATA\r\n", []),
    ],
    ids=["command", "response", "message"],
)
def test_s115_ten_megabytes_without_a_newline_stay_out_of_memory(
    before: bytes, codes: list[int], tmp_path: Path
) -> None:
    rules = Rules(HOST, max_size=1_000_000, auth=True)
    served = House(rules, gate(tmp_path), auth_in_clear=True)
    served.hear(before)
    block = b"A" * 100_000
    tracemalloc.start()
    try:
        silence = [code for _ in range(100) for code in served.codes(block)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert silence == []
    # A message may grow to its limit (the house keeps it), a line to its own.
    assert peak < 4_000_000
    assert served.codes(b"\r\n") == codes


@pytest.mark.parametrize("newlines", ["refuse", "carry", "repair"])
def test_s117_a_session_in_one_packet_is_one_message(
    newlines: NewlinePolicy, tmp_path: Path
) -> None:
    served = house(tmp_path, newlines)

    codes = served.codes(ENVELOPE + b"DATA\r\nSubject: t\r\n\r\nx\r\n.\r\nQUIT\r\n")

    assert codes == [220, 250, 250, 250, 354, 250, 221]
    assert [each.content for each in served.taken] == [b"Subject: t\r\n\r\nx\r\n"]
