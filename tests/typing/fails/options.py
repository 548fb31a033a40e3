"""Options that there are not. Every line with `# error` must fail, and no other."""

from runlane import task


@task
def add(a: int, b: int = 0) -> int:
    return a + b


def plain() -> None: ...


def options() -> None:
    add.options(prority=5)  # error
    add.options(priority="high")  # error
    add.options(delay="30")  # error
    add.options(eta=30)  # error
    add.options(key="other")  # error
    add.options(idempotency_key=5)  # error
    add.options(headers={"a": 1})  # error
    add.options(priority=5)


def decorator() -> None:
    task(retries="3")(plain)  # error
    task(delay=3)(plain)  # error
    task(pool="gpu")(plain)  # error
    task(name="add")(plain)  # error
    task(serializer=5)(plain)  # error
    task(retry_on="ValueError")(plain)  # error
    task(retries=3)(plain)
