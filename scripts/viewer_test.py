#!/usr/bin/env python3
"""Opens pages of `dip report` in headless Chromium and checks what a reader sees and does.

    scripts/viewer_test.py target/release/dip [FOLDER_FOR_SCREENSHOTS]

Needs the packages chromium, chromium-driver and python3-selenium.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.support.ui import WebDriverWait

FIRST_PAINT_MS = 1000
PAINT_MS = 50
RANKS, MICROBATCHES = 10, 1000


def dip(binary, *arguments):
    subprocess.run([binary, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def large_graph(path):
    """20,000 stages: forwards and backwards of a chain over the ranks."""
    tasks = []
    for m in range(MICROBATCHES):
        for kind in ("forward", "backward"):
            for place in range(RANKS):
                rank = place if kind == "forward" else RANKS - 1 - place
                task = len(tasks)
                deps = [{"task": task - 1, "comm_s": 1e-3}] if place or kind == "backward" else []
                if kind == "backward":
                    own = task - 1 - 2 * place
                    deps += [{"task": own, "comm_s": 0.0}] if place else []
                    deps[0]["comm_s"] = 1e-3 if place else 0.0
                tasks.append({
                    "id": task, "rank": rank, "kind": kind, "module": "language", "segment": 0,
                    "microbatch": m, "sub_microbatch": 0,
                    "duration_s": (0.02 if kind == "forward" else 0.04) * (1 + m % 7 / 20),
                    "activation_bytes": 10**8 if kind == "forward" else 0, "strategy": "keep", "deps": deps,
                })
    path.write_text(json.dumps({
        "schema": "dip.graph/v1", "model": "chain", "cluster": "made", "ranks": RANKS,
        "memory_limit_bytes": [2 * 10**9] * RANKS, "static_bytes": [10**8] * RANKS, "tasks": tasks,
    }))


class Page:
    """One page in the browser."""

    def __init__(self, driver, path):
        self.driver = driver
        driver.get(path.as_uri())
        WebDriverWait(driver, 20).until(lambda d: d.execute_script("return window.dip !== undefined"))
        self.canvas = driver.find_element(By.ID, "canvas")

    def state(self, name):
        return self.driver.execute_script(f"return window.dip.{name}")

    def settle(self):
        self.driver.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))")

    def wheel(self, x, y, amount):
        origin = ScrollOrigin.from_element(self.canvas, x, y)
        ActionChains(self.driver).scroll_from_origin(origin, 0, amount).perform()
        self.settle()

    def hover(self, x, y):
        """Points at a place of the canvas, from its top left corner."""
        size = self.canvas.size
        ActionChains(self.driver).move_to_element_with_offset(
            self.canvas, x - size["width"] // 2, y - size["height"] // 2).perform()
        self.settle()
        return self.driver.find_element(By.ID, "tip").text

    def key(self, *keys):
        self.driver.find_element(By.TAG_NAME, "body").send_keys(*keys)
        self.settle()

    def shot(self, path):
        self.driver.save_screenshot(str(path))

    def errors(self):
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def check(what, holds):
    print(("ok    " if holds else "FAILED") + " " + what)
    if not holds:
        check.failed += 1


check.failed = 0


def compare(driver, binary, folder, shots):
    """Two schedules of VLM-S beside each other."""
    for schedule in ("interleaved", "dip"):
        dip(binary, "plan", "--model", "vlm-s", "--schedule", schedule, "--budget", "2s", "--out", folder / f"{schedule}.json")
    page_path = folder / "both.html"
    dip(binary, "report", folder / "interleaved.json", "--against", folder / "dip.json", "--html", page_path,
        "--svg", folder / "both.svg")
    stages = sum(len(json.loads((folder / f"{s}.json").read_text())["tasks"]) for s in ("interleaved", "dip"))
    page = Page(driver, page_path)
    check(f"the page has all {stages} stages of both plans", page.state("stages") == stages)
    page.shot(shots / "compared.png")
    before = page.state("view.to") - page.state("view.from")
    page.wheel(0, 0, -300)
    after = page.state("view.to") - page.state("view.from")
    check("the wheel zooms in", after < 0.6 * before)
    page.key("0")
    check("the key 0 shows everything", page.state("view.to") - page.state("view.from") == before)
    page.key(Keys.ARROW_RIGHT)
    check("panning stops at the end", page.state("view.from") == 0)
    text = page.hover(130, 60)
    check("a stage has its module, strategy and time below the pointer",
          all(word in text for word in ("forward of vision", "strategy", "runs", "microbatch")))
    page.key("c")
    page.shot(shots / "critical-path.png")
    page.key("d")
    page.wheel(0, 0, -600)
    page.shot(shots / "dark.png")
    check("no error on the console", page.errors() == [])
    driver.set_window_size(390, 800)
    page = Page(driver, page_path)
    wide = driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    check("it fits a phone", wide)
    page.shot(shots / "phone.png")
    driver.set_window_size(1400, 1000)


def large(driver, binary, folder, shots):
    """20,000 stages stay smooth."""
    large_graph(folder / "graph.json")
    dip(binary, "plan", "--graph", folder / "graph.json", "--schedule", "1f1b", "--out", folder / "large.json")
    dip(binary, "report", folder / "large.json", "--html", folder / "large.html")
    page = Page(driver, folder / "large.html")
    check("20,000 stages are there", page.state("stages") == 2 * RANKS * MICROBATCHES)
    first = page.state("firstPaintMs")
    check(f"first paint after {first:.0f} ms, at most {FIRST_PAINT_MS}", first <= FIRST_PAINT_MS)
    paints = []
    for _ in range(25):
        page.wheel(0, 0, -120)
        paints.append(page.state("paintMs"))
    median = sorted(paints)[len(paints) // 2]
    check(f"a zoomed frame takes {median:.1f} ms in the median, at most {PAINT_MS}", median <= PAINT_MS)
    page.shot(shots / "large.png")
    check("no error on the console", page.errors() == [])


def main():
    binary = Path(sys.argv[1]).resolve()
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service("/usr/bin/chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_window_size(1400, 1000)
    with tempfile.TemporaryDirectory() as folder:
        shots = Path(sys.argv[2] if len(sys.argv) > 2 else folder)
        shots.mkdir(parents=True, exist_ok=True)
        try:
            compare(driver, binary, Path(folder), shots)
            large(driver, binary, Path(folder), shots)
        finally:
            driver.quit()
    print(f"{check.failed} failed")
    sys.exit(check.failed > 0)


if __name__ == "__main__":
    main()
