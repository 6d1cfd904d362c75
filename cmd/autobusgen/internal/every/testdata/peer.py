"""Hears events of the generated classes, and publishes them again in the namespace "back".

First it publishes events of its own, made of Python's values. Then it says "ready", and ends with its input.
"""
import asyncio
import datetime
import logging
import sys
import warnings

warnings.simplefilter("error")  # pydantic warns of names that it doesn't like

import autobus
import pydantic

sys.path.insert(0, sys.argv[2])
import every

EVENTS = [every.Every, every.EveryOptions, every.Common, every.Reading, every.Nothing]


def own_events():
    yield every.Nothing()
    yield every.EveryOptions(
        id=1, parent=None, some_bytes=b"\x00\xff\xfe", some_took=datetime.timedelta(days=-1, microseconds=1),
        some_time=datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        some_room=every.Room(title="hall", floor=-128, doors=[every.Door(open=True, type="oak")]),
        some_map={"a": 1}, some_any=[1, 2.5, None, float("-inf")], quoted_bool=True, quoted_int=-7, quoted_int8=127,
        quoted_int64=-(2**63), quoted_uint=2**64 - 1, quoted_float32=0.5, quoted_float64=float("inf"),
    )
    yield every.Reading(
        id=1, name="é", on=True, value=3, tags=["a"], level=255, worst=every.Point(x=1, y=float("-inf")),
        track=[every.Point(x=1.5, y=2)], at=datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc), limit={},
    )


def refuses(make):
    try:
        make()
    except pydantic.ValidationError:
        return
    raise AssertionError("a class takes what Go refuses")


def check_bounds():
    reading = dict(id=1, name="", on=True, value=1.5, tags=[], level=255, worst=None, track=[], limit={})
    utc = datetime.datetime.now(datetime.timezone.utc)
    every.Reading(**reading, at=utc)
    refuses(lambda: every.Reading(**reading, at=utc.replace(tzinfo=None)))
    refuses(lambda: every.Reading(**{**reading, "level": 256}, at=utc))
    refuses(lambda: every.Reading(**{**reading, "level": -1}, at=utc))
    refuses(lambda: every.EveryOptions(parent=None))  # without id
    refuses(lambda: every.Door(open=None, type=""))


async def main():
    check_bounds()
    heard, back = autobus.Client(url=sys.argv[1]), autobus.Client(url=sys.argv[1], namespace="back")
    for event in EVENTS:
        heard.subscribe(event, lambda e: back.publish(e))
    await back.start()
    await heard.start()
    for event in own_events():
        back.publish(event)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await heard.stop()
    await back.stop()


logging.basicConfig(level=logging.WARNING)
asyncio.run(main())
