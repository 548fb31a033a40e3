"""A Prefect server on PORT that notes each request and its answer in the file RECORD."""

from __future__ import annotations

import os
from pathlib import Path

import uvicorn
from prefect.server.api.server import create_app
from recorder import Recorder

app = Recorder(create_app(), Path(os.environ["RECORD"]))
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="info")
