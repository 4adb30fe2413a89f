"""Who may come in at all: decided by the address, before TLS and before the banner."""

from __future__ import annotations

from mailgw.mail.peer import Peer
from mailgw.smtp.reply import Reply


class Door:
    """Lets everybody in."""

    def full(self) -> bool:
        return False

    def enter(self, _peer: Peer) -> Reply | None:
        return None

    def leave(self, _peer: Peer) -> None:
        """Nobody is counted."""
