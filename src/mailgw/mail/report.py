"""What a report says, in the words of the RFC that its type follows.

A report is a stranger's claim. Law: what is here was read out of the message, bounded in
length and number, with U+FFFD for octets that are no UTF-8; nothing of it was verified, and
nothing was made up for what is absent. The types are told apart by `type`.

They are structs, as those of the document are, so that its encoding and its schema hold
them without a copy.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

Text = str | UnsetType
Texts = list[str] | UnsetType
Number = int | UnsetType
Count = Annotated[int, Meta(ge=0)]

_ERROR = Meta(description="What is wrong with the report, in one line; absent where it is whole.")
_TRUNCATED = Meta(description="True where there was more than is told here; else absent.")


class Original(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The message that is reported about, as its returned header has it."""

    message_id: Annotated[Text, Meta(description="Its Message-ID.")] = UNSET
    subject: Annotated[Text, Meta(description="Its Subject, as written.")] = UNSET
    from_: Annotated[Text, Meta(description="Its From.")] = msgspec.field(
        name="from", default=UNSET
    )
    to: Annotated[Text, Meta(description="Its To.")] = UNSET
    envelope: Annotated[
        Text, Meta(description="Its envelope sender: Return-Path or Original-Mail-From.")
    ] = UNSET
    envelope_id: Annotated[Text, Meta(description="Its ENVID: Original-Envelope-Id.")] = UNSET
    verp: Annotated[
        Text, Meta(description="The recipient that its envelope sender names (VERP).")
    ] = UNSET
    x_mq: Annotated[
        dict[str, str] | UnsetType,
        Meta(description="Its x-mq-* fields, without the x-mq- of their names."),
    ] = UNSET


