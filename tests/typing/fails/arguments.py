"""Arguments that do not fit. Every line with `# error` must fail, and no other."""

from runlane import submit_many, task


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task(retries=3)
async def fetch(url: str, *, retries: int = 3) -> bytes:
    return url.encode() * retries


def sync_code() -> None:
    add.delay("1")  # error
    add.delay()  # error
    add.delay(1, 2, 3)  # error
    add.delay(1, c=3)  # error
    add.delay(1, b="2")  # error
    add("1")  # error
    fetch.delay(5)  # error
    fetch.delay("x", 3)  # error
    add.options(priority=5).delay("1")  # error
    add.bind("1")  # error
    add.options(delay=5).bind()  # error
    add.map(["1"])  # error
    add.map([1], ["2"])  # error
    add.map(5)  # error
    add.map([1], [2], [3])  # error
    submit_many([add])  # error
    add.delay(1)
    fetch.delay("x", retries=3)


async def async_code() -> None:
    await add.adelay("1")  # error
    await add.adelay(1, c=3)  # error
    await add.options(priority=5).adelay()  # error
    await fetch.adelay(url=5)  # error
    await fetch("x", retries="3")  # error
    await add.amap(["1"])  # error
    await add.adelay(1)
