"""The picture of gains and losses: better to the right, the dozen that matter first, guards and doubts in words."""

from __future__ import annotations

import math
import re

import pytest

from bimix_tracking.display.gains import GainRow, Guarded, gains_chart


def row(name: str, at: float, **more: object) -> GainRow:
    return GainRow(name, f"{at:+.2f}", at, **more)  # type: ignore[arg-type]


def marks(picture: str, cls: str) -> list[float]:
    return [float(at) for at in re.findall(rf'<i class="{cls}[^"]*" style="left:([\d.]+)%', picture)]


def test_better_is_to_the_right_of_no_change() -> None:
    picture = gains_chart([row("a", 0.3), row("b", -0.1)])
    assert marks(picture, "bx-at good")[0] > marks(picture, "bx-zero")[0] > marks(picture, "bx-at")[1]
    assert picture.index(">a<") < picture.index(">b<")
    assert 'aria-label="a: +0.30, better"' in picture
    assert 'aria-label="b: -0.10, worse"' in picture


def test_everything_stays_within_the_track() -> None:
    rows = [row("a", 0.3, low=-0.2, high=0.9), row("b", -0.1, low=-0.4, high=0.1, limit=-2.0, state=Guarded.KEPT)]
    picture = gains_chart(rows)
    every = [float(at) for at in re.findall(r"left:([\d.]+)%", picture)]
    assert min(every) > 0
    assert max(every) < 100
    wide = [(float(at), float(size)) for at, size in re.findall(r"left:([\d.]+)%;width:([\d.]+)%", picture)]
    assert len(wide) == 2
    assert all(at + size < 100 for at, size in wide)


def test_of_sixty_targets_the_dozen_that_matter_stand_first() -> None:
    rows = [row(f"task-{i}", (i - 30) / 100, counts=i % 2 == 0) for i in range(60)]
    rows += [row("guarded", 0.001, limit=0.0, guard="≥ 0", state=Guarded.BINDING)]
    rows += [row("watched", -0.25, limit=-0.4, guard="≥ −0.4", state=Guarded.KEPT, counts=False)]
    picture = gains_chart(rows)
    first, _, rest = picture.partition("<details")
    assert first.count('role="listitem"') == 12
    assert rest.count('role="listitem"') == 50
    assert ">guarded<" in first
    assert ">watched<" in first  # a guard is on it, and it gets worse
    assert ">task-0<" in first  # the largest loss that counts
    assert ">task-58<" in first  # the largest gain that counts
    assert ">task-59<" in rest  # larger, but not in the objective
    assert "50 more targets, of which " in rest


def test_a_row_or_two_more_are_not_worth_a_summary() -> None:
    assert "<details" not in gains_chart([row(f"task-{i}", i + 1.0) for i in range(14)])
    assert "<details" in gains_chart([row(f"task-{i}", i + 1.0) for i in range(15)])


def test_groups_have_a_heading_each_and_none_where_there_are_none() -> None:
    rows = [row("a", 0.1, group="code"), row("b", 0.2, group="<b>"), row("c", 0.3)]
    picture = gains_chart(rows)
    headings = re.findall(r'bx-group"><bdi>([^<]*)</bdi>', picture)
    assert headings == ["&lt;b&gt;", "code", "no group"]
    assert "bx-group" not in gains_chart([row("a", 0.1), row("b", 0.2)])


@pytest.mark.parametrize("state", [state for state in Guarded if state])
def test_a_guard_is_said_in_words(state: Guarded) -> None:
    picture = gains_chart([row("a", 0.1, limit=0.0, guard="≤ +1%", state=state)])
    assert f'<i class="bx-guard {state}"' in picture
    assert f"≤ +1%: {state.words}" in picture


def test_an_interval_that_holds_no_change_is_open_and_what_is_unknown_has_no_mark() -> None:
    picture = gains_chart([row("a", 0.1, low=-0.1, high=0.3), row("b", 0.1, low=0.05, high=0.3), row("c", math.nan)])
    _, *cells = picture.split('role="listitem"')
    assert ["open" in cell for cell in cells] == [True, False, False]
    assert not re.search(r"nan|inf", "".join(re.findall(r'style="[^"]*"', picture)))
    assert "bx-at" not in cells[2]
