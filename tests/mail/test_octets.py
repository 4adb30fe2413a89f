from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailgw.mail.octets import SLICE, Spliced, pieces

_places = st.integers(-30, 30) | st.none()


@given(st.binary(max_size=9), st.binary(max_size=9), st.integers(0, 9), _places, _places)
def test_spliced_octets_are_looked_into_like_joined_ones(
    head: bytes, rest: bytes, start: int, first: int | None, last: int | None
) -> None:
    start = min(start, len(rest))
    spliced, joined = Spliced(head, rest, start), head + rest[start:]
    assert len(spliced) == len(joined)
    assert spliced[first:last] == joined[first:last]


def test_pieces_are_all_of_it_and_none_is_empty() -> None:
    for size in (0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE):
        octets = bytes(size)
        found = list(pieces(octets))
        assert b"".join(found) == octets
        assert all(found)
        # base64 of pieces is base64 of all, as long as each has a multiple of three.
        assert all(len(each) % 3 == 0 for each in found[:-1])
