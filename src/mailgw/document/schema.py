"""The document: its names and types, declared once.

From these structs come the encoding, the JSON Schema and the table in the README.
Law: a property that is not there has no default to guess, it is left out; a name that
is declared here is never written by a custom header.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mailgw.mail import finding
from mailgw.mail.report import Report

SCHEMA_VERSION = 1

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$"
_DIGEST = r"^[0-9a-f]{64}$"
_IDENTIFIER = r"^[A-Za-z0-9]+$"

Text = str | UnsetType
Flag = bool | UnsetType
Strings = list[str] | UnsetType
Time = Annotated[str, Meta(pattern=_TIME)]
Digest = Annotated[str, Meta(pattern=_DIGEST)]
Identifier = Annotated[str, Meta(pattern=_IDENTIFIER)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=0)]
Priority = Annotated[int, Meta(ge=0, le=255)]
Milliseconds = Annotated[float, Meta(ge=0)]

_VERDICT = {"type": "string", "enum": list(get_args(finding.Verdict))}
# An object for each result: the check is a name in it, and the verdict what it has.
CheckResult = Annotated[
    dict[str, str | bool | int | float | list[str]],
    Meta(extra_json_schema={"properties": dict.fromkeys(get_args(finding.Check), _VERDICT)}),
]


class Connection(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The connection the message came over.

    Behind a trusted proxy the four addresses are the ones that it told us.
    """

    local_ip: Annotated[str, Meta(description="Address the client connected to.")]
    local_port: Annotated[Port, Meta(description="Port the client connected to.")]
    remote_ip: Annotated[str, Meta(description="Address of the client.")]
    remote_port: Annotated[Port, Meta(description="Port of the client.")]
    secure: Annotated[bool, Meta(description="Whether the message came inside TLS.")]
    user: Annotated[Text, Meta(description="Login name; only when authenticated.")] = UNSET
    helo: Annotated[Text, Meta(description="Name the client gave in EHLO or HELO.")] = UNSET
    tls_version: Annotated[Text, Meta(description='"TLSv1.3"; only inside TLS.')] = UNSET
    tls_cipher: Annotated[Text, Meta(description="Cipher suite; only inside TLS.")] = UNSET
    proxy_ip: Annotated[Text, Meta(description="The proxy that spoke for the client.")] = UNSET


