"""The schema: a valid draft 2020-12 schema that says what a document is, and what not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mailgw.document.schema import Smarthost, json_schema, markdown_table

DOCUMENT: dict[str, Any] = {
    "message-id": "k3x9a1r1",
    "transaction-id": "k3x9a1",
    "received": "2024-05-01 08:15:42",
    "hostname": "mx1.gateway.test",
    "envelope": "alice@sender.test",
    "recipient": "bob@ours.test",
    "connection": {
        "local-ip": "192.0.2.10",
        "local-port": 25,
        "remote-ip": "198.51.100.7",
        "remote-port": 40112,
        "secure": False,
    },
    "decision": [
        {"step": "queue", "verdict": "inbox", "key": "rabbitmq-inbox", "value": "inbox", "ms": 0}
    ],
    "dedupe": "0" * 64,
    "mime-size": 2,
    "mime-sha256": "f" * 64,
    "mime": "hi",
}


def test_the_schema_is_one_itself_and_names_its_version() -> None:
    schema = json.loads(json_schema())

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:mailgw:schema:document:1"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"custom-identifier": "my-id"},
        {"tags": ["a", "b"], "ips": ["10.11.12.13"], "retries": [60, 600]},
        {"nextattempt": {"time": "2024-05-01 08:15:42"}, "smarthost": {"port": 25}},
        {"dsn": {"notify": "NEVER"}, "priority": 255, "mime-encoding": "base64"},
        {"envelope": ""},
        {"checks": []},
        {"checks": [{"spf": "pass", "smtp.mailfrom": "a@b.test"}, {"spam": "fail", "score": 7.5}]},
        {"checks": [{"spam": "pass", "symbols": ["ALL_TRUSTED"]}]},
        {"report": {"type": "dsn", "recipients": [], "total-recipients": 0}},
        {"decision": []},
    ],
)
def test_a_document_is_valid(more: dict[str, Any]) -> None:
    Draft202012Validator(json.loads(json_schema())).validate(DOCUMENT | more)


@pytest.mark.parametrize(
    "wrong",
    [
        {"custom-identifier": 7},
        {"message-id": "with-dash"},
        {"received": "2024-05-01T08:15:42Z"},
        {"envelope": None},
        {"tags": "a"},
        {"ips": [1]},
        {"priority": 256},
        {"maxattempts": "3"},
        {"inlinecss": "1"},
        {"mime": {"text": "hi"}},
        {"mime-size": -1},
        {"mime-sha256": "F" * 64},
        {"mime-encoding": "quoted-printable"},
        {"connection": {"remote-ip": "198.51.100.7"}},
        {"smarthost": {"port": "25"}},
        {"nextattempt": {}},
        {"checks": "pass"},
        {"checks": [{"spf": "maybe"}]},
        {"report": {"type": "letter"}},
        {"report": True},
        {"decision": [{"step": "queue"}]},
    ],
)
def test_what_is_no_document_is_not_valid(wrong: dict[str, Any]) -> None:
    assert not Draft202012Validator(json.loads(json_schema())).is_valid(DOCUMENT | wrong)


@pytest.mark.parametrize("name", DOCUMENT)
def test_a_document_lacks_nothing_that_is_always_there(name: str) -> None:
    rest = {key: value for key, value in DOCUMENT.items() if key != name}

    assert not Draft202012Validator(json.loads(json_schema())).is_valid(rest)


def test_every_property_has_a_description_without_indentation() -> None:
    schema = json.loads(json_schema())

    for part in (schema, *schema["$defs"].values()):
        assert "\n " not in part["description"]
        assert all(
            "description" in value or "$ref" in value for value in part["properties"].values()
        )


def test_the_table_has_a_row_for_every_property() -> None:
    table = markdown_table()

    for row in (
        "| `message-id` | string | always |",
        "| `connection.remote-port` | integer | always |",
        "| `connection.user` | string | where it applies |",
        "| `nextattempt.time` | string | where it applies |",
        "| `ips` | array of string | where it applies |",
        "| `inlinecss` | boolean | where it applies |",
        "| `checks` | array of object | where it applies |",
        "| `decision` | array of object | always |",
        "| `decision[].key` | string | always |",
        "| `report` | object | where it applies |",
    ):
        assert row in table
    assert all(line.count("|") == 5 for line in table.splitlines())


def test_a_smarthost_does_not_show_its_password() -> None:
    assert "s3cret" not in repr(Smarthost(hostname="out.test", username="u", password="s3cret"))
