"""Code of the operator's own: loaded by its names, and put around the gate and the intake."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from mailgw.config.networks import NOWHERE, Networks
from mailgw.config.sections.extensions import ExtensionSettings
from mailgw.gate.gate import Gate
from mailgw.gate.hooks import Hooks
from mailgw.gate.recipients import LocalAddresses
from mailgw.intake import discard
from mailgw.mail.budget import Budget
from mailgw.mail.peer import Peer
from mailgw.plugins import BadExtension, load
from mailgw.smtp.extensions import Rules, hello_reply
from mailgw.smtp.reply import Reply
from mailgw.wire import house


@dataclass(frozen=True, slots=True)
class Extensions:
    """The objects that the keys `hook` and `handler` name."""

    hooks: tuple[tuple[str, object], ...]
    handler: object | None
    handler_name: str
    seconds: float

    @classmethod
    def of(cls, settings: ExtensionSettings) -> Extensions:
        """Load them. Raises BadExtension, one line with the key in front."""
        return cls(
            tuple((name, _loaded("hook", name)) for name in settings.hook),
            _handler(settings.handler) if settings.handler else None,
            settings.handler,
            settings.hook_timeout,
        )

    @classmethod
    def complaint(cls, settings: ExtensionSettings) -> str | None:
        """What keeps them from being used, one line with the key in front; None for nothing."""
        gate = Gate("", LocalAddresses.empty(), 1, lambda: None)
        try:
            cls.of(settings).around(
                gate, discard, Rules(""), auth_in_clear=NOWHERE, own_reply=False
            )
        except BadExtension as bad:
            return str(bad)
        return None

    @property
    def authenticate(self) -> bool:
        """Whether one of them knows logins, so that AUTH is offered."""
        handled = any(hasattr(self.handler, name) for name in ("authenticator", "handle_AUTH"))
        return handled or any(hasattr(hook, "auth") for _, hook in self.hooks)

    @property
    def reply_to_all(self) -> bool:
        """Whether one of them has a reply where the session knows what to say."""
        return self.handler is not None

    def around(
        self,
        gate: Gate,
        intake: house.Intake,
        rules: Rules,
        *,
        auth_in_clear: Networks,
        own_reply: bool,
        budget: Budget | None = None,
    ) -> tuple[house.Gate, house.Intake]:
        """The same two, asking first; unchanged where nothing is configured."""
        policy: house.Gate = gate
        if self.handler is not None:
            # Imported here: its library is an extra, and who has no handler need not have it.
            from mailgw.gate.handler import Handled

            try:
                handled = Handled(
                    gate,
                    self.handler,
                    self.handler_name,
                    hostname=rules.hostname,
                    offer=_offer(rules, auth_in_clear),
                    guesses=gate.guesses,
                    seconds=self.seconds,
                    own_reply=own_reply,
                    budget=budget,
                )
            except BadExtension as bad:
                raise BadExtension(f"handler: {bad}") from bad
            policy, intake = handled, handled.intake(intake)
        if self.hooks:
            try:
                hooks = Hooks(policy, self.hooks, gate.guesses, self.seconds, budget)
            except BadExtension as bad:
                raise BadExtension(f"hook: {bad}") from bad
            policy, intake = hooks, hooks.intake(intake)
        return policy, intake


@functools.cache
def _loaded(key: str, name: str) -> object:
    # Once a process: a reload takes no new names, and what a hook remembers is kept.
    try:
        return load(name)
    except BadExtension as bad:
        raise BadExtension(f"{key}: {bad}") from bad


def _handler(name: str) -> object:
    if importlib.util.find_spec("aiosmtpd") is None:
        raise BadExtension(
            f"handler: {name}: needs aiosmtpd, which is not here (pip install mailgw[handlers])"
        )
    return _loaded("handler", name)


def _offer(rules: Rules, auth_in_clear: Networks) -> Callable[[Peer], Reply]:
    """What the session would say to EHLO, for whoever says it instead."""

    def offer(peer: Peer) -> Reply:
        auth = rules.auth and (peer.secure or peer.remote_ip in auth_in_clear)
        return hello_reply(rules, esmtp=peer.esmtp, tls=peer.secure, auth=auth)

    return offer
