"""A backend of a few lines that answers right, or misbehaves at the case whose id ends in its argument.

Run as a program: toy_backend.py BEHAVIOUR; nothing of the package is imported.
"""

import json
import os
import sys
import time

GOOD = {"status": "ok", "outputs": {"y": {"dtype": "int32", "shape": [2], "data": "01000000FeFfFfFf"}}}


def say(record):
    print(json.dumps(record), flush=True)


def misbehave(behaviour):
    if behaviour == "crash":
        print("out of luck", file=sys.stderr)
        sys.exit(3)
    elif behaviour == "hang":
        time.sleep(60)
    elif behaviour == "garbage":
        print("}{ what?", flush=True)
    elif behaviour == "stray":
        print(json.dumps(GOOD) + "\ndebug: done", flush=True)
    elif behaviour == "chatty":
        print("debug: working", flush=True)
        say(GOOD)
    elif behaviour == "exit-after":
        say(GOOD)
        sys.exit(0)
    elif behaviour == "binary":
        os.write(1, bytes(range(128, 256)) + b"\n")
    elif behaviour == "nested":
        print("[" * 100_000, flush=True)
    elif behaviour == "closed":
        os.close(1)
        time.sleep(60)
    else:
        say(ODD[behaviour])


ODD = {
    "wrong-shape": {"status": "ok", "outputs": {"y": {"dtype": "int32", "shape": [1], "data": "01000000"}}},
    "wrong-dtype": {
        "status": "ok",
        "outputs": {"y": {"dtype": "uint32", "shape": [2], "data": "01000000feffffff"}},
    },
    "wrong-value": {
        "status": "ok",
        "outputs": {"y": {"dtype": "int32", "shape": [2], "data": "0100000001000000"}},
    },
    "short-data": {"status": "ok", "outputs": {"y": {"dtype": "int32", "shape": [2], "data": "01000000"}}},
    "no-hex": {"status": "ok", "outputs": {"y": {"dtype": "int32", "shape": [2], "data": "zz"}}},
    "no-output": {"status": "ok", "outputs": {}},
    "no-outputs": {"status": "ok"},
    "other-id": {**GOOD, "id": "L0/t/other"},
    "list": [1, 2],
    "status": {"status": "fine"},
    "error": {"status": "error", "message": "I give up"},
    "invalid": {"status": "invalid"},
    "unsupported": {"status": "unsupported", "message": "not me"},
}
HELLOS = {
    "no-hello": {"status": "unsupported"},
    "other-protocol": {"status": "ok", "protocol": 2, "name": "toy"},
    "few-ops": {"status": "ok", "protocol": 1, "name": "toy", "version": "7", "ops": ["other"]},
}


def main(behaviour):
    hello = {"status": "ok", "protocol": 1, "name": "toy", "version": "7"}
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "hello":
            say(HELLOS.get(behaviour, hello))
            if behaviour == "deaf":  # it reads nothing more
                time.sleep(60)
        elif request["id"].endswith("/bad"):
            misbehave(behaviour)
        else:
            say(GOOD)


if __name__ == "__main__":
    main(sys.argv[1])
