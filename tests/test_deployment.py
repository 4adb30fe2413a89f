"""The deployment on several machines: docker-compose.cluster.yml and deploy/ fit together.

They are read here, not built. What can be run without containers is: HAProxy and the nodes of
tests/faults/test_cluster.py have these configurations, with other addresses.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import haproxy
import parts
from mailgw.config.settings import Settings, read

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.cluster.yml"
WHOLE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, Any] = WHOLE["services"]
NODES = ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"]
GATEWAYS = ["mailgw-1", "mailgw-2"]
LINES = [
    line.split()
    for line in (ROOT / "deploy/haproxy.cfg").read_text().splitlines()
    if line.strip() and not line.strip().startswith("#")
]


def said(*words: str) -> list[list[str]]:
    """What follows these words at the beginning of the lines of haproxy.cfg."""
    return [line[len(words) :] for line in LINES if line[: len(words)] == list(words)]


def address(service: str) -> str:
    found: str = SERVICES[service]["networks"]["inside"]["ipv4_address"]
    return found


def seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def settings(gateway: str) -> Settings:
    """What a gateway takes from its environment, each variable of .env having a value."""
    environ = {}
    for name, value in SERVICES[gateway]["environment"].items():
        value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        environ[name] = re.sub(r"\$\{\w+:\?[^}]*\}", "example", value)
    configuration = read(environ=environ)
    assert configuration.errors == ()
    return configuration.settings


# --- all of it ----------------------------------------------------------------------


def test_each_part_is_there_as_often_as_it_must_be() -> None:
    assert list(SERVICES) == [*NODES, *GATEWAYS, "haproxy"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_part_says_how_it_is_and_has_time_to_end(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert seconds(service["stop_grace_period"]) >= 60
    assert "privileged" not in service
    assert "network_mode" not in service


@pytest.mark.parametrize("name", [*NODES, "haproxy"])
def test_images_of_others_are_pinned_to_a_release(name: str) -> None:
    assert re.fullmatch(r"(rabbitmq|haproxy):\d+\.\d+\.\d+-\w+", SERVICES[name]["image"])


def test_volumes_that_are_used_are_declared() -> None:
    used = [
        each.partition(":")[0]
        for service in SERVICES.values()
        for each in service.get("volumes", ())
        if not each.startswith("./")
    ]
    assert sorted(used) == sorted(WHOLE["volumes"])


def test_files_that_are_used_exist_and_are_only_read() -> None:
    mounted = {
        each
        for service in SERVICES.values()
        for each in service.get("volumes", ())
        if each.startswith("./")
    }
    assert {each.split(":")[0] for each in mounted} == {
        "./deploy/haproxy.cfg",
        "./deploy/rabbitmq.conf",
    }
    for each in mounted:
        assert (ROOT / each.split(":")[0]).is_file()
        assert each.endswith(":ro")


def test_only_smtp_is_open_to_the_world() -> None:
    ports = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert ports.pop("haproxy") == ["0.0.0.0:25:2525"]
    assert ports.pop("rabbitmq-1") == ["127.0.0.1:15672:15672"]
    assert set(map(tuple, ports.values())) == {()}


def test_no_secret_is_in_the_file_and_none_can_be_forgotten() -> None:
    text, example = FILE.read_text(), (ROOT / ".env.example").read_text()
    for name in ("RABBITMQ_PASSWORD", "RABBITMQ_COOKIE"):
        assert text.count(name) == text.count(f"${{{name}:?") > 0
        assert f"\n{name}=\n" in example


# --- nodes --------------------------------------------------------------------------


def test_the_nodes_differ_by_name_and_data_only() -> None:
    for name in NODES:
        service = SERVICES[name]
        assert service["hostname"] == name
        assert service["volumes"] == [
            f"{name}:/var/lib/rabbitmq",
            "./deploy/rabbitmq.conf:/etc/rabbitmq/conf.d/20-cluster.conf:ro",
        ]
    own = {"hostname", "volumes", "ports"}
    alike = [{k: v for k, v in SERVICES[name].items() if k not in own} for name in NODES]
    assert alike[0] == alike[1] == alike[2]


def test_the_nodes_look_for_each_other_by_their_names() -> None:
    text = (ROOT / "deploy/rabbitmq.conf").read_text()
    found = re.findall(r"^cluster_formation\.classic_config\.nodes\.\d = (.*)$", text, re.MULTILINE)
    assert found == [f"rabbit@{name}" for name in NODES]


def test_no_node_waits_for_another_to_be_healthy() -> None:
    for name in NODES:
        assert "depends_on" not in SERVICES[name]


# --- gateways -----------------------------------------------------------------------


def test_gateways_come_when_all_nodes_are_there() -> None:
    for name in GATEWAYS:
        waits = SERVICES[name]["depends_on"]
        assert waits == {node: {"condition": "service_healthy"} for node in NODES}


def test_gateways_know_all_nodes_and_begin_with_different_ones() -> None:
    known = [settings(name).broker.address for name in GATEWAYS]
    wanted = {f"amqp://mailgw:example@{node}/" for node in NODES}
    assert [set(each) for each in known] == [wanted, wanted]
    assert known[0][0] != known[1][0]


def test_gateways_keep_nothing_and_can_write_nowhere() -> None:
    for name in GATEWAYS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "volumes" not in service
        found = settings(name)
        assert found.store.queue_store is None
        assert found.store.outage == "refuse"


def test_gateways_have_one_name_and_identifiers_of_their_own() -> None:
    found = [settings(name) for name in GATEWAYS]
    assert len({each.listen.hostname for each in found}) == 1
    assert len({each.document.server_id for each in found}) == 2


def test_gateways_believe_the_balancer_and_nobody_else() -> None:
    for name in GATEWAYS:
        proxies = SERVICES[name]["environment"]["MAILGW_SMTP_PROXY"]
        assert proxies == address("haproxy")


def test_the_health_check_is_the_one_that_is_tried_for_a_single_gateway() -> None:
    single = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["mailgw"]
    for name in GATEWAYS:
        assert SERVICES[name]["healthcheck"] == single["healthcheck"]


# --- balancer -----------------------------------------------------------------------


def test_the_balancer_finds_the_gateways_and_tells_them_the_client() -> None:
    port = settings("mailgw-1").listen.port
    servers = {name: place for name, place, *_ in said("server")}
    assert servers == {name: f"{address(name)}:{port[0]}" for name in GATEWAYS}
    [options] = said("default-server")
    assert {"send-proxy-v2", "check"} <= set(options)


def test_fixed_addresses_are_inside_and_each_has_one_owner() -> None:
    [config] = WHOLE["networks"]["inside"]["ipam"]["config"]
    subnet = ipaddress.ip_network(config["subnet"])
    places = [ipaddress.ip_address(address(name)) for name in ("haproxy", *GATEWAYS)]
    assert len(set(places)) == 3
    # The first is the host's own.
    assert all(each in subnet and each != subnet[1] for each in places)


def test_the_balancer_listens_where_the_world_and_its_health_check_ask() -> None:
    smtp, health = said("bind")
    [outside] = SERVICES["haproxy"]["ports"]
    assert smtp == [f":{outside.rpartition(':')[2]}"]
    [[path]] = said("monitor-uri")
    assert SERVICES["haproxy"]["healthcheck"]["test"][-1] == f"http://{health[0]}{path}"


def test_the_balancer_is_more_patient_than_the_gateway() -> None:
    asked = settings("mailgw-1").smtp
    for side in ("client", "server"):
        # The first is the default, for SMTP.
        patience = seconds(said("timeout", side)[0][0])
        assert patience > asked.timeout
        assert patience > asked.confirm_timeout


def test_the_balancer_ends_before_it_is_ended_and_after_its_sessions() -> None:
    [[end]] = said("hard-stop-after")
    grace = seconds(SERVICES["haproxy"]["stop_grace_period"])
    assert settings("mailgw-1").smtp.confirm_timeout < seconds(end) < grace


def test_the_balancer_may_open_what_it_promises_and_write_nowhere_else() -> None:
    service = SERVICES["haproxy"]
    [[connections]] = said("maxconn")
    assert service["ulimits"]["nofile"] > 2 * int(connections)
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    [[control, *_]] = said("stats", "socket")
    assert str(Path(control).parent) in service["tmpfs"]


@parts.needs("haproxy")
def test_haproxy_takes_its_file_without_a_warning() -> None:
    done = subprocess.run(
        [haproxy.program(), "-c", "-dW", "-f", ROOT / "deploy/haproxy.cfg"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
