"""The report in a real browser: no console message, no request, no sideways scrolling, every picture there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from sweep_folder import sweep_folder

from results.reporting.html import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[dev]'")

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
DRIVER = shutil.which("chromedriver") or ""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver"),
]

FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)
WIDTHS = (360, 1280)
SCHEMES = ("light", "dark")

PICTURES = """return [...document.images].map(image => [image.alt, image.complete ? image.naturalWidth : 0])"""
OUTSIDE = """return [...document.querySelectorAll('body *')].filter(each => {
    const box = each.getBoundingClientRect();
    return box.width && box.right > arguments[0] + 1 && !each.closest('.scroll, pre, .wide');
}).map(each => each.outerHTML.slice(0, 90))"""
CONTRAST = """
const light = text => {
    const part = text.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
        .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
};
const ground = each => {
    for (; each; each = each.parentElement) {
        const color = getComputedStyle(each).backgroundColor;
        if (!color.endsWith(', 0)')) return color;
    }
};
return [...document.querySelectorAll('body *')].filter(each => [...each.childNodes].some(
    node => node.nodeType === 3 && node.textContent.trim())).map(each => {
    const pair = [light(getComputedStyle(each).color), light(ground(each))].sort((a, b) => b - a);
    return [(pair[0] + 0.05) / (pair[1] + 0.05), each.outerHTML.slice(0, 90)];
}).filter(([ratio]) => ratio < 4.5)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module", params=["finished", "partial"])
def page(request, tmp_path_factory):
    folder = sweep_folder(tmp_path_factory.mktemp("runs") / "digits-001", finished=request.param == "finished")
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return write_report(folder, images=images).resolve()


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in SCHEMES], ids=lambda at: f"{at[0]}-{at[1]}")
def opened(request, browser, page):
    """The page in a window of that width and in those colors; and the addresses that it asked for."""
    width, scheme = request.param
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what an earlier page said
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    browser.execute_async_script("Promise.allSettled([...document.images].map(i => i.decode())).then(arguments[0])")
    return browser, width, scheme


def test_it_is_whole_and_alone(opened, page):
    browser, _, scheme = opened
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in requested
    assert [url[:90] for url in requested if url != page.as_uri() and not url.startswith("data:")] == []

    pictures = browser.execute_script(PICTURES)
    assert len(pictures) in (5, 10), "five for each role with a schedule"
    assert [alt for alt, width in pictures if not (alt and width)] == []
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]


def test_it_can_be_read(opened):
    """Nothing sticks out but what scrolls in a box of its own; words differ from their ground as WCAG's AA asks."""
    browser, width, _ = opened
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(OUTSIDE, width) == []
    assert browser.execute_script(CONTRAST) == []


def test_dark_pages_have_pictures_of_their_own(browser, page):
    shown = {}
    for scheme in SCHEMES:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(Path(page).as_uri())
        shown[scheme] = browser.execute_script("return document.querySelector('#accuracy img').currentSrc")
    assert shown["light"] != shown["dark"]
