"""Reads a report as a browser's parser would, and says what is wrong with it."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input", "source"}
SOURCES = ("src", "href", "xlink:href", "data", "poster", "action", "srcset")


class ReadPage(HTMLParser):
    """Sections with their text, and everything that the page would load."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.sections: dict[str, str] = {}
        self.pictures: dict[str, int] = {}
        self.absent: dict[str, bool] = {}
        self.sources: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.audio = 0
        self.tables: dict[str, list[list[str]]] = {}
        self._section = ""
        self.feed(document)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        self._attributes(tag, values)
        if tag == "section":
            self._section = values["id"]
            self.ids.append(self._section)
            self.sections[self._section] = ""
            self.pictures[self._section] = 0
            self.tables[self._section] = []
        if tag == "svg":
            assert values["aria-label"]
            self.pictures[self._section] += 1
        if tag == "p" and values.get("class") == "absent":
            self.absent[self._section] = True
        if tag == "tr" and "tbody" in self.open:
            self.tables[self._section].append([])
        if tag == "td":
            self.tables[self._section][-1].append("")
        self.audio += tag == "audio"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, {name: value or "" for name, value in attrs})

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._section and self.open[-1] not in {"style", "script"}:
            self.sections[self._section] += data
        if self.open and self.open[-1] == "td":
            self.tables[self._section][-1][-1] += data
        if self.open and self.open[-1] == "style":
            assert "@import" not in data
            assert not re.search(r"url\((?!['\"]?(#|data:))", data)

    def _attributes(self, tag: str, values: dict[str, str]) -> None:
        for name in SOURCES:
            if name in values and tag == "a":
                self.links.append(values[name])
            elif name in values:
                self.sources.append((tag, values[name]))
        assert not re.search(r"url\((?!['\"]?(#|data:))", values.get("style", "") + values.get("clip-path", ""))

    def check(self) -> None:
        """The page loads nothing, its links lead to its own sections, and each section has data or says why it has none."""
        for tag, source in self.sources:
            assert source.startswith(("data:image/png;base64,", "data:audio/wav;base64,", "#")), f"<{tag}> loads {source[:80]}"
        assert self.links == [f"#{name}" for name in self.ids]
        for name, text in self.sections.items():
            assert text.strip()
            has_data = self.pictures[name] or self.tables[name] or name in {"overview", "summary", "restarts"}
            assert bool(has_data) != self.absent.get(name, False), f"section {name} has neither data nor a reason, or both"
