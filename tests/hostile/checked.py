"""What the tests of the checks share: a zone, and what of a document is about the checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from client import Client, stuffed
from gateway import Gateway, Json, content
from hostile.world import only, unnoticed
from mailgw.mail.headers import read_fields
from nameserver import NameServer, nameserver

KEYS: dict[str, object] = {
    "smtp-check": "spf,dkim,dmarc,arc",
    "smtp-auth-results": "local,nonlocal",
    "smtp-bare-newlines": "carry",
    # Enough for two questions one after the other that nobody answers.
    "smtp-check-timeout": 4,
    "dns-timeout": 1,
}
# Rows say "< 1 s"; for all that is done with a mail, on a machine with other work.
SOON = 1.0
OURS = "mx.ours.test"


def text(value: str) -> str:
    """A TXT record as zone files have it, in strings of at most 255 octets."""
    return " ".join(
        f'"{value[start : start + 250]}"' for start in range(0, len(value), 250) or (0,)
    )


@contextmanager
def zone(records: Mapping[str, Sequence[str]]) -> Iterator[NameServer]:
    """A name server with these TXT records."""
    with nameserver({(name, "TXT"): list(map(text, has)) for name, has in records.items()}) as dns:
        yield dns


def publish(names: NameServer, records: Mapping[str, Sequence[str]]) -> None:
    """More TXT records; at names that were not asked about, for answers are kept."""
    for name, has in records.items():
        assert not names.count(name)
        names.records[(name, "TXT")] = list(map(text, has))


def examined(server: Gateway, message: bytes, sender: str = "joe@there.test") -> Json:
    """The document of a message that is taken while somebody else goes on."""

    def send(client: Client) -> str:
        for said in client.transaction(sender=f"<{sender}>"):
            assert said[0] in "23", said
        client.send(stuffed(message))
        return client.reply()

    unnoticed(server, send)
    document = only(server)
    assert content(document).endswith(message)
    return document


def found(document: Json, check: str) -> list[Json]:
    """What one of the checks found."""
    return [each for each in document["checks"] if check in each]


def verdicts(document: Json, check: str) -> list[str]:
    return [each[check] for each in found(document, check)]


def took(document: Json) -> float:
    """Seconds that the checks took, all together."""
    [verdict] = [each for each in document["decision"] if each["step"] == "verdict"]
    return float(verdict["ms"]) / 1000


def results(document: Json) -> list[str]:
    """The values of the Authentication-Results fields, from above."""
    fields = read_fields(content(document))
    return [each.text for each in fields if each.name == "authentication-results"]
