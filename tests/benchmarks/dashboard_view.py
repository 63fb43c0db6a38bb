"""How long a dashboard takes to its first view, in a headless Chromium.

    python -m benchmarks.dashboard_view /tmp/studies/large

says seconds from the command to the plots of the study's page, and from opening that page once more to its plots; run
it from `tests/`.
"""

import shutil
import signal
import subprocess
import sys
import time

from playwright.sync_api import sync_playwright


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        command = [sys.executable, "-m", "search", "dashboard", sys.argv[1], "--port", "0"]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = process.stdout.readline().strip()
            sys.stdout.write(f"address after {time.monotonic() - began:.2f} s\n")
            for what in ("command", "page"):
                page = browser.new_page()
                began = time.monotonic() if what == "page" else began
                page.goto(f"{address}/studies/1", wait_until="commit")
                page.wait_for_selector("#plot-history .scatterlayer .point", state="attached", timeout=120_000)
                sys.stdout.write(f"{what} to plots: {time.monotonic() - began:.2f} s\n")
                page.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
        browser.close()


if __name__ == "__main__":
    main()
