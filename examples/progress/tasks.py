import asyncio

from runlane import current_run, task


@task
async def render(pages: int) -> str:
    run = current_run()
    for page in range(1, pages + 1):
        await asyncio.sleep(0.1)  # the work
        run.progress(page, pages, f"page {page}")
    return f"{pages} pages"
