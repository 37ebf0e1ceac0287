"""The public address: set once, as Repository in pyproject.toml's [project.urls]."""

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from course.chapters import ROOT
from course.notebooks import write_text

BINDER = "https://mybinder.org"
HOSTS = ("github.com", "gitlab.com")  # the theme knows where their files and issues are


class Address(NamedTuple):
    """Where the project and its book can be found; each is `""` while there is none."""

    repository: str = ""
    site: str = ""


def read_address(root: Path = ROOT) -> Address:
    """Read the address; on GitHub the book is at the project's Pages unless Documentation is set.

    Raises ValueError if Repository is not the address of a project.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = project.get("urls", {})
    repository = urls.get("Repository", "").rstrip("/").removesuffix(".git")
    host, path = urlsplit(repository)[1:3]
    if repository and not (host and re.fullmatch(r"/[^/]+(/[^/]+)+", path)):
        raise ValueError(
            f"pyproject.toml: Repository is {repository!r}; write https://HOST/OWNER/NAME"
        )
    site = urls.get("Documentation", "")
    if host == "github.com" and not site:
        owner, name = path.strip("/").split("/")
        site = f"https://{owner.lower()}.github.io/{name}"
    return Address(repository, site.rstrip("/") + "/" if site else "")


def theme_options(address: Address) -> dict[str, Any]:
    """Return what the book's theme needs for its buttons: nothing while there is no address."""
    if urlsplit(address.repository).netloc not in HOSTS:
        return {}
    return {
        "repository_url": address.repository,
        "repository_branch": "main",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {"binderhub_url": BINDER, "notebook_interface": "jupyterlab"},
    }


def cite(text: str, address: Address) -> str:
    """Return the text of CITATION.cff with this address in place of its own."""
    kept = re.sub(r"^(repository-code|url): .*\n", "", text, flags=re.MULTILINE)
    fields = {"repository-code": address.repository, "url": address.site}
    lines = "".join(f'{key}: "{value}"\n' for key, value in fields.items() if value)
    return re.sub(r"^title: .*\n", lambda found: found[0] + lines, kept, flags=re.MULTILINE)


def sync_citation(check: bool = False, root: Path = ROOT) -> list[str]:
    """Write the address into CITATION.cff; return a line if it differed. `check` writes nothing."""
    file = root / "CITATION.cff"
    text = file.read_text(encoding="utf-8")
    wanted = cite(text, read_address(root))
    if text == wanted:
        return []
    if not check:
        write_text(file, wanted)
    return ["CITATION.cff differs from pyproject.toml's [project.urls]"]
