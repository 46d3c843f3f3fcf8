"""The report in a real browser: nothing on the console, tables sort, pictures are drawn, videos play."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from typing import Any

import numpy as np
import pytest

from vla import report
from vla.runs import Run

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="needs a Chromium to look at the page with; on Debian: apt-get install chromium"
)

PROBE = """
<script>
const seen = {errors: []};
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.blockedURI));
const sorted = (column) => {
  const table = document.querySelector("table.sortable");
  table.querySelectorAll("th button")[column].click();
  return [...table.tBodies[0].rows].map((row) => row.cells[column].innerText.trim());
};
addEventListener("load", async () => {
  seen.arms = [sorted(0), sorted(0)];
  seen.success = [sorted(1), sorted(1)];
  const images = [...document.images];
  images.forEach((image) => { image.loading = "eager"; });
  await Promise.all(images.map((image) => image.decode().catch((error) => seen.errors.push(String(error)))));
  seen.images = images.map((image) => image.naturalWidth);
  const video = document.querySelector("video");
  const moves = new Promise((done) => video.addEventListener("timeupdate", () => video.currentTime > 0 && done()));
  await Promise.all([video.play(), moves]);
  seen.video = [video.videoWidth, video.currentTime > 0, video.error && video.error.message];
  console.log("SEEN " + JSON.stringify(seen));
});
</script>
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a page about three arms looks like from inside the browser."""
    from vla_sim.gallery import save
    from vla_sim.video import save_video

    folder = tmp_path_factory.mktemp("report")
    for name, successes in (("b", 3), ("a", 10), ("c", 7)):
        run = Run.create(folder / name, "eval", {"suite": "tabletop"})
        for seed in range(10):
            row = {"seed": seed, "task": "t", "skill": "pick", "success": seed < successes, "seconds": 1.0 + seed}
            run.append({**row, "failure": "" if seed < successes else "timeout", "phase": "grasp"})
    (folder / "b" / "failures").mkdir()
    save(folder / "b" / "failures" / "grasp_5.jpg", np.full((40, 160, 3), 90, np.uint8))
    frames = [np.full((64, 64, 3), 20 * i, np.uint8) for i in range(10)]
    save_video(folder / "a" / "videos" / "one.mp4", frames, 10)
    page = folder / "report.html"
    report.write(page, [folder / name for name in "bac"], "t")
    probed = page.read_text().replace("<body>", "<body>" + PROBE)
    page.write_text(probed)
    browser = subprocess.Popen(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--autoplay-policy=no-user-gesture-required",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            page.as_uri(),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(60, browser.kill)
    timer.start()
    assert browser.stderr is not None
    console = []
    try:
        for line in browser.stderr:
            if found := re.search(r'"SEEN (\{.*\})", source:', line):
                result: dict[str, Any] = json.loads(found[1])
                return result | {"console": console}
            if "CONSOLE" in line:
                console.append(line)
        pytest.fail(f"the page's scripts did not finish within a minute; on the console: {console}")
    finally:
        timer.cancel()
        browser.terminate()
        browser.communicate()


def test_it_loads_without_a_word_on_the_console(seen: dict[str, Any]) -> None:
    assert seen["errors"] == []
    assert seen["console"] == []


def test_tables_sort_by_name_and_by_number_both_ways(seen: dict[str, Any]) -> None:
    assert seen["arms"] == [["a", "b", "c"], ["c", "b", "a"]]
    up, down = ([row.split("%")[0] for row in rows] for rows in seen["success"])
    assert (up, down) == (["30.0", "70.0", "100.0"], ["100.0", "70.0", "30.0"])


def test_the_thumbnail_is_drawn(seen: dict[str, Any]) -> None:
    assert seen["images"] == [160]


def test_the_video_plays(seen: dict[str, Any]) -> None:
    assert seen["video"] == [64, True, None]
