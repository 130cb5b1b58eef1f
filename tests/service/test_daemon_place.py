"""The daemon's lock, socket and folder, and when it goes by itself."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.service.conftest import DEADLINE
from tests.service.daemons import Running, finished, listening
from wbtui.errors import ServiceError
from wbtui.service import place
from wbtui.service.aio import AsyncClient
from wbtui.service.daemon import EXIT_NOT_ME, Daemon


async def test_a_second_daemon_does_not_touch_the_first(running, here):
    inode = place.socket_path().stat().st_ino
    assert await Daemon(here.config()).serve(handle_signals=False) == EXIT_NOT_ME
    assert place.socket_path().stat().st_ino == inode
    async with AsyncClient(autostart=False) as client:
        await client.call("status")


async def test_the_folder_is_ours_alone_and_the_socket_too(running):
    assert place.folder().stat().st_mode & 0o777 == 0o700
    assert place.socket_path().stat().st_mode & 0o777 == 0o600


async def test_a_socket_that_a_cleaner_took_is_made_anew(running, here):
    async with AsyncClient(autostart=False) as old:
        place.socket_path().unlink()
        await running.daemon.check_place()
        async with AsyncClient(autostart=False) as new:
            assert (await new.call("status"))["clients"] == 2
        assert (await old.call("status"))["pid"] == os.getpid()


async def test_a_service_that_ends_does_not_take_its_own_socket_for_lost(here, monkeypatch):
    """GIVEN a watch that is cancelled at the moment at which what it waits for comes (Python 3.11 then forgets the
    cancelling) THEN the socket that was removed at the end is not made anew: who called there would wait for ever."""
    real = asyncio.wait_for

    async def forgetful(awaitable, timeout):
        try:
            return await real(awaitable, DEADLINE)  # not before the end
        except asyncio.CancelledError:
            return None

    monkeypatch.setattr(asyncio, "wait_for", forgetful)
    running = await Running(here, check_every=1e-6).up()
    async with AsyncClient(autostart=False) as client:
        await client.call("status")
    await running.down()
    assert not place.socket_path().exists()
    assert not running.watches()


async def test_a_lock_that_a_cleaner_took_is_taken_again(running, here):
    running.daemon.lock.path.unlink()
    await running.daemon.check_place()
    assert running.daemon.lock.ours()
    assert await Daemon(here.config()).serve(handle_signals=False) == EXIT_NOT_ME


async def test_where_another_daemon_has_taken_over_this_one_finishes_and_goes(running, here):
    gate = here.root / "gate"
    async with AsyncClient(autostart=False) as client:
        request = here.request(gate=str(gate), products=[["tokens", 32, 32]])
        job = (await client.compute(**request.plan_request()))["job"]
        events = await listening(client)
        running.daemon.lock.path.unlink()
        place.socket_path().unlink()
        second = await Running(here).up()
        inode = place.socket_path().stat().st_ino
        await running.daemon.check_place()
        assert running.daemon.retiring
        gate.touch()
        assert (await finished(events, job))[-1]["state"] == "done"
        assert await running.task == 0
        assert place.socket_path().stat().st_ino == inode  # the successor's
        assert await second.down() == 0


async def test_a_foreign_or_loose_folder(here, monkeypatch):
    here.runtime.mkdir(mode=0o755)
    assert place.folder().stat().st_mode & 0o777 == 0o700
    link = here.root / "link"
    link.symlink_to(here.runtime)
    monkeypatch.setenv("WBTUI_RUNTIME_DIR", str(link))
    with pytest.raises(ServiceError, match="WBTUI_RUNTIME_DIR"):
        place.folder()
    monkeypatch.setenv("WBTUI_RUNTIME_DIR", str(here.root / ("x" * 120)))
    with pytest.raises(ServiceError, match="bytes long"):
        place.socket_path()
    monkeypatch.setenv("WBTUI_RUNTIME_DIR", str(here.runtime))


async def test_idle_ends_the_daemon_but_not_while_a_client_is_there(here):
    running = await Running(here, idle_exit=0.05, check_every=0.02).up()
    client = AsyncClient(autostart=False)
    await client.connect()
    running.daemon.last_client -= 100
    assert (await client.call("status"))["clients"] == 1
    await client.close()
    async with asyncio.timeout(DEADLINE):
        assert await running.task == 0
    assert "no client" in running.daemon.why_ending
