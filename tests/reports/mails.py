"""Mails for the tests of this room, built from their parts."""

from __future__ import annotations

import base64
import io
import zipfile

DMARC_SUBJECT = b"Report Domain: example.org Submitter: example.net Report-ID: <1>"


def report(kind: str, *parts: tuple[str, bytes], header: str = "") -> bytes:
    """A multipart/report of that type."""
    return multipart(f"report; report-type={kind}", *parts, header=header)


def multipart(kind: str, *parts: tuple[str, bytes], header: str = "") -> bytes:
    head = f'{header}MIME-Version: 1.0\r\nContent-Type: multipart/{kind}; boundary="b1"\r\n\r\n'
    body = b"".join(
        b"--b1\r\nContent-Type: " + media.encode() + b"\r\n\r\n" + content + b"\r\n"
        for media, content in parts
    )
    return head.encode() + body + b"--b1--\r\n"


def attached(
    content: bytes, name: str = "example.net!example.org!1!2.xml", subject: bytes = DMARC_SUBJECT
) -> bytes:
    """A mail that is a file, as DMARC reports are sent."""
    return (
        b"From: reports@example.net\r\nSubject: "
        + subject
        + b'\r\nContent-Type: application/octet-stream; name="'
        + name.encode()
        + b'"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + base64.encodebytes(content).replace(b"\n", b"\r\n")
    )


def zipped(*members: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()


def aggregate(records: int = 1) -> bytes:
    """The XML of a DMARC report, with an address of its own for each record."""
    return (
        b"<feedback><report_metadata><org_name>Example Net</org_name></report_metadata>"
        + b"".join(
            f"<record><row><source_ip>10.{n >> 16}.{n >> 8 & 255}.{n & 255}</source_ip>"
            f"<count>{n + 1}</count><policy_evaluated><disposition>none</disposition>"
            "<dkim>pass</dkim><spf>pass</spf></policy_evaluated></row><identifiers>"
            "<header_from>example.org</header_from></identifiers><auth_results><dkim>"
            "<domain>example.org</domain><result>pass</result></dkim></auth_results>"
            "</record>".encode()
            for n in range(records)
        )
        + b"</feedback>"
    )


def delivery_status(recipients: int) -> bytes:
    return b"Reporting-MTA: dns; mx.example.net\r\n\r\n" + b"".join(
        b"Final-Recipient: rfc822; u%d@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n" % n
        for n in range(recipients)
    )


def bounce(text: str, *, header: str = "", subject: str = "failure notice") -> bytes:
    head = f"From: MAILER-DAEMON@mx.example.net\r\nSubject: {subject}\r\n{header}\r\n"
    return head.encode() + text.replace("\n", "\r\n").encode()
