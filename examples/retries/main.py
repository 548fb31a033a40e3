from tasks import fetch

from runlane import RunFailed

futures = {page: fetch.delay(page) for page in ("index", "missing")}
futures["down"] = fetch.options(retries=1, retry_delay=0.5).delay("down")

for page, future in futures.items():
    try:
        print(f"{page}: {future.result(timeout=30)}")
    except RunFailed as exc:
        print(f"{page}: failed for good with {exc.type}: {exc.message}")
