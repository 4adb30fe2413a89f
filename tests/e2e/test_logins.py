"""Who may authenticate, who must, and which addresses to send from, as clients see it."""

from __future__ import annotations

import base64
import os
import signal
import smtplib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import argon2
import pytest

from client import Client
from gateway import Gateway
from parts import needs

Start = Callable[..., Gateway]

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
PASSWORD = "öffne dich: 7"
# What would be left of it where it was escaped.
IN_LOG = "ffne dich"
# The password above, by `openssl passwd -6`.
SHA512 = (
    "$6$rounds=5000$saltsaltsaltsalt$nCU0hW3L8k3cUZt.xoGUCX6ywVIp"
    "psThMVVGRNdnbrnoENmD3m1X7ZGtCHAA58Hna.HZVZJ6380SGZPJvo1ai/"
)
# Everything these tests send comes from here.
IN_CLEAR = {"smtp-auth-insecure-range": "127.0.0.0/8"}


def plain(username: str, password: str) -> str:
    octets = f"\0{username}\0{password}".encode()
    return "AUTH PLAIN " + base64.b64encode(octets).decode()


def swaks(
    gateway: Gateway, recipient: str, *arguments: object
) -> subprocess.CompletedProcess[bytes]:
    line = (
        *("swaks", "--server", "127.0.0.1", "--port", gateway.port, "--helo", "client.test"),
        *("--from", "joe@there.test", "--to", recipient, "--body", "from swaks", *arguments),
    )
    return subprocess.run(
        [str(word) for word in line], capture_output=True, timeout=30, check=False
    )


def with_login(password: str, username: str = "anna", how: str = "PLAIN") -> tuple[str, ...]:
    return ("--auth", how, "--auth-user", username, "--auth-password", password)


@pytest.fixture
def locals_(tmp_path: Path) -> Path:
    path = tmp_path / "locals"
    path.write_text("@ours.test\n@köln.test\n")
    return path


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users with blank"
    path.write_text(f"anna:{SHA512}\nbob:{argon2.PasswordHasher().hash('hunter2')}\n")
    return path


@pytest.fixture
def with_file(gateway: Start, users: Path, locals_: Path) -> Gateway:
    source = f"file://{users}".replace(" ", "%20")
    return gateway(IN_CLEAR | {"smtp-auth": source, "local-addresses": locals_})


class Service(ThreadingHTTPServer):
    """A web service that knows anna, or does what `status` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status: int | None = None
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        right = "Basic " + base64.b64encode(f"anna:{PASSWORD}".encode()).decode()
        known = self.headers["Authorization"] == right
        self.send_response(self.server.status or (200 if known else 401))
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Standard error is for what went wrong."""


@contextmanager
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_smtplib_logs_in_and_the_log_has_the_name_alone(with_file: Gateway) -> None:
    for how in ("PLAIN", "LOGIN"):
        with smtplib.SMTP("127.0.0.1", with_file.port) as client:
            client.ehlo()
            assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
            client.user, client.password = "bob", "hunter2"
            assert client.auth(how, getattr(client, f"auth_{how.lower()}"))[0] == 235
    assert with_file.stop() == 0
    with_file.saw("auth.accepted", 2)
    assert "user=bob" in with_file.log
    assert "hunter2" not in with_file.log