class ReportedRecipient(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What became of one recipient (RFC 3464 2.3)."""

    final_recipient: Annotated[Text, Meta(description="Address, where it failed.")] = UNSET
    original_recipient: Annotated[Text, Meta(description="Address, as the sender wrote it.")] = (
        UNSET
    )
    action: Annotated[
        Text, Meta(description="failed, delayed, delivered, relayed or expanded.")
    ] = UNSET
    status: Annotated[
        Text, Meta(description="Status code of RFC 3463, such as 5.1.1; of x.0.0 the diagnostic's.")
    ] = UNSET
    reply: Annotated[Text, Meta(description="SMTP reply code in the diagnostic: 550.")] = UNSET
    remote_mta: Annotated[Text, Meta(description="The server that said so.")] = UNSET
    diagnostic: Annotated[Text, Meta(description="What it said, without its type.")] = UNSET
    last_attempt: Annotated[Text, Meta(description="When it was tried last, as written.")] = UNSET
    will_retry_until: Annotated[Text, Meta(description="How long it is tried, as written.")] = UNSET


class DeliveryReport(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", tag_field="type", tag="dsn"
):
    """A delivery status notification (RFC 3464)."""

    reporting_mta: Annotated[Text, Meta(description="The server that reports.")] = UNSET
    arrival_date: Annotated[Text, Meta(description="When the mail came there, as written.")] = UNSET
    recipients: Annotated[list[ReportedRecipient], Meta(description="The first of them.")]
    total_recipients: Annotated[Count, Meta(description="How many the report tells of.")]
    truncated: Annotated[bool | UnsetType, _TRUNCATED] = UNSET
    original: Original | UnsetType = UNSET
    error: Annotated[Text, _ERROR] = UNSET


class BounceReport(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", tag_field="type", tag="bounce"
):
    """A bounce that follows no standard: read out of its prose, so a guess."""

    recipients: Annotated[list[ReportedRecipient], Meta(description="The first of them.")]
    total_recipients: Annotated[Count, Meta(description="How many were found.")]
    truncated: Annotated[bool | UnsetType, _TRUNCATED] = UNSET
    original: Original | UnsetType = UNSET
    error: Annotated[Text, _ERROR] = UNSET


class DispositionReport(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", tag_field="type", tag="mdn"
):
    """A message disposition notification (RFC 8098)."""

    disposition: Annotated[
        Text, Meta(description="What became of the mail: displayed, deleted, ...")
    ] = UNSET
    action_mode: Annotated[Text, Meta(description="manual-action or automatic-action.")] = UNSET
    sending_mode: Annotated[
        Text, Meta(description="mdn-sent-manually or mdn-sent-automatically.")
    ] = UNSET
    modifiers: Annotated[Texts, Meta(description="Disposition modifiers, such as error.")] = UNSET
    reporting_ua: Annotated[Text, Meta(description="The program that reports.")] = UNSET
    final_recipient: Annotated[Text, Meta(description="Who reports.")] = UNSET
    original_recipient: Annotated[Text, Meta(description="Address, as the sender wrote it.")] = (
        UNSET
    )
    errors: Annotated[Texts, Meta(description="Its Error, Failure and Warning fields.")] = UNSET
    original: Original | UnsetType = UNSET
    error: Annotated[Text, _ERROR] = UNSET


class FeedbackReport(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", tag_field="type", tag="arf"
):
    """A report of a feedback loop (ARF, RFC 5965), auth-failure (RFC 6591) included."""

    feedback_type: Annotated[Text, Meta(description="abuse, fraud, auth-failure, ...")] = UNSET
    user_agent: Annotated[Text, Meta(description="The program that reports.")] = UNSET
    version: Annotated[Text, Meta(description="Of the format.")] = UNSET
    arrival_date: Annotated[Text, Meta(description="When the mail came, as written.")] = UNSET
    source_ip: Annotated[Text, Meta(description="Where the mail came from.")] = UNSET
    reporting_mta: Annotated[Text, Meta(description="The server that reports.")] = UNSET
    original_mail_from: Annotated[Text, Meta(description="Envelope sender of the mail.")] = UNSET
    original_rcpt_to: Annotated[Texts, Meta(description="Its recipients.")] = UNSET
    reported_domain: Annotated[Texts, Meta(description="Domains that are reported.")] = UNSET
    reported_uri: Annotated[Texts, Meta(description="URIs that are reported.")] = UNSET
    incidents: Annotated[Number, Meta(description="How many such mails.")] = UNSET
    authentication_results: Annotated[Texts, Meta(description="As the reporter saw it.")] = UNSET
    auth_failure: Annotated[Text, Meta(description="adsp, bodyhash, dmarc, spf, ...")] = UNSET
    delivery_result: Annotated[Text, Meta(description="delivered, spam, reject, ...")] = UNSET
    identity_alignment: Annotated[Text, Meta(description="Which identities were aligned.")] = UNSET
    dkim_domain: Annotated[Text, Meta(description="d= of the signature.")] = UNSET
    dkim_identity: Annotated[Text, Meta(description="i= of the signature.")] = UNSET
    dkim_selector: Annotated[Text, Meta(description="s= of the signature.")] = UNSET
    spf_dns: Annotated[Text, Meta(description="The SPF record that was used.")] = UNSET
    original: Original | UnsetType = UNSET
    truncated: Annotated[bool | UnsetType, _TRUNCATED] = UNSET
    error: Annotated[Text, _ERROR] = UNSET


class PublishedPolicy(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The DMARC policy that the reporter found."""

    domain: Annotated[Text, Meta(description="Where the record is.")] = UNSET
    p: Annotated[Text, Meta(description="For the domain.")] = UNSET
    sp: Annotated[Text, Meta(description="For its subdomains.")] = UNSET
    np: Annotated[Text, Meta(description="For subdomains that do not exist.")] = UNSET
    adkim: Annotated[Text, Meta(description="r or s.")] = UNSET
    aspf: Annotated[Text, Meta(description="r or s.")] = UNSET
    pct: Annotated[Text, Meta(description="Old form only.")] = UNSET
    fo: Annotated[Text, Meta(description="Failure reporting options.")] = UNSET
    testing: Annotated[Text, Meta(description="y or n; current form only.")] = UNSET
    discovery_method: Annotated[Text, Meta(description="psl or treewalk; current form.")] = UNSET


class AuthResult(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One result of DKIM or SPF."""

    domain: Annotated[Text, Meta(description="That was checked.")] = UNSET
    selector: Annotated[Text, Meta(description="Of the DKIM key.")] = UNSET
    scope: Annotated[Text, Meta(description="helo or mfrom, of SPF.")] = UNSET
    result: Annotated[Text, Meta(description="Verdict, in lower case.")] = UNSET
    human_result: Annotated[Text, Meta(description="What the reporter adds.")] = UNSET


class OverrideReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why the reporter did not follow the policy."""

    type: Annotated[Text, Meta(description="forwarded, local_policy, mailing_list, ...")] = UNSET
    comment: Annotated[Text, Meta(description="What the reporter adds.")] = UNSET


class AggregateRecord(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Mails from one address with one outcome."""

    source_ip: Annotated[Text, Meta(description="Where they came from.")] = UNSET
    count: Annotated[Number, Meta(description="How many.")] = UNSET
    disposition: Annotated[Text, Meta(description="What was done: none, quarantine, ...")] = UNSET
    dkim: Annotated[Text, Meta(description="Whether DKIM passed and was aligned.")] = UNSET
    spf: Annotated[Text, Meta(description="Whether SPF passed and was aligned.")] = UNSET
    reasons: Annotated[
        list[OverrideReason] | UnsetType, Meta(description="Why the policy was not followed.")
    ] = UNSET
    header_from: Annotated[Text, Meta(description="Domain of From.")] = UNSET
    envelope_from: Annotated[Text, Meta(description="Domain of MAIL FROM.")] = UNSET
    envelope_to: Annotated[Text, Meta(description="Domain of the recipient.")] = UNSET
    dkim_results: Annotated[
        list[AuthResult] | UnsetType, Meta(description="Of each signature.")
    ] = UNSET
    spf_results: Annotated[list[AuthResult] | UnsetType, Meta(description="Of each identity.")] = (
        UNSET
    )


class AggregateReport(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="kebab",
    tag_field="type",
    tag="dmarc-aggregate",
):
    """A DMARC aggregate report, in the form of RFC 7489 or of RFC 9990."""

    organization: Annotated[Text, Meta(description="Who reports.")] = UNSET
    contact: Annotated[Text, Meta(description="Its address.")] = UNSET
    extra_contact: Annotated[Text, Meta(description="Further contact information.")] = UNSET
    report_id: Annotated[Text, Meta(description="Given by who reports.")] = UNSET
    generator: Annotated[Text, Meta(description="Program; current form only.")] = UNSET
    begin: Annotated[Number, Meta(description="Begin of the time reported, Unix seconds.")] = UNSET
    end: Annotated[Number, Meta(description="End of the time reported, Unix seconds.")] = UNSET
    version: Annotated[Text, Meta(description="Of the format.")] = UNSET
    errors: Annotated[Texts, Meta(description="What the reporter could not do.")] = UNSET
    policy: PublishedPolicy | UnsetType = UNSET
    records: Annotated[list[AggregateRecord], Meta(description="The first of them.")]
    total_records: Annotated[Count, Meta(description="How many were read.")]
    total_messages: Annotated[Count, Meta(description="How many mails all of them count.")]
    truncated: Annotated[bool | UnsetType, _TRUNCATED] = UNSET
    error: Annotated[Text, _ERROR] = UNSET


class TlsFailure(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Sessions that failed in one way (RFC 8460 4.4)."""

    result_type: Annotated[Text, Meta(description="certificate-expired, ...")] = UNSET
    sending_mta_ip: Annotated[Text, Meta(description="The sender.")] = UNSET
    receiving_mx_hostname: Annotated[Text, Meta(description="The receiver, by name.")] = UNSET
    receiving_mx_helo: Annotated[Text, Meta(description="Its name for itself.")] = UNSET
    receiving_ip: Annotated[Text, Meta(description="Its address.")] = UNSET
    failed_session_count: Annotated[Number, Meta(description="How many.")] = UNSET
    additional_information: Annotated[Text, Meta(description="Where to read more.")] = UNSET
    failure_reason_code: Annotated[Text, Meta(description="What the library said.")] = UNSET


class TlsPolicy(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What came of one policy (MTA-STS or DANE)."""

    policy_type: Annotated[Text, Meta(description="tlsa, sts or no-policy-found.")] = UNSET
    policy_domain: Annotated[Text, Meta(description="Whose policy.")] = UNSET
    policy_string: Annotated[Texts, Meta(description="The policy.")] = UNSET
    mx_host: Annotated[Texts, Meta(description="Its patterns of MX hosts.")] = UNSET
    successful: Annotated[Number, Meta(description="Sessions that succeeded.")] = UNSET
    failed: Annotated[Number, Meta(description="Sessions that failed.")] = UNSET
    failures: Annotated[
        list[TlsFailure] | UnsetType, Meta(description="How they failed, the first of them.")
    ] = UNSET


class TlsReport(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", tag_field="type", tag="tls-rpt"
):
    """An SMTP TLS report (RFC 8460)."""

    organization: Annotated[Text, Meta(description="Who reports.")] = UNSET
    contact: Annotated[Text, Meta(description="How to reach them.")] = UNSET
    report_id: Annotated[Text, Meta(description="Given by who reports.")] = UNSET
    begin: Annotated[Text, Meta(description="Begin of the time reported, RFC 3339.")] = UNSET
    end: Annotated[Text, Meta(description="End of the time reported, RFC 3339.")] = UNSET
    policies: Annotated[list[TlsPolicy], Meta(description="The first of them.")]
    total_policies: Annotated[Count, Meta(description="How many the report has.")]
    truncated: Annotated[bool | UnsetType, _TRUNCATED] = UNSET
    error: Annotated[Text, _ERROR] = UNSET


Report = (
    DeliveryReport | BounceReport | DispositionReport | FeedbackReport | AggregateReport | TlsReport
)
