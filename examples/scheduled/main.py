from datetime import UTC, datetime, timedelta

from tasks import remind

print(f"{datetime.now(UTC):%H:%M:%S}  submitted")
tea = remind.options(delay=2).delay("the tea is ready")
bus = remind.options(eta=datetime.now(UTC) + timedelta(seconds=1)).delay("the bus leaves")
now = remind.delay("nothing to wait for")

for future in (now, bus, tea):
    print(future.result(timeout=30))

daily = remind.options(delay=timedelta(days=1), idempotency_key=f"water-{datetime.now(UTC):%Y-%m-%d}")
first, second = daily.delay("water the plants"), daily.delay("water the plants")
print(f"for tomorrow: {first.id}, submitted twice: {first.id == second.id}")
