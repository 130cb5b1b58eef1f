"""What a run of the benchmarks says about the one before."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.compare import compare, picture
from benchmarks.growth import exponent


def results(ratio: float, seconds: float = 1.0, cpu: float = 1.0) -> dict:
    return {"e1": {"measured": "2026-01-01", "results": {"a": {"ratio": ratio, "run_s": seconds, "cpu_ratio": cpu}}}}


def test_a_ratio_beyond_twice_its_record_fails_and_seconds_never_do():
    assert compare(results(1.0), results(1.9)) == (["moved   e1 › a › ratio: 1.9, recorded 1"], 0)
    lines, failed = compare(results(1.0), results(2.1, 50.0, 9.0))
    assert failed == 1
    assert lines == ["FAILED  e1 › a › ratio: 2.10, recorded 1.00", "moved   e1 › a › run_s: 50, recorded 1"]
    assert compare(results(1.0), results(0.9)) == ([], 0)
    assert compare({}, results(5.0)) == ([], 0)


def test_the_picture_has_a_bar_for_each_ratio():
    found = {**results(0.5), "app": {"results": [{"held": {"ratio": 3.0}}, {"held": {"ratio": 4.0}}]}}
    drawn = picture(found)
    ElementTree.fromstring(drawn)
    assert all(text in drawn for text in ("e1 › a", "app › 0 › held", "app › 1 › held", "0.50", "3.00", "4.00"))


def test_exponents_are_slopes_on_logarithms():
    sizes = [10, 20, 40, 80]
    assert abs(exponent(sizes, [3.0 * n**1.5 for n in sizes]) - 1.5) < 1e-9
