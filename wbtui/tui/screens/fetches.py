"""A screen from which SAEs and models can be downloaded: one download at a time, told and cancelled in one way."""

from __future__ import annotations

from wbtui.tui.messages import DownloadChanged
from wbtui.tui.screens.base import WbScreen


class FetchScreen(WbScreen):
    """Starts, follows and cancels the app's download.

    Attributes:
        word: what the last key found out, where it did nothing.
    """

    word = ""

    def fetch(self, model: str, sae: str | None) -> None:
        """Begin, unless another one goes on."""
        self.word = "" if self.wb.downloads.start(model, sae) else "one download at a time: ^x cancels it"
        self.fit()

    def fetched(self) -> None:
        """Something has come: look again at what is here."""

    def action_cancel_download(self) -> None:
        """Stop the download; what has arrived is kept."""
        self.word = "" if self.wb.downloads.cancel() else "nothing is being downloaded"
        self.fit()

    def on_download_changed(self, message: DownloadChanged) -> None:
        """A download came on, ended or failed."""
        self.word = ""
        now = self.wb.downloads.now
        if now is not None and now.state == "done":
            self.fetched()
        self.fit()
