"""Octets that nobody thought of: a few in every run, many behind the soak marker.

A strategy is a grammar that is broken on purpose: words of the language in any order,
with noise between them. What once failed is an explicit test in the room it failed in.
"""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, seeds
from mailgw.mail.headers import header_end, read_fields
from signers import MAIL

_noise = st.binary(max_size=24)


def _words(*words: bytes) -> st.SearchStrategy[bytes]:
    """Any of them, or noise, one after the other."""
    word = st.one_of(st.sampled_from(words), st.sampled_from(words), _noise)
    return st.lists(word, max_size=24).map(b"".join)


_SESSION = _words(
    *(b"EHLO a.test\r\n", b"HELO b\r\n", b"EHLO \r\n", b"NOOP\r\n", b"RSET\r\n", b"QUIT\r\n"),
    *(b"MAIL FROM:<joe@there.test>", b"MAIL FROM:<>", b"RCPT TO:<bob@ours.test>", b" SIZE=9"),
    *(b" BODY=8BITMIME", b" SMTPUTF8", b" RET=FULL", b" NOTIFY=NEVER", b" X=", b"DATA\r\n"),
    *(b"\r\n.\r\n", b"\n.\n", b"\r.\r", b"\r\n..", b".", b"\r\n", b"\r", b"\n", b"\0", b"\xc3\xa9"),
    *(b"BDAT 5\r\nhello", b"BDAT 0 LAST\r\n", b"BDAT 9", b" LAST", b"BDAT 18446744073709551616"),
    *(b"AUTH PLAIN ", b"AUTH LOGIN\r\n", b"AHVzZXIAcGFzcw==", b"=", b"*\r\n", b"STARTTLS\r\n"),
    *(b"x" * 2050, b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"),
)
_PROXY = _words(
    *(b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"192.0.2.7 ", b"::1 ", b"65535", b" 25", b"\r\n"),
    *(b"\r\n\r\n\0\r\nQUIT\n", b"\x21", b"\x20", b"\x11", b"\x21\x11", b"\x00\x0c", b"\x00\x24"),
    *(b"\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x40\x00\x19", b"\x02\x00\x03abc", b"\x03\x00\x04"),
)
_MESSAGE = _words(
    *(b"Subject: x\r\n", b"Received: x\r\n", b"received :\r\n", b" folded\r\n", b"\tfolded\n"),
    *(b"x-mq-", b"X-MQ-Tag: ", b"x-mq-ip: 192.0.2.1", b"x-mq-envelope: <a@b.c>", b"x-mq-mime: x"),
    *(b"x-mq-priority: 300", b"x-mq-dsn-notify: NEVER", b"x-mq-__proto__: x", b"x-mq-: y"),
    *(
        b"name",
        b":",
        b" ",
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
        b"\0",
        b"\xff",
        b"\xe2\x80",
    ),
    *(b"x" * 200, b"From joe Mon\r\n", b"\xed\xa0\x80", "\u0433\u0440üße 世界".encode(), b'"\\'),
)
_REPORT = _words(
    *(b"From: MAILER-DAEMON@a.test\r\n", b"Subject: Report Domain: a\r\n", b"--b\r\n", b"--b--"),
    *(b"Content-Type: multipart/report; boundary=b", b"; report-type=", b"delivery-status\r\n"),
    *(b"feedback-report\r\n", b"tlsrpt\r\n", b"disposition-notification\r\n", b"\r\n", b"\r\n\r\n"),
    *(b"Content-Type: message/", b"Content-Type: application/tlsrpt+json\r\n", b"text/html"),
    *(b"Content-Transfer-Encoding: base64\r\n", b"Content-Type: application/gzip\r\n", b"\x1f\x8b"),
    *(b"Final-Recipient: rfc822; a@b.c\r\n", b"Status: 5.1.1\r\n", b"Feedback-Type: abuse\r\n"),
    *(b"Disposition: a/b; deleted\r\n", b"<feedback>", b"<record>", b"</record>", b"</feedback>"),
    *(b'{"policies":[', b'{"policy":', b'"x"', b"]}", b"1e999", b"<a@b.c>: 550 no such user\r\n"),
    *(b"\\x{D800}", b"=?utf-8?b?/w==?=", b"&amp", b"PK\x03\x04", b"H4sIAAAAAAAC/w==", b"<!DOCTYPE"),
)
_RESULTS = _words(
    *(b"Authentication-Results: ", b"authentication-results:", b"mx.ours.test", b"other.test"),
    *(
        b";",
        b" dkim=pass",
        b" header.d=a.test",
        b"(",
        b")",
        b'"',
        b"\\",
        b" 1",
        b"\r\n",
        b"\r\n ",
        b".",
    ),
    *(
        b"joe@a.test",
        b"=",
        b",",
        b"Subject: x\r\n",
        b"\r\n\r\n",
        b"x" * 330,
        b"\xc3\xa9",
        b"'",
        b"/1",
    ),
)
_AUTHORS = _words(
    *(
        b"From:",
        b"From : ",
        b" From: ",
        b"from\0:",
        b"X: y\r\n",
        b"a@b.test",
        b"c@d.test",
        b"<",
        b">",
    ),
    *(
        b",",
        b";",
        b":",
        b'"',
        b"(",
        b")",
        b"\\",
        b"@",
        b".",
        b" ",
        b"\r\n",
        b"\r\n ",
        b"\r",
        b"\n",
        b"\0",
    ),
    *(
        b"=?utf-8?q?a=40b.test?=",
        "köln.test".encode(),
        b"\xe3\x80\x82",
        b"xn--",
        b"a" * 70,
        b"[1.2.3.4]",
    ),
)


def _fields(name: str) -> list[bytes]:
    """The fields that the target is seeded with, and the tags of those that have some."""
    found: list[bytes] = []
    for octets in seeds(name):
        fields = [each.raw for each in read_fields(octets)]
        found += fields
        found += [tag + b";" for each in fields if b";" in each for tag in each.split(b";")]
    return [*found, MAIL[header_end(MAIL) :], MAIL, b"\r\n"]


def _damaged(name: str) -> st.SearchStrategy[bytes]:
    """A seed with something in it that was not there."""
    return st.builds(
        lambda octets, where, gap, inside: (
            octets[: int(where * len(octets))] + inside + octets[int(where * len(octets)) + gap :]
        ),
        st.sampled_from(list(seeds(name))),
        st.floats(0, 1),
        st.integers(0, 9),
        st.one_of(_noise, st.sampled_from(_fields(name))),
    )


GRAMMAR = {
    "session": st.builds(
        lambda choice, said: bytes([choice]) + said, st.integers(0, 255), _SESSION
    ),
    "proxy": _PROXY,
    "headers": _MESSAGE,
    "extraction": _MESSAGE,
    "document": _MESSAGE,
    "reports": st.deferred(lambda: _REPORT | _damaged("reports")),
    "results": st.deferred(lambda: _RESULTS | _damaged("results")),
    # Keys are made when they are wanted.
    "signatures": st.deferred(
        lambda: (
            st.lists(st.sampled_from(_fields("signatures")), max_size=12).map(b"".join)
            | _damaged("signatures")
        )
    ),
    "authors": st.deferred(lambda: _AUTHORS | _damaged("authors")),
}
# Octets that caches may grow by; a leak of a small object in each run is more.
_KEPT = 10_000


@pytest.mark.parametrize("name", TARGETS)
def test_what_it_is_seeded_with_is_understood(name: str) -> None:
    for octets in seeds(name):
        TARGETS[name](octets)


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_hundred_of_what_nobody_thought_of(name: str) -> None:
    _fuzz(name, 250)


@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_very_many_and_memory_stays_where_it_was(name: str) -> None:
    _every_cut(name)
    tracemalloc.start()
    try:
        # What is kept for the next time (free lists, caches) is there after a few.
        for _ in range(4):
            _held_after(name)
        before = _held_after(name)
        assert _held_after(name) - before < _KEPT
    finally:
        tracemalloc.stop()
    _fuzz(name, 20_000)


def _held_after(name: str) -> int:
    """Octets that are held after one more run over every cut."""
    _every_cut(name)
    # A refusal and its traceback hold each other until they are collected.
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _every_cut(name: str) -> None:
    for octets in seeds(name):
        for cut in range(len(octets)):
            TARGETS[name](octets[:cut])


def _fuzz(name: str, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(GRAMMAR[name])
    def run(octets: bytes) -> None:
        TARGETS[name](octets)

    run()
