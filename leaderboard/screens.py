"""The pictures of the page: ``make page``, then ``python leaderboard/screens.py`` (it needs Chromium and its driver).

What a reader sees first: on a screen, in the dark, and on a phone.
"""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

HERE = Path(__file__).parent
PAGE = HERE.parent / "build" / "page" / "index.html"
SCREENS = {
    "page.png": (1400, 1000, 1, "light"),
    "page-dark.png": (1400, 1000, 1, "dark"),
    "page-phone.png": (390, 844, 2, "light"),
}
"""By the name of the picture: width, height, pixels for each of theirs, and the colours that the reader prefers."""


def main() -> None:
    """Write all pictures beside this file."""
    if not PAGE.exists():
        sys.exit(f"{PAGE.relative_to(HERE.parent)} is not there; `make page` makes it.")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        sys.exit("chromium and chromedriver are not on the path; they are of one package, or of two of one version.")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        for name, (width, height, scale, colours) in SCREENS.items():
            metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            wish = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
            browser.get("about:blank")
            browser.get(PAGE.as_uri())
            shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
            (HERE / name).write_bytes(base64.b64decode(shot["data"]))
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
