"""Listening sockets: binding them, and the accept loop.

Our own loop instead of the event loop's server, because what is decided about a client
may have to be decided before TLS and before the banner.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from mailgw.mail.peer import Peer
from mailgw.observe import log
from mailgw.smtp.reply import Reply
from mailgw.wire import proxy
from mailgw.wire.conversation import Conversation
from mailgw.wire.house import House
from mailgw.wire.transport import Link

_BACKLOG = 1024
# So that a flood of new clients cannot keep the others from being served.
_ACCEPTS_AT_ONCE = 64
# The machine is out of something; asking again at once would only burn a core.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_PAUSE = 0.5
# How often a full house is looked at: who leaves in another process is not heard here.
_FULL_PAUSE = 0.05
# What the socket module calls an address: host and port come first.
_Address = tuple[str, int] | tuple[str, int, int, int]
# How often deadlines are looked at, in seconds.
_SWEEP = 1.0


class CannotListen(Exception):
    """An address that cannot be had; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A bound, listening socket. `secure`: TLS from the first byte."""

    sock: socket.socket
    secure: bool

    def __str__(self) -> str:
        host, port = self.sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(
    addresses: Iterable[str], ports: Iterable[int], secure_ports: Iterable[int]
) -> list[Endpoint]:
    """Listen on every address and port; all or nothing. Raises CannotListen.

    Without addresses: on all of this machine, IPv4 and, where there is IPv6, IPv6.
    """
    wanted = [(port, False) for port in ports] + [(port, True) for port in secure_ports]
    endpoints: list[Endpoint] = []
    try:
        for address in addresses or _everywhere():
            for port, secure in wanted:
                endpoints.append(Endpoint(_listening(address, port), secure))
    except OSError as trouble:
        for endpoint in endpoints:
            endpoint.sock.close()
        raise CannotListen(f"cannot listen on {address} port {port}: {trouble.strerror}") from None
    return endpoints


def _everywhere() -> tuple[str, ...]:
    return ("0.0.0.0", "::") if socket.has_dualstack_ipv6() else ("0.0.0.0",)


def _listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has a socket of its own, so its clients keep their own addresses.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """Accepts on one endpoint and keeps the conversations that came of it."""

    def __init__(self, endpoint: Endpoint, house: House, *, on_idle: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[bool]] = set()
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
                self._rest(_FULL_PAUSE)
                return
            try:
                sock, remote = self._endpoint.sock.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                house.door.release()
                return
            except OSError as trouble:
                house.door.release()
                self._pause(trouble)
                return
            task = self._loop.create_task(self._admit(house, sock, remote))
            self._arriving.add(task)
            task.add_done_callback(partial(self._arrived, house))

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

    async def _admit(self, house: House, sock: socket.socket, remote: _Address) -> bool:
        """Decide about a client, then hand it to a conversation. Whether its place is settled."""
        sock.setblocking(False)
        secure = self._endpoint.secure
        peer = _peer(sock, remote, house.identifiers.next())
        if peer.remote_ip in house.proxies:
            introduced = await _spoken_for(sock, peer, house.proxy_header)
            if introduced is None:
                return False
            peer = introduced
        refusal = None if peer.health_check else house.door.enter(peer)
        if refusal is not None:
            _turn_away(sock, peer, refusal, secure=secure)
            return True
        link = Link(house.tls if secure else None)
        conversation = Conversation(link, peer, house, secure=secure, done=self._leave)
        self.conversations.add(conversation)
        try:
            await self._loop.connect_accepted_socket(lambda: link, sock)
        except (OSError, asyncio.CancelledError):  # it was gone before it could be served
            self._leave(conversation)
        return True

    def _arrived(self, house: House, task: asyncio.Task[bool]) -> None:
        self._arriving.discard(task)
        if task.cancelled():
            house.door.release()
        elif (bug := task.exception()) is not None:
            log.error("accept.error", reason=repr(bug))
            house.door.release()
        elif not task.result():
            house.door.release()
        if self.idle:
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


def _peer(sock: socket.socket, remote: _Address, connection_id: str) -> Peer:
    local = sock.getsockname()
    return Peer(connection_id, _unmapped(remote[0]), remote[1], _unmapped(local[0]), local[1])


def _unmapped(address: str) -> str:
    # RFC 4291 2.5.5.2: how IPv4 looks on a socket for both, which ours are not, but one
    # that was handed over may be.
    return address[7:] if address.startswith("::ffff:") and "." in address else address


async def _spoken_for(sock: socket.socket, peer: Peer, patience: float) -> Peer | None:
    """The client behind a balancer; None for one whose header was bad: it is gone then."""
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
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise


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
            sock.send(refusal.wire)
    sock.close()
