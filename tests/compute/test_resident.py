"""Weights that stay between shards: least recently used out first, by bytes."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from wbtui.compute.resident import Resident


def fetch(cache: Resident, made: list[str], key: str, size: int) -> str:
    return cache.get(key, lambda: made.append(key) or key, lambda _: size)


def test_what_was_used_longest_ago_goes_first() -> None:
    cache, made = Resident(100), []
    for key in ("a", "b", "a"):
        fetch(cache, made, key, 40)
    assert made == ["a", "b"] and cache.bytes == 80
    fetch(cache, made, "c", 40)
    assert (cache.has("a"), cache.has("b"), cache.has("c")) == (True, False, True)
    fetch(cache, made, "huge", 1000)
    assert cache.bytes == 1000 and not cache.has("a"), "the newest stays, alone"
    cache.clear()
    assert cache.bytes == 0 and not cache.has("huge")


def test_what_could_not_be_made_takes_no_place() -> None:
    cache = Resident(100)

    def fails() -> str:
        raise MemoryError

    for _ in range(2):
        try:
            cache.get("a", fails, lambda _: 1)
        except MemoryError:
            continue
    assert not cache.has("a") and cache.bytes == 0


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 60), st.lists(st.integers(0, 7), max_size=60))
def test_it_holds_what_a_list_in_order_of_use_would(limit: int, asked: list[int]) -> None:
    cache, made = Resident(limit), []
    model: list[int] = []  # in order of use; key k has 3 k + 1 bytes
    for key in asked:
        known = key in model
        fetch(cache, made, str(key), 3 * key + 1)
        assert (made[-1:] == [str(key)]) or known
        model = [k for k in model if k != key] + [key]
        while len(model) > 1 and sum(3 * k + 1 for k in model) > limit and not known:
            model.pop(0)
        assert [cache.has(str(k)) for k in range(8)] == [k in model for k in range(8)]
        assert cache.bytes == sum(3 * k + 1 for k in model)


def test_many_threads_leave_the_count_of_bytes_right() -> None:
    cache = Resident(50)
    threads = [
        threading.Thread(target=lambda n=n: [fetch(cache, [], str((n * k) % 9), 10) for k in range(300)])
        for n in range(1, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.bytes == 10 * sum(cache.has(str(k)) for k in range(9)) <= 50
