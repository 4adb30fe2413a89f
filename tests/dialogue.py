r"""Conversations as files: what a client sends, what it must hear, what must come of it.

A line says by its first letters what it is:

    # why: the RFC section, the CVE
    rules: dsn max_size=1000      what the server offers; words are flags
    gate: refuse rcpt x@other.test 550 1.1
    C: EHLO client.example        sent, with CRLF
    R: EHLO client.exam           sent as it stands, without CRLF
    S: 250 *                      a reply; "*" takes the rest, however many lines
    S: (closed)                   the server has hung up
    T: (handshake)                TLS begins; what was sent before came in clear
    M: <a@x.test> -> <b@x.test> | Subject: t\r\n

`M:` lines stand for all messages that came of it, in order, with the parameters that
were given; "| *" is any content. What is sent knows the escapes \r \n \t \\ \xNN, and
{NOOP\r\n x 100} repeats; other text is UTF-8. Nothing may come that is not written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# The lines of one reply, without their CRLF.
Reply = tuple[str, ...]

_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|([rnt\\]))")
_REPEATED = re.compile(r"\{(.+?) x ([0-9]+)\}")
_LETTERS = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}


class BadDialogue(ValueError):
    """The file is not a dialogue; says which line."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What is sent, in as many pieces, and the replies that must come of it.

    `handshake` says that TLS begins in front of it.
    """

    sent: tuple[bytes, ...]
    heard: tuple[Reply, ...]
    handshake: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Mail:
    """A message that came of it: "<a@x.test> -> <b@x.test>", and its octets (None: any)."""

    envelope: str
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Dialogue:
    rules: tuple[str, ...]
    gate: tuple[tuple[str, ...], ...]
    turns: tuple[Turn, ...]
    messages: tuple[Mail, ...]


def read(path: Path) -> Dialogue:
    """Read one file; raises BadDialogue."""
    return parse(path.read_text("utf-8"))


def parse(text: str) -> Dialogue:
    """Read the text of a file; raises BadDialogue."""
    rules: list[str] = []
    gate: list[tuple[str, ...]] = []
    turns: list[Turn] = []
    messages: list[Mail] = []
    script: list[tuple[str, str]] = []
    for line in text.splitlines():
        kind, _, rest = line.partition(":")
        rest = rest.removeprefix(" ")
        match kind:
            case _ if not line or line.startswith("#"):
                pass
            case "rules":
                rules += rest.split()
            case "gate":
                gate.append(tuple(rest.split()))
            case "M":
                messages.append(_mail(rest))
            case "C" | "R" | "S" | "T":
                script.append((kind, rest))
            case _:
                raise BadDialogue(f"what is this: {line}")
    _take_turns(script, turns)
    if not turns:
        raise BadDialogue("nobody says anything")
    return Dialogue(tuple(rules), tuple(gate), tuple(turns), tuple(messages))


def _mail(text: str) -> Mail:
    envelope, bar, content = text.partition(" | ")
    if not bar:
        raise BadDialogue(f"a message without its content: {text}")
    return Mail(envelope, None if content == "*" else unescape(content))


def _take_turns(script: list[tuple[str, str]], turns: list[Turn]) -> None:
    while script:
        handshake = script[0][0] == "T"
        if handshake:
            script.pop(0)
        sent = [_sent(kind, rest) for kind, rest in _while(script, "CR")]
        lines = [rest for _, rest in _while(script, "S")]
        closed = lines[-1:] == ["(closed)"]
        turns.append(
            Turn(tuple(sent), tuple(replies(lines[: -1 if closed else None])), handshake, closed)
        )


def _while(script: list[tuple[str, str]], kinds: str) -> Iterator[tuple[str, str]]:
    while script and script[0][0] in kinds:
        yield script.pop(0)


def _sent(kind: str, text: str) -> bytes:
    return unescape(text) + (b"\r\n" if kind == "C" else b"")


def unescape(text: str) -> bytes:
    """The octets that a line stands for."""
    text = _REPEATED.sub(lambda found: found[1] * int(found[2]), text)
    octets, position = b"", 0
    for found in _ESCAPE.finditer(text):
        octets += text[position : found.start()].encode()
        octets += bytes.fromhex(found[1]) if found[1] else _LETTERS[found[2]]
        position = found.end()
    return octets + text[position:].encode()


def replies(lines: Iterable[str]) -> list[Reply]:
    """Put the lines of replies together; raises BadDialogue where one is none or unfinished."""
    found: list[Reply] = []
    begun: list[str] = []
    for line in lines:
        if re.match(r"[2-5][0-9][0-9][ -]", line) is None:
            raise BadDialogue(f"not a line of a reply: {line}")
        begun.append(line)
        if line[3] == " ":
            found.append(tuple(begun))
            begun = []
    if begun:
        raise BadDialogue(f"a reply without its end: {begun}")
    return found


def matches(wanted: Reply, said: Reply) -> bool:
    """Whether a reply is the one that was wanted."""
    *first, last = wanted
    if said[: len(first)] != tuple(first):
        return False
    rest = said[len(first) :]
    if not last.endswith("*"):
        return rest == (last,)
    code, text = last[:3], last[4:-1]
    return bool(rest) and rest[0].startswith(code) and rest[0][4:].startswith(text)
