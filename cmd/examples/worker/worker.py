"""Counts the words of each Text on the bus."""

import collections
import os

import autobus

from events import Count, Text


@autobus.subscribe(Text)
def count(text):
    words = collections.Counter(text.text.split())
    autobus.publish(Count(id=text.id, words=dict(words)))


autobus.run(url=os.environ["AUTOBUS_URL"], shared_key=os.environ["AUTOBUS_KEY"])
