"""Bodies are safe before their documents, and gone where there is no document."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from document.world import BOB, CAROL, message
from mailgw.config.sections.document import Extract
from mailgw.document.build import Builder
from mailgw.intake import Intake
from mailgw.mail.budget import Budget
from mailgw.mail.publication import Publication
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Recipient
from mailgw.outlets.memory import Memory
from mailgw.outlets.router import Queues
from mailgw.plugins import Output, Unavailable, Undeliverable
from mailgw.smtp import reply
from mailgw.smtp.address import Address
from mailgw.storage.bodies import Bodies
from mailgw.storage.folder import Folder
from mailgw.storage.names import is_key, key_of, mark, new_key
from mailgw.storage.place import Entry, Place, StorageError, Unclear
from mailgw.storage.sweep import fetch, sweep
from rabbitmq import eventually

MAIL = b"Subject: hello\r\n\r\n" + b"Hello.\r\n" * 1000
LOCAL = Recipient(Address("anna", "ours.test"), local=True)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = new_key("1abc", NOW, compressed=False)


def intake(output: Output, bodies: Bodies, results: tuple[str, ...] = ()) -> Intake:
    builder = Builder("mx.ours.test", Extract(), results=results)
    return Intake(builder, Queues("inbox", "local"), output, bodies=bodies)


async def names(place: Place) -> list[str]:
    folders = ("mail", "writing", "publishing")
    return [entry.name for folder in folders async for entry in _entries(place, folder)]


async def _entries(place: Place, folder: str) -> AsyncIterator[Entry]:
    async for entry in place.entries(folder):
        yield entry


async def whole(place: Place, key: str) -> bytes:
    return b"".join([piece async for piece in fetch(place, key)])


async def settled(place: Place, count: int) -> None:
    """Return when no mark is left, and so many bodies."""
    deadline = time.monotonic() + 20
    while [name.partition("/")[0] for name in await names(place)] != ["mail"] * count:
        assert time.monotonic() < deadline, await names(place)
        await asyncio.sleep(0.02)


def documents(memory: Memory) -> list[dict[str, object]]:
    return [json.loads(each.body) for each in memory.publications]


class Looking(Memory):
    """An output that notes what the place held when it was asked to publish."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place
        self.seen: list[str] = []

    async def publish(self, publications: Sequence[Publication]) -> None:
        self.seen = await names(self._place)
        await super().publish(publications)


class Failing(Memory):
    def __init__(self, trouble: Exception) -> None:
        super().__init__()
        self._trouble = trouble

    async def publish(self, publications: Sequence[Publication]) -> None:
        raise self._trouble


# --- one mail -----------------------------------------------------------------------


async def test_the_document_has_a_key_and_the_place_has_the_body_before_it(place: Place) -> None:
    output, bodies = Looking(place), Bodies(place)

    said = await intake(output, bodies).message(message(MAIL))

    assert said.code == 250
    [document] = documents(output)
    key = str(document["key"])
    assert "mime" not in document
    assert is_key(key)
    assert output.seen == [key, mark("writing", key), mark("publishing", key)]
    assert await whole(place, key) == MAIL
    assert document["mime-size"] == len(MAIL)
    await settled(place, 1)
    assert await names(place) == [key]


async def test_recipients_share_one_object(place: Place) -> None:
    memory, bodies = Memory(), Bodies(place)

    await intake(memory, bodies).message(message(MAIL, recipients=(BOB, CAROL, LOCAL)))

    assert len({document["key"] for document in documents(memory)}) == 1
    await settled(place, 1)


async def test_bodies_that_differ_by_our_results_are_two_objects(place: Place) -> None:
    memory, bodies = Memory(), Bodies(place)

    await intake(memory, bodies, results=("local",)).message(message(MAIL, recipients=(BOB, LOCAL)))

    other, local = documents(memory)
    assert await whole(place, str(other["key"])) == MAIL
    marked = await whole(place, str(local["key"]))
    assert marked.startswith(b"Authentication-Results: mx.ours.test; none\r\n")
    assert len(marked) == local["mime-size"]
    await settled(place, 2)


