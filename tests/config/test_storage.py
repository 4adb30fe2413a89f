"""Where bodies go: the addresses, and what must hold between the keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mailgw.config import Severity, read
from mailgw.config.storage_urls import FolderUrl, S3Url, mask_storage, storage_address
from mailgw.config.values import BadValue

S3_KEYS = S3Url("bodies", "eu-west-1", access_key="anna", secret_key="se/sa+me")
IN = {"storage-policy": "in"}
QUIET = {"smtp-ip": "127.0.0.1", "rabbitmq-address": "", "queue-store": "queue.sqlite"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ("dir:///var/lib/bodies", FolderUrl(Path("/var/lib/bodies"))),
        ("DIRECTORY:///a%20b", FolderUrl(Path("/a b"))),
        ("dir:///a?compression=gzip", FolderUrl(Path("/a"), compress=True)),
        ("s3://anna:se/sa+me@eu-west-1/bodies", S3_KEYS),
        ("s3://anna:se%2Fsa%2Bme@eu-west-1/bodies/", S3_KEYS),
        ("s3://eu-west-1/bodies/in/here", S3Url("bodies", "eu-west-1", prefix="in/here")),
        (
            "s3://eu-west-1/bodies?endpoint=http://127.0.0.1:9000/&compression=gzip",
            S3Url("bodies", "eu-west-1", endpoint="http://127.0.0.1:9000", compress=True),
        ),
    ],
)
def test_an_address_is_read(text: str, address: object) -> None:
    assert storage_address(text) == address


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("/var/lib/bodies", "is not the address of a storage"),
        ("dir://relative", "is not the address of a folder"),
        ("dir:///", "is not the address of a folder"),
        ("dir:///a%00b", "is not the address of a folder"),
        ("dir:///a?endpoint=http://x", "has an option that is not known"),
        ("dir:///a?compression=zstd", "has a compression that is not known"),
        ("mongodb://a:sesame@host/db", "mongodb:// is not available here"),
        ("postgresql://a:sesame@host/db", "postgresql:// is not available here"),
        ("s3://sesame@eu-west-1/bodies", "holds half a login"),
        ("s3://a:sesame@eu-west-1", "names no region and bucket"),
        ("s3://a:sesame@EU WEST/bodies", "names no region and bucket"),
        ("s3://a:sesame@eu-west-1/bodies/../x", "holds a folder that is none"),
        ("s3://a:sesame@r/bodies?endpoint=ftp://x", "has an endpoint that is none"),
        ("s3://a:sesame@r/bodies?endpoint=http://u:sesame@x", "has an endpoint that is none"),
        ("s3://a:sesame@r/bodies?endpoint=http://[", "has an endpoint that is none"),
    ],
)
def test_what_cannot_be_an_address_is_told_without_its_secret(text: str, wrong: str) -> None:
    with pytest.raises(BadValue, match=r".") as raised:
        storage_address(text)

    assert raised.value.wrong == wrong
    assert "sesame" not in raised.value.wrong + raised.value.right
    assert "sesame" not in mask_storage(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dir:///a?compression=gzip", "dir:///a?compression=gzip"),
        (
            "s3://anna:se/sa@me@eu-west-1/bodies?endpoint=http://h",
            "s3://anna:***@eu-west-1/bodies?endpoint=http://h",
        ),
    ],
)
def test_an_address_is_shown_without_the_secret(text: str, shown: str) -> None:
    assert mask_storage(text) == shown
    assert "se/sa" not in repr(storage_address(text))


def found(texts: dict[str, str]) -> list[str]:
    configuration = read(arguments=list((QUIET | texts).items()))
    return [
        f"{each.severity.name.lower()} {each.key}: {each.text}"
        for each in configuration.findings
        if each.severity is not Severity.NOTE and "among the processes" not in each.text
    ]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_folder_that_will_be_made_is_sound(tmp_path: Path) -> None:
    assert found({"storage-address": f"dir://{tmp_path}/bodies", "storage-policy": "in"}) == []


@pytest.mark.parametrize(
    ("texts", "finding"),
    [
        ({"storage-address": "dir://{}/b"}, "warning storage-address: nothing goes there"),
        (
            {"storage-address": "dir://{}/b", "storage-policy": "out"},
            "warning storage-address: nothing goes there",
        ),
        ({"storage-policy": "all"}, "warning storage-policy: there is no place for bodies"),
        ({"storage-above": "1MB"}, "warning storage-above: there is no place for bodies"),
        (
            {"storage-address": "dir://{}/b", "storage-above": "1", "smtp-confirm-timeout": "20"},
            "error storage-timeout: is not shorter than smtp-confirm-timeout",
        ),
        (
            IN | {"storage-address": "dir:///nowhere/b"},
            "error storage-address: there is no folder",
        ),
        (
            IN | {"storage-address": "dir://{}/file"},
            'error storage-address: "{}/file" is not a folder',
        ),
        (
            IN | {"storage-address": "dir://{}/open"},
            "warning storage-address: others on this machine",
        ),
        (
            IN | {"storage-address": "s3://r/bodies?endpoint=http://s3.example"},
            "warning storage-address: mail goes to s3.example in clear",
        ),
    ],
)
def test_what_would_go_wrong_is_told(tmp_path: Path, texts: dict[str, str], finding: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    os.chmod(tmp_path / "open", 0o755)  # noqa: PTH101 - whatever the umask is

    [said] = found({key: text.replace("{}", str(tmp_path)) for key, text in texts.items()})

    assert said.startswith(finding.replace("{}", str(tmp_path)))


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)

    [said] = found(IN | {"storage-address": "s3://eu-west-1/bodies"})

    assert said.endswith("needs what is not installed (pip install 'mailgw[storage]')")
