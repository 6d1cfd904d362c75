"""A peer that runs the real Python autobus for interop_test.go.

It reads commands and writes what happens, one JSON text a line:

    {"do": "subscribe", "namespace": NS, "type": NAME, "fields": {NAME: ANNOTATION}}
    {"do": "start", "url": URL, "key": KEY}                         -> {"is": "started"}
    {"do": "publish", "namespace": NS, "type": NAME, "fields": {}}
    {"do": "stop"}                                                  -> {"is": "stopped"}

    {"is": "event", "namespace": NS, "type": NAME, "fields": {}, "repr": TEXT}
    {"is": "log", "text": TEXT}                                     for warnings and worse

Each namespace has a client of its own. With a key they are encrypted. An event type takes any fields, but
for those that a subscribe command declares.
"""
import asyncio
import datetime
import json
import logging
import sys
from typing import Optional, Union

import autobus
import autobus.serializer
import pydantic

ANNOTATIONS = {
    "Base64Bytes": pydantic.Base64Bytes,
    "Optional[int]": Optional[int],
    "Union[int, float]": Union[int, float],
    "bool": bool,
    "datetime": datetime.datetime,
    "dict": dict,
    "float": float,
    "int": int,
    "list[str]": list[str],
    "str": str,
    "timedelta": datetime.timedelta,
}

clients = {}
classes = {}


def say(**line):
    # A field that isn't JSON is told by its repr.
    sys.stdout.write(json.dumps(line, default=repr) + "\n")
    sys.stdout.flush()


class Log(logging.Handler):
    def emit(self, record):
        say(**{"is": "log", "text": self.format(record)})


def event_class(name, fields=()):
    if name not in classes:
        body = {"__module__": __name__, "model_config": pydantic.ConfigDict(extra="allow")}
        body["__annotations__"] = {field: ANNOTATIONS[fields[field]] for field in fields}
        classes[name] = type(name, (autobus.Event,), body)
    return classes[name]


def client(command):
    namespace = command["namespace"]
    if namespace not in clients:
        clients[namespace] = autobus.Client(namespace=namespace)
    return clients[namespace]


def subscribe(command):
    namespace, name = command["namespace"], command["type"]

    def handle(event):
        say(**{"is": "event", "namespace": namespace, "type": name, "fields": dict(event), "repr": repr(event)})

    client(command).subscribe(event_class(name, command.get("fields", {})), handle)


async def main():
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command = json.loads(line)
        match command["do"]:
            case "subscribe":
                subscribe(command)
            case "start":
                for each in clients.values():
                    each.url = command["url"]
                    if key := command.get("key"):
                        each.serializer = autobus.serializer.EncryptedSerializer(key)
                    await each.start()
                say(**{"is": "started"})
            case "publish":
                fields = {field: value for field, value in command["fields"].items() if field != "type"}
                client(command).publish(event_class(command["type"])(**fields))
            case "stop":
                for each in clients.values():
                    await each.stop()
                say(**{"is": "stopped"})


logging.basicConfig(level=logging.WARNING, handlers=[Log()])
asyncio.run(main())
