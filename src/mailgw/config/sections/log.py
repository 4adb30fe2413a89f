"""What is written down, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mailgw.config.declare import key, section
from mailgw.config.values import as_is, logs, path, word


@section("log")
class LogSettings:
    """Logs"""

    application: tuple[str, ...] = key(
        "application-log",
        logs,
        default="stderr",
        reload=True,
        doc="Where to log: stdout, stderr, syslog and paths of files (with a slash in them), "
        "separated by commas. Files are opened again when they were moved away. Empty: nowhere.",
        differs="stderr, so that a failure is seen; MailerQ logs nothing",
    )
    level: Literal["debug", "info", "warning", "error"] = key(
        "application-log-level",
        word("debug", "info", "warning", "error"),
        default="info",
        reload=True,
        doc="The least that is worth a line: debug, info, warning or error.",
    )
    received_file: Path | None = key(
        "received-log-file",
        path,
        default="",
        reload=True,
        doc="File with one line for each document. Empty: none.",
    )
    received_format: str = key(
        "received-log-format",
        as_is,
        default="[{$date}]{if $json.message_id} {$json.message_id} {/if}<{$json.envelope}> "
        "<{$json.recipient}> [{$json.connection.remote_ip}] [{$json.connection.local_ip}]",
        reload=True,
        doc="The form of such a line, a template over $json (the document, - written as _), "
        "$date, $time and $report.",
    )
