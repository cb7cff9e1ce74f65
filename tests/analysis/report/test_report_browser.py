"""The report in a real browser: quiet, sortable, filterable, operable by mouse, touch and keys, readable by everybody.

Chromium must be installed; nothing is downloaded. What the page does is held against the CSV files beside it.
"""

from __future__ import annotations

import csv
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 360, "height": 740}
DARK, LIGHT = "rgb(20, 24, 29)", "rgb(255, 255, 255)"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


class Visit:
    """A page that is open, and what it did besides."""

    def __init__(self, browser: Browser, path: Path, address: str = "", **options: object) -> None:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        self.page: Page = context.new_page()
        self.said: list[str] = []
        self.requests: set[str] = set()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requests.add(request.url.partition("#")[0]))
        self.home = path.as_uri()
        self.page.goto(self.home + address)

    def close(self) -> None:
        assert self.said == [] and self.requests == {self.home}
        self.page.context.close()

    def column(self, table: str, name: str) -> list[str]:
        """Texts of the rows that are shown, top to bottom."""
        return self.page.eval_on_selector(
            f"{table} table.grid",
            """(table, name) => {
                const i = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
                return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[i].textContent);
            }""",
            name,
        )


@pytest.fixture
def visit(browser: Browser, report_page: Path) -> Iterator[Visit]:
    """At 1280 x 900, with Table 5 open."""
    found = Visit(browser, report_page, "#table-table5")
    yield found
    found.close()


def rows(report_page: Path, table: str) -> list[dict[str, str]]:
    return list(csv.DictReader((report_page.parent / f"tables/{table}.csv").open()))


def test_sorting_is_numeric_and_stable(visit: Visit, report_page: Path) -> None:
    head = visit.page.locator("#table-table5").get_by_role("button", name="this run", exact=True)
    every = rows(report_page, "table5")
    # A mean of one benchmark is that benchmark's number but for rounding.
    values = [(round(float(row["value"]), 9), row["benchmark"]) for row in every if row["value"]]
    missing = [row["benchmark"] for row in every if not row["value"]]
    plain = visit.column("#table-table5", "benchmark")
    for descending, said in ((False, "ascending"), (True, "descending")):
        head.click()
        assert head.locator("..").get_attribute("aria-sort") == said
        wanted = sorted(values, key=lambda pair: pair[0], reverse=descending)
        assert visit.column("#table-table5", "benchmark") == [*(name for _, name in wanted), *missing]
    head.click()  # as it was
    assert head.locator("..").get_attribute("aria-sort") is None and visit.column("#table-table5", "benchmark") == plain


def test_what_is_missing_stays_last(visit: Visit, report_page: Path) -> None:
    visit.page.goto(visit.home + "#table-calibration")
    name = "NLL, PT's temperature"
    head = visit.page.locator("#table-calibration").get_by_role("button", name=name)
    texts = [row[name] for row in rows(report_page, "calibration")]
    known = sorted((text for text in texts if text), key=float)
    assert 0 < len(known) < len(texts)
    for wanted in (known, sorted(known, key=float, reverse=True)):
        head.click()
        found = visit.column("#table-calibration", name)
        assert found == [*wanted, *[""] * (len(texts) - len(known))]


def test_small_p_values_are_numbers(visit: Visit, report_page: Path) -> None:
    """9e-05 is less than 0.0002, whatever the characters say."""
    find = "row.querySelectorAll('td:not(.k, .verdict, .weak)')[5]"
    put = f"row => {{ const cell = {find}; cell.dataset.v = cell.textContent = '9e-05'; }}"
    visit.page.eval_on_selector("#table-table5 tbody tr:nth-child(7)", put)
    visit.page.locator("#table-table5").get_by_role("button", name="p", exact=True).click()
    found = visit.column("#table-table5", "p")
    numbers = [float(text) for text in found if text]
    assert "9e-05" in found and numbers == sorted(numbers)
    assert len(numbers) == sum(bool(row["p"]) for row in rows(report_page, "table5")) > 60


def test_filters_leave_the_rows_that_match(visit: Visit, report_page: Path) -> None:
    table = visit.page.locator("#table-table5")
    every = rows(report_page, "table5")
    table.get_by_role("searchbox").fill("SCI confidence")
    wanted = [r["benchmark"] for r in every if "sci" in str([*r.values()][:4]).lower() and r["metric"] == "confidence"]
    assert visit.column("#table-table5", "benchmark") == wanted and 0 < len(wanted) < len(every)
    table.get_by_label("scale: ").select_option("mini_m")
    wanted = [
        r["benchmark"]
        for r in every
        if "sci" in str([*r.values()][:4]).lower() and r["metric"] == "confidence" and r["scale"] == "mini_m"
    ]
    assert visit.column("#table-table5", "benchmark") == wanted
    assert table.locator(".count").text_content() == f"{len(wanted)} of {len(every)} rows"
    table.get_by_role("searchbox").fill("")
    table.get_by_label("scale: ").select_option("")
    table.get_by_label("verdict: ").select_option("no claim")
    wanted = [r["benchmark"] for r in every if r["verdict"].startswith("no claim")]
    assert visit.column("#table-table5", "benchmark") == wanted


