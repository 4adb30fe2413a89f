"""x-mq-* fields: trust, types, names, and the octets that go with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from document.world import EVERYBODY, PEER, Ranges, Trust
from mailgw.document.extract import LONGEST_VALUE, MOST_VALUES, extract
from mailgw.mail.headers import header_end, read_fields

BODY = b"\r\nx-mq-tag: body\r\n"
MARKED = b"From: a@b.test\r\nX-MQ-Tag: t\r\nX-MQ-Envelope: evil@x.test\r\n" + BODY
UNMARKED = b"From: a@b.test\r\n" + BODY


def requested(header: bytes) -> dict[str, Any]:
    found = extract(header + BODY, PEER, EVERYBODY)
    assert found.rejected == ()
    asked: dict[str, Any] = msgspec.to_builtins(found.requested)
    return asked


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        (b"x-mq-ip: 10.11.12.13\r\n", {"ips": ["10.11.12.13"]}),
        (b"x-mq-ip: 10.0.0.2\r\nx-mq-ip: 10.0.0.1\r\n", {"ips": ["10.0.0.2", "10.0.0.1"]}),
        (b"x-mq-ip: 2001:DB8::0001\r\n", {"ips": ["2001:db8::1"]}),
        (b"x-mq-pool: fast\r\n", {"pool": "fast"}),
        (b"x-mq-tag: b\r\nX-MQ-TAG: a\r\nx-mq-tag: b\r\n", {"tags": ["b", "a", "b"]}),
        (
            b"x-mq-delayed: 2024-02-29 23:59:59\r\n",
            {"nextattempt": {"time": "2024-02-29 23:59:59"}},
        ),
        (
            b"x-mq-maxdelivertime: 2024-02-29 23:59:59\r\n",
            {"maxdelivertime": "2024-02-29 23:59:59"},
        ),
        (b"x-mq-maxattempts: 3\r\n", {"maxattempts": 3}),
        (b"x-mq-retries: 60, 600,3600\r\n", {"retries": [60, 600, 3600]}),
        (b"x-mq-inlinecss: 1\r\n", {"inlinecss": True}),
        (b"x-mq-inlinecss: False\r\n", {"inlinecss": False}),
        (b"x-mq-keepmime: true\r\n", {"keepmime": True}),
        (b"x-mq-force: 0\r\n", {"force": False}),
        (b"x-mq-priority: 255\r\n", {"priority": 255}),
        (b"x-mq-results-queue: r\r\n", {"queues": {"results": "r"}}),
        (
            b"x-mq-failure-queue: f\r\nx-mq-success-queue: s\r\n"
            b"x-mq-retry-queue: r\r\nx-mq-dsn-queue: d\r\n",
            {"queues": {"failure": "f", "success": "s", "retry": "r", "dsn": "d"}},
        ),
        (
            b"x-mq-smarthost-hostname: out.test\r\nx-mq-smarthost-port: 587\r\n"
            b"x-mq-smarthost-username: u\r\nx-mq-smarthost-password: p\r\n",
            {
                "smarthost": {
                    "hostname": "out.test",
                    "port": 587,
                    "username": "u",
                    "password": "p",
                }
            },
        ),
        (b"x-mq-smarthost-name: out.test\r\n", {"smarthost": {"hostname": "out.test"}}),
        (b"X-Mq-Pool : fast\n", {"pool": "fast"}),
        (b"x-mq-pool:\r\n fast\r\n\tlane\r\n", {"pool": "fast\tlane"}),
        (b"!! broken\r\nFrom a Mon 10:00\r\nx-mq-pool: fast\r\n", {"pool": "fast"}),
    ],
)
def test_a_header_becomes_its_typed_property(header: bytes, asked: dict[str, Any]) -> None:
    assert requested(header) == asked


@pytest.mark.parametrize(
    ("header", "custom"),
    [
        (b"X-MQ-Custom-Identifier: my-id\r\n", {"custom-identifier": "my-id"}),
        (b"x-mq-a:\r\n", {"a": ""}),
        (b"x-mq-a: caf\xc3\xa9\r\n", {"a": "café"}),
        # Taken as written: decoding could bring in what the field could not hold.
        (b"x-mq-a: =?utf-8?q?a=0D=0Ab?=\r\n", {"a": "=?utf-8?q?a=0D=0Ab?="}),
        (b"x-mq-a: one\r\nx-mq-b: two\r\n", {"a": "one", "b": "two"}),
        (b"x-mq-security: 1\r\nx-mq-data: {}\r\n", {"security": "1", "data": "{}"}),
    ],
)
def test_an_unknown_name_becomes_a_string(header: bytes, custom: dict[str, str]) -> None:
    found = extract(header + BODY, PEER, EVERYBODY)

    assert (found.custom, found.rejected) == (custom, ())


@pytest.mark.parametrize(
    ("value", "envelope"),
    [
        (b"bounce@sender.test", "bounce@sender.test"),
        (b"<bounce@sender.test>", "bounce@sender.test"),
        (b"bounce@xn--bcher-kva.test", "bounce@bücher.test"),
    ],
)
def test_the_envelope_is_an_address_in_its_published_form(value: bytes, envelope: str) -> None:
    found = extract(b"x-mq-envelope: " + value + b"\r\n" + BODY, PEER, EVERYBODY)

    assert (found.envelope, found.rejected) == (envelope, ())


def test_dsn_headers_are_kept_as_written() -> None:
    found = extract(
        b"X-MQ-DSN-Notify: FAILURE,DELAY\r\nx-mq-dsn-ret: hdrs\r\n"
        b"x-mq-dsn-orcpt: rfc822;a@b.test\r\nx-mq-dsn-envid: e1\r\n" + BODY,
        PEER,
        EVERYBODY,
    )

    assert msgspec.to_builtins(found.dsn) == {
        "notify": "FAILURE,DELAY",
        "ret": "hdrs",
        "orcpt": "rfc822;a@b.test",
        "envid": "e1",
    }


@pytest.mark.parametrize(
    "header",
    [
        b"x-mq-ip: 10.11.12",
        b"x-mq-ip: 10.0.0.1, 10.0.0.2",
        b"x-mq-ip: fe80::1%eth0",
        b"x-mq-tag:",
        b"x-mq-delayed: 2024-02-30 00:00:00",
        b"x-mq-delayed: 2024-02-28T00:00:00",
        b"x-mq-delayed: tomorrow",
        b"x-mq-maxdelivertime: 2024-2-8 00:00:00",
        b"x-mq-maxattempts: -1",
        b"x-mq-maxattempts: 3.5",
        b"x-mq-maxattempts: \xd9\xa3",
        b"x-mq-maxattempts: 99999999999999999999",
        b"x-mq-retries: 60,,600",
        b"x-mq-retries: 60,soon",
        b"x-mq-retries: " + b"1," * 200 + b"1",
        b"x-mq-inlinecss: maybe",
        b"x-mq-priority: 256",
        b"x-mq-smarthost-port: 0",
        b"x-mq-smarthost-port: smtp",
        b"x-mq-results-queue:",
        b"x-mq-envelope: nobody",
        b"x-mq-envelope: <>",
        b"x-mq-envelope: postmaster",
        b"x-mq-envelope: a@b.test, c@d.test",
        b"x-mq-envelope: Alice <a@b.test>",
        b"x-mq-custom: nul \x00",
        b"x-mq-custom: escape \x1b[2J",
        b"x-mq-custom: bare \r return",
        b"x-mq-custom: latin1 \xe9",
        b"x-mq-custom: " + b"a" * (LONGEST_VALUE + 1),
        b"x-mq-" + b"a" * 101 + b": long name",
    ],
    ids=lambda header: repr(header[:40]),
)
def test_a_value_that_cannot_be_is_dropped_reported_and_stripped(header: bytes) -> None:
    found = extract(header + b"\r\n" + BODY, PEER, EVERYBODY)

    name = header.partition(b":")[0].decode()
    assert found == replace(extract(BODY, PEER, EVERYBODY), rejected=(name[:100],))


@pytest.mark.parametrize(
    "name",
    [
        *("mime", "mime-size", "mime-sha256", "mime-encoding", "mime-anything", "key"),
        *("recipient", "message-id", "transaction-id", "connection", "checks", "received"),
        *("hostname", "dedupe", "decision", "report", "domain", "results", "queues", "ips"),
        *("tags", "dsn", "smarthost", "nextattempt", "seen", "forcedip", "headers"),
        *("", "__class__", "__proto__", "-", "$ref", "a{b}", "a|b"),
    ],
)
def test_a_reserved_or_odd_name_is_never_written(name: str) -> None:
    found = extract(f"X-MQ-{name}: forged\r\n".encode() + BODY, PEER, EVERYBODY)

    assert found == replace(extract(BODY, PEER, EVERYBODY), rejected=(f"x-mq-{name}",))


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        (b"x-mq-pool: first\r\nx-mq-pool: second\r\n", {"pool": "first"}),
        (b"x-mq-pool:\r\nx-mq-pool: second\r\n", {"pool": "second"}),
        (b"x-mq-priority: high\r\nx-mq-priority: 7\r\nx-mq-priority: 9\r\n", {"priority": 7}),
        (b"x-mq-retries: 1,2\r\nx-mq-retries: 3\r\n", {"retries": [1, 2]}),
    ],
)
def test_the_first_good_value_counts_and_the_others_are_reported(
    header: bytes, asked: dict[str, Any]
) -> None:
    found = extract(header + BODY, PEER, EVERYBODY)

    assert msgspec.to_builtins(found.requested) == asked
    assert found.rejected == (header.partition(b":")[0].decode(),)


AUTHENTICATED = replace(PEER, user="alice")
NEIGHBOUR = Trust("networks", Ranges("198.51.100.0/24"))
ELSEWHERE = Trust("networks", Ranges("203.0.113.0/24", "2001:db8::/32"))


@pytest.mark.parametrize(
    ("policy", "peer"),
    [
        (EVERYBODY, PEER),
        (Trust("authenticated"), AUTHENTICATED),
        (NEIGHBOUR, PEER),
        (NEIGHBOUR, AUTHENTICATED),
    ],
)
def test_a_trusted_client_is_read_and_its_fields_stripped(policy: Trust, peer: Any) -> None:
    found = extract(MARKED, peer, policy)

    assert (found.content, found.requested.tags) == (UNMARKED, ["t"])
    assert found.envelope == "evil@x.test"


@pytest.mark.parametrize(
    ("policy", "peer"),
    [
        (Trust("authenticated"), PEER),
        (ELSEWHERE, PEER),
        (ELSEWHERE, AUTHENTICATED),
        # The proxy is a neighbour, the client behind it is not.
        (ELSEWHERE, replace(PEER, proxy_ip="203.0.113.1")),
    ],
)
def test_a_strangers_fields_are_stripped_unread(policy: Trust, peer: Any) -> None:
    found = extract(MARKED, peer, policy)

    assert found == extract(UNMARKED, peer, policy)
    assert (found.content, found.envelope, found.rejected) == (UNMARKED, None, ())


def test_with_nobody_trusted_nothing_is_read_and_nothing_removed() -> None:
    found = extract(MARKED, AUTHENTICATED, Trust("nobody"))

    assert found == replace(extract(b"", PEER, EVERYBODY), content=MARKED)


@pytest.mark.parametrize(
    ("content", "stripped"),
    [
        (b"", b""),
        (b"\r\nx-mq-tag: t\r\n", b"\r\nx-mq-tag: t\r\n"),
        (b"x-mq-tag: t", b""),
        (b"x-mq-tag: t\r\n", b""),
        (b"x-mq-tag: t\r\n\r\n", b"\r\n"),
        (b"A: 1\nx-mq-tag: t\n\nx-mq-tag: t", b"A: 1\n\nx-mq-tag: t"),
        (b"A: 1\r\nx-mq-tag: t\r\n x\r\n\ty\r\nB: 2\r\n\r\n", b"A: 1\r\nB: 2\r\n\r\n"),
        (b"From a Mon 10:00\r\nx-mq-tag: t\r\n\r\nb", b"From a Mon 10:00\r\n\r\nb"),
        (b"no colon\r\nx-mq-tag: t\r\n\r\nb", b"no colon\r\n\r\nb"),
        (b" x-mq-tag: t\r\nA: 1\r\n\r\nb", b" x-mq-tag: t\r\nA: 1\r\n\r\nb"),
        (b"A: x-mq-tag: t\r\n\r\nb", b"A: x-mq-tag: t\r\n\r\nb"),
        (b"x-mqtag: t\r\nx-mq: t\r\n\r\nb", b"x-mqtag: t\r\nx-mq: t\r\n\r\nb"),
        (b"A: \xff\x00\rx-mq-tag: t\r\n\r\nb", b"A: \xff\x00\rx-mq-tag: t\r\n\r\nb"),
        (
            b'Content-Type: multipart/mixed; boundary="b"\r\nx-mq-tag: t\r\n\r\n'
            b"--b\r\nx-mq-tag: part\r\n\r\npart\r\n--b--\r\n",
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
            b"--b\r\nx-mq-tag: part\r\n\r\npart\r\n--b--\r\n",
        ),
    ],
    ids=lambda content: repr(content[:32]),
)
def test_stripping_takes_the_fields_of_the_header_block_alone(
    content: bytes, stripped: bytes
) -> None:
    assert extract(content, PEER, EVERYBODY).content == stripped


def test_ten_thousand_fields_bring_a_bounded_document_and_all_go() -> None:
    many = b"".join(b"X-MQ-N%d: v\r\n" % number for number in range(10_000))

    found = extract(many + UNMARKED, PEER, EVERYBODY)

    assert found.content == UNMARKED
    assert list(found.custom) == [f"n{number}" for number in range(MOST_VALUES)]
    assert found.rejected[0] == f"x-mq-n{MOST_VALUES}"
    assert len(found.rejected) == 50


def test_the_password_of_a_smarthost_does_not_show_in_a_repr() -> None:
    found = extract(b"x-mq-smarthost-password: s3cret\r\n" + BODY, PEER, EVERYBODY)

    assert found.requested.smarthost is not msgspec.UNSET
    assert "s3cret" not in repr(found)


LINES = st.lists(
    st.one_of(
        st.binary(max_size=20).map(lambda octets: octets + b"\r\n"),
        st.tuples(
            st.sampled_from([b"x-mq-", b"X-MQ-Tag", b"x-mq-pool ", b" x-mq-a", b"Subject"]),
            st.binary(max_size=20),
            st.sampled_from([b"\r\n", b"\n", b"\r\n folded\r\n", b""]),
        ).map(lambda parts: parts[0] + b":" + parts[1] + parts[2]),
    )
).map(b"".join)


@given(LINES)
def test_whatever_the_bytes_what_is_not_an_x_mq_field_stays(content: bytes) -> None:
    kept = b"".join(
        field.raw for field in read_fields(content) if not field.name.startswith("x-mq-")
    )

    found = extract(content, PEER, EVERYBODY)

    assert found.content == kept + content[header_end(content) :]


@pytest.mark.parametrize("offset", range(-6, 3))
def test_a_field_is_found_wherever_it_stands_in_a_long_header(offset: int) -> None:
    before = b"X: " + b"x" * (1024 * 1024 + offset - 5) + b"\r\n"

    found = extract(before + b"X-MQ-Tag: a\r\n\r\nbody", PEER, EVERYBODY)

    assert found.content == before + b"\r\nbody"
    assert found.requested.tags == ["a"]