@needs("swaks")
@pytest.mark.parametrize("how", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(("username", "password"), [("anna", PASSWORD), ("bob", "hunter2")])
def test_who_is_in_the_file_may_write_to_any_address(
    with_file: Gateway, how: str, username: str, password: str
) -> None:
    done = swaks(with_file, "x@elsewhere.test", *with_login(password, username, how))
    assert done.returncode == 0, done.stdout.decode()
    [document] = with_file.consume()
    assert document["recipient"] == "x@elsewhere.test"
    assert document["connection"]["user"] == username
    assert password.removeprefix("ö") not in with_file.log


@needs("swaks")
def test_a_wrong_password_and_an_unknown_name_hear_the_same(with_file: Gateway) -> None:
    said = []
    for username, password in [("anna", "wrong"), ("nobody", PASSWORD), ("bob", "wrong")]:
        done = swaks(with_file, "bob@ours.test", *with_login(password, username))
        assert done.returncode != 0
        said.append([line for line in done.stdout.decode().splitlines() if " 535 " in line])
    assert said == [["<** 535 5.7.8 Authentication credentials invalid"]] * 3
    assert with_file.consume() == []
    with_file.saw("auth.refused", 3)
    assert "user=nobody" in with_file.log


@needs("swaks")
def test_a_web_service_decides(gateway: Start, locals_: Path) -> None:
    with service() as web:
        address = f"http://127.0.0.1:{web.server_port}/login?for=smtp"
        keys = IN_CLEAR | {"smtp-auth": address, "local-addresses": locals_}
        server = gateway(keys)
        right = swaks(server, "x@elsewhere.test", *with_login(PASSWORD))
        wrong = swaks(server, "x@elsewhere.test", *with_login("nonsense"))
        assert right.returncode == 0, right.stdout.decode()
        assert b" 535 5.7.8 " in wrong.stdout
        assert set(web.asked) == {"/login?for=smtp"}
        [document] = server.consume()
        assert document["connection"]["user"] == "anna"
        assert server.stop() == 0
    assert IN_LOG not in server.log
    assert "nonsense" not in server.log
    assert "Unclosed" not in server.log


@pytest.mark.parametrize("status", [302, 404, 500, 503])
def test_a_web_service_in_trouble_is_no_wrong_password(
    gateway: Start, locals_: Path, status: int
) -> None:
    with service() as web:
        web.status = status
        address = f"http://127.0.0.1:{web.server_port}/login"
        limited = {"smtp-auth-attempts": 1, "local-addresses": locals_}
        server = gateway(IN_CLEAR | limited | {"smtp-auth": address})
        with Client(server.port) as client:
            client.hello()
            for _ in range(3):
                said = client.ask(plain("anna", PASSWORD))
                assert said == "454 4.7.0 Temporary authentication failure"
            assert client.ask("MAIL FROM:<a@b.test>").startswith("250 ")
            assert client.ask("RCPT TO:<x@elsewhere.test>").startswith("530 5.7.0 ")
            web.status = None
            assert client.ask("RSET").startswith("250 ")
            assert client.ask(plain("anna", PASSWORD)).startswith("235 2.7.0 ")
        assert set(web.asked) == {"/login"}
    assert f'auth.unavailable id={log_id(server)} reason="the web service answered {status}"' in (
        server.log
    )
    assert IN_LOG not in server.log
    assert plain("anna", PASSWORD).split()[2] not in server.log


def log_id(gateway: Gateway) -> str:
    return gateway.log.partition("client.connected id=")[2].split()[0]


def test_a_web_service_that_is_not_there(gateway: Start, locals_: Path) -> None:
    with service() as web:
        address = f"http://127.0.0.1:{web.server_port}/login"
    server = gateway(IN_CLEAR | {"smtp-auth": address, "local-addresses": locals_})
    with Client(server.port) as client:
        client.hello()
        assert client.ask(plain("anna", PASSWORD)).startswith("454 4.7.0 ")
        assert client.ask("NOOP").startswith("250 ")


LOCAL = ["bob@ours.test", "BOB@OURS.TEST", "bob+tag@ours.test", "bob@xn--kln-sna.test"]
FOREIGN = ["x@elsewhere.test", "bob%elsewhere.test@ours.test.elsewhere.test", "bob@sub.ours.test"]


def test_with_logins_strangers_may_write_to_local_addresses_only(with_file: Gateway) -> None:
    # hostile-input B29: both kinds in one mail.
    with Client(with_file.port) as client:
        client.hello()
        client.ask("MAIL FROM:<joe@there.test>")
        said = {each: client.ask(f"RCPT TO:<{each}>")[:9] for each in LOCAL + FOREIGN}
        assert said == dict.fromkeys(LOCAL, "250 2.1.5") | dict.fromkeys(FOREIGN, "530 5.7.0")
        assert client.ask("DATA").startswith("354 ")
        client.send(MESSAGE + b".\r\n")
        assert client.reply().startswith("250")
    documents = with_file.consume()
    assert [each["recipient"].lower() for each in documents] == [
        "bob@ours.test",
        "bob@ours.test",
        "bob+tag@ours.test",
        "bob@köln.test",
    ]
    assert all("user" not in each["connection"] for each in documents)


def test_who_authenticates_may_write_to_all_of_them(with_file: Gateway) -> None:
    with Client(with_file.port) as client:
        client.hello()
        assert client.ask(plain("anna", PASSWORD)).startswith("235 2.7.0 ")
        # hostile-input B33: twice.
        assert client.ask(plain("anna", PASSWORD)).startswith("503 5.5.1 ")
        assert client.mail(MESSAGE, *LOCAL, *FOREIGN).startswith("250")
    documents = with_file.consume()
    assert len(documents) == len(LOCAL + FOREIGN)
    assert {each["connection"]["user"] for each in documents} == {"anna"}


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        (["AUTH PLAIN !!!"], ["501"]),
        (["AUTH PLAIN ="], ["501"]),
        (["AUTH PLAIN " + base64.b64encode(b"anna").decode()], ["501"]),
        (["AUTH PLAIN " + base64.b64encode(b"\0anna\0\xff\xfe").decode()], ["535"]),
        (["AUTH PLAIN " + base64.b64encode(b"\0anna\0").decode()], ["535"]),
        (["AUTH PLAIN " + base64.b64encode(b"\0anna\0" + b"x" * 300).decode()], ["535"]),
        (["AUTH LOGIN", "*"], ["334", "501"]),
        (["AUTH LOGIN", "YW5uYQ==", "*"], ["334", "334", "501"]),
        (["AUTH CRAM-MD5"], ["504"]),
        (["MAIL FROM:<a@b.test>", plain("anna", PASSWORD)], ["250", "503"]),
    ],
)
def test_what_is_no_login_costs_no_guess(
    gateway: Start, users: Path, lines: list[str], codes: list[str]
) -> None:
    # hostile-input B33.
    source = f"file://{users}".replace(" ", "%20")
    server = gateway(IN_CLEAR | {"smtp-auth": source, "smtp-auth-attempts": 1})
    for _ in range(2):
        with Client(server.port) as client:
            client.hello()
            assert [client.ask(line)[:3] for line in lines] == codes
            client.ask("RSET")
            assert client.ask(plain("anna", PASSWORD)).startswith("235 ")


