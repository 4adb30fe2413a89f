"""The file format, the environment and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.config import source
from mailgw.config.source import Known, Source, from_arguments, from_environment, from_file

TODAY = {
    name: name
    for name in ("smtp-ip", "smtp-port", "smtp-key", "smtp-maxsize", "smtp-ciphers", "hook")
}
KNOWN = Known(
    TODAY
    | {"smtp-ranges": "smtp-range", "smtp-privatekey": "smtp-key"}
    | {"smtp-address": "smtp-ip"},
    aliases={"smtp-address": "smtp-ip"},
    several=frozenset({"hook"}),
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def file_of(data: bytes) -> Source:
    Path("mailgw.conf").write_bytes(data)
    return from_file(Path("mailgw.conf"), KNOWN)


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"", {}),
        (b"smtp-port: 25\n", {"smtp-port": "25"}),
        (b"smtp-port: 25", {"smtp-port": "25"}),
        (b"smtp-port:25\n", {"smtp-port": "25"}),
        (b"  smtp-port  :\t\t 25 \t\n", {"smtp-port": "25"}),
        (b"smtp-port: 25\r\n\r\nsmtp-ip: ::1\r\n", {"smtp-port": "25", "smtp-ip": "::1"}),
        (b"\xef\xbb\xbfsmtp-port: 25\n", {"smtp-port": "25"}),
        (b"# smtp-port: 25\n\n  # too\n", {}),
        (b"smtp-ip:\n", {"smtp-ip": ""}),
        (b"smtp-ciphers: a:b:!c # d\n", {"smtp-ciphers": "a:b:!c # d"}),
        ("smtp-key: /étc/é\n".encode(), {"smtp-key": "/étc/é"}),
    ],
)
def test_a_line_is_a_key_a_colon_and_a_bare_value(data: bytes, texts: dict[str, str]) -> None:
    found = file_of(data)

    assert {key: entry.text for key, entry in found.entries.items()} == texts
    assert found.findings == ()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            b"smtp-prot: 25\n",
            "mailgw.conf:1: smtp-prot: is no key (did you mean smtp-port?)",
        ),
        (
            b"# a\nSMTP-Port: 25\n",
            "mailgw.conf:2: SMTP-Port: is no key (did you mean smtp-port?)",
        ),
        (
            b"smtp-privatkey: x\n",
            "mailgw.conf:1: smtp-privatkey: is no key (did you mean smtp-key?)",
        ),
        (
            b"wxyz: 1\n",
            "mailgw.conf:1: wxyz: is no key (show-config lists them all)",
        ),
        (
            b"smtp-port: 25\r\n\r\nsmtp-port: 26\r\n",
            "mailgw.conf:3: smtp-port: is given twice, first at mailgw.conf:1 (keep one)",
        ),
        (
            b"smtp-port 25\n",
            'mailgw.conf:1: is not of the form "key: value" (try smtp-port: 25)',
        ),
        (
            b"smtp-key=sesame:x\n",
            'mailgw.conf:1: is not of the form "key: value" (try smtp-port: 25)',
        ),
        (
            b": 25\n",
            'mailgw.conf:1: is not of the form "key: value" (try smtp-port: 25)',
        ),
        (
            b"smtp-port: 25\nsmtp-ip: \xff\n",
            "mailgw.conf:2: is not UTF-8 text (octet 0xff)",
        ),
        (
            b"smtp-port: 2\x005\n",
            "mailgw.conf:1: smtp-port: holds a control character or broken UTF-8",
        ),
        (
            "smtp-port: 25\n".encode("utf-16"),
            "mailgw.conf: is UTF-16 (save it as UTF-8)",
        ),
    ],
)
def test_a_mistake_names_its_line_and_what_would_be_right(data: bytes, line: str) -> None:
    assert [str(finding) for finding in file_of(data).findings] == [line]


def test_all_mistakes_of_a_file_are_found_at_once() -> None:
    found = file_of(b"nokey: 1\njunk\nsmtp-port: 1\nsmtp-port: 2\n\xfe\n")

    assert [finding.origin for finding in found.findings] == [
        "mailgw.conf:2",
        "mailgw.conf:5",
        "mailgw.conf:1",
        "mailgw.conf:4",
    ]


def test_another_spelling_is_the_same_key() -> None:
    found = file_of(b"smtp-address: ::1\nsmtp-ip: ::2\n")

    assert [(e.key, e.text, e.origin) for e in found.entries.values()] == [
        ("smtp-ip", "::1", "mailgw.conf:1")
    ]
    assert [str(each) for each in found.findings] == [
        "mailgw.conf:2: smtp-ip: is given twice, first at mailgw.conf:1 (keep one)"
    ]


def test_a_key_for_several_lines_is_one_value_in_their_order() -> None:
    found = file_of(b"hook: b:B\nsmtp-port: 25\nhook:\nhook: a:A, c:C\n")

    hook = found.entries["hook"]
    assert (hook.text, hook.origin) == ("b:B,a:A, c:C", "mailgw.conf:1")
    assert [line.origin for line in hook.lines] == [f"mailgw.conf:{n}" for n in (1, 3, 4)]
    assert found.findings == ()


def test_each_of_several_lines_is_looked_at() -> None:
    found = file_of(b"hook: b:B\nhook: a\x00:A\n")

    assert [str(each) for each in found.findings] == [
        "mailgw.conf:2: hook: holds a control character or broken UTF-8"
    ]


def test_a_file_that_is_not_there_is_a_finding() -> None:
    found = from_file(Path("gone.conf"), KNOWN)

    assert [str(each) for each in found.findings] == [
        "gone.conf: cannot be read: No such file or directory"
    ]


def test_a_folder_is_no_file() -> None:
    Path("folder").mkdir()

    found = from_file(Path("folder"), KNOWN)

    assert [str(each) for each in found.findings] == ["folder: cannot be read: Is a directory"]


def test_a_device_without_end_is_not_read_to_its_end() -> None:
    found = from_file(Path("/dev/zero"), KNOWN)

    assert [str(each) for each in found.findings] == [
        "/dev/zero: is longer than 1000000 octets, which no configuration is"
    ]


def test_the_environment_spells_keys_in_capitals() -> None:
    found = from_environment({"MAILGW_SMTP_PORT": " 25 ", "PATH": "/bin"}, KNOWN)

    assert [(e.key, e.text, e.origin) for e in found.entries.values()] == [
        ("smtp-port", "25", "environment")
    ]
    assert found.findings == ()


def test_an_unknown_variable_of_ours_is_a_mistake() -> None:
    found = from_environment({"MAILGW_SMTP_PROT": "25"}, KNOWN)

    assert [str(each) for each in found.findings] == [
        "environment: MAILGW_SMTP_PROT: is no key (did you mean MAILGW_SMTP_PORT?)"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "MAILGW_TEST_WITHOUT",
        # Kubernetes, beside a service named mailgw or mailgw-mx.
        "MAILGW_SERVICE_HOST",
        "MAILGW_SERVICE_PORT",
        "MAILGW_SERVICE_PORT_SMTP",
        "MAILGW_PORT",
        "MAILGW_PORT_25_TCP",
        "MAILGW_PORT_25_TCP_ADDR",
        "MAILGW_MX_SERVICE_HOST",
        "MAILGW_MX_PORT_25_TCP_PROTO",
    ],
)
def test_variables_that_others_set_are_left_alone(name: str) -> None:
    assert from_environment({name: "tcp://192.0.2.1:25"}, KNOWN) == Source({}, ())


def test_undecodable_octets_in_the_environment_are_a_mistake() -> None:
    found = from_environment({"MAILGW_SMTP_KEY": "/a\udcff"}, KNOWN)

    assert [str(each) for each in found.findings] == [
        "environment: smtp-key: holds a control character or broken UTF-8"
    ]


def test_a_key_given_twice_on_the_command_line_is_a_mistake() -> None:
    found = from_arguments([("smtp-port", "25"), ("smtp-port", "26")], KNOWN)

    assert [str(each) for each in found.findings] == [
        "command line: smtp-port: is given twice (keep one)"
    ]


@given(st.binary())
def test_no_octets_make_a_file_raise(data: bytes) -> None:
    found = file_of(b"smtp-port: 25\n" + data)

    assert "smtp-port" in found.entries or found.findings


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_any_value_comes_back_as_it_was_written(text: str) -> None:
    found = file_of(f"smtp-key: {text}\n".encode())

    assert found.entries["smtp-key"].text == text.strip(" \t")


def test_a_terminal_is_not_disturbed_by_what_is_quoted() -> None:
    assert source.printable("a\x1b[31mb\nc\udcff") == "a?[31mb?c?"
