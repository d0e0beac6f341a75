"""The report in headless Chromium: it fits, asks for nothing, says nothing, in both schemes."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nsvit import report
from tests.results import write_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
#: No name is resolved, and nothing in the background looks for a network.
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here (Debian: apt-get install chromium)"
)

#: Shows the page in a frame of some width and writes down what a script outside it measures. At
#: "load" its pictures are there; to wait for more, such as their decoding, is a race against the
#: end of Chromium's virtual time, lost on a busy machine.
MEASURE = """<!doctype html><body><iframe style="border:0;width:{width}px;height:900px"
srcdoc="{page}"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {{
  const frame = document.querySelector("iframe"), page = frame.contentDocument;
  const style = getComputedStyle(page.body);
  const boxes = [...page.querySelectorAll(".scroll")];
  document.getElementById("found").textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    background: style.backgroundColor, colour: style.color,
    pictures: [...page.images].map((image) => image.naturalWidth),
    scrolling: boxes.length,
    asked: frame.contentWindow.performance.getEntriesByType("resource").map((one) => one.name)
      .filter((name) => !name.startsWith("data:")),
  }});
}});
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_results(tmp_path_factory.mktemp("shown") / "one")
    report.write_report(folder, folder / "report.html", None)
    return folder / "report.html"


def chromium(tmp_path: Path, address: str, *flags: str) -> subprocess.CompletedProcess[str]:
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, profile, "--enable-logging=stderr", *flags, "--dump-dom"]
    return subprocess.run([*command, address], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits_and_shows_its_pictures(
    page: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(MEASURE.format(width=width, page=html.escape(page.read_text())))
    number = {"dark": 0, "light": 1}[scheme]  # Blink's own numbers
    flags = [f"--blink-settings=preferredColorScheme={number}", "--virtual-time-budget=10000"]
    done = chromium(tmp_path, frame.as_uri(), *flags, f"--window-size={width + 100},1000")
    assert "CONSOLE" not in done.stderr, done.stderr
    text = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, flags=re.S)
    assert text, done.stdout[-2000:]
    found = json.loads(html.unescape(text[1]))
    assert found["asked"] == []
    assert found["width"] <= width
    assert len(found["pictures"]) == 4 and all(found["pictures"])
    assert found["scrolling"] >= 4
    background, colour = (
        sum(map(int, re.findall(r"\d+", found[name])[:3])) for name in ("background", "colour")
    )
    assert (background < colour) == (scheme == "dark")
