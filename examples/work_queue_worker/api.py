"""The broker's HTTP API, as far as it is needed here."""

import json
import os
from urllib.error import HTTPError
from urllib.request import Request, urlopen

API = os.environ.get("RUNLANE_URL", "http://127.0.0.1:4200") + "/api"
TOKEN = os.environ.get("RUNLANE_TOKEN")


def call(method, path, body=None):
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {TOKEN}"} if TOKEN else {})}
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(API + path, data, headers, method=method), timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def post(path, body):
    return call("POST", path, body)


def make(path, body):
    """Make something, unless it is there."""
    try:
        post(path, body)
    except HTTPError as exc:
        if exc.code != 409:
            raise
