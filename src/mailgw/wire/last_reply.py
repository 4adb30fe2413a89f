"""The reply to a client's latest message: was it seen?

Whoever says something after it has seen it. So has one who ends the connection in order
once all of it had arrived: what a closed program did not read is answered with a reset.
Of all others it is not known, and they are noted, with House.unseen, before they can have
come again. Law: a client that speaks costs nothing here.
"""

from __future__ import annotations

import asyncio
from typing import Final

from mailgw.mail.transaction import Message
from mailgw.mail.unseen import Unseen
from mailgw.wire.transport import Link

# A connection that we close waits for its last 250 to arrive: looked at after so many
# seconds, then after twice as many, and so on.
_FIRST_LOOK: Final = 0.01
_LAST_LOOK: Final = 1.0


class LastReply:
    """Follows one client's replies. Does nothing without `unseen`, but `close`."""

    __slots__ = ("_arrived", "_link", "_looks", "_message", "_parting", "_unseen", "awaited")

    def __init__(self, link: Link, unseen: Unseen | None) -> None:
        self._link = link
        self._unseen = unseen
        self._message: Message | None = None
        self._arrived = False
        self._looks = 0
        self._parting: asyncio.TimerHandle | None = None
        # Whether a 250 was said, and nothing heard since.
        self.awaited = False

    def begun(self, message: Message) -> None:
        """The message is complete, and its reply not known yet."""
        if self._unseen is not None:
            self._message, self.awaited = message, False

    def lost(self) -> None:
        """The client went, or ended what it sends, while it waits for a reply."""
        if self._unseen is not None and self._message is not None and not self.awaited:
            self._unseen.note(self._message, safe=False)

    def said(self, *, positive: bool) -> None:
        """The message has its reply, which is about to be sent."""
        if self._message is None:
            return
        self.awaited, self._arrived, self._looks = True, False, 0
        # How the connection ends counts from now on.
        self._link.ended_in_order = False
        if not positive:
            self.heard()

    def heard(self) -> None:
        """The client has seen it, or need not: forget the message."""
        message, self._message, self.awaited = self._message, None, False
        if self._unseen is not None and message is not None:
            self._unseen.forget(message)
        if self._parting is not None:
            self._link.close()

    def look(self) -> None:
        """Called about once a second.

        A client that was cut off from us may be back long before its old connection ends.
        """
        if not self.awaited or self._arrived:
            return
        self._looks += 1
        # At the first look it may have been said just now, and not be sent yet.
        if self._looks > 1:
            self._arrived = self._link.delivered() is True
            if not self._arrived:
                self._note()

    def close(self) -> None:
        """Close the link; where it is not known whether the reply arrived, a little later."""
        if not self.awaited or self._arrived or self._link.ended_in_order:
            self._link.close()
        elif self._parting is None:
            self._wait(_FIRST_LOOK)

    def ended(self) -> None:
        """The connection is gone."""
        if self._parting is not None:
            self._parting.cancel()
        if not self.awaited:
            return
        if self._link.ended_in_order or (self._arrived and not self._link.broken):
            self.heard()
        else:
            self._note()

    def _note(self) -> None:
        if self._unseen is not None and self._message is not None:
            self._unseen.note(self._message, safe=True)

    def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._parting = loop.call_later(seconds, self._part, seconds)

    def _part(self, waited: float) -> None:
        arrived = self._link.delivered()
        self._arrived = arrived is True
        if not self._arrived:
            self._note()
        if arrived is False and waited < _LAST_LOOK:
            self._wait(waited * 2)
        else:
            self._link.close()
