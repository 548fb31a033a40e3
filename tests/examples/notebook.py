"""Runs blocks of code that are read as JSON from stdin, one after the other, as one program.

What a block prints is written to stdout, as a line of JSON for each block; the first one that fails ends it.
Blocks may `await`.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import sys
import traceback
from typing import Any


def main() -> int:
    sys.path.insert(0, "")
    namespace: dict[str, Any] = {"__name__": "guide"}
    with asyncio.Runner() as runner:
        for block in json.load(sys.stdin):
            printed = io.StringIO()
            try:
                code = compile(block["code"], f"line {block['line']}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                with contextlib.redirect_stdout(printed):
                    if code.co_flags & inspect.CO_COROUTINE:
                        runner.run(eval(code, namespace))
                    else:
                        exec(code, namespace)
            except BaseException:
                traceback.print_exc()
                return 1
            print(json.dumps(printed.getvalue()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
