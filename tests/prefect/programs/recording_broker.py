"""A broker as `runlane serve` starts it, that notes each request and its answer in the file RECORD.

While the file HOLD is there it commits no end of a run that is reported by an event, nor anything after it: the
file then says `held`.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from recorder import Recorder

from runlane.protocol.states import FINAL
from runlane_broker import logs, program
from runlane_broker.serving.listening import bind
from runlane_broker.settings import load
from runlane_broker.storage.operations.reporting import RecordReports


def hold(file: Path) -> None:
    """Have the writer stop in the transaction that records an end, while the file is there."""
    execute = RecordReports.execute

    def held(self: RecordReports, tx: Any) -> Any:
        outcome = execute(self, tx)
        if file.exists() and any(report.proposed.type in FINAL for report in self.reports):
            file.write_text("held", encoding="ascii")
            threading.Event().wait()
        return outcome

    RecordReports.execute = held  # type: ignore[method-assign]


def main() -> None:
    """Run the broker until it is told to stop."""
    hold(Path(os.environ["HOLD"]))
    create_app: Any = program.create_app
    program.create_app = lambda core: Recorder(create_app(core), Path(os.environ["RECORD"]))  # type: ignore[assignment,return-value]
    settings = load(os.environ, dict(zip(("port", "db"), sys.argv[1:], strict=True)))
    logs.configure(settings.log_level, as_json=settings.log_format == "json")
    with closing(bind(settings.host, settings.port)) as listener:
        program.run_broker(settings, listener)


if __name__ == "__main__":
    main()
