"""What a reload takes over, what it leaves, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailgw.config import Configuration, read
from mailgw.gate.rates import Alone
from mailgw.process.plan import (
    CannotReload,
    Plan,
    carried_over,
    fingerprint,
    first_plan,
    in_need_of_a_restart,
    renewed,
)
from mailgw.process.unseen import Table, UnseenReplies

CALM = {"smtp-ip": "127.0.0.1", "smtp-port": "0", "hostname": "mx.ours.test", "output": "null"}


def configuration(**keys: str) -> Configuration:
    given = CALM | {key.replace("_", "-"): text for key, text in keys.items()}
    return read((), {}, list(given.items()))


def plan(**keys: str) -> Plan:
    return first_plan(configuration(**keys).settings, Alone())


def test_a_reload_forgets_no_reply_that_was_not_seen() -> None:
    unseen = UnseenReplies(Table(1, 600.0))
    old = first_plan(configuration().settings, Alone(), unseen)
    new = renewed(renewed(old, configuration()), configuration(smtp_maxsize="1MB"))
    assert new.house is not old.house
    assert new.house.unseen is unseen


def test_a_key_that_reload_takes_over_is_new_and_the_others_are_as_they_were() -> None:
    old = configuration(smtp_maxsize="1MB", server_id="1").settings
    new = configuration(smtp_maxsize="2MB", server_id="2", hostname="mx2.ours.test").settings
    both = carried_over(old, new)
    assert both.smtp.maxsize == 2_000_000
    assert (both.document.server_id, both.listen.hostname) == ("1", "mx.ours.test")
    assert list(in_need_of_a_restart(old, new)) == ["hostname", "server-id"]
    assert list(in_need_of_a_restart(both, old)) == []


def test_the_house_is_new_and_the_output_and_the_counters_stay() -> None:
    before = plan()
    after = renewed(before, configuration(smtp_maxsize="2MB"))
    assert (before.house.rules.max_size, after.house.rules.max_size) == (100_000_000, 2_000_000)
    assert after.output is before.output
    assert after.counters is before.counters
    assert after.house.identifiers is before.house.identifiers


def test_each_worker_draws_names_of_its_own_and_keeps_them_over_a_reload() -> None:
    shared = plan()
    one, other = shared.house_for_worker(), shared.house_for_worker()
    assert one.identifiers.next()[:12] != other.identifiers.next()[:12]
    again = shared.house_for_worker(one.identifiers)
    assert again.identifiers is one.identifiers


def test_all_that_is_wrong_is_told() -> None:
    with pytest.raises(CannotReload) as refused:
        renewed(plan(), configuration(smtp_maxsize="much", smtp_timeout="soon"))
    assert len(refused.value.reasons) == 2


def test_where_mail_goes_stays_where_it_goes() -> None:
    before = plan(output="queue", rabbitmq_address="", queue_store="queue.sqlite")
    after = renewed(before, configuration(output="queue"))
    assert not after.settings.broker.address
    assert after.settings.store.queue_store == Path("queue.sqlite")


def test_the_fingerprint_is_about_what_was_written_and_not_where(tmp_path: Path) -> None:
    file = tmp_path / "mailgw.conf"
    file.write_text("smtp-maxsize: 2MB\noutput: null\n")
    written = read((file,), {}, ())
    said = read((), {}, [("output", "null"), ("smtp-maxsize", "2MB")])
    assert fingerprint(written) == fingerprint(said)
    assert fingerprint(written) != fingerprint(configuration())
