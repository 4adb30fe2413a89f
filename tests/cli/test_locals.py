"""`mailgw locals`, as an operator types it, on a file and on a table."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailgw.cli import main
from tables import Table, sqlite_table

STAFF = "# staff\n@ours.test\n\njoe@listed.test\n# rules\nregex (a|b)@x\\.test\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "local-addresses"
    path.write_text(STAFF)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["locals", *map(str, arguments)], catch_exceptions=False)


def on(file: Path) -> str:
    return f"--local-addresses={file}"


def in_(table: Table) -> str:
    return f"--database-address={table.url}"


def test_the_list_says_where_each_pattern_stands(file: Path, table: Table) -> None:
    table.filled("'exact', 'ann@ours.test'", "NULL, '@all.test'")

    done = run("list", on(file), in_(table))

    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"{file}:2: @ours.test",
        f"{file}:4: joe@listed.test",
        f"{file}:6: regex (a|b)@x\\.test",
        "database: exact ann@ours.test",
        "database: @all.test",
    ]


def test_what_cannot_be_used_is_listed_and_told(tmp_path: Path, file: Path) -> None:
    table = sqlite_table(tmp_path).filled("'glob', 'x\x1b[31m@ours.test'")
    file.write_bytes(b"@ours.test\njoe\n\xff@ours.test\n")

    done = run("list", on(file), in_(table))

    assert done.exit_code == 2
    assert len(done.stdout.splitlines()) == 4
    assert "\x1b" not in done.output
    told = [line.rpartition(": ")[2] for line in done.stderr.splitlines()]
    assert told == ['"joe" is not an address', "is not UTF-8", "holds a control character"]


def test_patterns_are_added_at_the_end_of_the_file(file: Path) -> None:
    file.chmod(0o640)
    before = file.stat().st_ino

    done = run("add", "new@ours.test", "substr billing", "@OURS.test", on(file))

    assert done.exit_code == 0
    assert file.read_text() == STAFF + "new@ours.test\nsubstr billing\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.stat().st_ino != before  # replaced whole, never half written
    assert list(file.parent.iterdir()) == [file]
    assert done.stdout.splitlines() == [
        f"new@ours.test: added to {file}",
        f"substr billing: added to {file}",
        f"@OURS.test: is there ({file}:2)",
    ]


def test_a_file_keeps_its_line_ends_and_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"# staff\r\njoe@ours.test")
    (tmp_path / "link").symlink_to("real")

    run("add", "ann@ours.test", "--type", "exact", on(tmp_path / "link"))

    assert (tmp_path / "link").is_symlink()
    assert (
        tmp_path / "real"
    ).read_bytes() == b"# staff\r\njoe@ours.test\r\nexact ann@ours.test\r\n"


def test_patterns_are_removed_from_the_file_in_any_spelling(file: Path) -> None:
    done = run("remove", "fnmatch *@Ours.test", r"regex (a|b)@x\.test", on(file))

    assert done.exit_code == 0
    assert file.read_text() == "# staff\n\njoe@listed.test\n# rules\n"


def test_a_line_that_cannot_be_used_can_be_removed(file: Path) -> None:
    file.write_text(STAFF + "regex (unclosed\n")

    done = run("remove", "regex (unclosed", on(file))

    assert done.exit_code == 0
    assert file.read_text() == STAFF


def test_the_table_is_made_filled_and_emptied(table: Table) -> None:
    added = run("add", "joe@ours.test", "@all.test", "regex (a|b)@x", in_(table))
    listed = run("list", in_(table))
    removed = run("remove", "@all.test", "Joe@ours.test", in_(table))
    left = run("list", in_(table))

    assert [each.exit_code for each in (added, listed, removed, left)] == [0, 0, 0, 0]
    # With the types that MailerQ knows.
    assert listed.stdout.splitlines() == [
        "database: exact joe@ours.test",
        "database: fnmatch *@all.test",
        "database: regex (a|b)@x",
    ]
    assert left.stdout == "database: regex (a|b)@x\n"


def test_with_a_table_the_file_is_left_alone(file: Path, table: Table) -> None:
    table.filled("'exact', 'ann@ours.test'")

    added = run("add", "new@ours.test", on(file), in_(table))
    refused = run("remove", "joe@listed.test", on(file), in_(table))

    assert added.stdout == "new@ours.test: added to the database\n"
    assert refused.exit_code == 2
    said = f"mailgw locals: joe@listed.test: stands in {file}:4, not in the database\n"
    assert refused.stderr == said
    assert file.read_text() == STAFF


@pytest.mark.parametrize(
    ("address", "pattern"),
    [
        ("Anybody@OURS.test", "@ours.test ({file}:2)"),
        ("joe@listed.test", "joe@listed.test ({file}:4)"),
        ("b@x.test", "regex (a|b)@x\\.test ({file}:6)"),
        ("ann@table.test", "exact ann@table.test (database)"),
    ],
)
def test_a_local_address_is_told_with_the_pattern_that_decides(
    tmp_path: Path, file: Path, address: str, pattern: str
) -> None:
    table = sqlite_table(tmp_path).filled("'exact', 'ann@table.test'")

    done = run("test", address, on(file), in_(table))

    assert done.exit_code == 0
    assert done.stdout == f"{address} is local: {pattern.format(file=file)}\n"


@pytest.mark.parametrize("address", ["ann@listed.test", "x@ours.test.evil.test", "c@x.test"])
def test_another_address_is_not_local(file: Path, address: str) -> None:
    done = run("test", address, on(file))

    assert (done.exit_code, done.stdout) == (1, f"{address} is not local\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list"], "there is no list: local-addresses and database-address are both empty"),
        (["add", "joe", "{on}"], 'joe: "joe" is not an address'),
        (["add", "ok@ours.test", "regex (a+)+", "{on}"], "could take for ever"),
        (["add", "# joe@ours.test", "{on}"], "would say nothing in the file"),
        (["add", "a@x\n@evil.test", "{on}"], "holds a control character"),
        (["remove", "@ours.test", "nobody@ours.test", "{on}"], "nobody@ours.test: is not in the"),
        (["test", "joe", "{on}"], "joe: is not an address"),
        (["list", "--database-address=sqlite:///missing/file"], "No such file or directory"),
        (["add", "a@x.test", "--database-address=sqlite:///missing/file"], "unable to open"),
        (["add", "a@x.test", "--database-address=mysql://u:opensesame@127.0.0.1:1/x"], "refused"),
    ],
)
def test_a_mistake_is_explained_and_changes_nothing(
    file: Path, arguments: list[str], said: str
) -> None:
    done = run(*(each.format(on=on(file)) for each in arguments))

    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert "opensesame" not in done.output
    assert file.read_text() == STAFF
