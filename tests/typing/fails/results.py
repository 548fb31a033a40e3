"""Results taken for something else. Every line with `# error` must fail, and no other."""

from runlane import RunFuture, agather, gather, task


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
async def fetch(url: str) -> bytes:
    return url.encode()


def sync_code() -> None:
    a: str = add.delay(1).result()  # error
    b: RunFuture[str] = add.delay(1)  # error
    c: list[str] = gather(add.delay(1))  # error
    d: list[RunFuture[str]] = add.map([1])  # error
    e: str = add(1)  # error
    f: bytes = fetch("x")  # error
    g: str = add.future("1").result()  # error
    h: int = add.delay(1)  # error
    i: list[int] = gather(add.delay(1), return_exceptions=True)  # error
    print(a, b, c, d, e, f, g, h, i)


async def async_code() -> None:
    a: str = await (await add.adelay(1))  # error
    b: int = await add.adelay(1)  # error
    c: str = await (await fetch.adelay("x")).aresult()  # error
    d: list[bytes] = await agather(*await add.amap([1]))  # error
    e: int = add.delay(1).aresult()  # error
    print(a, b, c, d, e)
