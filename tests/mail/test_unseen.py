"""Which transactions are the same one, sent again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.mail.unseen import fingerprint
from mailgw.smtp.address import Address

PEER = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25, helo="client.test", esmtp=True)
JOE = Address("joe", "there.test")
BOB, EVE = Recipient(Address("bob", "ours.test")), Recipient(Address("eve", "ours.test"))


def kept(content: bytes) -> Spool:
    spool = Spool(1_000_000)
    spool.write(content)
    return spool


def message(
    content: bytes = b"Subject: hello\r\n\r\n",
    peer: Peer = PEER,
    reverse_path: Address | None = JOE,
    recipients: tuple[Recipient, ...] = (BOB, EVE),
    name: str = "1a",
    ret: str = "",
    envid: str = "",
    smtputf8: bool = False,
) -> Message:
    return Message(
        name,
        peer,
        reverse_path,
        recipients,
        kept(content),
        datetime(2026, 1, 2, tzinfo=UTC),
        smtputf8,
        False,
        ret,
        envid,
    )


def test_the_same_mail_over_another_connection_is_the_same() -> None:
    later = Peer("c2", "192.0.2.7", 40001, "192.0.2.2", 2525, esmtp=True)

    assert fingerprint(message(peer=later, name="1b")) == fingerprint(message())


@pytest.mark.parametrize(
    "other",
    [
        message(b"Subject: hello \r\n\r\n"),
        message(peer=Peer("c1", "192.0.2.8", 40000, "192.0.2.1", 25)),
        message(peer=Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25, user="anna")),
        message(reverse_path=None),
        message(reverse_path=Address("jo", "there.test")),
        message(recipients=(BOB,)),
        message(recipients=(EVE, BOB)),
        message(recipients=(BOB, replace(EVE, local=True))),
        message(recipients=(BOB, replace(EVE, notify="NEVER"))),
        message(recipients=(BOB, replace(EVE, orcpt="rfc822;eve@ours.test"))),
        message(ret="HDRS"),
        message(envid="QQ314159"),
        message(smtputf8=True),
    ],
)
def test_whatever_the_documents_would_tell_apart_is_another_mail(other: Message) -> None:
    assert fingerprint(other) != fingerprint(message())


TEXT = st.text(max_size=8)


@given(st.tuples(TEXT, TEXT, TEXT, TEXT), st.tuples(TEXT, TEXT, TEXT, TEXT))
def test_no_text_runs_into_the_next_one(
    one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    def said(texts: tuple[str, str, str, str]) -> bytes:
        notify, orcpt, ret, envid = texts
        to = replace(BOB, notify=notify, orcpt=orcpt)
        return fingerprint(message(recipients=(to,), ret=ret, envid=envid))

    assert (said(one) == said(other)) is (one == other)


@given(st.text(alphabet=st.characters(), max_size=20))
def test_no_text_makes_it_raise(text: str) -> None:
    assert fingerprint(message(envid=text + "\udc80", ret=text)) != b""
