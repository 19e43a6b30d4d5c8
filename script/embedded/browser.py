"""A Chromium for the browser tests: the machine's own, or one that can be had.

`python -m embedded.browser` gets one if need be and prints its path; without one it says so loudly, and
fails when CI is set, where a silent skip would pass for success.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The path of a Chromium: $CHROMIUM, one on the PATH, or Playwright's own."""
    for name in filter(None, (os.environ.get("CHROMIUM"), *NAMES)):
        if found := shutil.which(name):
            return found
    if importlib.util.find_spec("playwright") is None:
        return None
    program = "import playwright.sync_api as p\nwith p.sync_playwright() as w: print(w.chromium.executable_path)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    path = Path(answer.stdout.strip() or "/nonexistent")
    return str(path) if path.is_file() else None


def obtain() -> str | None:
    """Install one: Debian's package when we may, else Playwright's build."""
    if os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get"):
        environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", *arguments], env=environ, stdout=sys.stderr)
        if found := find():
            return found
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], stdout=sys.stderr)
    return find()


def main() -> int:
    found = find() or obtain()
    if found:
        print(found)
        return 0
    print("!!! NO CHROMIUM CAN BE HAD ON THIS MACHINE: THE BROWSER TESTS ARE SKIPPED !!!", file=sys.stderr)
    return 1 if os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
