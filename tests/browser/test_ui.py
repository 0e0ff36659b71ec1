"""The page of `roletune ui` in a browser: the sweep, its trials compared, their schedules as charts."""

from urllib.parse import quote

import pytest

By = pytest.importorskip("selenium.webdriver.common.by").By
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

pytestmark = pytest.mark.browser

MLFLOWS_OWN = (
    "mlflow/users/current",  # asked of every server; only one with MLflow's log-in answers
    "ResizeObserver loop",  # Chromium's notice that a chart was laid out twice
)
METRIC = "policy/Rotate/strength"


@pytest.fixture
def look(browser, page):
    """Opens an address and waits for texts; in the end, the page has reported no error but those of MLflow's own."""

    def at(address, *texts):
        browser.get("about:blank")  # else a change behind the # alone loads nothing anew
        browser.get(address)
        return see(*texts)

    def see(*texts):
        for text in texts:
            WebDriverWait(browser, 40).until(lambda _, text=text: text in shown(), f"no {text!r} on the page")
        return browser

    def shown():
        # Of a text that is cut off with an ellipsis, and of a chart's legend, the whole: `innerText` would not have it.
        return browser.execute_script("return document.body ? document.body.textContent : ''")

    browser.get_log("browser")
    at.see = see
    yield at
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in severe if not any(known in message for known in MLFLOWS_OWN)] == []


def click(browser, how, what):
    WebDriverWait(browser, 40).until(lambda _: browser.find_elements(how, what), f"no {what}")
    browser.execute_script("arguments[0].click()", browser.find_elements(how, what)[0])


def test_the_address_that_it_prints_shows_the_sweep_and_opens_on_its_trials(look, page):
    browser = look(page.address, "digits-001")
    assert "student-pbt-00" not in browser.page_source
    click(browser, By.XPATH, "//a[. = 'digits-001']/ancestor::*[contains(@class, 'ag-cell')][1]//button")  # its +
    look.see("student-pbt-00", "student-pbt-01")


def test_the_second_address_draws_both_trials_in_one_chart_for_each_operation(look, page):
    browser = look(page.charts, "student-pbt-00", METRIC, "policy/Invert/strength")
    charts = "//*[contains(@class, 'plotly')]//*[local-name() = 'path' and contains(@class, 'js-line')]"
    WebDriverWait(browser, 40).until(lambda _: len(browser.find_elements(By.XPATH, charts)) >= 4)  # 2 trials × 2 charts


def test_two_trials_are_compared_and_their_schedules_drawn_over_the_epochs(look, page):
    first, second = page.runs["student-pbt-00"], page.runs["student-pbt-01"]
    compare = f'#/compare-runs?runs=["{first}","{second}"]&experiments=["1"]'
    browser = look(
        page.home + quote(compare, safe="#/?=&"), "Comparing 2 Runs", "student-pbt-00", "student-pbt-01", METRIC
    )
    click(browser, By.LINK_TEXT, METRIC)
    look.see("student-pbt-00", "student-pbt-01")
    lines = "//*[local-name() = 'path' and contains(@class, 'js-line')]"
    WebDriverWait(browser, 40).until(lambda _: len(browser.find_elements(By.XPATH, lines)) >= 2)


def test_the_sweeps_own_page_reads_as_markdown_and_shows_picture_and_table(look, page):
    run = f"{page.home}#/experiments/1/runs/{page.runs['digits-001']}"
    browser = look(run, "pbt search, seed 0.")
    cells = WebDriverWait(browser, 40).until(lambda _: browser.find_elements(By.XPATH, "//table//td[text() = '91.00']"))
    assert cells, "the description's table is a table"
    look(f"{run}/artifacts/schedule.student.png", "schedule.student.png")
    drawn = "return [...document.images].some(image => image.naturalWidth > 400)"
    WebDriverWait(browser, 40).until(lambda _: browser.execute_script(drawn), "no picture")
    look(f"{run}/artifacts/policies.json", "strength, quarter 4", "student, policy: Rotate")
