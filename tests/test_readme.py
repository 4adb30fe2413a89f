"""What the README says is so: its commands exist, its examples are taken as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gateway
from mailgw.cli import COMMANDS
from mailgw.config import Severity, read
from mailgw.config.settings import KNOWN
from mailgw.gate.recipients import LocalAddresses

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Blocks of commands, settings and the like are indented by four.
BLOCKS = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", README, re.MULTILINE)


def block(beginning: str) -> str:
    """The block that begins so, without its indent."""
    [found] = [each for each in BLOCKS if each.lstrip("\n").startswith("    " + beginning)]
    return re.sub(r"(?m)^ {4}", "", found).lstrip("\n")


def test_every_command_exists() -> None:
    named = set(re.findall(r"(?:^ {4}|`|bin/)mailgw ([a-z-]+)", README, re.MULTILINE))

    assert {"serve", "consume", "check-config", "show-config", "schema"} <= named
    assert named <= set(COMMANDS)


def test_every_file_exists() -> None:
    named = set(re.findall(r"(?:scripts|tests|benchmarks|\.ci)/[\w./-]+\w", README))

    assert "scripts/run" in named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_key_is_known() -> None:
    named = set(re.findall(r"`((?:smtp|rabbitmq|queue|spool|local)-[a-z-]+)(?:`|:)", README))

    assert "smtp-confirm-timeout" in named
    assert named <= set(KNOWN) | {"queue-store"}


def test_the_example_document_fits_the_schema() -> None:
    example = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert example is not None
    document = json.loads(example[1])

    gateway.schema().validate(document)
    assert gateway.content(document) == b"Subject: first\r\n\r\nHello\r\n"


def test_the_settings_for_the_internet_are_taken_without_a_warning(
    tmp_path: Path, certificate: gateway.Certificate
) -> None:
    text = block("smtp-port: 25")
    text = text.replace("/etc/mailgw/mx.crt", str(certificate.chain))
    text = text.replace("/etc/mailgw/mx.key", str(certificate.key))
    text = text.replace("/etc/mailgw/local-addresses", str(tmp_path / "local-addresses"))
    (tmp_path / "local-addresses").write_text(block("@example.org"))
    file = tmp_path / "mailgw.conf"
    file.write_text(text)
    file.chmod(0o600)

    findings = read([file]).findings

    assert [each for each in findings if each.severity is not Severity.NOTE] == []


def test_the_list_of_local_addresses_means_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "local-addresses"
    file.write_text(block("@example.org"))

    ours = LocalAddresses.load(file)

    local = ["anybody@example.org", "Support@example.net", "x@mail.example.com"]
    local.append("sales+autumn@example.net")
    assert [address for address in local if not ours.is_local(address)] == []
    assert not ours.is_local("other@example.net")
    assert not ours.is_local("x@example.com")
