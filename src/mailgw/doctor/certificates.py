"""The certificate that the ports present: is it ours to use, whole, believed, and how long?"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mailgw.doctor import rights
from mailgw.doctor.observation import Observation, error, note, ok, warning

_SOON = 21
# NIST SP 800-57: what is less than 112 bits of security.
_SHORTEST_RSA, _SHORTEST_EC = 2048, 224
_WEAK_DIGESTS = frozenset({"md5", "sha1"})
_MOST_OCTETS = 1_000_000
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the standard library has no name for.
_NO_CHECK_TIME = 0x200000
_MOST_TURNS = 10
# Names that are shown; a certificate may have hundreds.
_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Presented:
    """What the ports present. `clients_verify`: some of them are for people's mail programs,
    which believe no certificate that nobody vouches for, as other servers do."""

    certificate: Path
    key: Path
    ports: tuple[int, ...]
    secure_ports: tuple[int, ...]
    hostname: str
    clients_verify: bool
    user: str = ""

    @property
    def subject(self) -> str:
        with_starttls = [f"{port} (STARTTLS)" for port in self.ports]
        ports = [*with_starttls, *map(str, self.secure_ports)]
        return f"certificate of port{'s' if len(ports) > 1 else ''} {', '.join(ports)}"


def look_at_certificate(
    presented: Presented,
    load: Callable[[], ssl.SSLContext],
    now: Callable[[], datetime] | None = None,
) -> list[Observation]:
    """`load` makes of the files what a listener uses, or raises an exception that says why
    that cannot be."""
    return list(_seen(presented, load, now or _now))


def _seen(
    presented: Presented, load: Callable[[], ssl.SSLContext], now: Callable[[], datetime]
) -> Iterator[Observation]:
    subject = presented.subject
    try:
        server = load()
        chain = _read(presented.certificate)
    except Exception as trouble:  # noqa: BLE001 - whatever it is, the gateway stumbles over it
        yield error(subject, str(trouble) or type(trouble).__name__, "a key and its certificate")
        return
    yield from _dates(subject, chain, now())
    yield from _names(subject, chain[0], presented.hostname)
    yield from _strength(subject, chain)
    yield from _trust(subject, chain, presented, server)
    yield from _rights(subject, presented)


def _read(path: Path) -> list[x509.Certificate]:
    with path.open("rb") as file:
        return x509.load_pem_x509_certificates(file.read(_MOST_OCTETS))


def _dates(subject: str, chain: Sequence[x509.Certificate], now: datetime) -> Iterator[Observation]:
    for place, each in enumerate(chain):
        what = "" if not place else f"its issuer, number {place + 1} in the file, "
        left = each.not_valid_after_utc - now
        until = f"{each.not_valid_after_utc:%Y-%m-%d}"
        if each.not_valid_before_utc > now:
            yield error(subject, f"{what}is not valid before {each.not_valid_before_utc:%Y-%m-%d}")
        elif left < timedelta(0):
            yield error(subject, f"{what}has expired on {until}", "renew it")
        elif left < timedelta(days=_SOON):
            yield warning(subject, f"{what}expires in {left.days} days, on {until}", "renew it")
        elif not place:
            yield ok(subject, f"is valid until {until}, {left.days} days")


def _names(subject: str, leaf: x509.Certificate, hostname: str) -> Iterator[Observation]:
    names = _dns_names(leaf)
    if any(_covers(name, hostname) for name in names):
        yield ok(subject, f"is for {hostname}")
        return
    shown = ", ".join(names[:_MOST_NAMES]) or "no name"
    yield warning(subject, f"is for {shown}, not for {hostname}", "its name as hostname")


def _dns_names(leaf: x509.Certificate) -> list[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return found.value.get_values_for_type(x509.DNSName)


def _covers(name: str, hostname: str) -> bool:
    name, hostname = name.lower().rstrip("."), hostname.lower().rstrip(".")
    if name.startswith("*."):  # RFC 6125 6.4.3: for one label
        return name[2:] == hostname.partition(".")[2] != ""
    return name == hostname


def _strength(subject: str, chain: Sequence[x509.Certificate]) -> Iterator[Observation]:
    key = chain[0].public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _SHORTEST_RSA:
        yield warning(subject, f"has an RSA key of {key.key_size} bits", "2048 bits or more")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < _SHORTEST_EC:
        yield warning(subject, f"has a key on a curve of {key.key_size} bits", "P-256")
    for each in chain:
        digest = each.signature_hash_algorithm
        # Nobody verifies the signature of a root.
        if digest is not None and digest.name in _WEAK_DIGESTS and each.issuer != each.subject:
            yield warning(subject, f"is signed with {digest.name}", "SHA-256")


def _trust(
    subject: str,
    chain: Sequence[x509.Certificate],
    presented: Presented,
    server: ssl.SSLContext,
) -> Iterator[Observation]:
    grade = warning if presented.clients_verify else note
    if chain[0].issuer == chain[0].subject:
        yield grade(subject, "is signed by itself: whoever verifies refuses it")
        return
    for above, each in zip(chain[1:], chain, strict=False):
        try:
            each.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature):
            yield warning(
                subject,
                "has a certificate below it in the file that did not sign it",
                "its own first, then each one's issuer",
            )
            return
    if (why := _mistrust(server)) is not None:
        yield grade(
            subject,
            f"is not trusted by this machine ({why}): whoever verifies refuses it",
            "the whole chain in the file, from a public authority",
        )
    else:
        yield ok(subject, "is trusted by this machine")


def _mistrust(server: ssl.SSLContext) -> str | None:
    """Why somebody who verifies, as this machine does, would not go on; None where he would.

    Found out by a handshake with ourselves, in memory.
    """
    client = ssl.create_default_context()
    # The name and the time are other observations.
    client.check_hostname = False
    client.verify_flags |= _NO_CHECK_TIME
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(inward, outward, server_side=True)
    theirs = client.wrap_bio(outward, inward)
    for _ in range(_MOST_TURNS):
        try:
            theirs.do_handshake()
            return None
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as trouble:
            return trouble.verify_message
        except ssl.SSLError as trouble:
            return (trouble.reason or "no TLS").lower().replace("_", " ")
        with suppress(ssl.SSLWantReadError):
            ours.do_handshake()
    return "no end of the handshake"


def _rights(subject: str, presented: Presented) -> Iterator[Observation]:
    key, user = presented.key, presented.user
    if key.stat().st_mode & 0o004:
        yield warning(subject, f"everybody on this machine can read {key}", f"chmod o-r {key}")
    for file in (presented.certificate, key):
        if user and not rights.may(file, rights.READ, user):
            yield warning(
                subject,
                f"{user} may not read {file}: the start as root can, a reload cannot",
                f"chown or chmod it for {user}",
            )


def _now() -> datetime:
    return datetime.now(UTC)
