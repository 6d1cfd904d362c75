"""Python autobus, as bench.h describes the C programs."""
import asyncio
import logging
import resource
import sys
import time

import autobus


class Bench(autobus.Event):
    n: int
    at: int
    text: str


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int((used.ru_utime + used.ru_stime) * 1e9)


async def publish(client, rate, n):
    event = Bench(n=1000000, at=1000000000000000000, text="x" * 31)
    used, begin, sent = cpu(), time.monotonic_ns(), 0
    while sent < n:
        elapsed = time.monotonic_ns() - begin
        due = min(n, int(elapsed * rate / 1e9) + 1)
        for _ in range(due - sent):
            if rate <= 2000:
                event.at = time.time_ns()
            client.publish(event)
        sent = due
        await asyncio.sleep(0.00005)
    await client.output.join()
    print(time.monotonic_ns() - begin, cpu() - used, 0, flush=True)


async def subscribe(heard, took):
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("ready", flush=True)
    while await lines.readline():
        took.sort()
        p50, p99 = (took[len(took) // 2], took[len(took) * 99 // 100]) if took else (0, 0)
        print(heard[0], cpu(), 0, p50, p99, flush=True)


async def main(role, group, port, ttl, rate=0, n=0):
    logging.disable(logging.CRITICAL)
    client = autobus.Client(url=f"udp://{group}:{port}?ttl={ttl}")
    heard, took = [0], []

    def handle(event):
        if event.at != 1000000000000000000 and len(took) < 100000:
            took.append(time.time_ns() - event.at)
        heard[0] += 1

    if role == "subscribe":
        client.subscribe(Bench, handle)
    await client.start()
    if role == "subscribe":
        await subscribe(heard, took)
    else:
        await publish(client, int(rate), int(n))
    await client.stop()


asyncio.run(main(*sys.argv[1:]))
