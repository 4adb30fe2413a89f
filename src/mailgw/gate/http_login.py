"""Logins that a web service knows: HTTP Basic (RFC 7617), any 2xx is a yes.

Laws: 401 and 403 are a no, and everything else is "cannot tell", a redirect too: the
password goes to the one address that was configured. Nothing of the answer but its
status is read. No exception leaves this module that holds the request, because the
request holds the password.
"""

from __future__ import annotations

import base64
import os

import aiohttp

from mailgw.gate.credentials import CannotTell

_AT_ONCE = 16
# More than that would wait longer for a connection than they may.
_MOST_WAITING = 200
# For all of it: the wait for a connection, the name, the handshake and the answer.
_PATIENCE = 5.0
_NO = (401, 403)


class HttpLogin:
    """`url` is asked for every login; connections are kept for the next ones."""

    def __init__(self, url: str, *, patience: float = _PATIENCE, at_once: int = _AT_ONCE) -> None:
        self._url = url
        self._patience = patience
        self._at_once = at_once
        self._waiting = 0
        self._closed = False
        # Made with the first question: it belongs to the event loop.
        self._session: aiohttp.ClientSession | None = None

    async def verify(self, username: str, password: str) -> bool:
        # RFC 7617 2: a name with a colon would move the rest of it into the password.
        if ":" in username:
            return False
        if self._waiting >= _MOST_WAITING:
            raise CannotTell("too many logins wait for the web service")
        self._waiting += 1
        try:
            answer = await self._ask(username, password)
        finally:
            self._waiting -= 1
        if isinstance(answer, int):
            if 200 <= answer < 300:
                return True
            if answer in _NO:
                return False
            answer = f"the web service answered {answer}"
        # Raised here, where the exception that knows the request is gone.
        raise CannotTell(answer)

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _ask(self, username: str, password: str) -> int | str:
        """The status, or what kept us from getting one."""
        if self._closed:
            return "the web service is asked no more"
        if self._session is None:
            self._session = self._open()
        login = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
        try:
            async with self._session.get(
                self._url, headers={"Authorization": f"Basic {login}"}, allow_redirects=False
            ) as response:
                return response.status
        except TimeoutError:
            return "the web service took too long"
        except (aiohttp.ClientError, OSError) as trouble:
            return f"the web service cannot be asked: {_why(trouble)}"

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._at_once),
            timeout=aiohttp.ClientTimeout(total=self._patience),
            # One client's cookie would go out with the next one's login.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )


def _why(trouble: Exception) -> str:
    # Its text is not for us: some quote the request.
    number = trouble.errno if isinstance(trouble, OSError) else None
    return os.strerror(number) if number and number > 0 else type(trouble).__name__
