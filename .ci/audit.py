"""Looks for known vulnerabilities in the packages of an environment: `python .ci/audit.py SITE_PACKAGES`.

Ends with 1 where one is found. Where the service that knows them cannot be reached that is said in one line and ends
with 0: a change is not at fault for it. `pip-audit` is kept out of the environment it looks at.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOOL = Path("build/audit")


def main(site_packages: str) -> int:
    """What the process is to end with."""
    found, why_not = audited(site_packages)
    looked_at = [each for each in found if "skip_reason" not in each and each["name"] != "filter-search"]
    vulnerable = [each for each in looked_at if each["vulns"]]
    for each in vulnerable:
        for flaw in each["vulns"]:
            fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
            say(f"{each['name']} {each['version']}: {flaw['id']}, mended in {fixed}")
    if vulnerable:
        return 1
    if not looked_at:
        say(f"NOT audited: the service that knows vulnerabilities could not be asked ({why_not}); ask again later")
    else:
        say(f"audited {len(looked_at)} of {len(found)} packages: no known vulnerability")
    return 0


def audited(site_packages: str) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit says of each package, nothing where it failed; and then its last words."""
    with tempfile.TemporaryDirectory() as scratch:
        said, heard = Path(scratch, "said.json"), ""
        try:
            if not (TOOL / "bin" / "pip-audit").exists():
                run(sys.executable, "-m", "venv", TOOL)
                run(TOOL / "bin" / "pip", "install", "--quiet", "pip-audit>=2.9,<3")
            command = (TOOL / "bin" / "pip-audit", "--progress-spinner", "off", "--format", "json", "--output", said)
            heard = run(*command, "--path", site_packages, check=False).stderr
            return json.loads(said.read_text())["dependencies"], "it knows none of the packages"
        except subprocess.CalledProcessError as error:
            return [], last_words(error.stderr)
        except (OSError, ValueError):  # it was not there, or wrote no answer
            return [], last_words(heard)


def run(*command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A finished process, its output kept."""
    return subprocess.run([*map(str, command)], check=check, capture_output=True, text=True)


def last_words(text: str) -> str:
    """The last line that says something."""
    return (text.strip().splitlines() or ["it said nothing"])[-1][-200:]


def say(sentence: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{sentence}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
