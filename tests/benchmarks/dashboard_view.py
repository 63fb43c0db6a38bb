"""How long a dashboard takes to its first view, in a headless Chromium.

    python -m benchmarks.dashboard_view /tmp/studies/large

says seconds from the command to the plots of the study's page, and from opening that page three times more to its
plots, with the processor's seconds of the server and how busy the machine was, which is half of what a time says; run
it from `tests/`. What came of it is in `dashboard_view.md`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

_OPENINGS = ("command", "page", "page", "page")


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        command = [sys.executable, "-m", "search", "dashboard", sys.argv[1], "--port", "0"]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = process.stdout.readline().strip()
            sys.stdout.write(f"load {os.getloadavg()[0]:.1f}; address after {time.monotonic() - began:.2f} s\n")
            for what in _OPENINGS:
                page = browser.new_page()
                began = time.monotonic() if what == "page" else began
                page.goto(address, wait_until="commit")
                page.wait_for_selector("#plot-history .scatterlayer .point", state="attached", timeout=120_000)
                took = time.monotonic() - began
                sys.stdout.write(f"{what} to plots: {took:.2f} s; server {_busy(process.pid):.2f} s of a processor\n")
                page.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
        browser.close()


def _busy(pid: int) -> float:
    """Seconds a process has kept processors busy, as Linux counts them."""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
