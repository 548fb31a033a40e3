from runlane import current_run, task


class NoSuchPage(Exception):
    pass


@task(retries=3, retry_delay=[0.2, 1, 5], retry_jitter=0.1, no_retry_on=NoSuchPage)
def fetch(page: str) -> str:
    attempt = current_run().attempt
    if page == "missing":
        raise NoSuchPage(page)  # trying again would not help
    if page == "down" or attempt < 3:
        raise ConnectionError(f"no answer to attempt {attempt}")
    return f"{page}, got at attempt {attempt}"
