"""What happened, as past-tense facts. Threads and the service's reader post these; screens act on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.message import Message

if TYPE_CHECKING:
    from wbtui.tui.data import Arranged, Opened
    from wbtui.tui.draw.population import Population
    from wbtui.tui.state import View


@dataclass
class DownloadChanged(Message):
    """A download came on, ended or failed."""


@dataclass
class RowClicked(Message):
    """A row was clicked; ``twice`` opens it."""

    feature: int
    twice: bool


@dataclass
class HeaderClicked(Message):
    """A column's heading was clicked; ``add`` (with Shift) makes it a further key."""

    name: str
    add: bool


@dataclass
class TableScrolled(Message):
    """The wheel turned over the table."""

    lines: int


@dataclass
class AddressOpened(Message):
    """An address is open and its table ready to draw."""

    opened: Opened
    view: View
    at_top: bool


@dataclass
class OpenFailed(Message):
    """An address could not be opened."""

    address: str
    line: str


@dataclass
class RowsArranged(Message):
    """Filter and order were applied."""

    arranged: Arranged
    ticket: int


@dataclass
class BackgroundMade(Message):
    """Histograms and class shares of a table's version are ready."""

    opened: Opened
    version: int
    populations: dict[str, Population]
    summary: dict[str, Any] | None


@dataclass
class ServiceChanged(Message):
    """The service came, went, or could not be used."""

    state: str
    """``unknown``, ``starting``, ``up``, ``down``, ``other version``."""
    line: str = ""


@dataclass
class JobMoved(Message):
    """A job's state or progress changed, or a shard of it landed."""

    job: dict[str, Any]


@dataclass
class RowComputed(Message):
    """A provisional row came back."""

    opened: Opened
    feature: int
    columns: dict[str, Any]


@dataclass
class RowFailed(Message):
    """A provisional row could not be computed."""

    feature: int
    line: str


@dataclass
class PageComputed(Message):
    """One feature in a layer's heads came back: partners, what each head writes."""

    opened: Opened
    layer: int
    feature: int
    page: dict[str, Any]


@dataclass
class PageFailed(Message):
    """It could not be computed."""

    layer: int
    feature: int
    line: str


@dataclass
class Exported(Message):
    """A file was written, or not."""

    line: str
    failed: bool = False


@dataclass
class CardScrolled(Message):
    """The wheel turned over the card."""

    lines: int


@dataclass
class CosinesRead(Message):
    """Cosines of the compared features were read from their files."""

    key: tuple[str, int, str, int]
    """(SAE folder, feature) of both."""
