"""Python's cryptography for fernet_test.go.

The arguments are keys: one makes a Fernet, several a MultiFernet. It reads
commands and answers each with a line:

    open TOKEN     the SHA-256 of the plaintext, or "refused"
    seal SIZE      a token of random bytes, and the SHA-256 of those
    rotate TOKEN   the token that MultiFernet.rotate makes of it
    derive PASSPHRASE SALT   the key of hashlib.scrypt; both in hex
"""
import base64
import hashlib
import os
import sys

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

keys = [Fernet(key) for key in sys.argv[1:]]
fernet = keys[0] if len(keys) == 1 else MultiFernet(keys)

for line in sys.stdin:
    command, *args = line.split()
    if command == "open":
        try:
            answer = hashlib.sha256(fernet.decrypt(args[0], ttl=3600)).hexdigest()
        except InvalidToken:
            answer = "refused"
    elif command == "seal":
        plaintext = os.urandom(int(args[0]))
        answer = fernet.encrypt(plaintext).decode() + " " + hashlib.sha256(plaintext).hexdigest()
    elif command == "rotate":
        answer = fernet.rotate(args[0]).decode()
    elif command == "derive":
        passphrase, salt = map(bytes.fromhex, args)
        key = hashlib.scrypt(passphrase, salt=salt, n=32768, r=8, p=1, maxmem=2**26, dklen=32)
        answer = base64.urlsafe_b64encode(key).decode()
    print(answer, flush=True)
