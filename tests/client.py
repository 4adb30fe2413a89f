"""A client that sends exactly the octets it is told, when it is told."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from types import TracebackType

# Longer than anything a test waits for, so that a hang is a failure and not a hang.
_PATIENCE = 15.0


class Client:
    """One TCP connection to the gateway. Replies come as text, lines joined by "\\n".

    `source`: the address that it comes from.
    """

    def __init__(self, port: int, *, buffer: int | None = None, source: str = "") -> None:
        self.socket: socket.socket | ssl.SSLSocket = socket.socket()
        if buffer is not None:
            # Before connecting: the window is announced in the first packet.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(_PATIENCE)
        try:
            if source:
                self.socket.bind((source, 0))
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self._unread = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> str:
        """The next reply, "" where the connection ends instead."""
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            while b"\r\n" not in self._unread:
                try:
                    data = self.socket.recv(65536)
                except ConnectionResetError:  # it had octets of ours unread
                    return ""
                if not data:
                    return ""
                self._unread += data
            line, _, self._unread = self._unread.partition(b"\r\n")
            lines.append(line.decode("utf-8"))
        return "\n".join(lines)

    def ask(self, line: bytes | str) -> str:
        """Send one line and give its reply."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.reply()

    def hello(self) -> str:
        """Read the banner and say EHLO."""
        assert self.reply().startswith("220 ")
        return self.ask("EHLO client.test")

    def transaction(self, *recipients: str, sender: str = "<joe@there.test>") -> list[str]:
        """MAIL, the RCPTs and DATA, and all their replies."""
        said = [self.ask(f"MAIL FROM:{sender}")]
        said += [self.ask(f"RCPT TO:<{each}>") for each in recipients or ("bob@ours.test",)]
        return [*said, self.ask("DATA")]

    def mail(self, message: bytes, *recipients: str, sender: str = "<joe@there.test>") -> str:
        """Send a message by DATA and give the last reply, or the one that refused before."""
        for said in self.transaction(*recipients, sender=sender):
            if said[0] not in "23":
                return said
        self.send(stuffed(message))
        return self.reply()

    def chunks(self, *message: bytes, recipient: str = "bob@ours.test") -> str:
        """Send a message by BDAT, all of it in one write, and give the last reply."""
        commands = [b"MAIL FROM:<joe@there.test>\r\n", b"RCPT TO:<%s>\r\n" % recipient.encode()]
        *others, last = message
        commands += [b"BDAT %d\r\n%b" % (len(each), each) for each in others]
        commands.append(b"BDAT %d LAST\r\n%b" % (len(last), last))
        self.send(b"".join(commands))
        return [self.reply() for _ in commands][-1]

    def starttls(self, authority: Path) -> None:
        """Ask for TLS and shake hands; EHLO is not said."""
        said = self.ask("STARTTLS")
        assert said.startswith("220 "), said
        self.handshake(authority)

    def handshake(self, authority: Path) -> None:
        context = ssl.create_default_context(cafile=authority)
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def ended(self) -> bool:
        """Whether the other side has closed, or closes in time; what it still said is dropped."""
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


def stuffed(message: bytes) -> bytes:
    """A message as DATA carries it (RFC 5321 4.5.2), the final dot included."""
    if not message.endswith(b"\r\n"):
        raise ValueError("DATA cannot carry a message whose last line has no CRLF")
    dotted = message.replace(b"\r\n.", b"\r\n..")
    return (b"." + dotted if dotted.startswith(b".") else dotted) + b".\r\n"
