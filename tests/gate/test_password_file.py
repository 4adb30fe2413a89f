"""Files of logins, with hashes that other programs made."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from pathlib import Path

import argon2
import pytest

from mailgw.gate.credentials import BadLogins, CannotTell
from mailgw.gate.password_file import PasswordFile
from parts import needs

# The examples of the specification of SHA-crypt (Drepper 2007).
SHA256 = "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"
SHA256_WORD = "Hello world!"
SHA512 = (
    "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8"
    "vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."
)
SHA512_WORD = "Hello world!"
# Rounds for about a third of a second, and for no time at all.
SLOW, QUICK = 500_000, 1000


def openssl(kind: str, password: str, salt: str = "abcdefgh") -> str:
    line = ["openssl", "passwd", kind, "-salt", salt, "-stdin"]
    made = subprocess.run(line, input=password, capture_output=True, text=True, check=True)
    return made.stdout.strip()


def cheap_argon2(password: str, kind: argon2.Type = argon2.Type.ID) -> str:
    return argon2.PasswordHasher(1, 64, 1, type=kind).hash(password)


def written(folder: Path, *lines: str) -> Path:
    path = folder / "users"
    path.write_text("\n".join(lines) + "\n")
    return path


@needs("openssl")
@pytest.mark.parametrize("kind", ["-6", "-5"])
@pytest.mark.parametrize("password", ["opensesame", "p", "öffne dich!", "x" * 255, "a:b"])
async def test_hashes_of_openssl(kind: str, password: str, tmp_path: Path) -> None:
    source = PasswordFile(written(tmp_path, f"anna:{openssl(kind, password)}"))
    assert await source.verify("anna", password) is True
    assert await source.verify("anna", password + "x") is False
    assert await source.verify("Anna", password) is False
    assert await source.verify("bob", password) is False
    await source.close()


@pytest.mark.parametrize("kind", argon2.Type)
async def test_hashes_of_argon2(kind: argon2.Type, tmp_path: Path) -> None:
    source = PasswordFile(written(tmp_path, f"anna:{cheap_argon2('öffne dich', kind)}"))
    assert await source.verify("anna", "öffne dich") is True
    assert await source.verify("anna", "offne dich") is False
    assert await source.verify("bob", "öffne dich") is False
    await source.close()


async def test_kinds_may_be_mixed_and_comments_and_blanks_say_nothing(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "\ufeff# who may send",
        "",
        f"  anna@ours.test:{SHA256}  ",
        f"bob:{SHA512}\r",
        f"#eve:{SHA512}",
        f"jörg:{cheap_argon2('x')}",
    )
    source = PasswordFile(path)
    assert await source.verify("anna@ours.test", SHA256_WORD)
    assert await source.verify("bob", SHA512_WORD)
    assert await source.verify("jörg", "x")
    assert not await source.verify("eve", SHA512_WORD)
    assert not await source.verify("#eve", SHA512_WORD)
    await source.close()


async def test_an_empty_file_knows_nobody(tmp_path: Path) -> None:
    source = PasswordFile(written(tmp_path, "# nobody yet"))
    assert await source.verify("anna", "opensesame") is False
    await source.close()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("anna", "is not user:hash"),
        ("anna:", "is not user:hash"),
        (f":{SHA512}", "is not user:hash"),
        (f"bob:{SHA256}", "has a name that stands above already"),
        ("anna:opensesame", "has a hash of an unknown kind"),
        ("anna:abJnggxhB/yWI", "has a hash of an unknown kind"),
        ("anna:$1$abcdefgh$G//4keteveJp0qb8z2DxG/", "has a hash of an unknown kind"),
        ("anna:$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317", "has a hash of an unknown"),
        ("anna:$2b$12$GhvMmNVjRW29ulnudl.LbuAnUtN/LRfe1JsBm1Xu6LE3059z5Tr8m", "of an unknown kind"),
        (f"anna:{SHA512[:-1]}", "has a broken hash"),
        (f"anna:{SHA512}:19000:0:99999:7:::", "has a broken hash"),
        ("anna:$6$saltsalt", "has a broken hash"),
        ("anna:$6$", "has a broken hash"),
        ("anna:$5$rounds=99999999$abcdefgh$" + SHA256.rpartition("$")[2], "of more than 1000000"),
        ("anna:$argon2id$", "has a broken hash"),
        ("anna:$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$", "has a broken hash"),
        ("anna:$argon2id$v=19$m=64,t=1,p=0$c2FsdHNhbHQ$c2FsdHNhbHQ", "has a broken hash"),
        ("anna:$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$c2FsdHNhbHQ", "take for ever"),
        ("anna:$argon2id$v=19$m=64,t=9999,p=1$c2FsdHNhbHQ$c2FsdHNhbHQ", "take for ever"),
    ],
)
def test_a_bad_line_is_named_and_not_quoted(line: str, why: str, tmp_path: Path) -> None:
    path = written(tmp_path, "# users", f"bob:{SHA512}", line, "and:this")
    with pytest.raises(BadLogins) as bad:
        PasswordFile(path)
    first, second = bad.value.lines
    assert first.startswith(f"{path}:3: ")
    assert why in first
    assert second.startswith(f"{path}:4: ")
    secret = line.partition(":")[2]
    assert not secret or secret not in str(bad.value)


def test_what_is_not_utf8_or_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "users"
    with pytest.raises(BadLogins, match=f"{path}: No such file"):
        PasswordFile(path)
    path.write_bytes(b"b\xf6b:" + SHA512.encode())
    with pytest.raises(BadLogins, match=f"{path}:1: is not UTF-8"):
        PasswordFile(path)


@pytest.mark.parametrize("kind", ["$6$", "$5$", "$argon2id$"])
@pytest.mark.parametrize("name", ["anna", "nobody"])
async def test_the_loop_goes_on_while_a_hash_is_checked(
    name: str, kind: str, tmp_path: Path
) -> None:
    # Which hash it is does not matter: it is compared after the same work.
    body = "." * (86 if kind == "$6$" else 43)
    slow = f"{kind}rounds={SLOW}$abcdefgh${body}"
    if kind == "$argon2id$":
        slow = argon2.PasswordHasher(4, 65536, 1).hash("x")
    source = PasswordFile(written(tmp_path, f"anna:{slow}"))
    order: list[str] = []

    async def check() -> None:
        order.append("asked")
        await source.verify(name, "wrong")
        order.append("checked")

    task = asyncio.create_task(check())
    for turn in range(5):
        await asyncio.sleep(0)
        order.append(f"turn {turn}")
    await task
    assert order == ["asked", *(f"turn {turn}" for turn in range(5)), "checked"]
    await source.close()


async def test_a_name_that_nobody_has_costs_what_a_wrong_password_costs(tmp_path: Path) -> None:
    source = PasswordFile(
        written(tmp_path, f"anna:$6$rounds={SLOW // 5}$abcdefgh${'.' * 86}"), at_once=1
    )

    async def cost(name: str) -> float:
        before = time.process_time()
        assert not await source.verify(name, "wrong")
        return time.process_time() - before

    await cost("anna")
    known = [await cost("anna") for _ in range(3)]
    unknown = [await cost(f"nobody{number}") for number in range(3)]
    assert min(known) / 2 < min(unknown) < min(known) * 2
    await source.close()


async def test_a_name_that_nobody_has_meets_the_same_hash_each_time(tmp_path: Path) -> None:
    quick = f"$5$rounds={QUICK}$abcdefgh${'.' * 43}"
    path = written(
        tmp_path,
        f"anna:$6$rounds={SLOW // 5}$abcdefgh${'.' * 86}",
        *(f"user{number}:{quick}" for number in range(3)),
    )
    sources = [PasswordFile(path), PasswordFile(path)]
    names = [f"nobody{number}" for number in range(100)]
    drawn = [[source._somebody(name).text for name in names] for source in sources]
    assert drawn[0] == drawn[1] == [sources[0]._somebody(name).text for name in names]
    assert set(drawn[0]) == {quick, sources[0]._hashes["anna"].text}
    # By their numbers: about a quarter of them meets the slow one.
    assert 10 < sum(text != quick for text in drawn[0]) < 45


async def test_a_few_are_checked_and_a_few_wait_and_the_others_are_not_told(
    tmp_path: Path,
) -> None:
    source = PasswordFile(written(tmp_path, f"bob:{SHA512}"), at_once=1, most_waiting=2)
    first = await asyncio.gather(
        *(source.verify("bob", SHA512_WORD) for _ in range(5)), return_exceptions=True
    )
    assert first[:3] == [True] * 3
    assert [type(answer) for answer in first[3:]] == [CannotTell] * 2
    assert await source.verify("bob", SHA512_WORD)
    await source.close()


async def test_after_closing_nobody_is_told_and_nobody_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PasswordFile(written(tmp_path, f"bob:{SHA512}"), at_once=1)
    begun, go = threading.Event(), threading.Event()
    bob = source._hashes["bob"]

    def slowly(password: str, text: str) -> bool:
        begun.set()
        return go.wait(10) and bob.check(password, text)

    monkeypatch.setitem(source._hashes, "bob", bob._replace(check=slowly))
    waiting = [asyncio.create_task(source.verify("bob", SHA512_WORD)) for _ in range(5)]
    assert await asyncio.to_thread(begun.wait, 10)
    await source.close()
    go.set()
    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    # The one that was being checked is told, those behind it are not.
    assert answers[0] is True
    assert [type(answer) for answer in answers[1:]] == [CannotTell] * 4
    with pytest.raises(CannotTell):
        await source.verify("bob", SHA512_WORD)


def test_no_hash_is_in_a_repr(tmp_path: Path) -> None:
    assert SHA512[-20:] not in repr(PasswordFile(written(tmp_path, f"bob:{SHA512}")))