def test_guessing_is_limited_by_address_and_over_connections(with_file: Gateway) -> None:
    # hostile-input B33: a hundred tries.
    said = []
    for _ in range(100):
        with Client(with_file.port) as client:
            client.hello()
            said.append(client.ask(plain("anna", "wrong"))[:9])
    assert said == ["535 5.7.8"] * 10 + ["421 4.7.0"] * 90
    with Client(with_file.port) as client:
        client.hello()
        assert client.ask(plain("anna", PASSWORD)).startswith("421 4.7.0 ")
        assert client.ended()
    elsewhere = smtplib.SMTP("127.0.0.1", with_file.port, source_address=("127.0.0.7", 0))
    with elsewhere as client:
        client.ehlo()
        assert client.docmd(plain("anna", PASSWORD))[0] == 235
    assert "rule=smtp-auth-attempts" in with_file.log
    assert IN_LOG not in with_file.log


def test_hardcoded_logins(gateway: Start) -> None:
    server = gateway(IN_CLEAR | {"smtp-auth": "hardcoded://anna:%C3%B6ffne%20dich%3A%207,bob:b"})
    for username, password, code in [
        ("anna", PASSWORD, "235"),
        ("bob", "b", "235"),
        ("bob", PASSWORD, "535"),
    ]:
        with Client(server.port) as client:
            client.hello()
            assert client.ask(plain(username, password))[:3] == code


