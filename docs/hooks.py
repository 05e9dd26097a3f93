"""For MkDocs: the docstrings' few marks of reStructuredText, as HTML."""

from __future__ import annotations

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """``:class:`~saln.a.B``` becomes ``B``; the ``::`` before a block becomes a colon."""
    html = re.sub(
        r":(?:class|func|meth|mod|data|attr):<code>(~?)([\w.]+)</code>",
        lambda found: f"<code>{found[2].rpartition('.')[2] if found[1] else found[2]}</code>",
        html,
    )
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")
