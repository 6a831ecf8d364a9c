"""The page in headless Chromium: upload, verdict, map, opacity, rate, table and CSV, offline."""

import csv
import shutil
import socket
import threading
from urllib.parse import urlsplit

import pytest

for package, extra in (("gradio", "serve"), ("playwright", "browser")):
    pytest.importorskip(package, reason=f"needs {package}: pip install 'tfgad[{extra}]'")

import fastapi  # noqa: E402
import uvicorn  # noqa: E402
from playwright.sync_api import expect, sync_playwright  # noqa: E402

from tfgad.scores.verdicts import NOT_SCORED  # noqa: E402
from tfgad.serving.inspection import page  # noqa: E402
from tfgad.serving.inspection.batch import Batch  # noqa: E402
from tfgad.serving.inspection.thresholds import thresholds_of  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
# Without Chromium's own requests, so that all requests are the page's.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # ms; scoring the first image traces the graph

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as Debian's chromium"),
]


class Server(uvicorn.Server):
    """A server with an event that is set when it answers."""

    ready = threading.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.ready.set()


@pytest.fixture(scope="module")
def address(models):
    """URL of the page."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = fastapi.FastAPI()
    page.mount(app, models, "/inspect")
    server = Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert server.ready.wait(60)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/inspect/"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=False, args=FLAGS
        )
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, address):
    """The opened page; asserts at the end that it used no network and no script failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = context.new_page()
    hosts, errors = set(), []
    tab.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.set_default_timeout(PATIENCE)
    tab.goto(address)
    tab.wait_for_selector("#tfgad-examples img")
    yield tab
    context.close()
    assert hosts <= {"127.0.0.1", None}  # None: data URIs
    assert errors == []


def upload(tab, *paths):
    tab.locator("#tfgad-files input[type=file]").set_input_files(paths)


def badge(tab):
    return tab.locator("#tfgad-headline .badge")


def cell(tab, row, column):
    return tab.locator(f"#tfgad-table [data-row='{row}'][data-col='{column}']")


def test_from_upload_to_table(tab, paths, predictor):
    for each in ("#tfgad-opacity", "#tfgad-batch", "#tfgad-stop"):  # without a use yet
        expect(tab.locator(each)).to_be_hidden()
    upload(tab, *(paths[name] for name in ("noise.png", "good.png", "broken.png")))
    expect(badge(tab)).to_have_text("defective", timeout=PATIENCE)
    expect(tab.locator("#tfgad-headline .name")).to_have_text("noise.png")
    expect(tab.locator("#tfgad-summary")).to_have_text(
        f"1 good · 1 defective · 1 {NOT_SCORED}", timeout=PATIENCE
    )

    expect(tab.locator("#tfgad-stop")).to_be_hidden()

    # The map lies on the image, at its size, and something in it is coloured.
    heat = tab.locator("#tfgad-pictures img.heat")
    image = tab.locator("#tfgad-pictures img:not(.heat)")
    assert heat.bounding_box() == image.bounding_box()
    sizes = "e => [e.naturalWidth, e.naturalHeight]"
    assert heat.evaluate(sizes) == image.evaluate(sizes) == [70, 60]
    assert coloured(heat) > 0
    expect(tab.locator("#tfgad-reconstruction img")).to_have_count(1, timeout=PATIENCE)

    # The opacity changes in the browser.
    assert opacity(heat) == 0.5
    tab.locator("#tfgad-opacity input[type=range]").fill("25")
    tab.wait_for_function("getComputedStyle(document.querySelector('img.heat')).opacity == 0.25")

    # At full size and back.
    image.click(force=True)  # the heat is over it
    expect(tab.locator("dialog.tfgad-full img")).to_have_count(2)
    box = tab.locator("dialog.tfgad-full").bounding_box()
    assert box["y"] + box["height"] / 2 == pytest.approx(400, abs=2)  # in the middle of the window
    tab.keyboard.press("Escape")
    expect(tab.locator("dialog.tfgad-full")).to_have_count(0)

    # A row of the table selects the image.
    expect(cell(tab, 2, 5)).to_have_text("is not a PNG, JPEG, BMP, TIFF or WebP")
    cell(tab, 1, 1).click()
    expect(tab.locator("#tfgad-headline .name")).to_have_text("good.png")
    expect(badge(tab)).to_have_text("good")
    assert coloured(heat) == 0

    assert [row["verdict"] for row in downloaded(tab)] == ["defective", "good", NOT_SCORED]

    # Another rate changes the verdicts in the headline, the table and the file.
    thresholds = list(thresholds_of(predictor.metadata).values())
    tab.locator("#tfgad-rate input[type=range]").fill(str(len(thresholds) - 1))
    expect(tab.locator("#tfgad-rate-line")).to_contain_text("20 % of good images")
    expect(tab.locator("#tfgad-rate-line")).to_contain_text(f"{thresholds[-1]:.4g}")
    score = float(cell(tab, 1, 3).inner_text())
    verdict = "defective" if score > thresholds[-1] else "good"
    expect(badge(tab)).to_have_text(verdict)
    expect(cell(tab, 1, 2)).to_have_text(verdict)
    assert downloaded(tab)[1]["verdict"] == verdict


def test_examples_and_a_narrow_dark_window(tab):
    tab.emulate_media(color_scheme="dark")
    tab.set_viewport_size({"width": 420, "height": 800})
    tab.locator("#tfgad-examples button").nth(2).click()
    expect(tab.locator("#tfgad-headline .name")).to_have_text("03_hole.png", timeout=PATIENCE)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 420
    tab.get_by_role("button", name="Score all examples").click()
    expect(cell(tab, 7, 1)).to_have_text("08_colour_fly.png", timeout=PATIENCE)


def test_a_reload_frees_the_pictures(tab, paths, monkeypatch):
    close, kept, freed = Batch.close, [], threading.Event()

    def closing(batch):
        if len(batch) == 2:  # not a batch of another test
            kept.append(batch.bytes)
            close(batch)
            kept.append(batch.bytes)
            freed.set()

    monkeypatch.setattr(Batch, "close", closing)
    upload(tab, paths["good.png"], paths["good.png"])
    expect(tab.locator("#tfgad-summary")).to_have_text("2 good", timeout=PATIENCE)
    assert kept == []
    tab.reload()
    assert freed.wait(PATIENCE / 1000)
    assert kept[0] > 0
    assert kept[1] == 0


def opacity(element):
    return float(element.evaluate("e => getComputedStyle(e).opacity"))


def coloured(heat):
    """Returns how many pixels of the heat map are not faint, so that they are above a threshold."""
    return heat.evaluate(
        """async e => {
            await e.decode();
            const canvas = new OffscreenCanvas(e.naturalWidth, e.naturalHeight);
            const context = canvas.getContext('2d');
            context.drawImage(e, 0, 0);
            const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
            return pixels.filter((value, index) => index % 4 == 3 && value > 100).length;
        }"""
    )


def downloaded(tab):
    with tab.expect_download() as download:
        tab.locator("#tfgad-csv").click()
    with open(download.value.path(), newline="") as file:
        return list(csv.DictReader(file))