def test_a_file_with_a_bad_line_keeps_it_from_starting(gateway: Start, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"anna:{SHA512}\nbob:hunter2\n")
    with pytest.raises(RuntimeError, match="ended by itself") as ended:
        gateway(IN_CLEAR | {"smtp-auth": f"file://{users}"})
    assert f"{users}:2: has a hash of an unknown kind" in str(ended.value)
    assert "hunter2" not in str(ended.value)


def test_a_reload_reads_the_file_again(gateway: Start, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"anna:{SHA512}\n")
    conf = tmp_path / "mailgw.conf"
    conf.write_text(f"smtp-auth: file://{users}\nsmtp-auth-insecure-range: 127.0.0.1\n")
    server = gateway({"config-file": conf})
    users.write_text(f"bob:{SHA512}\n")
    server.signal(signal.SIGHUP)
    server.saw("reload.done")
    with Client(server.port) as client:
        client.hello()
        assert client.ask(plain("anna", PASSWORD)).startswith("535 ")
        assert client.ask(plain("bob", PASSWORD)).startswith("235 ")
    assert server.stop() == 0


MAPPING = {
    "smtp-default-ips": "192.0.2.1; 192.0.2.2",
    "smtp-mappable-ips": "127.0.0.0/8; 203.0.113.0/24",
    "smtp-unmappable-ips": "127.0.0.3",
}


def test_the_address_that_mail_arrived_at_is_the_one_to_send_from(gateway: Start) -> None:
    addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    server = gateway(MAPPING | {"smtp-ip": ";".join(addresses)})
    for address, port in zip(addresses, server.ports, strict=True):
        with smtplib.SMTP(address, port) as client:
            client.sendmail("joe@there.test", ["bob@ours.test"], MESSAGE)
            client.sendmail(
                "joe@there.test", ["eve@ours.test"], b"x-mq-ip: 198.51.100.1\r\n" + MESSAGE
            )
    found = [(each["connection"]["local-ip"], each["ips"]) for each in server.consume()]
    asked = ["198.51.100.1"]
    assert found == [
        ("127.0.0.1", ["127.0.0.1"]),
        ("127.0.0.1", asked),
        ("127.0.0.2", ["127.0.0.2"]),
        ("127.0.0.2", asked),
        ("127.0.0.3", ["192.0.2.1", "192.0.2.2"]),
        ("127.0.0.3", asked),
    ]


def test_behind_a_proxy_the_header_says_where_mail_arrived(gateway: Start) -> None:
    # hostile-input G08: so only those may send one that are named.
    server = gateway(MAPPING | {"smtp-proxy": "127.0.0.1", "smtp-ip": "127.0.0.1"})
    for destination in ("203.0.113.5", "198.51.100.9", "127.0.0.3"):
        with Client(server.port) as client:
            client.send(f"PROXY TCP4 192.0.2.66 {destination} 4000 25\r\n".encode())
            client.hello()
            assert client.mail(MESSAGE).startswith("250")
    default = ["192.0.2.1", "192.0.2.2"]
    assert [each["ips"] for each in server.consume()] == [["203.0.113.5"], default, default]


def test_who_is_no_proxy_cannot_say_where_mail_arrived(gateway: Start) -> None:
    server = gateway(MAPPING | {"smtp-proxy": "192.0.2.77"})
    with Client(server.port) as client:
        client.hello()
        said = client.ask("PROXY TCP4 192.0.2.66 203.0.113.5 4000 25")
        assert said.startswith("500 ")
        assert client.mail(MESSAGE).startswith("250")
    [document] = server.consume()
    assert document["ips"] == ["127.0.0.1"]
    assert document["connection"]["local-ip"] == "127.0.0.1"


def test_logins_in_a_file_cost_no_library_where_there_are_none(tmp_path: Path) -> None:
    program = """
import sys
from mailgw.config import load
from mailgw.process.house import house_of, output_of
from mailgw.mail.identifiers import Identifiers
settings = load((), {}, [("rabbitmq-address", ""), ("queue-store", sys.argv[1])])
house_of(settings, output_of(settings), Identifiers())
print([name for name in ("aiohttp", "argon2", "passlib") if name in sys.modules])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "queue.sqlite")],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "[]\n"
