"""Messages that others signed, with their keys in a real DNS server on loopback.

dkimpy's lie beside the project or in its source archive, which scripts/test fetches; those
of mail-auth only beside the project. A file with the line ends of Unix is read as it went
over the wire.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from mailgw.checks import dkim, keys
from mailgw.checks.keys import Key
from mailgw.dns import AresResolver
from nameserver import NameServer, nameserver
from parts import WITHOUT, needs

PROJECT = Path(__file__).parents[2]
BESIDE_THE_PROJECT = PROJECT.parent / "shared" / "vectors"
FOLDER = Path(os.environ.get("MAILGW_TEST_VECTORS", BESIDE_THE_PROJECT)) / "dkim"
ARCHIVE = PROJECT / ".cache" / "dkimpy-1.1.8.tar.gz"
# When the one message of them that expires had not expired yet, in seconds since 1970.
NOW = {"005.txt": 1_600_000_000.0}
GMAIL = (
    "k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1Kd87/UeJjenpabgbFwh"
    "+eBCsSTrqmwIYYvywlbhbqoo2DymndFkbjOVIPIldNs/m40KF+yzMn1skyoxcTUGCQ"
    "s8g3FgD2Ap3ZB5DekAo5wMmk4wimDO+U8QzI3SD07y2+07wlNWwIt8svnxgdxGkVbb"
    "hzY8i+RQ9DpSVpPbF7ykQxtKXkv/ahW3KjViiAH+ghvvIhkx4xYSIc9oSwVmAl5Oct"
    "MEeWUwg8Istjqz8BZeTWbf41fbNhte7Y+YqZOwq1Sd0DbvYAD9NOZK9vlfuac0598H"
    "Y+vtSBczUiKERHv1yRbcaQtZFh5wtiRrN04BLUTD21MycBX5jYchHjPY/wIDAQAB"
)
# RFC 8463 A.2.
BRISBANE = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
KEYS = {
    "brisbane._domainkey.football.example.com": BRISBANE,
    "test._domainkey.football.example.com": "test.txt",
    "sed._domainkey.test.ex": "eximtest.dns",
    "20120113._domainkey.gmail.com": GMAIL,
}
VERDICTS = {
    "ed25519test.msg": ["none"],
    "ed25519test2.msg": ["pass"],
    "message.mbox": ["permerror"],
    "rfc6376.msg": ["none"],
    "rfc6376.signed.msg": ["pass", "pass"],
    "rfc6376.signed.no_t.msg": ["fail"],
    "rfc6376.signed.rsa.msg": ["pass"],
    "rfc6376.w1258.msg": ["none"],
    "test.message": ["none"],
    "test.message.baddomain": ["permerror"],
    "test2.message": ["pass"],
    "test_extra.message": ["none"],
    "test_nofrom.message": ["none"],
}
RECORDS = {
    "1024_testkey_wo_markers.pub.rsa.txt": "1024 bits",
    "1024_testkey_wo_markers.pub.txt": "1024 bits",
    "2048_testkey_PKCS8.key.pub.txt": "2048 bits",
    "2048_testkey_wo_markers.pub.rsa.txt": "2048 bits",
    "2048_testkey_wo_markers.pub.txt": "2048 bits",
    "badk.txt": "the key is of a kind that nobody knows (k=)",
    "badversion.txt": "the key record has another version",
    "ed25519test.dns": "ed25519",
    "eximtest.dns": "ed25519",
    "test.txt": "1024 bits",
    "test2.txt": "1024 bits",
    "test_bad.txt": "the key cannot be read",
    "test_tlsrpt.txt": "the key is not for mail (s=)",
}


def of_dkimpy() -> dict[str, bytes]:
    """The files by name; none where they are not here."""
    if (FOLDER / "dkimpy").is_dir():
        return {path.name: path.read_bytes() for path in (FOLDER / "dkimpy").iterdir()}
    if not ARCHIVE.exists() or "dkimpy-tests" in WITHOUT:
        return {}
    files = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive.getmembers():
            octets = archive.extractfile(member)
            if "/tests/data/" in member.name and octets is not None:
                files[member.name.rpartition("/")[2]] = octets.read()
    return files


DKIMPY = of_dkimpy()
MAIL_AUTH = sorted((FOLDER / "mail-auth").glob("0*.txt"))


def sent(octets: bytes) -> bytes:
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def zone_text(record: str) -> str:
    """A record as several strings of a zone file."""
    return " ".join(f'"{record[at : at + 200]}"' for at in range(0, len(record), 200))


def mail_auth_case(path: Path) -> tuple[dict[str, str], bytes]:
    """The records by name, and the message below them."""
    top, _, message = path.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")
    lines = [line.partition(" ") for line in top.decode().splitlines()]
    return {name.removesuffix("."): record for name, _, record in lines}, sent(message)


@pytest.fixture(scope="module")
def server() -> Iterator[NameServer]:
    records = {
        name: DKIMPY[text].decode() if text in DKIMPY else text for name, text in KEYS.items()
    }
    with nameserver({(n, "TXT"): [zone_text(r.strip())] for n, r in records.items()}) as started:
        yield started


@pytest_asyncio.fixture
async def resolver(server: NameServer) -> AsyncIterator[AresResolver]:
    made = AresResolver([("127.0.0.1", server.port)], timeout=10.0, min_ttl=0.0, capacity=100)
    yield made
    await made.close()


async def verdicts(resolver: AresResolver, content: bytes, now: float = 1.7e9) -> list[str]:
    return [each.verdict for each in await dkim.check(resolver, content, clock=lambda: now)]


@needs("dkimpy-tests")
def test_the_files_of_dkimpy_are_here() -> None:
    assert DKIMPY, f"scripts/test fetches {ARCHIVE.name} into .cache"
    assert VERDICTS.keys() | RECORDS.keys() <= DKIMPY.keys()


@needs("dkimpy-tests")
@pytest.mark.parametrize("file", VERDICTS)
async def test_a_message_of_dkimpy(resolver: AresResolver, file: str) -> None:
    assert await verdicts(resolver, sent(DKIMPY[file])) == VERDICTS[file]


@needs("dkimpy-tests")
@pytest.mark.parametrize("file", RECORDS)
def test_a_key_record_of_dkimpy(file: str) -> None:
    found = keys.read(DKIMPY[file].strip())

    if isinstance(found, Key):
        size = getattr(found.public, "key_size", None)
        assert RECORDS[file] == (f"{size} bits" if size else "ed25519")
    else:
        assert found.reason == RECORDS[file]


@pytest.mark.skipif(
    not MAIL_AUTH,
    reason="LEFT OUT: no messages of mail-auth; MAILGW_TEST_VECTORS names the folder of dkim/",
)
@pytest.mark.parametrize("path", MAIL_AUTH, ids=lambda path: path.name)
async def test_a_message_of_mail_auth_passes(
    server: NameServer, resolver: AresResolver, path: Path
) -> None:
    records, message = mail_auth_case(path)
    server.records.update({(name, "TXT"): [zone_text(text)] for name, text in records.items()})

    found = await verdicts(resolver, message, NOW.get(path.name, 1.7e9))

    assert set(found) == {"pass"}
    assert await verdicts(resolver, message + b"more\r\n", NOW.get(path.name, 1.7e9)) != found
