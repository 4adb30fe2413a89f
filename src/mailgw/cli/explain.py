"""`mailgw explain`: what would become of a mail, and why, without sending one."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from mailgw.cli.options import FAILED, Sources, sourced
from mailgw.config import Configuration
from mailgw.mail.peer import Peer, Tls
from mailgw.process.explanation import Explanation, Part, explain
from mailgw.process.house import TROUBLES
from mailgw.process.rehearsal import Mail

TURNED_AWAY = 1
# Where no file says what: the least that has an author.
_LEAST = "From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: explain\r\n\r\n"


def _address(_: click.Context, __: click.Parameter, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise click.BadParameter(f'"{text}" is no IP address (try 192.0.2.1)') from None


@click.command()
@sourced  # outermost: --user is ours here, and not the key
@click.option("--ip", required=True, callback=_address, help="Address of the client.")
@click.option("--helo", required=True, metavar="NAME", help="The name it gives in EHLO.")
@click.option(
    "--from", "sender", required=True, metavar="A", help='Sender; "" or <> is the null sender.'
)
@click.option(
    "--rcpt",
    "recipients",
    required=True,
    multiple=True,
    metavar="B",
    help="Recipient; may be given several times.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port it connects to; else the first of smtp-port.",
)
@click.option("--user", metavar="U", help="As whom it is authenticated.")
@click.option(
    "--eml",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The message; else one with only From and To.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines: one JSON object.")
def command(
    sources: Sources,
    ip: str,
    helo: str,
    sender: str,
    recipients: tuple[str, ...],
    port: int | None,
    user: str | None,
    eml: Path | None,
    as_json: bool,
) -> None:
    """Rehearse a mail with this configuration, and print every step with the rule that decided.

    The same code as in the gateway decides, with no socket and without publishing. The DNS
    is asked, and spamd, a login service or a hook, where the configuration has one; limits
    on how many and how often start from zero. With another --config-file one sees what a
    change would do. Exits with 0 where the mail would be taken, 1 where not, 2 on mistakes.
    """
    context = click.get_current_context()
    configuration = sources.read()
    if configuration.errors:
        for finding in configuration.errors:
            click.echo(str(finding), err=True)
        context.exit(FAILED)
    sender = "" if sender == "<>" else sender
    least = _LEAST.format(sender=sender or "postmaster@invalid", recipient=recipients[0])
    try:
        content = eml.read_bytes() if eml else least.encode()
    except OSError as trouble:
        raise click.FileError(str(eml), trouble.strerror) from trouble
    peer = _peer(configuration, ip, port, user)
    try:
        mail = Mail(peer, helo, sender, recipients, content)
        with _unlogged():
            explanation = asyncio.run(explain(configuration, mail))
    except TROUBLES as trouble:
        click.echo(f"mailgw: {configuration.placed(str(trouble))}", err=True)
        context.exit(FAILED)
    if as_json:
        click.echo(json.dumps(_for_machines(explanation), indent=2))
    else:
        for line in _lines(explanation, peer, assumed=eml is None):
            click.echo(line)
    if not explanation.reply.startswith("2"):
        context.exit(TURNED_AWAY)


@contextmanager
def _unlogged() -> Iterator[None]:
    """What the gateway would log meanwhile is said better here."""
    ours = logging.getLogger("mailgw")
    before, ours.disabled = ours.disabled, True
    try:
        yield
    finally:
        ours.disabled = before


def _peer(configuration: Configuration, ip: str, port: int | None, user: str | None) -> Peer:
    """The client, inside TLS where it has to be: on a secure port, or to be authenticated."""
    listen = configuration.settings.listen
    ports = (*listen.port, *listen.secure_port)
    port = port or (ports[0] if ports else 25)
    secure = port in listen.secure_port or user is not None
    own = listen.ip[0] if listen.ip else "::1" if ":" in ip else "127.0.0.1"
    tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384") if secure else None
    return Peer("explain", ip, 0, own, port, tls=tls, user=user)


def _lines(explanation: Explanation, peer: Peer, *, assumed: bool) -> Iterator[str]:
    who = f"{peer.remote_ip} to port {peer.local_port}" + (", inside TLS" if peer.tls else "")
    yield f"client     {who}" + (f", authenticated as {peer.user}" if peer.user else "")
    asked = False
    for part in explanation.parts:
        if not asked and not part.command and part.step != "connect":
            # Here the checks begin; who asked which question nobody knows.
            yield from _questions(explanation)
            asked = True
        yield from _part(part)
    if not asked:
        yield from _questions(explanation)
    if assumed:
        yield "note       no --eml: a message with nothing but From, To and Subject was assumed"


def _part(part: Part) -> Iterator[str]:
    if part.command:
        yield f"           C: {part.command}"
    # Only a key has an origin; a hook that decided has its name alone.
    rule = f"{part.key}: {part.value or 'empty'} ({part.origin})" if part.origin else part.key
    why = "; ".join(text for text in (rule, part.reason) if text)
    took = f"{part.milliseconds:.1f} ms" if part.milliseconds else ""
    yield f"{part.step:<10} {part.verdict:<10} {took:>10}  {why}".rstrip()
    for line in part.reply.splitlines():
        yield f"           S: {line}"


def _questions(explanation: Explanation) -> Iterator[str]:
    for each in explanation.asked:
        took = f"{each.milliseconds:.1f} ms"
        yield f"dns        {each.kind:<10} {took:>10}  {each.name}: {each.answer}"


def _for_machines(explanation: Explanation) -> dict[str, object]:
    parts = [
        {name.replace("milliseconds", "ms"): text for name, text in asdict(part).items() if text}
        for part in explanation.parts
    ]
    asked = [
        {name.replace("milliseconds", "ms"): text for name, text in asdict(each).items()}
        for each in explanation.asked
    ]
    return {"reply": explanation.reply, "steps": parts, "dns": asked}
