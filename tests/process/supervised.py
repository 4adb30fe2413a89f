"""A supervisor whose worker dies at the worst moment; run by test_supervisor.py as a program.

Signals belong to a whole process, so this is no place inside the process of the tests.
The exit code is the supervisor's.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator

from mailgw.config import load, read
from mailgw.gate.rates import Alone
from mailgw.process.channel import Channel
from mailgw.process.crew import Crew, Hand
from mailgw.process.notify import Notifier
from mailgw.process.plan import Current, first_plan
from mailgw.process.signals import Signals
from mailgw.process.supervisor import Supervisor

WAIT, RELEASE = os.pipe()


class Unlucky(Crew):
    """Its worker ends between the look for the dead and whatever comes behind that.

    Its channel has ended before, so that nothing but SIGCHLD can tell of its end.
    """

    def buried(self) -> Iterator[tuple[Hand, int]]:
        yield from super().buried()
        for hand in self.hands.values():
            if hand.channel.ended:
                os.write(RELEASE, b".")
                # Ended, and its SIGCHLD is here, but nobody has asked for it yet.
                os.waitid(os.P_PID, hand.pid, os.WEXITED | os.WNOWAIT)


def until_the_end(_place: int, channel: Channel) -> int:
    channel.say("ready")
    select.select([channel], [], [])
    channel.close()
    os.read(WAIT, 1)
    return 0


def main() -> int:
    signals = Signals()
    crew = Unlucky(1, until_the_end, [signals.leave_to_the_parent])
    settings = load(arguments=[("output", "null"), ("hostname", "mx.ours.test")])
    return Supervisor(
        crew,
        Current(first_plan(settings, Alone())),
        read,
        signals,
        Notifier(),
        ready=lambda: os.kill(os.getpid(), signal.SIGTERM),
        stop_listening=lambda: None,
    ).run()


if __name__ == "__main__":
    sys.exit(main())
