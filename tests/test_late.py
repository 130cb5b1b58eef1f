"""GIVEN dataclasses whose methods are compiled late THEN they are as the standard library's own."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from wbtui.late import late_methods

with late_methods():

    @dataclass
    class Plain:
        """Open."""

        a: int
        b: list[int] = field(default_factory=list)
        c: str = field(default="c", repr=False, compare=False)

    @dataclass(frozen=True)
    class Frozen:
        """Closed."""

        a: int
        b: str = "b"

    @dataclass(frozen=True)
    class Child(Frozen):
        """Of a closed one."""

        d: tuple[int, ...] = ()

        def __post_init__(self) -> None:
            if self.a < 0:
                raise ValueError(self.a)

    @dataclass(order=True, kw_only=True, slots=True)
    class Ordered:
        """With an order and slots."""

        a: int
        b: int = 0

    @dataclass(unsafe_hash=True)
    class Own:
        """With a method of its own."""

        a: int

        def __repr__(self) -> str:
            return "own"


def test_methods_are_made_at_their_first_call_and_stay() -> None:
    @dataclass
    class Before:
        """Not late."""

        a: int

    assert "stub" not in Before.__init__.__code__.co_name
    assert Plain.__dict__["__eq__"].__code__.co_name == "stub"
    assert Plain(1) == Plain(1)
    assert Plain.__dict__["__eq__"].__code__.co_name == "__eq__"
    assert Plain.__init__.__qualname__ == "Plain.__init__"
    assert dataclasses._create_fn.__module__ == "dataclasses"  # type: ignore[attr-defined]


def test_everything_is_as_it_was() -> None:
    assert repr(Plain(1, [2])) == "Plain(a=1, b=[2])"
    assert Plain(1).b is not Plain(1).b
    assert Plain(1, c="x") == Plain(1, c="y") and Plain(1) != Plain(2)
    with pytest.raises(TypeError):
        Plain()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Plain(1, z=2)  # type: ignore[call-arg]
    one = Frozen(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.a = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.a
    assert {one: 1}[Frozen(1, "b")] == 1 and replace(one, b="c") == Frozen(1, "c")
    child = Child(1, d=(2,))
    assert child != Frozen(1) and hash(child) == hash(Child(1, "b", (2,)))
    assert repr(child).endswith("Child(a=1, b='b', d=(2,))")
    with pytest.raises(dataclasses.FrozenInstanceError):
        child.d = ()  # type: ignore[misc]
    with pytest.raises(ValueError, match="-1"):
        Child(-1)
    with pytest.raises(ValueError, match="-1"):
        replace(child, a=-1)
    assert Ordered(a=1) < Ordered(a=1, b=2) <= Ordered(a=2)
    with pytest.raises(TypeError):
        Ordered(1)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Ordered(a=1).z = 3  # type: ignore[attr-defined]
    assert repr(Own(1)) == "own" and hash(Own(1)) == hash(Own(1))
    for each in (Plain(1, [2]), one, child, Ordered(a=1, b=2), Own(3)):
        again: Any = pickle.loads(pickle.dumps(each))
        assert again == each == copy.deepcopy(each)
        assert dataclasses.asdict(each)["a"] == each.a
