"""Image and compose file keep their promises.

They are read, not built: a container engine is more than a test machine has. What can be
run without one is run: the health checks speak to a socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

import parts
from mailgw.checks.spamassassin import SpamAssassin
from mailgw.config.settings import read

ROOT = Path(__file__).parent.parent
GTUBE = (
    b"From: a@there.test\r\nTo: b@ours.test\r\nSubject: x\r\n\r\n"
    b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
)


# --- image --------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (WORD, rest), continued lines joined, comments gone."""
    lines = [
        each
        for each in (ROOT / "Dockerfile").read_text().splitlines()
        if not each.lstrip().startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    split = (each.split(maxsplit=1) for each in joined if each.strip())
    return [(word, rest) for word, rest in split]


def last_stage() -> dict[str, str]:
    whole = instructions()
    start = max(index for index, (word, _) in enumerate(whole) if word == "FROM")
    return dict(whole[start:])


def test_every_stage_starts_from_a_named_python() -> None:
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    assert {base.split("-slim")[0] for base in bases} == {"python:3.13"}


def test_the_image_runs_the_server_as_nobody_in_particular() -> None:
    stage = last_stage()
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", stage["USER"])
    assert stage["ENTRYPOINT"] == '["mailgw"]'
    assert stage["CMD"] == '["serve"]'
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert stage["EXPOSE"] == "2525"


def test_the_queue_of_the_image_and_mail_under_way_lie_on_its_volume() -> None:
    stage = last_stage()
    environ = dict(each.split("=", 1) for each in shlex.split(stage["ENV"]))
    assert Path(environ["MAILGW_QUEUE_STORE"]).parent == Path(stage["VOLUME"])
    assert environ["TMPDIR"] == stage["VOLUME"]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.spamd"])
def test_an_image_is_left_to_somebody_who_is_not_root(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    # What is prepared as root comes before; nothing is run, copied or added after it.
    assert [user for user in users if re.fullmatch(r"[1-9]\d{3,}(:[1-9]\d{3,})?", user)] == users
    behind = lines[lines.index(f"USER {users[0]}") :]
    assert len(users) == 1
    assert not [line for line in behind if line.startswith(("RUN ", "COPY ", "ADD "))]


def test_the_last_stage_installs_nothing() -> None:
    stage = last_stage()
    assert not re.search(r"\b(apt|apt-get|pip|gcc|curl)\b", stage["RUN"])


def test_the_builder_is_given_no_secret_and_no_history() -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and line[0] != "#"
    ]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule[0] == "!"}
    copied = {
        name
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    assert copied == allowed
    for name in copied:
        assert (ROOT / name).exists(), name


# --- health checks ------------------------------------------------------------------


class Listener:
    """A socket on the loopback that greets, takes a farewell, and remembers."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self.heard: list[bytes] = []

    def __enter__(self) -> Listener:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(30)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        with client, client.makefile("rwb", buffering=0) as lines:
            client.settimeout(30)
            lines.write(self._greeting + b"\r\n")
            for line in lines:
                self.heard.append(line)
                lines.write(b"221 Bye\r\n")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def health_checks() -> list[str]:
    of_image = yaml.safe_load(last_stage()["HEALTHCHECK"].partition("CMD ")[2])[2]
    test = compose()["services"]["mailgw"]["healthcheck"]["test"]
    assert test[:3] == ["CMD", "python", "-c"]
    return [of_image, test[3]]


def check_health(code: str, port: int) -> int:
    return subprocess.run(
        [sys.executable, "-c", code.replace("2525", str(port))],
        env={**os.environ, "MAILGW_SMTP_PORT": str(port)},
        capture_output=True,
        timeout=60,
    ).returncode


@pytest.mark.parametrize("code", health_checks(), ids=["image", "compose"])
def test_a_server_that_greets_is_healthy_and_hears_a_farewell(code: str) -> None:
    with Listener(b"220 mx") as server:
        assert check_health(code, server.port) == 0
    assert [line.upper() for line in server.heard] == [b"QUIT\r\n"]


@pytest.mark.parametrize("code", health_checks(), ids=["image", "compose"])
def test_a_server_that_sends_clients_away_is_not_healthy(code: str) -> None:
    with Listener(b"421 4.3.2 closing") as server:
        assert check_health(code, server.port) != 0


@pytest.mark.parametrize("code", health_checks(), ids=["image", "compose"])
def test_a_port_where_nobody_listens_is_not_healthy(code: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert check_health(code, port) != 0


# --- compose ------------------------------------------------------------------------


def test_both_services_say_how_they_are_and_the_gateway_waits_for_the_broker() -> None:
    services = compose()["services"]
    assert set(services) == {"rabbitmq", "mailgw", "spamd"}
    for service in (services["rabbitmq"], services["mailgw"]):
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"
    assert services["rabbitmq"]["healthcheck"]["test"][1] == "rabbitmq-diagnostics"
    assert services["mailgw"]["depends_on"] == {"rabbitmq": {"condition": "service_healthy"}}


def test_the_broker_keeps_its_data_under_a_name_that_stays() -> None:
    broker = compose()["services"]["rabbitmq"]
    assert broker["image"].startswith("rabbitmq:4")
    assert broker["hostname"] == "rabbitmq"
    assert broker["volumes"] == ["rabbitmq-data:/var/lib/rabbitmq"]


def test_volumes_that_are_used_are_declared() -> None:
    whole = compose()
    used = {
        volume.partition(":")[0]
        for service in whole["services"].values()
        for volume in service.get("volumes", ())
    }
    assert used == set(whole["volumes"])


def test_the_gateway_can_write_to_its_queue_and_to_nothing_else() -> None:
    gateway = compose()["services"]["mailgw"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    assert "cap_add" not in gateway
    assert "privileged" not in gateway
    assert gateway["security_opt"] == ["no-new-privileges:true"]
    assert gateway["tmpfs"] == ["/tmp"]
    assert gateway["volumes"] == [f"mailgw-data:{last_stage()['VOLUME']}"]
    assert "user" not in gateway  # the image's own, which is not root
    assert gateway["ports"] == [f"25:{last_stage()['EXPOSE']}"]


def test_no_service_can_gain_rights_or_reaches_into_the_host() -> None:
    for name, service in compose()["services"].items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & set(service)
        # Volumes by name: no folder of the host, and no socket of its engine.
        assert not [each for each in service.get("volumes", ()) if each.startswith(("/", ".", "~"))]


def test_only_the_loopback_sees_the_broker() -> None:
    for port in compose()["services"]["rabbitmq"]["ports"]:
        assert port.startswith("127.0.0.1:")


def test_no_password_is_in_the_files_and_none_can_be_forgotten() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert text.count("RABBITMQ_PASSWORD") == text.count("${RABBITMQ_PASSWORD:?") == 2
    assert "RABBITMQ_PASSWORD=\n" in (ROOT / ".env.example").read_text()


def test_the_gateway_takes_what_image_and_compose_file_set(tmp_path: Path) -> None:
    volume = last_stage()["VOLUME"]
    variables = shlex.split(last_stage()["ENV"].replace(volume, str(tmp_path)))
    environ = dict(each.split("=", 1) for each in variables)
    for name, value in compose()["services"]["mailgw"]["environment"].items():
        # Where there is a value for nothing set, that; where there is none, anything.
        value = re.sub(
            r"\$\{\w+:-([^}]*)\}", r"\1" if name == "MAILGW_SMTP_CHECK" else "example", value
        )
        environ[name] = re.sub(r"\$\{(\w+)[^}]*\}", "example", value)
    configuration = read(environ=environ)
    assert configuration.errors == ()
    assert configuration.settings.listen.port == (2525,)
    assert configuration.settings.broker.address == ("amqp://example:example@rabbitmq/",)
    assert configuration.settings.listen.hostname == "example"


def test_spamd_comes_only_when_it_is_asked_for_and_has_no_rights() -> None:
    spamd = compose()["services"]["spamd"]
    assert spamd["profiles"] == ["spam"]
    assert "ports" not in spamd
    assert (spamd["read_only"], spamd["cap_drop"]) == (True, ["ALL"])
    assert spamd["build"]["dockerfile"] == "Dockerfile.spamd"
    host = compose()["services"]["mailgw"]["environment"]["MAILGW_SPAMASSASSIN_HOST"]
    assert host == "spamd"
    # It can be absent: nobody waits for it.
    assert "spamd" not in compose()["services"]["mailgw"]["depends_on"]


@parts.needs("spamd")
def test_the_spamd_of_the_image_calls_spam_what_is(tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile.spamd").read_text()
    command = json.loads(re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[0])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    here = [
        each.replace("0.0.0.0:783", f"127.0.0.1:{port}").replace("/tmp", str(tmp_path))
        for each in command
    ]
    # Only tests of its own: no DNS lists are asked from here.
    environ = os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin", "HOME": str(tmp_path)}
    with subprocess.Popen([*here, "--local"], env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            verdict = asyncio.run(verdict_on_spam(port, process))
        finally:
            process.terminate()
    assert verdict == "fail"


async def verdict_on_spam(port: int, process: subprocess.Popen[bytes]) -> str:
    """What spamd says, once it says anything."""
    client = SpamAssassin("127.0.0.1", port)
    async with asyncio.timeout(60):
        while (found := await client.check(GTUBE)).verdict == "temperror":
            assert process.poll() is None
            await asyncio.sleep(0.2)
    await client.close()
    return found.verdict


def test_what_must_be_set_is_in_the_example() -> None:
    files = [ROOT / "docker-compose.yml", ROOT / "docker-compose.cluster.yml"]
    asked = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}
    shown = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert asked == shown
