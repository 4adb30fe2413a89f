"""The accept loop.

Our own instead of the event loop's server, because what is decided about a client
may have to be decided before TLS and before the banner.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from mailgw.mail.peer import Peer
from mailgw.observe import log
from mailgw.smtp.reply import Reply
from mailgw.wire import proxy
from mailgw.wire.conversation import Conversation
from mailgw.wire.endpoint import Address, Endpoint
from mailgw.wire.house import House
from mailgw.wire.transport import Link

# So that a flood of new clients cannot keep the others from being served.
_ACCEPTS_AT_ONCE: Final = 64
# The machine is out of something; asking again at once would only burn a core.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_PAUSE: Final = 0.5
# How often deadlines are looked at, in seconds.
_SWEEP: Final = 1.0


class Listener:
    """Accepts on one endpoint and keeps the conversations that came of it.

    A full house is looked at every `pause` seconds: who leaves in another process is not heard
    here.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        house: House,
        *,
        on_idle: Callable[[], None],
        pause: float = 0.05,
    ) -> None:
        self._endpoint = endpoint
        self._full_pause = pause
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        # Of who is not in a conversation yet, or only in one that knows nothing of it.
        self._arriving: set[asyncio.Task[Any]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)
        self.conversations: set[Conversation] = set()
        # May be replaced: who comes from then on meets the new one.
        self.house = house

    def start(self) -> None:
        self._resume = None
        self._loop.add_reader(self._endpoint.sock, self._accept)

    def stop(self) -> None:
        """Accept nobody from now on and let the socket go."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        self._loop.remove_reader(self._endpoint.sock)
        self._endpoint.sock.close()
        for task in self._arriving:
            task.cancel()

    def close(self) -> None:
        """Forget the deadlines too; for when nobody is left."""
        self._sweeper.cancel()

    def _sweep(self) -> None:
        now = self._loop.time()
        for conversation in tuple(self.conversations):
            conversation.check_deadline(now)
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    @property
    def idle(self) -> bool:
        return not self.conversations and not self._arriving

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            house = self.house
            if not house.door.reserve(self._look_again):
                self._rest(self._full_pause)
                return
            try:
                sock, remote = self._endpoint.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                house.door.release()
                return
            except OSError as trouble:
                house.door.release()
                self._pause(trouble)
                return
            try:
                self._receive(house, sock, remote)
            except Exception as bug:  # noqa: BLE001 - ours; whoever comes next is served
                _stumble(house, sock, bug)

    def _pause(self, trouble: OSError) -> None:
        """Clients wait in the backlog until there is something to serve them with."""
        if trouble.errno not in _EXHAUSTED:
            raise trouble
        log.error("accept.exhausted", listener=str(self._endpoint), reason=trouble.strerror)
        self._rest(_EXHAUSTED_PAUSE)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._endpoint.sock)
        self._resume = self._loop.call_later(seconds, self.start)

    def _look_again(self) -> None:
        """Somebody left: whoever waits need not wait for the next look."""
        if self._resume is not None:
            self._resume.cancel()
            self.start()

    def _receive(self, house: House, sock: socket.socket, remote: Address) -> None:
        peer = _peer(sock, remote, house.identifiers.next())
        if peer.remote_ip in house.proxies:
            arriving = self._loop.create_task(_spoken_for(sock, peer, house.proxy_header))
            self._arriving.add(arriving)
            arriving.add_done_callback(partial(self._introduced, house, sock))
        else:
            self._admit(house, sock, peer)

    def _introduced(
        self, house: House, sock: socket.socket, arriving: asyncio.Task[Peer | None]
    ) -> None:
        """A balancer has said for whom it speaks, or did not."""
        self._arriving.discard(arriving)
        try:
            peer = None if arriving.cancelled() else arriving.result()
            # Who was introduced in the very moment of `stop` could not be cancelled by it.
            if peer is not None and self._endpoint.open:
                self._admit(house, sock, peer)
            else:
                sock.close()
                house.door.release()
        except Exception as bug:  # noqa: BLE001 - ours; whoever comes next is served
            _stumble(house, sock, bug)
        if self.idle:
            self._on_idle()

    def _admit(self, house: House, sock: socket.socket, peer: Peer) -> None:
        """Decide about a client, then hand it to a conversation, which has its place."""
        secure = self._endpoint.secure
        refusal = None if peer.health_check else house.door.enter(peer)
        if refusal is not None:
            _turn_away(sock, peer, refusal, secure=secure)
            return
        link = Link(house.tls if secure else None)
        conversation = Conversation(link, peer, house, secure=secure, done=self._leave)
        self.conversations.add(conversation)
        protocol = cast(asyncio.Protocol, link)
        connecting = self._loop.connect_accepted_socket(lambda: protocol, sock)
        arriving = self._loop.create_task(connecting)
        self._arriving.add(arriving)
        arriving.add_done_callback(partial(self._connected, conversation, sock))

    def _connected(
        self, conversation: Conversation, sock: socket.socket, arriving: asyncio.Task[object]
    ) -> None:
        self._arriving.discard(arriving)
        trouble = None if arriving.cancelled() else arriving.exception()
        if arriving.cancelled() or trouble is not None:
            # An OSError only says that it was gone before it could be served.
            if trouble is not None and not isinstance(trouble, OSError):
                log.error("accept.error", reason=repr(trouble))
            sock.close()
            self._leave(conversation)
        elif self.idle:
            self._on_idle()

    def _leave(self, conversation: Conversation) -> None:
        if conversation in self.conversations:
            self.conversations.discard(conversation)
            # The door that let it in, which may be no longer ours.
            door, peer = conversation.house.door, conversation.peer
            if peer.health_check:
                door.release()
            else:
                door.leave(peer)
        if self.idle:
            self._on_idle()


def _peer(sock: socket.socket, remote: Address, connection_id: str) -> Peer:
    local = sock.getsockname()
    return Peer(connection_id, _unmapped(remote[0]), remote[1], _unmapped(local[0]), local[1])


def _unmapped(address: str) -> str:
    # RFC 4291 2.5.5.2: how IPv4 looks on a socket for both, which ours are not, but one
    # that was handed over may be.
    return address[7:] if address.startswith("::ffff:") and "." in address else address


async def _spoken_for(sock: socket.socket, peer: Peer, patience: float) -> Peer | None:
    """The client behind a balancer; None for one whose header was bad."""
    sock.setblocking(False)
    try:
        return await proxy.meet(sock, peer, patience)
    except proxy.BadHeader as bad:
        log.info(
            "proxy.refused",
            id=peer.connection_id,
            peer=peer.remote_ip,
            rule="smtp-proxy",
            reason=bad,
        )
        return None


def _stumble(house: House, sock: socket.socket, bug: Exception) -> None:
    """Our own mistake costs one client its connection, and nobody its place."""
    log.error("accept.error", reason=repr(bug))
    sock.close()
    house.door.release()


def _turn_away(sock: socket.socket, peer: Peer, refusal: Reply, *, secure: bool) -> None:
    """Say no and hang up; without a word where TLS would have to carry it."""
    log.info(
        "client.refused",
        id=peer.connection_id,
        peer=peer.remote_ip,
        port=peer.local_port,
        proxy=peer.proxy_ip,
        rule=refusal.rule or None,
        reply=refusal.code,
        text=refusal.text,
    )
    with suppress(OSError):
        if not secure:
            sock.send(refusal.wire, socket.MSG_DONTWAIT)
    sock.close()
