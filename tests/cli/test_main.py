"""The command mailgw itself: its list, its options, and what it does not import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mailgw.cli import COMMANDS, main
from mailgw.cli.options import Sources, configured, sourced
from mailgw.config import Settings


def run(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mailgw", *arguments],
        env=os.environ | (environ or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_command_without_importing_one() -> None:
    code = (
        "import sys; from mailgw.cli import main; main(['--help'], standalone_mode=False); "
        "print([m for m in sys.modules if m.startswith('mailgw.cli.')])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert [name for name in COMMANDS if f"  {name} " not in done.stdout] == []
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["check-config", "show-config"])
def test_looking_at_a_configuration_imports_no_broker_library(command: str) -> None:
    code = (
        "import sys; from mailgw.cli import main; "
        f"main([{command!r}, '--smtp-ip=::1'], standalone_mode=False); "
        "print({'aio_pika', 'aiormq', 'msgspec', 'uvloop', 'asyncio'} & set(sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("name", ["check-config", "show-config"])
def test_a_command_explains_itself_and_its_shared_options(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])

    assert done.exit_code == 0
    assert "--config-file FILE" in done.output
    assert "--KEY VALUE" in done.output


def test_the_module_is_the_command() -> None:
    done = run("--version")

    assert done.returncode == 0
    # What stands in brackets: tests/test_compiled.py.
    assert done.stdout.startswith("mailgw 0.1.0 (")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such"], "No such command 'no-such'"),
        (["check-config", "--smtp-prot", "25"], "'--smtp-port'"),
        (["check-config", "--KEY", "25"], "stands for the name of a key"),
        (["check-config", "--smtp-port"], "requires an argument"),
    ],
)
def test_a_wrong_command_line_is_explained_on_stderr(arguments: list[str], said: str) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_gets_its_settings_from_files_environment_and_options(tmp_path: Path) -> None:
    @click.command()
    @click.argument("queue")
    @click.option("--shout", is_flag=True)
    @configured
    def command(settings: Settings, queue: str, shout: bool) -> None:
        click.echo(
            f"{queue.upper() if shout else queue} {settings.listen} {settings.smtp.max_errors}"
        )

    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("smtp-port: 1\nsmtp-ip: ::1\n")
    second.write_text("smtp-port: 2\n")

    done = CliRunner().invoke(
        command,
        [
            f"--config-file={first}",
            "--config-file",
            str(second),
            "--server-id=7",
            "inbox",
            "--shout",
        ],
        env={"MAILGW_SMTP_MAX_ERRORS": "3"},
    )

    assert done.exit_code == 0, done.output
    assert done.output == (
        "INBOX ListenSettings(ip=('::1',), port=(2,), secure_port=(), hostname='', threads=1) 3\n"
    )


def test_a_command_does_not_run_with_a_broken_configuration() -> None:
    @click.command()
    @configured
    def command(settings: Settings) -> None:
        click.echo("ran")

    done = CliRunner().invoke(command, ["--smtp-port=x", "--smtp-maxsize", "32Q"])

    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        'command line: smtp-maxsize: "32Q" is not a size (try 32MB)',
        'command line: smtp-port: "x" is not a list of ports (try 25,2525 or 1024-1026)',
    ]


def test_sources_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mailgw.conf"
    file.write_text("smtp-port: 1\n")
    seen: list[tuple[int, ...]] = []

    @click.command()
    @sourced
    def command(sources: Sources) -> None:
        seen.append(sources.load().listen.port)
        file.write_text("smtp-port: 2\n")
        seen.append(sources.load().listen.port)

    CliRunner().invoke(command, [f"--config-file={file}"], catch_exceptions=False)

    assert seen == [(1,), (2,)]


def test_an_empty_value_and_one_that_begins_with_a_dash_are_values() -> None:
    seen: list[Settings] = []

    @click.command()
    @configured
    def command(settings: Settings) -> None:
        seen.append(settings)

    arguments = ["--rabbitmq-address=", "--queue-store", "q", "--hook", "", "--smtp-password", "-x"]
    arguments += ["--smtp-username=a", "--smtp-auth-insecure-range=::1"]
    done = CliRunner().invoke(command, arguments)

    assert done.exit_code == 0, done.output
    assert seen[0].broker.address == ()
    assert seen[0].access.password == "-x"
