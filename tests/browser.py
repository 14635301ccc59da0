"""A page seen by headless Chromium, in an iframe that allows no more than scripts, as Kubeflow's interface shows it."""

import subprocess
from pathlib import Path

PROBE = """
<script>
addEventListener("load", async () => {
  const decoded = await Promise.all([...document.querySelectorAll("svg image")].map(element => new Promise(done => {
    const image = new Image();
    image.onload = () => done(image.naturalWidth * image.naturalHeight);
    image.onerror = () => done(0);
    image.src = element.getAttribute("xlink:href") || element.getAttribute("href");
  })));
  const sounds = await Promise.all([...document.querySelectorAll("audio")].map(element => new Promise(done => {
    const sound = new Audio();
    sound.onloadedmetadata = () => done(sound.duration);
    sound.onerror = () => done(0);
    sound.src = element.src;
  })));
  document.querySelectorAll("details").forEach(element => { element.open = true; });
  const wide = [...document.querySelectorAll("h1, h2, h3, p, dt, dd, figcaption, td, th, nav")]
    .filter(element => element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline")
    .map(element => element.textContent.slice(0, 60));
  const drawings = [...document.querySelectorAll("figure svg")];
  const outside = drawings.flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter(text => {
      const box = text.getBoundingClientRect();
      return box.left < frame.left - 3 || box.right > frame.right + 3 || box.top < frame.top - 3 || box.bottom > frame.bottom + 3;
    }).map(text => text.textContent);
  });
  const small = drawings.filter(svg => svg.getBoundingClientRect().width < 250 || svg.getBoundingClientRect().height < 100).length;
  const page = document.documentElement;
  parent.postMessage(JSON.stringify(
    {decoded, sounds, wide, outside, small, drawings: drawings.length, width: page.scrollWidth, room: page.clientWidth}
  ), "*");
});
</script>
"""
HARNESS = """<!DOCTYPE html><title>waiting</title><body style="margin:0"><pre id="seen">nothing came</pre>
<iframe sandbox="allow-scripts" src="probed.html" style="width:1200px;height:900px;border:0"></iframe>
<script>addEventListener("message", event => { document.getElementById("seen").textContent = event.data; });</script>"""


def run(browser: str, profile: Path, *arguments: str) -> str:
    """What headless Chromium prints."""
    flags = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
        # The clock that waits for decoding stands still for a frame in a process of its own.
        "--disable-features=IsolateSandboxedIframes", "--disable-site-isolation-trials", "--hide-scrollbars", "--mute-audio",
        f"--user-data-dir={profile}", "--virtual-time-budget=30000",
    )  # fmt: skip
    done = subprocess.run([browser, *flags, *arguments], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