async def test_only_what_is_larger_goes_elsewhere(place: Place) -> None:
    memory, bodies = Memory(), Bodies(place, above=len(MAIL))

    for content in (MAIL, MAIL + b"x"):
        await intake(memory, bodies).message(message(content))

    stays, goes = documents(memory)
    assert stays["mime"] == MAIL.decode()
    assert "key" not in stays
    assert await whole(place, str(goes["key"])) == MAIL + b"x"


async def test_a_compressed_body_is_smaller_there_and_the_same_when_it_is_read(
    place: Place,
) -> None:
    memory, bodies = Memory(), Bodies(place, compress=True)

    await intake(memory, bodies).message(message(MAIL))

    [document] = documents(memory)
    key = str(document["key"])
    assert key.endswith(".gz")
    assert (await place.size(key) or 0) < len(MAIL) / 10
    assert await whole(place, key) == MAIL
    assert document["mime-size"] == len(MAIL)


async def test_a_damaged_body_is_told(place: Place) -> None:
    for damage in (b"no gzip", b"\x1f\x8b\x08"):
        key = new_key("1abc", NOW, compressed=True)
        await place.put(key, [damage])
        with pytest.raises(StorageError, match=r"damaged|cut short"):
            await whole(place, key)


def test_a_key_cannot_be_guessed_and_leads_nowhere_else() -> None:
    keys = {new_key("1abc", NOW, compressed=False) for _ in range(100)}

    assert len(keys) == 100
    assert all(re.fullmatch(r"mail/2026-11-21/1abc-[0-9a-f]{32}", key) for key in keys)
    assert all(key_of(mark("writing", key)) == key for key in keys)
    assert not is_key("mail/2026-11-21/../../etc/passwd")
    assert key_of("writing/../../etc/passwd") is None


# --- what fails ---------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [Unavailable("away", nowhere=True),
                                     Undeliverable("large", nowhere=True)])  # fmt: skip
async def test_a_body_whose_document_is_nowhere_is_removed_at_once(
    place: Place, trouble: Unavailable | Undeliverable
) -> None:
    bodies = Bodies(place)

    said = await intake(Failing(trouble), bodies).message(message(MAIL))

    assert said == trouble.reply
    await settled(place, 0)


async def test_a_body_whose_document_may_be_somewhere_stays_and_is_told(place: Place) -> None:
    bodies = Bodies(place)

    said = await intake(Failing(Unavailable("no confirm")), bodies).message(message(MAIL))

    assert said.code == 451
    later = datetime.now(UTC) + timedelta(minutes=1)
    swept = await sweep(place, later, dry=False)
    [key] = swept.uncertain
    assert swept.orphans == ()
    assert await whole(place, key) == MAIL
    assert (await sweep(place, later, dry=False, uncertain=True)).octets == len(MAIL)
    assert await names(place) == []


class Broken(Folder):
    """A folder on a disk that fails, or takes for ever, at names that begin so."""

    def __init__(self, root: Path, trouble: Exception | asyncio.Event, at: str = "mail/") -> None:
        super().__init__(root)
        self.trouble: Exception | asyncio.Event | None = trouble
        self._at = at

    async def put(self, name: str, pieces: Iterable[bytes]) -> None:
        if name.startswith(self._at) and self.trouble is not None:
            if isinstance(self.trouble, Exception):
                raise self.trouble
            await self.trouble.wait()
        await super().put(name, pieces)


@pytest.mark.parametrize("at", ["writing/", "mail/", "publishing/"])
async def test_a_place_that_fails_is_a_451_and_leaves_nothing(tmp_path: Path, at: str) -> None:
    memory, place = Memory(), Broken(tmp_path, StorageError("no room"), at)

    said = await intake(memory, Bodies(place)).message(message(MAIL))

    assert said == reply.TRY_AGAIN
    assert memory.publications == []
    await settled(place, 0)


async def test_what_may_still_be_written_is_left_to_the_sweep(tmp_path: Path) -> None:
    place = Broken(tmp_path, Unclear("no answer in time"))
    bodies = Bodies(place)

    said = await intake(Memory(), bodies).message(message(MAIL))

    assert said == reply.TRY_AGAIN
    await bodies.close()
    assert [name.partition("/")[0] for name in await names(Folder(tmp_path))] == ["writing"]


