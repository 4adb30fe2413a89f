"""What a worker makes of its settings; serving and draining are told by tests/e2e."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mailgw.config import load, read
from mailgw.outlets.amqp import Amqp
from mailgw.outlets.null import Null
from mailgw.outlets.store import Store
from mailgw.outlets.waiting_room import WaitingRoom
from mailgw.plugins import Output
from mailgw.process.house import output_of
from mailgw.process.serve import serve
from mailgw.process.trouble import CannotStart

CALM = {"smtp-ip": "127.0.0.1", "smtp-port": "0", "hostname": "mx.ours.test"}


@pytest.mark.parametrize(
    ("keys", "output"),
    [
        ({"rabbitmq-address": "", "queue-store": "{folder}/queue.sqlite"}, Store),
        ({"rabbitmq-address": "amqp://guest:guest@127.0.0.1:1/"}, Amqp),
        (
            {
                "rabbitmq-address": "amqp://guest:guest@127.0.0.1:1/",
                "queue-store": "{folder}/queue.sqlite",
            },
            Amqp,
        ),
        (
            {
                "rabbitmq-address": "amqp://guest:guest@127.0.0.1:1/",
                "queue-store": "{folder}/queue.sqlite",
                "rabbitmq-outage": "store",
            },
            WaitingRoom,
        ),
        (
            {
                "rabbitmq-address": "",
                "queue-store": "{folder}/queue.sqlite",
                "rabbitmq-outage": "store",
            },
            Store,
        ),
        ({"output": "null", "rabbitmq-address": "amqp://guest:guest@127.0.0.1:1/"}, Null),
    ],
)
def test_where_documents_go(keys: dict[str, str], output: type[Output], tmp_path: Path) -> None:
    arguments = [(key, value.format(folder=tmp_path)) for key, value in (CALM | keys).items()]
    settings = load((), {}, arguments)
    assert type(output_of(settings)) is output


def test_who_has_no_broker_loads_no_library_of_one(tmp_path: Path) -> None:
    program = f"""
import sys
from mailgw.config import load
from mailgw.process.house import output_of
keys = {CALM | {"rabbitmq-address": "", "queue-store": str(tmp_path / "queue.sqlite")}!r}
output_of(load((), {{}}, list(keys.items())))
print("aio_pika" in sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "False\n"


def test_what_keeps_it_from_listening_is_raised_and_nobody_is_told_it_is_ready(
    tmp_path: Path,
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    keys = CALM | {
        "smtp-ip": "192.0.2.77",
        "smtp-port": "2525",
        "rabbitmq-address": "",
        "queue-store": str(tmp_path / "queue.sqlite"),
    }
    configuration = read((), {}, list(keys.items()))
    told: list[object] = []
    with pytest.raises(CannotStart, match=r"192\.0\.2\.77 port 2525"):
        serve(configuration.settings, lambda: configuration, told.extend)
    assert told == []
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
