from datetime import UTC, datetime

from runlane import task


@task
def remind(of: str) -> str:
    return f"{datetime.now(UTC):%H:%M:%S}  {of}"
