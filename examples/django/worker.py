"""What runs in another process."""

import tidings


def report(user, name):
    total = sum(number * number for number in range(100_000))
    tidings.publish(f"user-{user}", {"text": f"The report for {name} is ready: {total}"}, private=True)
