"""What is checked, and what is said to follow from it."""

from __future__ import annotations

from collections.abc import Iterator

from mailgw.config.rules.written import Remark, Written, error, warning
from mailgw.config.sections.checks import Check, CheckSettings

_CHECK = "smtp-check"


def checks_end_in_time(written: Written) -> Iterator[Remark]:
    checks, confirm = written.settings.checks, written.settings.smtp.confirm_timeout
    if checks.check and checks.timeout >= confirm:
        yield error(
            "is not shorter than smtp-confirm-timeout, so that slow checks would leave no time "
            f"to make mail safe (try {confirm / 3:g})",
            "smtp-check-timeout",
            "smtp-confirm-timeout",
            _CHECK,
        )


def consequences_have_a_cause(written: Written) -> Iterator[Remark]:
    checks = written.settings.checks
    named: tuple[tuple[str, tuple[Check, ...]], ...] = (
        ("smtp-reject", checks.reject),
        ("smtp-quarantine", checks.quarantine),
    )
    for key, wanted in named:
        for check in wanted:
            if check not in checks.check:
                yield error(f"{check} is not checked (add it to {_CHECK})", key, _CHECK)
    if checks.defer and not checks.check:
        yield error(f"nothing is checked (set {_CHECK})", "smtp-defer", _CHECK)


def quarantine_has_a_place(written: Written) -> Iterator[Remark]:
    checks, broker = written.settings.checks, written.settings.broker
    if checks.quarantine and not broker.quarantine:
        yield error(
            "there is no queue for it (set rabbitmq-quarantine)",
            "smtp-quarantine",
            "rabbitmq-quarantine",
        )
    if broker.quarantine and not checks.quarantine:
        yield warning(
            "nothing goes there (set smtp-quarantine)", "rabbitmq-quarantine", "smtp-quarantine"
        )
    if broker.refused and not checks.reject:
        yield warning("nothing goes there (set smtp-reject)", "rabbitmq-refused", "smtp-reject")
    shared = {broker.inbox, broker.local or broker.inbox}
    for key, queue in (
        ("rabbitmq-quarantine", broker.quarantine),
        ("rabbitmq-refused", broker.refused),
    ):
        if queue in shared:
            yield warning("is where accepted mail goes (try another queue)", key, "rabbitmq-inbox")


def spam_has_a_score(written: Written) -> Iterator[Remark]:
    checks = written.settings.checks
    if "spam" in checks.reject and checks.spam_reject_score is None:
        yield error(
            "spam is refused from no score on (set spam-reject-score, try 15)",
            "smtp-reject",
            "spam-reject-score",
        )
    elif checks.spam_reject_score is not None and "spam" not in checks.reject:
        yield warning("has no effect without smtp-reject: spam", "spam-reject-score", "smtp-reject")


def spamd_can_be_asked(written: Written) -> Iterator[Remark]:
    checks = written.settings.checks
    named = "spamassassin-timeout" in written.entries
    if named and "spam" in checks.check and checks.spamassassin_timeout > checks.timeout:
        yield warning(
            "is longer than smtp-check-timeout, which ends it before",
            "spamassassin-timeout",
            "smtp-check-timeout",
            _CHECK,
        )


def results_are_there_to_write(written: Written) -> Iterator[Remark]:
    checks = written.settings.checks
    if checks.auth_results and not checks.check:
        yield warning(
            f'nothing is checked, so that the field says "none" (set {_CHECK})',
            "smtp-auth-results",
            _CHECK,
        )
    if checks.arc_trusted and not _rescues(checks):
        yield warning(f"has no effect without dmarc and arc in {_CHECK}", "arc-trusted", _CHECK)


def _rescues(checks: CheckSettings) -> bool:
    return {"dmarc", "arc"} <= set(checks.check)
