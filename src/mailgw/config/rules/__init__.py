"""What must hold between keys, and what is unsafe on the internet.

A rule is a function from what was written to remarks. The first key of a remark is the
one to change; the remark is dropped where any of its keys could not be read. Rules look
at files, and never at the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mailgw.config.rules import access, checks, host, listening, queues, storage
from mailgw.config.rules.written import Remark, Written

__all__ = ["RULES", "Remark", "Rule", "Written", "judge"]

Rule = Callable[[Written], Iterator[Remark]]

RULES: tuple[Rule, ...] = (
    listening.ports_agree,
    listening.certificate_is_complete,
    listening.certificate_can_be_used,
    listening.ciphers_exist,
    listening.mail_in_clear,
    listening.sizes_are_sensible,
    listening.newlines_are_carried,
    listening.greeting_comes_in_time,
    listening.one_client_is_not_all,
    access.proxies_are_few,
    access.login_is_complete,
    access.logins_can_be_looked_up,
    access.open_relay,
    access.extraction_by_strangers,
    access.local_addresses_exist,
    checks.checks_end_in_time,
    checks.consequences_have_a_cause,
    checks.quarantine_has_a_place,
    checks.spam_has_a_score,
    checks.spamd_can_be_asked,
    checks.results_are_there_to_write,
    queues.mail_has_a_place,
    queues.outages_can_be_outlasted,
    queues.queues_differ,
    queues.queue_type_can_do_it,
    queues.broker_keeps_mail,
    queues.broker_is_trusted,
    storage.storage_has_a_use,
    storage.storage_ends_in_time,
    storage.storage_can_be_used,
    host.logs_can_be_written,
    host.daemon_is_heard,
    host.files_are_ours,
    host.secrets_are_kept,
    host.secret_files_are_kept,
    host.unlike_mailerq,
)


def judge(written: Written) -> Iterator[Remark]:
    """Ask every rule."""
    for rule in RULES:
        yield from rule(written)
