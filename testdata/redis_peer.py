"""A peer that runs Python's redis package for redis_interop_test.go.

It reads commands and writes what happens, one JSON text a line:

    {"do": "start", "url": URL, "channels": [NAME]}             -> {"is": "started"}
    {"do": "publish", "channel": NAME, "payload": TEXT}         -> {"is": "published", "to": NUMBER}
    {"do": "stop"}                                              -> {"is": "stopped"}

    {"is": "message", "channel": NAME, "payload": TEXT}
"""
import json
import sys
import threading

import redis


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def listen(pubsub, count):
    for message in pubsub.listen():
        if message["type"] == "subscribe":
            count -= 1
            if count == 0:
                say(**{"is": "started"})
        elif message["type"] == "message":
            say(**{"is": "message", "channel": message["channel"].decode(), "payload": message["data"].decode()})


for line in sys.stdin:
    command = json.loads(line)
    match command["do"]:
        case "start":
            server = redis.Redis.from_url(command["url"])
            pubsub = server.pubsub()
            pubsub.subscribe(*command["channels"])
            threading.Thread(target=listen, args=(pubsub, len(command["channels"])), daemon=True).start()
        case "publish":
            say(**{"is": "published", "to": server.publish(command["channel"], command["payload"])})
        case "stop":
            say(**{"is": "stopped"})
            break