def test_the_matrix_filters_by_verdict_and_sorts_by_it(visit: Visit) -> None:
    visit.page.goto(visit.home + "#verdict")
    in_rows = "rows => rows.map(row => [...row.querySelectorAll('[data-level]')].map(cell => cell.dataset.level))"
    levels = visit.page.eval_on_selector_all(".matrix tbody tr", in_rows)
    some = levels[0][0]
    visit.page.get_by_label("verdict: May").select_option(some)
    assert len(visit.column("", "benchmark")) == sum(some in row for row in levels)
    visit.page.get_by_label("verdict: May").select_option("")
    visit.page.locator(".matrix").get_by_role("button", name="mini_s: PT → SFT").click()
    rank = {"do not trust": 1, "weak": 2, "trust": 3, "not measured": 4}
    shown = [row[0] for row in visit.page.eval_on_selector_all(".matrix tbody tr", in_rows)]
    assert [rank[level] for level in shown] == sorted(rank[row[0]] for row in levels)


def test_tips_by_mouse_and_escape(visit: Visit) -> None:
    visit.page.goto(visit.home + "#transfer")
    tip = visit.page.locator("#tip")
    row = next(iter(csv.DictReader((Path(visit.home[7:]).parent / "tables/table5.csv").open())))
    assert not tip.is_visible()
    visit.page.locator("#figure-cross_stage_accuracy svg circle").first.hover()
    assert tip.is_visible()
    assert f"HellaSwag, {row['scale']}: r {float(row['value']):+.2f}".replace("-", "−") in (tip.text_content() or "")
    visit.page.keyboard.press("Escape")
    assert not tip.is_visible()
    assert visit.page.locator("svg title").count() == 0  # or two tips would show


def test_tips_by_keyboard_with_one_stop_a_figure(visit: Visit, report_page: Path) -> None:
    drawn = [row for row in rows(report_page, "table5") if row["metric"] == "accuracy" and row["value"]]
    last = drawn[-1]["benchmark"] if drawn[-1]["category"] != "Mean" else "Mean"
    figure, tip = visit.page.locator("#figure-cross_stage_accuracy svg"), visit.page.locator("#tip")
    assert visit.page.locator("svg [tabindex]").count() == 0
    visit.page.locator("#figure-figure1 summary").focus()
    visit.page.keyboard.press("Tab")
    if not figure.evaluate("svg => svg === document.activeElement"):
        visit.page.keyboard.press("Tab")
    assert figure.evaluate("svg => svg === document.activeElement") and tip.is_visible()
    seen = [tip.text_content() or ""]
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "End", "Home"):
        visit.page.keyboard.press(key)
        seen.append(tip.text_content() or "")
    names = [text.partition(",")[0] for text in seen]
    assert names[:4] == ["HellaSwag", "PIQA", "COPA", "PIQA"] and names[-2:] == [last, "HellaSwag"]
    assert names[4] != "PIQA" and seen[-1] == seen[0]
    box, mark = tip.bounding_box(), visit.page.locator("svg .here").bounding_box()
    assert box and mark and abs(box["y"] + box["height"] / 2 - mark["y"]) < 80 and box["y"] >= 0
    visit.page.keyboard.press("Escape")
    assert not tip.is_visible()
    visit.page.locator("#figure-cross_stage_accuracy summary").click()
    listed = visit.page.locator("#figure-cross_stage_accuracy li").all_text_contents()
    assert len(listed) == len(drawn) and seen[0] in listed


def test_tips_by_touch(browser: Browser, report_page: Path) -> None:
    found = Visit(browser, report_page, "#transfer", viewport=PHONE, has_touch=True)
    mark = found.page.locator("#figure-figure1 svg circle").first
    mark.scroll_into_view_if_needed()
    mark.tap()
    tip = found.page.locator("#tip")
    assert tip.is_visible() and "Commonsense" in (tip.text_content() or "")
    found.close()


def test_the_theme_is_chosen_followed_and_remembered(browser: Browser, report_page: Path) -> None:
    found = Visit(browser, report_page, color_scheme="light")
    back = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('#figure-figure1 svg text')).fill"
    switch = found.page.get_by_label("Colours")
    bright = found.page.evaluate(ink)
    assert found.page.evaluate(back) == LIGHT
    switch.select_option("dark")
    assert found.page.evaluate(back) == DARK and found.page.evaluate(ink) != bright  # charts follow
    found.page.wait_for_timeout(1000)  # the browser writes what is stored a moment later
    found.page.reload()
    assert found.page.evaluate(back) == DARK and switch.input_value() == "dark"
    found.page.emulate_media(media="print")
    assert found.page.evaluate(ink) == bright  # paper is light
    found.page.emulate_media(media="screen", color_scheme="dark")
    switch.select_option("light")
    assert found.page.evaluate(back) == LIGHT
    switch.select_option("automatic")
    assert found.page.evaluate(back) == DARK
    found.close()


