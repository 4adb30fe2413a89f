"""Envelope and wire, B33: AUTH as guessers and broken clients speak it."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from client import Client
from gateway import Certificate, Gateway
from hostile.world import MESSAGE, Stranger, codes, only, taken

# The password is "opensesame"; made with `openssl passwd -6 -salt hostile`.
HASH = (
    "$6$hostile$vw76Hb3irjHFTRourQhEipSxnr0Xdd3dP/aB6.bPw66ir0xmU4Cr"
    "Ma.MCBh2H.oCAHZlQ1BughvT6hZRqVk0B1"
)
PASSWORD = "opensesame"
KEYS: dict[str, object] = {
    "smtp-auth": "hardcoded://anna:opensesame,b%C3%B6b:%3A%40",
    # Not 127.0.0.1: who comes from there has to start TLS first.
    "smtp-auth-insecure-range": "127.0.0.2-127.0.0.99",
    "smtp-threads": 2,
}


def encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def plain(name: str = "anna", password: str = PASSWORD) -> str:
    return "AUTH PLAIN " + encoded(f"\0{name}\0{password}".encode())


def test_B33_no_password_in_clear(mx: Gateway, certificate: Certificate) -> None:
    with Client(mx.port) as client:
        assert "AUTH" not in client.hello()
        assert codes(client, plain(), "AUTH LOGIN", "AUTH PLAIN =") == ["538"] * 3
        assert client.ask("MAIL FROM:<joe@there.test>").startswith("250 ")
        assert client.ask("RCPT TO:<x@other.test>").startswith("530 ")
        client.ask("RSET")
        client.starttls(certificate.authority)
        assert "AUTH PLAIN LOGIN" in client.ask("EHLO client.test")
        assert client.ask(plain()).startswith("235 ")
        assert client.mail(MESSAGE, "x@other.test").startswith("250-2.0.0 ")
    assert only(mx)["connection"]["user"] == "anna"


# Each conversation from an address of its own: what is a guess counts for that address.
BROKEN: list[tuple[list[str], list[str]]] = [
    ([plain("anna", "wrong")], ["535"]),
    ([plain("nobody")], ["535"]),
    ([plain("Anna")], ["535"]),
    (["AUTH PLAIN !!!"], ["501"]),
    (["AUTH PLAIN AGFubmE"], ["501"]),
    (["AUTH PLAIN ="], ["501"]),
    (["AUTH PLAIN", "="], ["334", "501"]),
    (["AUTH PLAIN " + encoded(b"anna")], ["501"]),
    (["AUTH PLAIN " + encoded(b"\0anna")], ["501"]),
    (["AUTH PLAIN " + encoded(b"\0anna\0opensesame\0x")], ["501"]),
    (["AUTH PLAIN " + encoded(b"\0\0")], ["535"]),
    (["AUTH PLAIN " + encoded(b"root\0anna\0opensesame")], ["535"]),
    (["AUTH PLAIN " + encoded(b"\0anna\0\xff\xfe\x80")], ["535"]),
    (["AUTH PLAIN " + encoded(b"\0anna\0" + bytes(range(1, 32)))], ["535"]),
    (["AUTH PLAIN " + encoded(b"\0an\nna\0x")], ["535"]),
    (["AUTH PLAIN " + encoded(b"\0anna\0" + b"x" * 5000)], ["535"]),
    (["AUTH LOGIN", "*"], ["334", "501"]),
    (["AUTH LOGIN", encoded(b"anna"), "*"], ["334", "334", "501"]),
    (["AUTH LOGIN", "!"], ["334", "501"]),
    (["AUTH LOGIN", "", ""], ["334", "334", "535"]),
    (["AUTH LOGIN", encoded(b"anna"), encoded(b"wrong")], ["334", "334", "535"]),
    (["AUTH LOGIN " + encoded(b"anna"), encoded(b"\xff")], ["334", "535"]),
    (["AUTH LOGIN", "QUIT"], ["334", "334"]),
    (["AUTH CRAM-MD5"], ["504"]),
    (["AUTH XOAUTH2 dXNlcj0="], ["504"]),
    (["AUTH NTLM"], ["504"]),
    (["AUTH GSSAPI"], ["504"]),
    (["AUTH"], ["501"]),
    (["AUTH PLAIN a b"], ["501"]),
    (["AUTH PLAİN"], ["501"]),
    (["MAIL FROM:<joe@there.test>", plain()], ["250", "503"]),
    ([plain(), plain(), "AUTH LOGIN"], ["235", "503", "503"]),
]


def test_B33_every_broken_exchange_has_its_reply(mx: Gateway) -> None:
    found = []
    for number, (lines, _) in enumerate(BROKEN):
        with Stranger(mx.port, f"127.0.0.{number + 10}") as client:
            client.hello()
            found.append((lines, codes(client, *lines)))
            # In the middle of an exchange it is one more line of that; then it stands.
            client.ask("*")
            assert client.ask("NOOP").startswith("250 ")
    assert found == BROKEN
    assert taken(mx) == []


def test_B33_a_hundred_tries_are_ten(mx: Gateway) -> None:
    def guess(number: int) -> str:
        with Stranger(mx.port, "127.0.0.5") as client:
            client.hello()
            return client.ask(plain("anna", f"guess{number}"))[:3]

    # As a botnet's one machine does it: many at once, at both workers.
    with ThreadPoolExecutor(20) as crowd:
        said = list(crowd.map(guess, range(100)))
    # On a slow machine a part of the minute goes by, and one more may be tried.
    assert 10 <= said.count("535") <= 12
    assert said.count("421") == 100 - said.count("535")
    with Stranger(mx.port, "127.0.0.5") as client:
        client.hello()
        assert client.ask(plain()).startswith("421 4.7.0 ")
        assert client.ended()
    with Stranger(mx.port, "127.0.0.6") as client:
        client.hello()
        assert client.ask(plain()).startswith("235 ")


def test_B33_ten_tries_in_one_connection_end_it(mx: Gateway) -> None:
    with Stranger(mx.port, "127.0.0.7") as client:
        client.hello()
        said = [client.ask(plain("anna", f"guess{n}"))[:3] for n in range(9)]
        assert said == ["535"] * 9
        assert client.ask(plain("anna", "guess9"))[:3] == "535"
        assert client.reply().startswith("421 ")
        assert client.ended()


def test_B33_passwords_are_in_no_log(mx: Gateway) -> None:
    secrets = ["hunter2-in-no-log", "open\x1bsesame", "sésame"]
    with Stranger(mx.port, "127.0.0.8") as client:
        client.hello()
        for secret in secrets:
            assert client.ask(plain("eve", secret)).startswith("535 ")
            assert codes(client, "AUTH LOGIN", encoded(b"eve"), encoded(secret.encode())) == (
                ["334", "334", "535"]
            )
        # A password where the mechanism, or where nothing, belongs.
        codes(client, "AUTH hunter2-in-no-log", "hunter2-in-no-log", "AUTH PLAIN hunter2-in-no-log")
    mx.saw("client.gone")
    for secret in [*secrets, PASSWORD]:
        assert secret not in mx.log
        assert encoded(secret.encode())[:-2] not in mx.log
        assert plain("eve", secret).split()[2] not in mx.log


def test_B33_an_unknown_name_takes_as_long_as_a_wrong_password(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    users = tmp_path / "users"
    users.write_text(f"anna:{HASH}\n")
    users.chmod(0o600)
    server = gateway(KEYS | {"smtp-auth": f"file://{users}"})

    def fastest(name: str) -> float:
        found = []
        for address in range(20, 27):
            with Stranger(server.port, f"127.0.0.{address}") as client:
                client.hello()
                begin = time.perf_counter()
                assert client.ask(plain(name, "wrong")).startswith("535 ")
                found.append(time.perf_counter() - begin)
        return min(found)

    known, unknown = fastest("anna"), fastest("nobody")
    # A name that is not looked at any further would be answered in a hundredth of it.
    assert known / 3 < unknown < known * 3
