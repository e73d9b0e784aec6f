"""The page in headless Chromium, as its readers use it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_records import HOSTILE, with_doses, with_images
from records import write

from fedbench.leaderboard import Database
from fedbench.leaderboard.page import page_data, page_html

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[dev]'")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("there is no chromium with a chromedriver", allow_module_level=True)

QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion", "--window-size=1280,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page_html(page_data(database)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def dosed(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("doses") / "index.html"
    path.write_text(page_html(page_data(database, board=with_doses(database))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def visit(browser: Any, page: Path) -> Iterator[Callable[[str], Any]]:
    """Opens the page with a view in its address; afterwards the console must have stayed empty."""

    def go(view: str = "") -> Any:
        browser.get("about:blank")
        browser.get(f"{page.as_uri()}#{view}")
        return browser

    yield go
    assert browser.get_log("browser") == []


@pytest.fixture
def doses(browser: Any, dosed: Path) -> Iterator[Callable[[str], Any]]:
    """Likewise of a page with findings, doses and prices."""

    def go(view: str = "") -> Any:
        browser.get("about:blank")
        browser.get(f"{dosed.as_uri()}#{view}")
        return browser

    yield go
    assert browser.get_log("browser") == []


def copied(browser: Any, table: str, kind: str) -> str:
    """What the button of a table puts into the clipboard."""
    browser.execute_cdp_cmd("Browser.setPermission", {"permission": {"name": "clipboard-read"}, "setting": "granted"})
    browser.execute_cdp_cmd("Browser.setPermission", {"permission": {"name": "clipboard-write"}, "setting": "granted"})
    browser.execute_script(
        "window.copied = []; const write = navigator.clipboard.writeText.bind(navigator.clipboard);"
        "navigator.clipboard.writeText = (text) => { window.copied.push(text); return write(text); };"
    )
    sheet = f"#{table}"
    button = browser.execute_script(
        "return document.querySelector(arguments[0]).closest('.sheet').querySelector(`[data-copy=\"${arguments[1]}\"]`)",
        sheet,
        kind,
    )
    button.send_keys(Keys.ENTER)
    said = browser.find_element(By.ID, "said")
    WebDriverWait(browser, 5).until(lambda _: kind in said.get_attribute("textContent"))
    text: str = browser.execute_script("return window.copied.at(-1)")
    return text


def names(browser: Any, table: str = "attack-table") -> list[str]:
    return [each.text.split("\n")[0] for each in browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody th button")]


def column(browser: Any, key: str, table: str = "attack-table") -> list[str]:
    script = """const heads = [...document.querySelectorAll(`#${arguments[1]} thead th`)];
        const at = heads.findIndex((head) => head.dataset.key === arguments[0]);
        return [...document.querySelectorAll(`#${arguments[1]} tbody tr`)].map((row) => row.cells[at].innerText);"""
    return [text.split("\n")[0] for text in browser.execute_script(script, key, table)]


def test_it_opens_and_shows_both_tracks(visit: Any) -> None:
    browser = visit()
    assert set(names(browser)) == {"a-ra", "pieck-uea", "popular", "random"}
    assert len(names(browser, "defense-table")) == 4
    browser.find_element(By.ID, "tab-untargeted").click()
    assert set(names(browser)) == {"popular", "random"}
    assert "track=untargeted" in browser.current_url
    browser.find_element(By.CSS_SELECTOR, '[data-all="defense-table"]').click()
    net = column(browser, "net", "defense-table")
    assert column(browser, "net_end", "defense-table") == net, "without validation items both are the end"
    browser.find_element(By.ID, "tab-untargeted").send_keys(Keys.ARROW_LEFT)
    assert len(names(browser)) == 4


def test_the_visual_track(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(page_html(page_data(Database([write(tmp_path / "r", *with_images())], 5))), encoding="utf-8")
    browser.get(page.as_uri())
    assert browser.find_element(By.ID, "tab-visual").get_attribute("aria-selected") == "true", "there is nothing else"
    assert names(browser) == ["psmu-v", "popularity-image", "psmu"]
    assert names(browser, "attack-table-4") == ["psmu-v", "psmu", "popularity-image"]
    assert column(browser, "psnr")[:2] == ["36.0", "36.0"]
    browser.find_element(By.CSS_SELECTOR, '[data-all="defense-table"]').click()
    assert column(browser, "auc", "defense-table") == ["0.95", "0.95"]
    assert set(column(browser, "eps", "cell-table")) == {"4", "8", "no image"}
    tables = {"attack-table-8": "psmu-v within eps 8", "cell-table": "psmu-v on longtail-small", "heat": "psmu-v"}
    for table, title in tables.items():
        row = next(b for b in browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody th button") if "psmu-v" in b.text)
        browser.execute_script("arguments[0].click()", row)
        assert browser.find_element(By.ID, "details-title").text.startswith(title)
        assert browser.find_elements(By.CSS_SELECTOR, "#details .card"), "with the attack's card"
        browser.find_element(By.CSS_SELECTOR, "#details .close").click()
    browser.execute_script("document.querySelector('#heat tbody td:nth-child(3) button').click()")
    assert " under " in browser.find_element(By.ID, "details-title").text
    assert "eps 8" in browser.find_element(By.ID, "runs").text
    assert browser.get_log("browser") == []


def test_there_is_no_visual_tab_without_runs(visit: Any) -> None:
    browser = visit("track=visual")
    assert not browser.find_element(By.ID, "tab-visual").is_displayed()
    assert browser.find_element(By.ID, "tab-targeted").get_attribute("aria-selected") == "true"


def test_it_asks_no_network(visit: Any) -> None:
    browser = visit()
    browser.find_element(By.CSS_SELECTOR, "#attack-table tbody button").click()
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in sent if each["method"] == "Network.requestWillBeSent"]
    assert asked, "the log tells of the page itself"
    assert not {url.partition(":")[0] for url in asked} & {"http", "https", "ws", "wss"}
    blocked = """const done = arguments[0];
        document.addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective));
        const image = new Image(); image.src = "https://example.invalid/x.png";"""
    assert browser.execute_async_script(blocked) == "img-src"
    browser.get_log("browser")  # the policy's own message


def test_numbers_are_those_of_the_data(visit: Any, database: Database) -> None:
    browser = visit("k=20")
    rows = {row["attack"]: row["er"][0] for row in page_data(database)["boards"]["20"][0]["attacks"]}
    shown = dict(zip(names(browser), column(browser, "er"), strict=True))
    assert {name: float(text) for name, text in shown.items()} == {
        name: pytest.approx(value, abs=0.0501) for name, value in rows.items()
    }


def test_sorting_by_click_and_by_key(visit: Any) -> None:
    browser = visit()
    head = browser.find_element(By.CSS_SELECTOR, '#attack-table th[data-key="er"]')
    assert head.get_attribute("aria-sort") == "none"
    head.find_element(By.TAG_NAME, "button").click()
    assert head.get_attribute("aria-sort") == "descending"
    values = [float(text) for text in column(browser, "er")]
    assert values == sorted(values, reverse=True)
    head.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(browser, "er")] == sorted(values)
    assert "sort.attack-table=er" in browser.current_url
    browser.find_element(By.CSS_SELECTOR, '#attack-table th[data-key="attack"] button').send_keys(Keys.SPACE)
    assert names(browser) == ["a-ra", "pieck-uea", "popular", "random"]
    assert head.get_attribute("aria-sort") == "none"


def test_filters_change_the_rows_and_the_address(visit: Any) -> None:
    browser = visit()
    before = column(browser, "er")
    Select(browser.find_element(By.NAME, "dataset")).select_by_value("other-data")
    assert set(names(browser)) == {"a-ra", "pieck-uea", "random"}, "nobody ran popular there"
    assert column(browser, "er") != before
    assert "dataset=other-data" in browser.current_url
    assert not browser.find_elements(By.ID, "defenses"), "nothing empty where there are no runs"
    random = browser.find_element(By.CSS_SELECTOR, "#attack-table tbody").text
    assert "1 failed" in random
    model = Select(browser.find_element(By.NAME, "model"))
    assert {option.get_attribute("value"): option.is_enabled() for option in model.options} == {
        "": True,
        "mf": False,
        "ncf": True,
    }
    browser.find_element(By.ID, "reset").click()
    assert column(browser, "er") == before
    assert set(column(browser, "malicious_ratio", "cell-table")) == {"1 %", "5 %"}


def test_the_list_length_changes_the_numbers(visit: Any) -> None:
    browser = visit()
    ten = dict(zip(names(browser), column(browser, "er"), strict=True))
    Select(browser.find_element(By.NAME, "k")).select_by_value("5")
    five = dict(zip(names(browser), column(browser, "er"), strict=True))
    assert all(float(five[name]) < float(ten[name]) for name in ten)
    assert "ER@5" in browser.find_element(By.ID, "attacks-title").text


def test_what_is_lacking_stands_in_its_place_with_a_mark(visit: Any) -> None:
    browser = visit()
    values = [float(text) for text in column(browser, "er")]
    assert values == sorted(values, reverse=True)
    at = names(browser).index("popular")
    assert column(browser, "rank")[at] == "\u2013"
    assert at < len(values) - 1, "not last"
    row = browser.find_elements(By.CSS_SELECTOR, "#attack-table tbody tr")[at]
    assert "lacks 1 of 3 scenarios" in row.text


def heads(browser: Any, table: str) -> list[str]:
    return [each.get_attribute("data-key") for each in browser.find_elements(By.CSS_SELECTOR, f"#{table} thead th")]


def test_a_table_has_eight_columns_none_of_zeros_and_the_rest_on_demand(visit: Any) -> None:
    browser = visit()
    tables = [each.get_attribute("id") for each in browser.find_elements(By.CSS_SELECTOR, ".sheet table")]
    assert {"attack-table", "defense-table", "cell-table"} <= set(tables)
    assert all(len(heads(browser, table)) <= 8 for table in tables)
    browser.find_element(By.CSS_SELECTOR, '[data-all="attack-table"]').send_keys(Keys.ENTER)
    shown = heads(browser, "attack-table")
    assert len(shown) > 8
    assert "failed" in shown
    assert "refused" not in shown, "no upload was"
    assert "all=attack-table" in browser.current_url
    assert browser.switch_to.active_element.get_attribute("data-all") == "attack-table"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert len(heads(browser, "attack-table")) == 8
    assert len(column(browser, "value", "cell-table")) <= 12


def test_tables_are_copied_as_they_stand(visit: Any) -> None:
    browser = visit()
    browser.find_element(By.CSS_SELECTOR, '#attack-table th[data-key="attack"] button').click()
    rows = list(csv.DictReader(io.StringIO(copied(browser, "attack-table", "CSV"))))
    assert [row["Attack"] for row in rows] == names(browser) == sorted(names(browser))
    assert [f"{float(row['ER@10']):.1f}" for row in rows] == column(browser, "er")
    assert all(float(row["ER@10 low"]) <= float(row["ER@10"]) <= float(row["ER@10 high"]) for row in rows)
    markdown = copied(browser, "defense-table", "Markdown").splitlines()
    assert len({line.replace("\\|", "").count("|") for line in markdown[:6]}) == 1
    assert "\\<script\\>" in "\n".join(markdown)
    latex = copied(browser, "attack-table", "LaTeX")
    assert latex.index("\\toprule") < latex.index("\\midrule") < latex.index("pieck-uea") < latex.index("\\bottomrule")
    assert latex.count("\\\\\n") == 5
    assert "\\_" in copied(browser, "defense-table", "LaTeX"), "malicious_ratio"
    bibtex = copied(browser, "attack-table", "BibTeX")
    assert "@inproceedings{zhang2024preventing," in bibtex
    assert "author = {Jun Zhang and Huan Li" in bibtex
    assert bibtex.count("{") == bibtex.count("}")


def test_findings_come_first_and_lead_to_their_runs_and_command(doses: Any) -> None:
    browser = doses()
    first = browser.find_element(By.CSS_SELECTOR, "#findings .claim")
    assert first.text == "On mf pieck-uea needs the fewest clients."
    assert first.location["y"] < browser.find_element(By.ID, "doses").location["y"]
    assert HOSTILE in browser.find_element(By.ID, "findings").text
    assert [each.text for each in browser.find_elements(By.CSS_SELECTOR, "#findings .detail")] == [
        f"0.3 % of 900, {HOSTILE} more."
    ]
    browser.find_element(By.CSS_SELECTOR, "#findings .runs").send_keys(Keys.ENTER)
    assert len(names(browser, "runs")) == 2
    assert f"0.3 % of 900, {HOSTILE} more." in browser.find_element(By.ID, "details").text
    assert "fedbench leaderboard" in browser.find_element(By.CSS_SELECTOR, "#details .command").text
    assert "open=finding" in browser.current_url


def test_doses_are_small_multiples_of_which_some_are_compared(doses: Any) -> None:
    browser = doses()
    panels = browser.find_elements(By.CSS_SELECTOR, "#doses figure")
    assert [len(each.find_elements(By.CSS_SELECTOR, "path.dose")) for each in panels] == [4, 3]
    pressed = '.chip[aria-pressed="true"]'
    assert [each.text for each in browser.find_elements(By.CSS_SELECTOR, pressed)] == ["pieck-uea", "a-ra", "popular"]
    browser.find_element(By.CSS_SELECTOR, '.chip[data-attack="a-ra"]').send_keys(Keys.SPACE)
    assert [each.text for each in browser.find_elements(By.CSS_SELECTOR, pressed)] == ["pieck-uea", "popular"]
    assert browser.switch_to.active_element.text == "a-ra"
    linked = browser.current_url.partition("#")[2]
    assert "compare=pieck-uea&compare=popular" in linked
    browser = doses(linked)
    assert [each.text for each in browser.find_elements(By.CSS_SELECTOR, pressed)] == ["pieck-uea", "popular"]
    browser.find_element(By.CSS_SELECTOR, "#doses circle.point").send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "details-title").text == "pieck-uea on mf on longtail-small, 0.1 %"
    assert len(names(browser, "runs")) == 3


def test_half_exposure_doses_sort_with_those_beyond_last(doses: Any) -> None:
    browser = doses()
    assert heads(browser, "dose-table") == ["attack", "half-0", "half-1"]
    head = browser.find_element(By.CSS_SELECTOR, '#dose-table th[data-key="half-0"] button')
    head.click()
    assert column(browser, "half-0", "dose-table") == ["0.28 % [0.22, 0.45]", "0.8 %", "8 %", ">10 %"]
    head.click()
    assert column(browser, "half-0", "dose-table")[0] == ">10 %"
    Select(browser.find_element(By.NAME, "dataset")).select_by_value("longtail-small")
    assert "half" in heads(browser, "dose-table")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#doses figure")) == 1


def test_prices_against_cost(doses: Any) -> None:
    browser = doses()
    assert len(browser.find_elements(By.CSS_SELECTOR, "#prices .point")) == 3
    assert len(browser.find_elements(By.CSS_SELECTOR, "#prices .beyond")) == 1, "of which only a bound is known"
    assert column(browser, "factor", "price-table") == ["> x 20", "\u00d7 3.1", "\u00d7 1.2"]
    assert names(browser, "price-table") == ["drop", "mean", HOSTILE]
    browser.find_element(By.CSS_SELECTOR, "#prices .point").send_keys(Keys.ENTER)
    assert " on mf on longtail-small" in browser.find_element(By.ID, "details-title").text


def test_on_a_phone_the_first_screen_has_the_finding_and_the_first_rows(doses: Any) -> None:
    browser = doses()
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser = doses()
        bottom = (
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.getBoundingClientRect().bottom)"
        )
        (claim, *_) = browser.execute_script(bottom, "#findings .claim")
        rows = browser.execute_script(bottom, "#dose-table tbody tr")
        assert 0 < claim < rows[0]
        assert rows[3] <= 844
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_knowledge_hides_what_needs_it(visit: Any) -> None:
    browser = visit()
    browser.find_element(By.CSS_SELECTOR, "#know summary").click()
    browser.find_element(By.CSS_SELECTOR, '#know-list input[value="malicious_ratio"]').click()
    assert "mean" not in names(browser, "defense-table")
    assert "drop" in names(browser, "defense-table")
    assert "hide=malicious_ratio" in browser.current_url
    assert "3 of 4 defenses" in browser.find_element(By.ID, "status").text


def test_a_linked_view_is_the_view(visit: Any) -> None:
    browser = visit("dataset=longtail-small&k=30&sort.attack-table=attack&open=attack%3Aa-ra")
    assert browser.find_element(By.NAME, "dataset").get_attribute("value") == "longtail-small"
    assert browser.find_element(By.ID, "details-title").text == "a-ra"
    assert "ER@30" in browser.find_element(By.ID, "attacks-title").get_attribute("textContent")
    assert names(browser) == sorted(names(browser))


@pytest.mark.parametrize(
    "view",
    [
        "dataset=nowhere&k=7&track=other",
        "track=toString",
        "open=attack:nobody",
        "open=pair:%E0%A4%A|x",
        "open=run:__proto__",
    ],
)
def test_a_wrong_address_shows_everything(visit: Any, view: str) -> None:
    browser = visit(view)
    assert len(names(browser)) == 4
    assert not browser.find_element(By.ID, "details").is_displayed()


def test_details_open_by_key_and_lead_to_every_run(visit: Any, database: Database) -> None:
    browser = visit()
    button = browser.find_element(By.CSS_SELECTOR, "#attack-table tbody tr button")
    name = button.text
    button.send_keys(Keys.ENTER)
    panel = browser.find_element(By.ID, "details")
    assert panel.is_displayed()
    assert panel.find_elements(By.CSS_SELECTOR, "figure path.curve.er")
    assert panel.find_elements(By.CSS_SELECTOR, "figure path.band.er")
    assert "Knows" in panel.text
    assert "Channel" in panel.text
    runs = names(browser, "runs")
    query = "select run_id from runs where attack = ? and defense = 'none' order by run_id"
    assert sorted(runs) == [row["run_id"] for row in database.rows(query, [name])]
    panel.find_element(By.CSS_SELECTOR, "#runs tbody tr button").send_keys(Keys.ENTER)
    assert f"fedbench inspect {runs[0]}" in panel.text
    assert "Clean twin" in panel.text
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not panel.is_displayed()
    assert "open=" not in browser.current_url


def test_each_cell_of_the_heat_map_leads_to_its_runs(visit: Any) -> None:
    browser = visit()
    cell = browser.find_element(By.CSS_SELECTOR, '#heat button[aria-label^="a-ra under drop"]')
    shown, hit_ratio = cell.text.split("\n")
    assert hit_ratio.startswith("HR")
    cell.send_keys(Keys.ENTER)
    panel = browser.find_element(By.ID, "details")
    assert panel.find_element(By.ID, "details-title").text == "a-ra under drop"
    assert panel.find_element(By.CSS_SELECTOR, ".numbers .mean").text == shown
    assert column(browser, "status", "runs").count("diverged") == 1


def test_the_pareto_plot_has_every_ranked_defense_and_none(visit: Any) -> None:
    browser = visit()
    ranked = [
        name
        for name, rank in zip(names(browser, "defense-table"), column(browser, "rank", "defense-table"), strict=True)
        if rank != "\u2013"
    ]
    assert len(browser.find_elements(By.CSS_SELECTOR, ".pareto .point")) == len(ranked) > 0
    assert len(browser.find_elements(By.CSS_SELECTOR, ".pareto .front, .pareto .origin")) == 2
    browser.find_element(By.CSS_SELECTOR, ".pareto .point").send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "details-title").text in ranked


def test_hostile_names_are_shown_as_they_are(visit: Any) -> None:
    browser = visit()
    assert "<script>alert(1)</script>" in names(browser, "defense-table")
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 2
    assert not browser.find_elements(By.TAG_NAME, "img")


def test_dark_by_preference_and_by_switch(visit: Any) -> None:
    browser = visit()
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(paper)
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    dark = browser.execute_script(paper)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert dark != light
    theme = browser.find_element(By.ID, "theme")
    theme.click()
    assert (theme.text, browser.execute_script(paper)) == ("Theme: light", light)
    theme.click()
    assert (theme.text, browser.execute_script(paper)) == ("Theme: dark", dark)


@pytest.mark.parametrize("view", ["", "track=untargeted", "open=attack%3Aa-ra"])
def test_a_phone_scrolls_only_downwards(visit: Any, view: str) -> None:
    browser = visit()
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser = visit(view)
        width = (
            "return [innerWidth, document.documentElement.scrollWidth, document.querySelector('dialog').scrollWidth]"
        )
        inner, whole, panel = browser.execute_script(width)
        assert inner == 390
        assert whole <= 390
        assert panel <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_skip_link_leads_to_the_tables_and_keeps_the_view(visit: Any) -> None:
    browser = visit("k=5")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the tables"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"
    assert browser.current_url.endswith("#k=5")
