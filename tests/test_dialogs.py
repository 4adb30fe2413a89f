"""The conversations of `dialogs/`: however the bytes are cut, the same replies and mail."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import dialogue
from dialogue import BadDialogue, Dialogue, Mail
from mailgw.smtp import events, reply
from mailgw.smtp.extensions import Rules
from mailgw.smtp.reply import Reply
from smtp.house import HOST, House, open_gate, path

FOLDER = Path(__file__).parent / "dialogs"
FILES = sorted(file.stem for file in FOLDER.glob("*.smtp"))

# The word of a `gate: refuse` line -> what is refused, and what the address must be.
_SUBJECTS: dict[str, type[events.Event]] = {
    "connect": events.Connected,
    "hello": events.Hello,
    "starttls": events.StartTls,
    "mail": events.MailFrom,
    "rcpt": events.RcptTo,
    "data": events.DataRequested,
    "message": events.DataDone,
}
# Words of a `rules:` line that concern one client, not the listener.
_OF_THE_CLIENT = {"tls": "tls", "clear": "auth_in_clear"}

Cut = Callable[[bytes], Iterable[bytes]]


def house_of(spoken: Dialogue) -> House:
    """The house that the first lines of a dialogue describe."""
    rules: dict[str, Any] = {}
    client: dict[str, bool] = {}
    for word in spoken.rules:
        name, equals, value = word.partition("=")
        if word in _OF_THE_CLIENT:
            client[_OF_THE_CLIENT[word]] = True
        elif equals:
            rules[name] = int(value) if value.isdigit() else value
        else:
            rules[name] = True
    return House(Rules(HOST, **rules), partial(_ask, _refusals(spoken.gate)), **client)


Refused = dict[tuple[type[events.Event], str], Reply]


def _refusals(lines: Iterable[tuple[str, ...]]) -> Refused:
    refused: Refused = {}
    for line in lines:
        match line:
            case ("refuse", "mail" | "rcpt" as what, address, code, detail):
                refused[_SUBJECTS[what], f"<{address}>"] = Reply(int(code), detail, "No")
            case ("refuse", what, code, detail):
                refused[_SUBJECTS[what], ""] = Reply(int(code), detail, "No")
            case ("recipients", most):
                refused[events.RcptTo, most] = reply.TOO_MANY_RECIPIENTS
            case _:
                raise BadDialogue(f"gate: {line}")
    return refused


def _ask(refused: Refused, event: events.Event, accepted: int) -> Reply:
    key = ""
    match event:
        case events.MailFrom():
            key = path(event.reverse_path)
        case events.RcptTo():
            key = path(event.recipient)
    full = refused.get((type(event), str(accepted)))
    return refused.get((type(event), key)) or full or open_gate(event, accepted)


def by_line(sent: bytes) -> Iterable[bytes]:
    return sent.splitlines(keepends=True)


def at_once(sent: bytes) -> Iterable[bytes]:
    return (sent,)


def by_octet(sent: bytes) -> Iterable[bytes]:
    return (sent[at : at + 1] for at in range(len(sent)))


def at_random(seed: str, sent: bytes) -> Iterable[bytes]:
    source = random.Random(seed)
    places = sorted(source.choices(range(len(sent) + 1), k=source.randint(1, 40)))
    return (sent[a:b] for a, b in pairwise([0, *places, len(sent)]))


def assert_said(wanted: Iterable[dialogue.Reply], said: Sequence[dialogue.Reply]) -> None:
    wanted = list(wanted)
    same = [dialogue.matches(*both) for both in zip(wanted, said, strict=False)]
    told = f"wanted {wanted}\nbut heard {said}"
    assert all(same), told
    assert len(wanted) == len(said), told


def assert_taken(wanted: tuple[Mail, ...], house: House) -> None:
    got = [Mail(each.envelope, each.content) for each in house.taken]
    assert [each.envelope for each in got] == [each.envelope for each in wanted]
    for each, mail in zip(got, wanted, strict=True):
        assert mail.content in (None, each.content)


@pytest.mark.parametrize("name", FILES)
def test_a_dialogue_goes_as_written_turn_by_turn(name: str) -> None:
    spoken = dialogue.read(FOLDER / f"{name}.smtp")
    house = house_of(spoken)

    for turn in spoken.turns:
        if turn.handshake:
            house.session.tls_started()
        said = house.hear(*turn.sent)

        assert_said(turn.heard, said)
        assert house.session.closed == turn.closed
    assert_taken(spoken.messages, house)


CUTS: dict[str, Cut] = {
    "by line": by_line,
    "at once": at_once,
    "by octet": by_octet,
    **{f"at random {seed}": partial(at_random, str(seed)) for seed in range(4)},
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", FILES)
def test_a_dialogue_goes_the_same_however_its_octets_are_cut(name: str, cut: str) -> None:
    spoken = dialogue.read(FOLDER / f"{name}.smtp")
    house = house_of(spoken)

    # Nobody waits for a reply, not even for the banner; only a handshake parts the stream.
    for stretch in _stretches(spoken):
        if stretch[0].handshake:
            house.session.tls_started()
        house.hear(*CUTS[cut](b"".join(b"".join(turn.sent) for turn in stretch)))

    assert_said([each for turn in spoken.turns for each in turn.heard], house.said)
    assert house.session.closed == spoken.turns[-1].closed
    assert_taken(spoken.messages, house)


def _stretches(spoken: Dialogue) -> list[list[dialogue.Turn]]:
    stretches: list[list[dialogue.Turn]] = [[]]
    for turn in spoken.turns:
        if turn.handshake and stretches[-1]:
            stretches.append([])
        stretches[-1].append(turn)
    return stretches


def test_every_dialogue_says_why_it_is_there() -> None:
    without = [name for name in FILES if not (FOLDER / f"{name}.smtp").read_text().startswith("# ")]

    assert FILES
    assert without == []


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("250 *", "250 2.0.0 Ok"),
        ("250 *", "250-one\n250-two\n250 three"),
        ("250 2.0.0 *", "250 2.0.0 Ok"),
        ("250-one\n250 *", "250-one\n250-two\n250 three"),
        ("354 End *", "354 End data with <CR><LF>.<CR><LF>"),
    ],
)
def test_a_reply_that_was_wanted_is_recognised(wanted: str, said: str) -> None:
    assert dialogue.matches(tuple(wanted.split("\n")), tuple(said.split("\n")))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("250 *", "251 2.0.0 Ok"),
        ("250 2.0.0 *", "250 2.1.0 Ok"),
        ("250 Ok", "250 2.0.0 Ok"),
        ("250 one", "250-one\n250 two"),
        ("250-one\n250 two", "250 one"),
        ("250-one\n250-two\n250 *", "250-one\n250 two"),
        ("250-two\n250 *", "250-one\n250-two\n250 three"),
    ],
)
def test_another_reply_is_not_taken_for_the_one_that_was_wanted(wanted: str, said: str) -> None:
    assert not dialogue.matches(tuple(wanted.split("\n")), tuple(said.split("\n")))


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        (r"a\r\n.\x00\xff\\n", b"a\r\n.\x00\xff\\n"),
        ("<{A x 3}>", b"<AAA>"),
        (r"{ab\r\n x 2}c", b"ab\r\nab\r\nc"),
        ("ü", b"\xc3\xbc"),
    ],
)
def test_what_is_sent_knows_escapes(text: str, octets: bytes) -> None:
    assert dialogue.unescape(text) == octets


@pytest.mark.parametrize(
    "text",
    ["# nothing", "X: what", "S: 25", "S: 250-without its end", "C: a\nM: <a@x.test>", "hello"],
)
def test_a_file_that_is_no_dialogue_is_refused(text: str) -> None:
    with pytest.raises(BadDialogue):
        dialogue.parse(text)


def test_a_silent_house_and_an_extra_reply_are_noticed() -> None:
    banner: dialogue.Reply = ("220 mx.example.test ESMTP mailgw",)

    for wanted, said in [([banner], []), ([], [banner]), ([banner], [banner, banner])]:
        with pytest.raises(AssertionError):
            assert_said(wanted, said)
