"""Who may authenticate: the one login of `smtp-username` and `smtp-password`."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Login:
    """`verify` takes the same time whatever is wrong, so a stranger learns nothing by it."""

    username: str
    password: str = field(repr=False)

    def verify(self, username: str, password: str) -> bool:
        same_name = hmac.compare_digest(username.encode(), self.username.encode())
        same_word = hmac.compare_digest(password.encode(), self.password.encode())
        return same_name and same_word
