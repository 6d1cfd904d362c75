"""A peer that runs Python's redis package for redis_interop_test.go.

It reads commands and writes what happens, one JSON text a line. Each start is
for another server.

    {"do": "start", "url": URL, "channel": NAME}                -> {"is": "started"}
    {"do": "publish", "channel": NAME, "payload": TEXT}         -> {"is": "published", "to": NUMBER}
    {"do": "stop"}                                              -> {"is": "stopped"}

    {"is": "message", "channel": NAME, "payload": TEXT}
"""
import json
import sys
import threading

import redis

saying = threading.Lock()


def say(**line):
    with saying:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def handle(message):
    say(**{"is": "message", "channel": message["channel"].decode(), "payload": message["data"].decode()})


listener = None
for line in sys.stdin:
    command = json.loads(line)
    if listener and command["do"] != "publish":
        listener.stop()
        listener.join()
        listener = None
    match command["do"]:
        case "start":
            server = redis.Redis.from_url(command["url"])
            pubsub = server.pubsub()
            pubsub.subscribe(**{command["channel"]: handle})
            assert pubsub.get_message(timeout=20)["type"] == "subscribe"
            listener = pubsub.run_in_thread(sleep_time=0.05)
            say(**{"is": "started"})
        case "publish":
            say(**{"is": "published", "to": server.publish(command["channel"], command["payload"])})
        case "stop":
            say(**{"is": "stopped"})
            break