async def test_a_place_that_hangs_is_a_451_in_time_and_leaves_nothing(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    memory, place = Memory(), Broken(tmp_path, go_on)
    bodies = Bodies(place, writers=1, timeout=0.2)

    said = [await intake(memory, bodies).message(message(MAIL)) for _ in range(2)]

    # The second one found no writer free.
    assert said == [reply.TRY_AGAIN, reply.TRY_AGAIN]
    assert memory.publications == []
    go_on.set()
    await settled(place, 0)
    assert (await intake(memory, bodies).message(message(MAIL))).code == 250


async def test_where_bodies_are_held_large_ones_take_turns_and_keep_no_small_one_waiting(
    tmp_path: Path,
) -> None:
    class Holding(Folder):
        """A folder that is like a bucket: what it writes it has in memory, and it is slow."""

        holds_whole = True
        held: ClassVar[list[int]] = []
        go_on = asyncio.Event()

        async def put(self, name: str, pieces: Iterable[bytes]) -> None:
            octets = b"".join(pieces)
            if len(octets) > 1_000_000:
                self.held.append(len(octets))
                await self.go_on.wait()
            await super().put(name, [octets])

    place = Holding(tmp_path, 4)
    bodies = Bodies(place, writers=2, budget=Budget(6_000_000))
    large = [asyncio.create_task(bodies.keep({f"mail/large{n}": bytes(4_000_000)})) for n in "abc"]
    await eventually(lambda: bool(place.held), "one is written")

    await asyncio.gather(*(bodies.keep({f"mail/small{n}": MAIL}) for n in range(10)))

    assert len(place.held) == 1
    place.go_on.set()
    await asyncio.gather(*large)
    assert len(place.held) == 3
    await bodies.close()


async def test_a_client_who_is_not_waited_for_leaves_nothing(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    memory, place = Memory(), Broken(tmp_path, go_on)
    taking = asyncio.create_task(intake(memory, Bodies(place)).message(message(MAIL)))
    await eventually(lambda: any(tmp_path.glob("writing/*")), "it is being written")

    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    go_on.set()

    await settled(place, 0)
    assert memory.publications == []


async def test_while_every_body_would_fail_mail_is_put_off_before_it_is_sent(
    tmp_path: Path,
) -> None:
    place = Broken(tmp_path, StorageError("no room"))
    for_all, for_some = Bodies(place), Bodies(place, above=10)
    assert for_all.trouble() is None

    for bodies in (for_all, for_some):
        with pytest.raises(Unavailable):
            await bodies.keep({KEY: MAIL})

    assert for_all.trouble() == reply.TRY_AGAIN
    assert for_some.trouble() is None
    await eventually(lambda: for_all.trouble() is None, "it is tried again")


async def test_marks_that_cannot_be_removed_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn(Folder):
        refused = 0

        async def remove(self, names: Collection[str]) -> None:
            if self.refused < 2:
                self.refused += 1
                raise StorageError("not now")
            await super().remove(names)

    monkeypatch.setattr("mailgw.storage.bodies._AGAIN", 0.01)
    memory, place = Memory(), Stubborn(tmp_path)

    assert (await intake(memory, Bodies(place)).message(message(MAIL))).code == 250

    await settled(place, 1)
    assert place.refused == 2


async def test_a_body_on_disk_goes_to_the_place_without_many_copies(tmp_path: Path) -> None:
    size = 40_000_000
    spool = Spool(1000, tmp_path)
    spool.write(b"Subject: large\r\n\r\n")
    for _ in range(size // 1_000_000):
        spool.write(os.urandom(999_998).replace(b"\r", b"x").replace(b"\n", b"x") + b"\r\n")
    mail = replace(message(b""), content=spool)
    memory, place = Memory(), Folder(tmp_path / "bodies")
    before = _peak()

    said = await intake(memory, Bodies(place)).message(mail)

    assert said.code == 250
    # It goes from the spool to the folder slice by slice.
    assert _peak() - before < size / 4
    [document] = documents(memory)
    assert await place.size(str(document["key"])) == document["mime-size"]


def _peak() -> int:
    """The most that this process ever had in memory, in octets."""
    with Path("/proc/self/status").open() as status:
        [line] = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


# --- the sweep ----------------------------------------------------------------------


async def test_the_sweep_takes_what_is_old_and_in_no_document(place: Place) -> None:
    keys = {
        state: new_key(state, NOW, compressed=False)
        for state in ("published", "handed", "written", "begun", "fetched")
    }
    for state, key in keys.items():
        if state not in ("begun", "fetched"):
            await place.put(key, [b"body"])
    for state in ("written", "begun", "handed"):
        await place.put(mark("writing", keys[state]), [b""])
    for state in ("handed", "fetched"):
        await place.put(mark("publishing", keys[state]), [b""])
    later = datetime.now(UTC) + timedelta(minutes=1)

    too_young = await sweep(place, datetime.now(UTC) - timedelta(hours=1), dry=False)
    told = await sweep(place, later, dry=True)
    before = await names(place)
    done = await sweep(place, later, dry=False)

    assert (too_young.orphans, too_young.uncertain) == ((), ())
    assert len(before) == 8
    assert set(told.orphans) == set(done.orphans) == {keys["written"], keys["begun"]}
    assert (done.uncertain, done.octets) == ((keys["handed"],), 4)
    assert sorted(await names(place)) == sorted(
        [keys["published"], keys["handed"]]
        + [mark(state, keys["handed"]) for state in ("writing", "publishing")]
    )


async def test_the_sweep_never_takes_what_was_published_and_lost_only_one_mark(
    place: Place,
) -> None:
    # A gateway was killed after the 250, between the removal of the one mark and the other.
    await place.put(KEY, [b"body"])
    await place.put(mark("publishing", KEY), [])
    later = datetime.now(UTC) + timedelta(minutes=1)

    dry = await sweep(place, later, dry=True, uncertain=True)
    swept = await sweep(place, later, dry=False, uncertain=True)

    assert (dry.orphans, dry.uncertain, dry.octets) == ((), (), 0)
    assert (swept.orphans, swept.uncertain, swept.octets) == ((), (), 0)
    assert await names(place) == [KEY]


class Settling(Folder):
    """A folder where a gateway takes the marks off KEY between two looks of somebody else."""

    looked = False

    async def entries(self, folder: str) -> AsyncIterator[Entry]:
        async for entry in super().entries(folder):
            yield entry
        if not self.looked:
            self.looked = True
            for state in ("writing", "publishing"):
                await self.remove([mark(state, KEY)])


async def test_the_sweep_never_takes_what_was_published_and_settles_meanwhile(
    tmp_path: Path,
) -> None:
    place = Settling(tmp_path / "bodies", 2)
    for name in (mark("writing", KEY), KEY, mark("publishing", KEY)):
        await place.put(name, [MAIL])

    # The marks are old: the place was away for long after the mail was published.
    swept = await sweep(place, datetime.now(UTC) + timedelta(minutes=1), dry=False)

    assert swept.orphans == ()
    assert await whole(place, KEY) == MAIL
    await place.close()


async def test_a_sweep_beside_mail_that_is_under_way_takes_nothing_of_it(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    for at in ("mail/", "publishing/"):
        place, memory = Broken(tmp_path / at, go_on, at), Memory()
        taking = asyncio.create_task(intake(memory, Bodies(place)).message(message(MAIL)))
        await eventually(lambda: any((tmp_path / at).glob("writing/*")), "it is written")  # noqa: B023

        swept = await sweep(place, datetime.now(UTC) - timedelta(minutes=1), dry=False)

        assert (swept.orphans, swept.uncertain) == ((), ())
        go_on.set()
        assert (await taking).code == 250
        [document] = documents(memory)
        assert await whole(place, str(document["key"])) == MAIL
        go_on.clear()


async def test_the_sweep_leaves_alone_what_is_not_ours(place: Place) -> None:
    for name in ("writing/notes.txt", "mail/photo.jpg", "writing/2026-11-21.x"):
        await place.put(name, [b"somebody's"])

    swept = await sweep(place, datetime.now(UTC) + timedelta(minutes=1), dry=False, uncertain=True)

    assert (swept.orphans, swept.uncertain) == ((), ())
    assert len(await names(place)) == 3
