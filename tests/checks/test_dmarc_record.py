"""The policy record: what begins as one is read, mistake by mistake; other text is not."""

from __future__ import annotations

from typing import Any

import checkdmarc.dmarc as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.checks.dmarc_record import POLICIES, Policy, Record, read, records


def record(text: str) -> Record:
    (found,) = records([text.encode()])
    return found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=spf1 -all",
        "unrelated text",
        "v=dmarc1; p=reject",
        "v=DMARC1x; p=reject",
        "v=DMARC1 p=reject",
        "v=DMARC11",
        "v=DMARC",
        "p=reject; v=DMARC1",
        "; v=DMARC1; p=reject",
        " v=DMARC1; p=reject",
        "v=DMARC2; p=reject",
    ],
)
def test_what_does_not_begin_with_the_version_is_no_record(text: str) -> None:
    assert records([text.encode(), b"v=DMARC1; p=reject"]) == [read(b"v=DMARC1; p=reject")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v=DMARC1", Record()),
        ("v=DMARC1;", Record()),
        ("V = DMARC1 ; P = Reject ;", Record("reject", "reject", "reject")),
        ("v=DMARC1;p=reject;sp=none", Record("reject", "none", "none")),
        ("v=DMARC1;p=none;np=reject", Record("none", "none", "reject")),
        (
            "v=DMARC1;p=none;sp=quarantine;np=reject;t=y;psd=n;adkim=s;aspf=S",
            Record("none", "quarantine", "reject", True, True, "n", True),
        ),
        ("v=DMARC1; p=reject; adkim=x; aspf=; psd=maybe; t=yes", Record(*["reject"] * 3)),
        ("v=DMARC1; p=reject; psd=Y", Record(*["reject"] * 3, psd="y")),
        ("v=DMARC1; p=reject; pct=0; rf=iodef; ri=x; fo=q; x-new=1", Record(*["reject"] * 3)),
        ("v=DMARC1; nonsense; p=reject; =; ;; a=b=c", Record(*["reject"] * 3)),
        ("v=DMARC1; p=reject; adkim=\u00e4", Record(*["reject"] * 3)),
        # Twice: not known which is meant, and said twice.
        ("v=DMARC1; p=reject; adkim=s; adkim=r", Record(*["reject"] * 3)),
        ("v=DMARC1; p=reject; P=REJECT", Record(*["reject"] * 3)),
    ],
)
def test_a_tag_costs_itself_only(text: str, expected: Record) -> None:
    assert record(text) == expected


@pytest.mark.parametrize(
    ("wrong", "rua", "usable"),
    [
        (wrong, rua, usable)
        for wrong in (
            "p=bogus",
            "p=",
            "p=reject; p=none",
            "p=reject; sp=bogus",
            "p=reject; np=\xff",
        )
        for rua, usable in [
            ("", False),
            ("rua=", False),
            ("rua=dmarc@example.test", False),
            ("rua=mailto:", False),
            ("rua=mailto:nobody", False),
            ("rua=mailto:dmarc@example.test", True),
            ("rua=, MAILTO:dmarc@example.test!10m ", True),
            ("rua=https://example.test/r", True),
        ]
    ],
)
def test_a_policy_that_cannot_be_read_asks_for_nothing(wrong: str, rua: str, usable: bool) -> None:
    assert record(f"v=DMARC1; {wrong}; {rua}") == Record(usable=usable)


@pytest.mark.parametrize(
    ("text", "domain", "subdomain", "absent"),
    [
        ("p=reject", "reject", "reject", "reject"),
        ("p=reject; sp=none", "reject", "none", "none"),
        ("p=none; np=reject", "none", "none", "reject"),
        ("p=none; sp=quarantine; np=reject", "none", "quarantine", "reject"),
        ("p=reject; sp=quarantine; np=none; t=y", "quarantine", "none", "none"),
        ("p=reject; t=n", "reject", "reject", "reject"),
    ],
)
def test_the_policy_is_chosen_by_who_the_author_is(
    text: str, domain: str, subdomain: str, absent: str
) -> None:
    found = record(f"v=DMARC1; {text}")

    assert found.asks(subdomain=False, exists=True) == domain
    assert found.asks(subdomain=False, exists=False) == domain
    assert found.asks(subdomain=True, exists=True) == subdomain
    assert found.asks(subdomain=True, exists=False) == absent


POLICY = st.sampled_from([*POLICIES, "Reject", "NONE"])
TAGS = st.fixed_dictionaries(
    {},
    optional={
        "p": POLICY,
        "sp": POLICY,
        "np": POLICY,
        "adkim": st.sampled_from(["r", "s", "S", "x"]),
        "aspf": st.sampled_from(["r", "s", "R", "q"]),
        "psd": st.sampled_from(["y", "n", "u"]),
        "t": st.sampled_from(["y", "n"]),
        "pct": st.sampled_from(["0", "50", "100"]),
    },
)


@given(TAGS, st.randoms(use_true_random=False))
def test_checkdmarc_reads_the_same_in_what_it_takes(tags: dict[str, str], random: Any) -> None:
    written = list(tags.items())
    random.shuffle(written)
    text = "; ".join(["v=DMARC1", *(f"{name}={value}" for name, value in written)])

    # No rua or ruf: nothing that it would ask the DNS about.
    theirs: dict[str, Any] = oracle.parse_dmarc_record(text, "example.test")["tags"]
    ours = record(text)

    assert ours.usable
    assert (ours.p, ours.sp, ours.np) == tuple(theirs[name]["value"] for name in ("p", "sp", "np"))
    assert (ours.strict_dkim, ours.strict_spf) == tuple(
        theirs[name]["value"] == "s" for name in ("adkim", "aspf")
    )
    assert ours.psd == theirs["psd"]["value"]
    assert ours.testing == (theirs["t"]["value"] == "y")


PIECES = st.sampled_from(
    b"v=DMARC1 ; = \t p sp np rua reject t=y psd=y \xff \0 mailto:a@b.test ,".split(b" ")
)


@given(st.one_of(st.binary(), st.lists(PIECES).map(lambda pieces: b"v=DMARC1;" + b"".join(pieces))))
def test_no_text_makes_it_raise(text: bytes) -> None:
    for found in records([text]):
        asked: set[Policy] = {
            found.asks(subdomain=below, exists=there)
            for below in (False, True)
            for there in (False, True)
        }
        assert asked <= set(POLICIES)