class Dsn(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What was asked about delivery reports (RFC 3461), as the client wrote it."""

    notify: Annotated[Text, Meta(description="When to report: NEVER, or a comma list.")] = UNSET
    ret: Annotated[Text, Meta(description="What to return: FULL or HDRS.")] = UNSET
    orcpt: Annotated[Text, Meta(description="Original recipient, with its type.")] = UNSET
    envid: Annotated[Text, Meta(description="Envelope identifier of the sender.")] = UNSET


class NextAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """When delivery may begin."""

    time: Annotated[Time, Meta(description="YYYY-MM-DD HH:MM:SS, UTC.")]


class Queues(msgspec.Struct, frozen=True, kw_only=True):
    """Queues for the results of delivery."""

    results: Annotated[Text, Meta(description="For all results.")] = UNSET
    failure: Annotated[Text, Meta(description="For failures.")] = UNSET
    success: Annotated[Text, Meta(description="For successes.")] = UNSET
    retry: Annotated[Text, Meta(description="For attempts that are tried again.")] = UNSET
    dsn: Annotated[Text, Meta(description="For delivery reports.")] = UNSET


class Smarthost(msgspec.Struct, frozen=True, kw_only=True):
    """The server to deliver through."""

    hostname: Annotated[Text, Meta(description="Its name.")] = UNSET
    port: Annotated[Port | UnsetType, Meta(description="Its port.")] = UNSET
    username: Annotated[Text, Meta(description="Login name.")] = UNSET
    password: Annotated[Text, Meta(description="Password.")] = UNSET

    def __repr__(self) -> str:
        # A password shall not reach a log through the repr of what holds it.
        return f"Smarthost(hostname={self.hostname!r}, port={self.port!r}, ...)"


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """What x-mq-* headers asked for, with the types that delivery expects."""

    ips: Annotated[
        Strings,
        Meta(description="Addresses to send from: x-mq-ip, or the mappable or default addresses."),
    ] = UNSET
    pool: Annotated[Text, Meta(description="Pool of addresses to send from.")] = UNSET
    tags: Annotated[Strings, Meta(description="Tags, in order: x-mq-tag.")] = UNSET
    nextattempt: NextAttempt | UnsetType = UNSET
    maxdelivertime: Annotated[
        Time | UnsetType, Meta(description="Deliver until: YYYY-MM-DD HH:MM:SS, UTC.")
    ] = UNSET
    maxattempts: Annotated[Count | UnsetType, Meta(description="Attempts at delivery.")] = UNSET
    retries: Annotated[list[int] | UnsetType, Meta(description="Seconds between attempts.")] = UNSET
    inlinecss: Annotated[Flag, Meta(description="Move style sheets into the elements.")] = UNSET
    keepmime: Annotated[Flag, Meta(description="Keep the message in the results.")] = UNSET
    force: Annotated[Flag, Meta(description="Deliver in spite of limits.")] = UNSET
    priority: Annotated[
        Priority | UnsetType, Meta(description="Priority, of the queue entry too.")
    ] = UNSET
    queues: Queues | UnsetType = UNSET
    smarthost: Smarthost | UnsetType = UNSET


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of how it was decided what becomes of the mail, with the rule that decided."""

    step: Annotated[str, Meta(description="A check, verdict, or queue.")]
    verdict: Annotated[
        str,
        Meta(
            description="What came out: the word of the check; accept, quarantine or refuse; or "
            "inbox, local, reports, quarantine or refused."
        ),
    ]
    key: Annotated[str, Meta(description="The key of the configuration that decided.")]
    value: Annotated[str, Meta(description="Its value, or what of it decided.")]
    ms: Annotated[Milliseconds, Meta(description="How long it took, in milliseconds.")]
    reason: Annotated[Text, Meta(description="More about it, in one line.")] = UNSET


class Document(Requested, frozen=True, kw_only=True, rename="kebab"):
    """One received message for one recipient.

    Further properties are strings: an x-mq-* header that has no meaning of its own
    becomes the property named like it, without the x-mq-.
    """

    message_id: Annotated[
        Identifier, Meta(description="Identifies this document; told to the client in the reply.")
    ]
    transaction_id: Annotated[
        Identifier, Meta(description="The same for all recipients of one mail.")
    ]
    received: Annotated[Time, Meta(description="When it came: YYYY-MM-DD HH:MM:SS, UTC.")]
    hostname: Annotated[str, Meta(description="The server that received it.")]
    envelope: Annotated[
        str,
        Meta(description='Sender: MAIL FROM, or x-mq-envelope; "" for the null sender.'),
    ]
    recipient: Annotated[str, Meta(description="One recipient: RCPT TO.")]
    connection: Connection
    dsn: Dsn | UnsetType = UNSET
    checks: Annotated[
        list[CheckResult] | UnsetType,
        Meta(
            description="What the checks found, where smtp-check is set: an object for each "
            'result, {"spf": "pass", "smtp.mailfrom": "a@b.example"}.'
        ),
    ] = UNSET
    decision: Annotated[
        list[Step], Meta(description="Which rule decided what, in the order of the steps.")
    ]
    report: Annotated[
        Report | UnsetType,
        Meta(description="What a report says, where rabbitmq-reports is set; see Reports."),
    ] = UNSET
    dedupe: Annotated[
        Digest,
        Meta(description="The same for the same envelope and bytes, also when sent again."),
    ]
    mime_size: Annotated[Count, Meta(description="Octets of the message in mime or under key.")]
    mime_sha256: Annotated[Digest, Meta(description="SHA-256 of the message in mime or under key.")]
    mime_encoding: Annotated[
        Text,
        Meta(
            description='"base64" where the message is not valid UTF-8, else absent.',
            extra_json_schema={"enum": ["base64"]},
        ),
    ] = UNSET
    key: Annotated[
        Text,
        Meta(
            description="Instead of mime: the name of the message in storage-address, where "
            "storage-policy or storage-above sent it there."
        ),
    ] = UNSET
    # Raw: the string is escaped once and shared by the documents of a transaction.
    mime: Annotated[
        msgspec.Raw | UnsetType,
        Meta(
            description="The message, octet by octet, less the x-mq-* fields. Empty where mail "
            "was refused, unless refused-body is true.",
            extra_json_schema={"type": "string"},
        ),
    ] = UNSET


def property_names() -> frozenset[str]:
    """The top-level names that the schema gives a type to."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(Document))


def json_schema() -> bytes:
    """The JSON Schema of a document (draft 2020-12), pretty-printed."""
    return msgspec.json.format(msgspec.json.encode(_schema()), indent=2) + b"\n"


def markdown_table() -> str:
    """The properties as the table of the README."""
    schema = _schema()
    rows = ["| property | type | present | meaning |", "| --- | --- | --- | --- |"]
    rows.extend(_rows(schema, schema["$defs"]))
    return "\n".join(rows) + "\n"


def _schema() -> dict[str, Any]:
    definitions = msgspec.json.schema(Document)["$defs"]
    for definition in definitions.values():
        definition["description"] = inspect.cleandoc(definition["description"])
        # What tells the variants of a report apart; msgspec has no place to describe it.
        kind = definition["properties"].get("type", {})
        if "enum" in kind:
            kind.setdefault("description", "Of which kind the report is.")
    document = definitions.pop(Document.__name__)
    # What is always there comes first, as it does in the documents.
    requested = Requested.__struct_fields__
    names = sorted(document["properties"], key=lambda name: name in requested)
    return {
        "$schema": _DRAFT,
        "$id": f"urn:mailgw:schema:document:{SCHEMA_VERSION}",
        **document,
        "properties": {name: document["properties"][name] for name in names},
        "additionalProperties": {"type": "string"},
        # The message is in the document or elsewhere, never nowhere and never twice.
        "oneOf": [{"required": ["mime"]}, {"required": ["key"]}],
        "$defs": definitions,
    }


def _rows(
    schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "", always: bool = True
) -> list[str]:
    rows: list[str] = []
    for name, declared in schema["properties"].items():
        item = declared.get("items", {}) if declared.get("type") == "array" else declared
        reference = item.get("$ref", "").rpartition("/")[2]
        target = definitions.get(reference, item)
        # The variants of a report are a chapter of their own.
        kind = target.get("type", "object")
        if item is not declared:
            kind = f"array of {kind}"
            target = declared if "description" in declared else target
        required = always and name in schema["required"]
        present = "always" if required else "where it applies"
        # The first paragraph, on one line: a table cell holds no line ends.
        meaning = " ".join(target["description"].split("\n\n")[0].split())
        rows.append(f"| `{prefix}{name}` | {kind} | {present} | {meaning} |")
        if reference:
            inner = f"{prefix}{name}{'[]' if item is not declared else ''}."
            rows.extend(_rows(definitions[reference], definitions, inner, required))
    return rows
