"""Pages of a browser that are used again: a new context and page cost three loads of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Pages:
    """Opens files in pages of one browser; what they say and ask for is kept."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.free: list[Any] = []
        self.shown: list[Any] = []
        self.said: list[str] = []
        self.asked: list[str] = []

    def open(
        self, path: Path, width: int, height: int = 800, *, script: str = "", **media: str
    ) -> Any:
        """A page with a file, as in a new browser; with a script before it, one of its own."""
        page = self.free.pop() if self.free and not script else self._new(script)
        if not script:
            self.shown.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(
            **{"media": "null", "color_scheme": "light", "reduced_motion": "no-preference"} | media
        )
        page.goto(path.as_uri())
        return page

    def _new(self, script: str) -> Any:
        context = self.browser.new_context()
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        return page

    def put_back(self) -> tuple[list[str], list[str]]:
        """Leaves the pages as new ones; gives what they said, and which files they asked for."""
        for page in self.shown:
            page.evaluate("localStorage.clear()")
            page.mouse.move(0, 0)
            page.goto("about:blank")
        self.free += self.shown
        said, asked = self.said, self.asked
        self.shown, self.said, self.asked = [], [], []
        return said, [url for url in asked if not url.startswith(("data:", "blob:"))]
