"""The picture of a mixture: positions, text alternatives, hostile names, and what is not known is not drawn."""

from __future__ import annotations

import math
import re

import pytest

from bimix_tracking.display.proportions import MOST_ROWS, STYLE, ProportionRow, mixture_chart
from bimix_tracking.quantities import about
from bimix_tracking.report.language import Language


def lefts(html: str, cls: str) -> list[float]:
    """Return where the marks of a kind stand, percent of the track."""
    return [float(at) for at in re.findall(rf'class="bx-{cls}" style="left:([\d.]+)%', html)]


def test_marks_stand_where_their_proportions_are() -> None:
    html = mixture_chart([ProportionRow("web", 0.6, 0.4, 0.5, 0.7, 0.1, 0.8), ProportionRow("code", 0.4, 0.6)])
    end = 0.8 * 1.02  # a little beyond the last mark

    assert lefts(html, "rec") == pytest.approx([60 / end, 40 / end], abs=0.01)
    assert lefts(html, "ref") == pytest.approx([40 / end, 60 / end], abs=0.01)
    assert lefts(html, "grid")[:5] == pytest.approx([0, 20 / end, 40 / end, 60 / end, 80 / end], abs=0.01)
    near, tried = (
        re.findall(rf'bx-{cls}" style="left:([\d.]+)%;width:([\d.]+)%', html)[0] for cls in ("near", "tried")
    )
    assert [*map(float, near)] == pytest.approx([50 / end, 20 / end], abs=0.01)
    assert [*map(float, tried)] == pytest.approx([10 / end, 70 / end], abs=0.01)
    assert (
        'aria-label="web: recommended 60 %, reference 40 %, near-optimal range 50 % to 70 %, range tried 10 % to 80 %"'
        in html
    )


def test_what_is_not_known_is_neither_drawn_nor_in_the_legend() -> None:
    html = mixture_chart([ProportionRow("web", 0.95, 0.5), ProportionRow("code", 0.05, 0.5)])

    assert "near" not in html
    assert "tried" not in html
    assert "nan" not in html
    assert lefts(html, "rec") == pytest.approx([95 / 0.969, 5 / 0.969], abs=0.01)
    lost = mixture_chart([ProportionRow("web", 1.0, math.nan)])
    assert lefts(lost, "ref") == []
    assert "reference –" in lost


@pytest.mark.parametrize(("domains", "shown"), [(12, 12), (13, 13), (14, 12), (39, 12)])
def test_of_many_domains_those_that_matter_come_first(domains: int, shown: int) -> None:
    share = 2 / (domains * (domains + 1))
    rows = [ProportionRow(f"d{i}", share * (i + 1), 0.9 if i == 0 else 0.1 / (domains - 1)) for i in range(domains)]
    first, _, others = mixture_chart(rows).partition("<details")

    assert first.count('role="listitem"') == shown
    assert others.count('role="listitem"') == domains - shown
    assert "<bdi>d0</bdi>" in first  # it has most of the reference
    assert re.findall(r"<bdi>(\w+)</bdi>", first)[0] == f"d{domains - 1}"  # and the largest proportion is first
    if domains > shown:
        rest = sum(row.recommended for row in rows[1 : domains - MOST_ROWS + 1])
        assert f"{domains - shown} more domains, together {about(rest)}" in others


@pytest.mark.parametrize("name", ['"><script>alert(1)</script>', "עברית", "n" * 200, "a\u202eb", "a\nb", "{0}", "%s"])
def test_a_hostile_name_is_text(name: str) -> None:
    html = mixture_chart([ProportionRow(name, 0.4, 0.5), ProportionRow("web", 0.6, 0.5)], Language("ja"))

    assert "<script" not in html
    assert all(c.isprintable() for c in html)
    assert html.count("<bdi>") == 2
    assert html.count('role="img"') == 2


def test_it_is_said_in_a_pages_language() -> None:
    html = mixture_chart([ProportionRow("web", 0.6, 0.5, 0.5, 0.7, 0.1, 0.8)], Language("ja"))

    assert "ほぼ最適な範囲 50%〜70%" in html
    assert "<b>60%</b>" in html
    assert "recommended" not in html


def test_no_style_reaches_beyond_the_picture() -> None:
    heads = re.findall(r"([^{}]+)\{", " ".join(STYLE.split()))
    selectors = [text.strip() for head in heads if "@" not in head for text in head.split(",")]
    assert len(selectors) > 20
    assert [selector for selector in selectors if not selector.startswith(".bx-")] == []
    assert not re.search(r"url\(|@import|<", STYLE)
