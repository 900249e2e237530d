"""The hook of MkDocs: adds the pages that do not stand in docs/, and checks that the navigation names every page.

Links are written as they are right in the repository; here they are turned to the pages of the site.
"""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
AT_THE_ROOT = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
SIGNALS = ("HandlerSignal", "Reject", "RetryLater")
GROUPS = {
    "Workers and handlers": (
        "Worker",
        "Context",
        "Retry",
        "Backoff",
        "exponential",
        "fixed",
        "linear",
        "Ordered",
        "Existing",
        *SIGNALS,
        "Health",
    ),
    "Events": ("Event", "Metadata", "Envelope", "upcast", "downcast"),
    "Publishing": ("Publisher", "BlockingPublisher", "Following", "Progress"),
    "Settings": ("Settings", "load_settings"),
    "Types": ("Handler", "Middleware"),
}
"""Where a public name stands on the page; any other is an error, or new and stands at the end."""

SUBMODULES = {
    "holdfast.testing": (
        "Harness",
        "call",
        "RecordingContext",
        "HandlerFailed",
        "Run",
        "Retried",
        "Published",
        "DeadLettered",
    ),
    "holdfast.sagas": ("Saga", "Stage", "Step", "begins", "on", "late", "SagaError", "TooEarly"),
    "holdfast.journal": ("Aggregate", "applies", "Journal", "Projection", "Recorded", "Conflict", "Erased"),
    "holdfast.sql": ("Database", "Outbox", "OutsideTransaction", "TransactionEnded", "DatabaseUnavailable"),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are generated, and the pages that the navigation does not name."""
    for source, page in AT_THE_ROOT.items():
        files.append(File.generated(config, page, content=from_the_root((ROOT / source).read_text())))
    files.append(File.generated(config, "examples.md", content=examples()))
    files.append(File.generated(config, "api.md", content=reference()))
    named = set(re.findall(r"[\w/-]+\.md", str(config.nav)))
    unnamed = [file.src_uri for file in files.documentation_pages() if file.src_uri not in named]
    nav: list[dict[str, list[Any]]] = config.nav or []
    by_title = {title: pages for section in nav for title, pages in section.items()}
    decisions = sorted(page for page in unnamed if page.startswith("decisions/"))
    by_title["Internals"][-1] = {"Decisions": decisions}
    by_title["How-to"] += sorted(set(unnamed) - set(decisions))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to the files at the root into links to their pages."""
    up = "../" * page.file.src_uri.count("/")
    for source, target in AT_THE_ROOT.items():
        markdown = markdown.replace(f"](../{up}{source}", f"]({up}{target}")
    return markdown.replace(f"](../{up}examples/)", f"]({up}examples.md)")


def from_the_root(text: str) -> str:
    """The text of a file at the root, with links that are right in the folder of the pages."""
    text = text.replace("](docs/decisions/)", "](decisions/README.md)").replace("](examples/)", "](examples.md)")
    for source, target in AT_THE_ROOT.items():
        text = text.replace(f"]({source}", f"]({target}")
    return text.replace("](docs/", "](")


def examples() -> str:
    """The page of the examples, each with its files."""
    folder = ROOT / "examples"
    sources = {file.relative_to(folder).as_posix(): file.read_text() for file in sorted(folder.rglob("*.py"))}
    parts = [f"## {name}\n\n```python\n{text}```\n" for name, text in sources.items()]
    return "\n".join([(folder / "README.md").read_text(), *parts])


def reference() -> str:
    """A page with each public name, by its docstring."""
    [listed] = [
        node.value
        for node in ast.parse((ROOT / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    public: list[str] = ast.literal_eval(listed)
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "Errors": tuple(name for name in public if name not in grouped)}
    lines = [
        "# Python",
        "",
        "For those who write handlers and publish: every public name of `holdfast`,",
        "with its arguments.",
        "",
    ]
    for title, names in groups.items():
        lines += [f"## {title}", "", *(f"::: holdfast.{name}\n" for name in names if name in public)]
    for module, names in SUBMODULES.items():
        lines += [f"## {module}", "", *(f"::: {module}.{name}\n" for name in names)]
    return "\n".join(lines)
