import asyncio

from runlane import current_run, task


@task
async def render(pages: int) -> str:
    if not 1 <= pages <= 1000:
        raise ValueError("between 1 and 1000 pages, please")
    run = current_run()
    for page in range(1, pages + 1):
        await asyncio.sleep(0.1)  # the work
        run.progress(page, pages, f"page {page}")
    return f"a report of {pages} pages"
