"""The units for systemd, which are read here, and judged by systemd where it is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mailgw.config import Settings
from mailgw.process.trouble import FAILED
from mailgw.process.worker import DRAIN
from parts import needs

SCRIPTS = Path(__file__).parents[2] / "scripts"
UNITS = ["mailgw.service", "mailgw.socket"]


def settings(unit: str) -> dict[str, dict[str, list[str]]]:
    """What a unit says: section, key, and the values it is given."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in (SCRIPTS / unit).read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
            assert section not in found
            found[section] = {}
            continue
        said = re.fullmatch(r"([A-Z][A-Za-z0-9]+)=(.+)", line)
        assert said, line
        found[section].setdefault(said[1], []).append(said[2])
    return found


def test_systemd_is_spoken_to_and_ends_the_workers_through_the_supervisor() -> None:
    service = settings("mailgw.service")["Service"]
    assert service["Type"] == ["notify"]
    # To the supervisor alone; and what the workers leave undone is killed.
    assert service["KillMode"] == ["mixed"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    [start] = service["ExecStart"]
    assert start.split()[1:] == ["serve", "--config-file", "/etc/mailgw/mailgw.conf"]


def test_it_waits_for_a_drain_and_does_not_repeat_a_start_that_cannot_succeed() -> None:
    service = settings("mailgw.service")["Service"]
    longest = DRAIN + 2 * Settings().smtp.confirm_timeout
    assert int(service["TimeoutStopSec"][0]) > longest
    assert service["Restart"] == ["on-failure"]
    assert service["RestartPreventExitStatus"] == [str(FAILED)]


def test_it_may_do_no_more_than_open_port_25_and_write_its_own_folders() -> None:
    service = settings("mailgw.service")["Service"]
    assert service["DynamicUser"] == ["yes"]
    assert service["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["StateDirectory"] == service["LogsDirectory"] == ["mailgw"]
    assert service["StateDirectoryMode"] == ["0700"]
    assert service["UMask"] == ["0077"]
    # Mail under way: a folder of its own, and on a disk.
    assert (service["PrivateTmp"], service["Environment"]) == (["yes"], ["TMPDIR=/var/tmp"])
    protecting = {key for key in service if key.startswith(("Protect", "Private", "Restrict"))}
    assert len(protecting) >= 14


def test_the_sockets_are_for_the_default_ports_and_keep_ipv4_apart() -> None:
    sockets = settings("mailgw.socket")["Socket"]
    ports = {int(each.rpartition(":")[2]) for each in sockets["ListenStream"]}
    assert ports <= {*Settings().listen.port, *Settings().listen.secure_port}
    assert sockets["BindIPv6Only"] == ["ipv6-only"]


def test_the_places_that_it_names_are_those_that_it_may_write_to() -> None:
    text = (SCRIPTS / "mailgw.service").read_text()
    named = re.findall(r"(?:queue-store: |dir://)(/[\w/.]+\w)", text)
    service = settings("mailgw.service")["Service"]
    assert len(named) == 2
    assert {f"/var/lib/{each}" for each in service["StateDirectory"]} == {
        str(Path(each).parent) for each in named
    }


@needs("systemd")
def test_systemd_finds_little_that_it_could_still_do(tmp_path: Path) -> None:
    text = (SCRIPTS / "mailgw.service").read_text()
    (tmp_path / "mailgw.service").write_text(text.replace("/opt/mailgw/bin/mailgw", sys.executable))
    # In tenths: 0 is a program that can do nothing; most services are above 90.
    options = ["--no-pager", "--offline=true", "--threshold=20"]
    judged = subprocess.run(
        ["systemd-analyze", "security", *options, tmp_path / "mailgw.service"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


@needs("systemd")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_nothing_to_say_about_it(unit: str, tmp_path: Path) -> None:
    for name in UNITS:
        # Only the program's place is another one than here.
        text = (SCRIPTS / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/mailgw/bin/mailgw", sys.executable))
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is not installed: scripts/install-test-parts systemd"
    judged = subprocess.run(
        [program, "verify", "--man=no", tmp_path / unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (judged.returncode, judged.stderr.strip()) == (0, "")
