"""What one check saw in a message: plain data, in the words of RFC 8601.

Law: a finding is evidence, never a refusal. What follows from it is the verdict's to say,
from the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Check: TypeAlias = Literal["spf", "dkim", "dmarc", "arc", "spam"]
# RFC 8601 2.7, and what each of them means there.
Verdict: TypeAlias = Literal[
    "none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror"
]
Member: TypeAlias = str | bool | int | float | Sequence[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of one identity, signature or chain.

    `properties` are those of the Authentication-Results field, as ("smtp.mailfrom", value)
    in their order; `members` those of the JSON, besides the check with its verdict. Both
    hold what strangers wrote; whoever writes it down quotes it. `domain` is the one that
    the verdict speaks for, in lower case and as A-labels, "" where there is none.
    `policy` is what a DMARC record asks for in this case (none, quarantine, reject), ""
    elsewhere. `score` is that of the spam check. `reason` is one printable ASCII line of
    our own words. `milliseconds` is how long it took, waiting included.
    """

    check: Check
    verdict: Verdict
    properties: tuple[tuple[str, str], ...] = ()
    members: tuple[tuple[str, Member], ...] = ()
    domain: str = ""
    policy: str = ""
    score: float | None = None
    reason: str = ""
    milliseconds: float = 0.0
