"""A page loads nothing from elsewhere: it works without a network and tells nobody who reads it."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import BuildError

# What a browser loads by itself; a link that is followed may lead anywhere.
_LOADED = re.compile(
    r"<(?:script|link|img|iframe|source|object|embed)\b[^>]*\s(?:src|href|srcset|data)=[\"']?"
    r"(?:https?:)?//[^\s\"'>]+|url\([\"']?(?:https?:)?//[^)]+|@import [\"'](?:https?:)?//[^\"']+"
)


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """Fails the build for the first page that would."""
    for file in sorted(Path(config.site_dir).rglob("*")):
        if file.suffix in (".html", ".css") and (found := _LOADED.search(file.read_text("utf-8"))):
            raise BuildError(f"{file}: loads something from elsewhere: {found[0]}")