def test_every_benchmark_has_an_address(visit: Visit) -> None:
    visit.page.goto(visit.home + "#benchmark-sciq")
    shown = visit.page.locator("article.benchmark:visible")
    assert shown.count() == 1 and shown.get_attribute("id") == "benchmark-sciq"
    assert not visit.page.locator("#verdict").is_visible() and visit.page.title().startswith("SciQ: ")
    assert visit.page.evaluate("document.activeElement.id") == "name-sciq"
    shown.get_by_role("link", name="OpenBookQA →").click()
    assert visit.page.locator("article.benchmark:visible").get_attribute("id") == "benchmark-openbookqa"
    visit.page.go_back()
    assert visit.page.locator("article.benchmark:visible").get_attribute("id") == "benchmark-sciq"
    visit.page.get_by_role("link", name="All benchmarks").first.click()
    assert visit.page.locator("#verdict").is_visible() and visit.page.locator("article.benchmark:visible").count() == 0
    visit.page.locator(".matrix").get_by_role("link", name="BoolQ").click()
    assert visit.page.locator("article.benchmark:visible").get_attribute("id") == "benchmark-boolq"
    visit.page.locator("article.benchmark:visible").get_by_role("link", name="The whole table").first.click()
    assert visit.page.locator("#table-table5 table").is_visible()


def test_the_contents_fold(visit: Visit) -> None:
    bar = visit.page.locator("header.bar").bounding_box()
    assert bar and bar["height"] <= 48
    visit.page.locator("#contents summary").click()
    assert visit.page.get_by_role("link", name="Provenance").is_visible()
    visit.page.keyboard.press("Escape")
    assert not visit.page.get_by_role("link", name="Provenance").is_visible()
    visit.page.locator("#contents summary").click()
    visit.page.get_by_role("link", name="Provenance").click()
    assert not visit.page.locator("#contents .panel").is_visible()


def test_without_javascript_all_is_said(browser: Browser, report_page: Path) -> None:
    found = Visit(browser, report_page, java_script_enabled=False)
    assert found.page.locator("article.benchmark:visible").count() == 20
    assert found.page.locator("#figure-figure1 title").count() > 0 and found.page.locator(".tools").count() == 0
    found.page.locator("#table-table5 > summary").click()
    assert found.page.locator("#table-table5 tbody tr:visible").count() == 84
    found.close()


def test_on_paper_everything_is_open(visit: Visit) -> None:
    visit.page.goto(visit.home + "#benchmark-piqa")
    visit.page.emulate_media(media="print")
    visit.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert visit.page.locator("article.benchmark:visible").count() == 20 and visit.page.locator("#verdict").is_visible()
    sheets = visit.page.locator(".sheet")
    assert sheets.count() > 15 and visit.page.locator(".sheet table:visible").count() == sheets.count()
    assert visit.page.locator("header.bar:visible, .tools:visible, .beside:visible").count() == 0
    sticky = "[...document.querySelectorAll('main *')].filter(e => getComputedStyle(e).position === 'sticky').length"
    assert visit.page.evaluate(sticky) == 0
    visit.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    visit.page.emulate_media(media="screen")
    assert visit.page.locator("article.benchmark:visible").count() == 1
    assert visit.page.locator(".sheet[open]").count() == 1  # Table 5, as before


def test_on_paper_a_long_table_has_its_head_on_every_page(visit: Visit) -> None:
    """Seen by two colours that nothing else has: of the names in the head and of those of the rows."""
    colours = "#table-table5 thead th { color: rgb(1 2 3) !important } #table-table5 tbody th { color: rgb(3 2 1) }"
    visit.page.add_style_tag(content=colours)
    parts = re.findall(rb"stream\r?\n(.*?)endstream", visit.page.pdf(), re.DOTALL)
    drawn = [zlib.decompress(part) for part in parts if part.startswith(b"x\x9c")]
    heads, rows = ([colour in part for part in drawn] for colour in (b".0039 .0078 .0118 rg", b".0118 .0078 .0039 rg"))
    assert heads == rows and sum(rows) > 1


@pytest.mark.parametrize("address", ["#verdict", "#table-calibration", "#benchmark-commonsense_qa", "#provenance"])
def test_a_phone_scrolls_down_only(browser: Browser, report_page: Path, address: str) -> None:
    found = Visit(browser, report_page, address, viewport=PHONE)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    found.page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert found.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    found.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("address", "where"), [("", "html"), ("#benchmark-hellaswag", "article.current")])
def test_axe_finds_no_barrier(browser: Browser, report_page: Path, scheme: str, address: str, where: str) -> None:
    """A theme changes colours only, so that in the second one they alone are looked at."""
    found = Visit(browser, report_page, address, color_scheme=scheme)
    found.page.evaluate("for (const part of document.querySelectorAll('.sheet:nth-of-type(-n+2)')) part.open = true")
    options = {"resultTypes": ["violations"]} | ({"runOnly": ["color-contrast"]} if scheme == "dark" else {})
    result = Axe().run(found.page, context=where, options=options).response
    grave = [v for v in result["violations"] if v["impact"] in ("serious", "critical")]
    assert grave == [] and result["testEngine"]["version"].startswith("4.")
    assert any(rule["id"] == "color-contrast" for rule in result["passes"])
    found.close()
