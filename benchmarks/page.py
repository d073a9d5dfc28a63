"""How a large report fares in a browser: size, seconds to load, and the time of each frame while the matrix scrolls.

python -m benchmarks.page [--models 1000] [--targets 12]          (needs chromium and chromedriver)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from selenium import webdriver

from planner.reporting import write_report
from tests.unit.report_samples import wide

_SCROLL = """
const done = arguments[0], box = document.getElementById('matrix'), frames = [];
let last = performance.now(), step = 0;
const tick = (now) => {
  frames.push(now - last); last = now;
  box.scrollTop = step * 170;
  if (++step < 60) requestAnimationFrame(tick); else done(frames.slice(1));
};
requestAnimationFrame(tick);
"""


def main() -> None:
    """Write the page, open it, scroll through it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--targets", type=int, default=12)
    args = parser.parse_args()
    report = wide(args.models, args.targets)
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        (path,) = write_report(report, Path(folder), ["html"])
        print(
            f"{len(report.rows)} rows: written in {time.monotonic() - started:.1f} s, {path.stat().st_size / 1e6:.1f} MB"
        )
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        browser.set_script_timeout(300)
        try:
            started = time.monotonic()
            browser.get(path.as_uri())
            nodes = browser.execute_script("return document.querySelectorAll('*').length")
            print(f"loaded in {time.monotonic() - started:.1f} s, {nodes} elements in the page")
            frames = sorted(browser.execute_async_script(_SCROLL))
            late = sum(frame > 50 for frame in frames)
            print(
                f"60 frames of scrolling: median {frames[len(frames) // 2]:.0f} ms, 95 % {frames[int(len(frames) * 0.95)]:.0f} ms, "
                f"{late} above 50 ms"
            )
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
