"""The rules, asked as a conversation asks them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mailgw.gate.credentials import CannotTell, Hardcoded
from mailgw.gate.gate import Gate
from mailgw.gate.guesses import Guesses
from mailgw.gate.recipients import LocalAddresses
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Recipient
from mailgw.observe import log
from mailgw.smtp import reply
from mailgw.smtp.address import Address
from mailgw.smtp.events import MailFrom, RcptTo
from mailgw.smtp.reply import Refusal, Reply

STRANGER = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25)
ANNA = replace(STRANGER, user="anna")
BOB = Address("bob", "ours.test")
NOBODY = Address("nobody", "listed.test")
FOREIGN = Address("x", "elsewhere.test")
POSTMASTER = Address("postmaster", "")
LOGINS = Hardcoded([("anna", "opensesame")])


@pytest.fixture
def locals_(tmp_path: Path) -> LocalAddresses:
    path = tmp_path / "locals"
    path.write_text("@ours.test\nexact joe@listed.test\n")
    return LocalAddresses.load(path)


@pytest.fixture
def gate(locals_: LocalAddresses) -> Gate:
    return Gate("mx.ours.test", locals_, max_recipients=100, trouble=lambda: None)


def test_what_is_announced_and_nobody_would_take_is_refused_before_it_is_sent(gate: Gate) -> None:
    limited = replace(gate, largest=lambda: 1000)

    assert limited.sender(STRANGER, MailFrom(BOB, size=1001)) == reply.TOO_BIG
    assert limited.sender(STRANGER, MailFrom(BOB, size=1000)) == reply.SENDER_OK
    assert gate.sender(STRANGER, MailFrom(BOB, size=10**12)) == reply.SENDER_OK


def test_everybody_gets_a_banner_with_our_name(gate: Gate) -> None:
    assert gate.connected(STRANGER).wire == b"220 mx.ours.test ESMTP mailgw\r\n"
    assert gate.hello(STRANGER).positive


@pytest.mark.parametrize(("address", "local"), [(BOB, True), (FOREIGN, False), (POSTMASTER, True)])
def test_anybody_may_write_to_any_address_by_default(
    gate: Gate, address: Address, local: bool
) -> None:
    asked = RcptTo(address, notify="NEVER", orcpt="rfc822;a@b.test")
    answer = gate.recipient(STRANGER, asked, 0)
    assert answer == Recipient(address, local, "NEVER", "rfc822;a@b.test")


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        (BOB, Recipient(BOB, True)),
        (POSTMASTER, Recipient(POSTMASTER, True)),
        (NOBODY, reply.NO_SUCH_RECIPIENT),
        (FOREIGN, reply.RELAY_DENIED),
    ],
)
def test_strangers_are_held_to_local_addresses(
    gate: Gate, address: Address, answer: Recipient | Reply
) -> None:
    strict = replace(gate, recipients="local")
    assert strict.recipient(STRANGER, RcptTo(address), 0) == answer


@pytest.mark.parametrize("recipients", ["any", "local"])
@pytest.mark.parametrize("address", [BOB, NOBODY, FOREIGN])
def test_who_is_authenticated_may_write_to_any_address(
    gate: Gate, address: Address, recipients: str
) -> None:
    strict = replace(gate, recipients=recipients, logins=LOGINS)
    answer = strict.recipient(ANNA, RcptTo(address), 0)
    assert answer == Recipient(address, local=address is BOB)


@pytest.mark.parametrize(
    ("address", "answer"),
    [(BOB, Recipient(BOB, True)), (FOREIGN, reply.AUTH_REQUIRED), (NOBODY, reply.AUTH_REQUIRED)],
)
def test_with_a_login_strangers_may_write_to_local_addresses_only(
    gate: Gate, address: Address, answer: Recipient | Reply
) -> None:
    with_login = replace(gate, logins=LOGINS)
    assert with_login.recipient(STRANGER, RcptTo(address), 0) == answer


def test_without_a_list_no_address_is_local(gate: Gate) -> None:
    bare = replace(gate, locals=LocalAddresses.empty())
    assert bare.recipient(STRANGER, RcptTo(POSTMASTER), 0) == Recipient(POSTMASTER)
    held = replace(bare, recipients="local")
    assert held.recipient(STRANGER, RcptTo(BOB), 0) == reply.RELAY_DENIED


@pytest.mark.parametrize(
    "address",
    [
        Address("bob%elsewhere.test", "evil.test"),
        Address('"bob@ours.test"', "evil.test"),
        Address("ours.test!bob", "evil.test"),
        Address("bob", "ours.test.evil.test"),
        Address("bob", "notours.test"),
    ],
)
def test_an_address_that_only_looks_local_is_not(gate: Gate, address: Address) -> None:
    held = replace(gate, recipients="local")
    assert held.recipient(STRANGER, RcptTo(address), 0) == reply.RELAY_DENIED


@pytest.mark.parametrize("address", [BOB, FOREIGN, NOBODY])
def test_the_recipient_behind_the_last_is_refused_for_now(gate: Gate, address: Address) -> None:
    assert isinstance(gate.recipient(STRANGER, RcptTo(address), 99), Recipient)
    assert gate.recipient(STRANGER, RcptTo(address), 100) == reply.TOO_MANY_RECIPIENTS


@pytest.mark.parametrize("trouble", [reply.TRY_AGAIN, reply.STORAGE_FULL])
def test_what_would_fail_is_said_before_the_message_is_sent(gate: Gate, trouble: Reply) -> None:
    now = iter([None, None, trouble, trouble])
    troubled = replace(gate, trouble=lambda: next(now))
    assert troubled.sender(STRANGER, MailFrom(BOB)) == reply.SENDER_OK
    assert troubled.data(STRANGER) == reply.START_DATA
    assert troubled.sender(STRANGER, MailFrom(BOB)) == trouble
    assert troubled.data(STRANGER) == trouble


@pytest.mark.parametrize(
    ("username", "password", "answer"),
    [
        ("anna", "öffne dich", reply.AUTHENTICATED),
        ("anna", "öffne", reply.AUTH_FAILED),
        ("anna", "", reply.AUTH_FAILED),
        ("Anna", "öffne dich", reply.AUTH_FAILED),
        ("", "öffne dich", reply.AUTH_FAILED),
        ("bob", "wrong", reply.AUTH_FAILED),
    ],
)
async def test_credentials(gate: Gate, username: str, password: str, answer: Reply) -> None:
    with_login = replace(gate, logins=Hardcoded([("anna", "öffne dich")]))
    assert await with_login.credentials(STRANGER, username, password) == answer


async def test_without_a_login_nobody_is_let_in(gate: Gate) -> None:
    assert await gate.credentials(STRANGER, "anna", "opensesame") == reply.AUTH_FAILED


class Away:
    """A source of logins that cannot be asked."""

    closed = False

    async def verify(self, _username: str, _password: str) -> bool:
        raise CannotTell("db7.ours.test is away")

    async def close(self) -> None:
        self.closed = True


async def test_who_cannot_be_looked_up_hears_no_no(
    gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    log.to_stderr()
    answer = await replace(gate, logins=Away()).credentials(STRANGER, "anna", "opensesame")
    assert answer.wire == b"454 4.7.0 Temporary authentication failure\r\n"
    log.direct([])
    [line] = capfd.readouterr().err.splitlines()
    assert 'auth.unavailable id=c1 reason="db7.ours.test is away"' in line


async def test_guessing_has_an_end_even_where_the_last_guess_is_right(gate: Gate) -> None:
    guarded = replace(gate, logins=LOGINS, guesses=Guesses(2))
    for _ in range(2):
        assert await guarded.credentials(STRANGER, "anna", "wrong") == reply.AUTH_FAILED
    with pytest.raises(Refusal) as refused:
        await guarded.credentials(STRANGER, "anna", "opensesame")
    assert refused.value.reply.wire.startswith(b"421 4.7.0 ")


async def test_closing_closes_the_source_of_logins(gate: Gate) -> None:
    source = Away()
    await replace(gate, logins=source).close()
    await gate.close()
    assert source.closed
