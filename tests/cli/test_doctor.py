"""mailgw doctor, as an operator and as a deployment see it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import Certificate
from mailgw.cli import main
from nameserver import NameServer, nameserver
from parts import needs
from rabbitmq import RabbitMQ

RECORDS = {
    ("org", "SOA"): ["ns.test. hostmaster.test. 1 3600 600 86400 30"],
    ("mx.example.test", "A"): ["8.8.4.4"],
    ("4.4.8.8.in-addr.arpa", "PTR"): ["mx.example.test."],
    ("2.0.0.127.bl.test", "A"): ["127.0.0.2"],
}


@pytest.fixture
def names() -> Iterator[NameServer]:
    with nameserver(RECORDS) as server:
        yield server


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def doctor(names: NameServer, *arguments: str, **keys: str) -> Result:
    """Run it with an embedded queue, a free port and a good DNS, less what `keys` say."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    usual = {
        "rabbitmq-address": "",
        "queue-store": "queue.sqlite",
        "smtp-ip": "127.0.0.1",
        "smtp-port": str(port),
        "smtp-connections": "10",
        "hostname": "mx.example.test",
        "dns-server": f"127.0.0.1:{names.port}",
        "dns-timeout": "2",
    }
    written = usual | {name.replace("_", "-"): value for name, value in keys.items()}
    Path("mailgw.conf").write_text("".join(f"{key}: {value}\n" for key, value in written.items()))
    command = ["doctor", "--config-file", "mailgw.conf", *arguments]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def test_sound_surroundings_end_with_0_and_nothing_is_made(names: NameServer) -> None:
    done = doctor(names, smtp_dnsbl="bl.test", smtp_check="spf")

    assert done.exit_code == 0, done.output
    assert done.stderr == "no errors, no warnings\n"
    assert {line.split(" ")[0] for line in done.stdout.splitlines()} == {"ok"}
    # The texts stand in one column.
    assert len({line.index("  ", 9) > 0 for line in done.stdout.splitlines()}) == 1
    assert [each.name for each in Path().iterdir()] == ["mailgw.conf"]


def test_an_error_ends_with_2(names: NameServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = doctor(names, smtp_port=str(port))

    assert done.exit_code == 2
    # The tests are the process that has it.
    assert f"is taken by process {os.getpid()}" in done.stdout
    assert done.stderr == "1 error, no warnings\n"


def test_warnings_count_only_with_strict(names: NameServer) -> None:
    lax = doctor(names, hostname="other.example.test")
    strict = doctor(names, "--strict", hostname="other.example.test")

    assert (lax.exit_code, strict.exit_code) == (0, 2)
    assert "warning  hostname other.example.test  has no address in the DNS" in lax.stdout


def test_json_has_the_same(names: NameServer) -> None:
    told = json.loads(doctor(names, "--json", hostname="other.example.test").stdout)

    assert (told["errors"], told["warnings"]) == (0, 1)
    assert {
        "grade": "warning",
        "subject": "hostname other.example.test",
        "seen": "has no address in the DNS",
        "right": "an A or AAAA record",
    } in told["findings"]


def test_each_server_is_asked_alone(names: NameServer) -> None:
    dead = NameServer(dict(RECORDS), behaviour={"org": "silent"})
    try:
        servers = f"127.0.0.1:{dead.port}; 127.0.0.1:{names.port}"
        done = doctor(names, dns_server=servers, dns_timeout="0.5", smtp_check="spf")
    finally:
        dead.close()

    said = done.stdout.splitlines()
    assert [line for line in said if line.startswith(f"error    dns 127.0.0.1:{dead.port}")]
    assert [line for line in said if line.startswith(f"ok       dns 127.0.0.1:{names.port}")]


def test_a_spamd_that_is_not_there_is_told_where_it_is_needed(names: NameServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    needed = doctor(names, smtp_check="spam", spamassassin_host="127.0.0.1", spamassassin_port=port)
    not_needed = doctor(names, spamassassin_port=port)

    assert f"error    spamd 127.0.0.1:{port}" in needed.stdout
    assert "  spamd " not in not_needed.stdout


def test_the_certificate_is_looked_at(names: NameServer, certificate: Certificate) -> None:
    keys = {"smtp_certificate": str(certificate.chain), "smtp_key": str(certificate.key)}

    done = doctor(names, hostname="localhost", **keys)

    [line] = [line for line in done.stdout.splitlines() if "is for localhost" in line]
    assert line.startswith("ok       certificate of port ")


def test_local_addresses_are_counted_or_complained_about(names: NameServer) -> None:
    Path("good").write_text("@example.org\n# nobody\nbob@example.net\n")
    Path("bad").write_text("regex (\n")

    good, bad = doctor(names, local_addresses="good"), doctor(names, local_addresses="bad")

    assert "ok       local addresses" in good.stdout
    assert "2 patterns in the file" in good.stdout
    assert "error    local addresses" in bad.stdout
    assert "bad:1: " in bad.stdout


@needs("rabbitmq")
def test_a_broker_is_looked_at_and_its_password_never_told(
    names: NameServer, broker: RabbitMQ
) -> None:
    good = doctor(names, rabbitmq_address=broker.url, smtp_maxsize="5MB")
    wrong = broker.url.replace("guest:guest", "guest:sesame")
    bad = doctor(names, "--json", rabbitmq_address=wrong)

    assert (good.exit_code, bad.exit_code) == (0, 2)
    assert f"ok       broker 127.0.0.1:{broker.port}" in good.stdout
    assert "it refuses the login" in bad.stdout
    assert "sesame" not in bad.output
    assert "guest:" not in good.output + bad.output


def test_a_configuration_with_errors_is_no_patient(names: NameServer) -> None:
    done = doctor(names, smtp_maxsize="32Q")

    assert done.exit_code == 2
    assert "is not a size" in done.stderr
    assert done.stdout == ""


def test_the_mail_records_of_a_domain_are_audited(names: NameServer) -> None:
    names.records |= {
        ("audited.test", "TXT"): ['"v=spf1 -all"'],
        ("audited.test", "MX"): ["10 mx.example.test."],
        ("_dmarc.audited.test", "TXT"): ['"v=DMARC1; p=none"'],
    }

    done = doctor(names, "audited.test.")

    said = done.stdout.splitlines()
    assert [line for line in said if line.startswith("ok       spf")]
    assert [line for line in said if line.startswith("ok       mx       10 mx.example.test")]
    assert [line for line in said if line.startswith("note     mta-sts")]
    assert "backlog" not in done.stdout


def test_what_a_stranger_wrote_disturbs_no_terminal(names: NameServer) -> None:
    names.records |= {("esc.test", "TXT"): ['"v=spf1 a:\\027[2J.example -all"']}

    done = doctor(names, "esc.test")

    assert "\x1b" not in done.output
    assert "spf" in done.stdout


def test_what_is_no_domain_is_told(names: NameServer) -> None:
    done = doctor(names, "no domain")

    assert done.exit_code == 2
    assert done.stderr == 'mailgw doctor: "no domain" is not a host name\n'


def test_without_the_extra_it_says_how_to_get_it(names: NameServer) -> None:
    program = (
        "import sys; sys.modules['checkdmarc'] = None\n"
        "from mailgw.cli import main; main(prog_name='mailgw')"
    )
    command = ["doctor", "example.test", f"--dns-server=127.0.0.1:{names.port}"]

    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr == (
        "mailgw doctor: checkdmarc is not installed (pip install 'mailgw[doctor]')\n"
    )
