#!/usr/bin/python3
"""A client that means no good: `hostile.py ADDRESS WHAT`. Ends when it has done its worst; prints what it was answered."""

import collections
import os
import socket
import struct
import sys
import threading

import dbus
import dbus.lowlevel
import dbus.mainloop.glib
from gi.repository import GLib

NAME = "org.ilb.Ilb1"
ROOT = "/org/ilb/Ilb1"
MANAGER = "org.ilb.Ilb1.Manager"
ADDRESS, WHAT = sys.argv[1:]

dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(ADDRESS)
loop = GLib.MainLoop()
answers = collections.Counter()


def call(member, signature="", *arguments, path=ROOT, interface=MANAGER):
    message = dbus.lowlevel.MethodCallMessage(NAME, path, interface, member)
    if signature:
        message.append(signature=signature, *arguments)
    return message


def flood(messages, patience=25_000):
    """Sends all at once, and waits for an answer to each."""
    waiting = 0

    def answered(reply):
        nonlocal waiting
        waiting -= 1
        error = isinstance(reply, dbus.lowlevel.ErrorMessage)
        answers[reply.get_error_name() if error else "answered"] += 1
        if waiting == 0:
            loop.quit()

    for message in messages:
        waiting += 1
        bus.send_message_with_reply(message, answered, timeout_s=600)
    # What is asked at the end of its patience is not waited for: the next attack finds it in its way.
    GLib.timeout_add(patience, loop.quit)
    loop.run()


def raw():
    """A connection without any library."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(ADDRESS.removeprefix("unix:path="))
    user = str(os.getuid()).encode().hex().encode()
    connection.sendall(b"\0AUTH EXTERNAL " + user + b"\r\n")
    connection.recv(1000)
    connection.sendall(b"BEGIN\r\n")
    return connection


def text(value):
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def message(serial, destination, path, interface, member, signature="", body=b"", flags=0):
    """A method call as it is on the wire."""
    fields = b""
    for code, kind, value in (
        (1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination), (8, "g", signature)
    ):
        fields += b"\0" * (-len(fields) % 8) + bytes([code, 1]) + kind.encode() + b"\0"
        fields += bytes([len(value)]) + value.encode() + b"\0" if kind == "g" else text(value)
    head = b"l\1" + bytes([flags]) + b"\1" + struct.pack("<III", len(body), serial, len(fields)) + fields
    return head + b"\0" * (-len(head) % 8) + body


def hello(connection):
    bus_name = "org.freedesktop.DBus"
    connection.sendall(message(1, bus_name, "/org/freedesktop/DBus", bus_name, "Hello"))
    connection.recv(4096)


if WHAT == "flood":
    flood(call("Describe") for _ in range(10_000))
elif WHAT == "flood-objects":
    flood(
        call("GetManagedObjects", interface="org.freedesktop.DBus.ObjectManager") for _ in range(2_000)
    )
elif WHAT == "flood-introspect":
    flood(
        call("Introspect", interface="org.freedesktop.DBus.Introspectable", path=path)
        for _ in range(1_000) for path in ("/", ROOT, ROOT + "/server")
    )
elif WHAT == "flood-changes":
    flood(call("DeleteAllRules") for _ in range(10_000))
elif WHAT == "huge":
    # Far more than any of these methods needs, so that somebody has to read it all or say that he does not.
    big = "x" * (20 << 20)
    calls = lambda: [
        call("CreateServerGroup", "sas", big, [big[:1000]]),
        call("Explain", "a{sv}", {big: "x"}),
        call("ListConnections", "a{sv}uu", {"client": big}, 0, 1),
        call("AddServers", "sas", "web", ["192.0.2.1"] * 300_000),
        call("Apply", "sa{sv}", big, {"dry-run": True}),
        call("CreateServerGroup", "sas", "x" * (40 << 20), []),
    ]
    for _ in range(3):
        flood(calls())
    # As much as is looked at, and not a byte more; and all of it a mistake.
    flood(call("Explain", "a{sv}", {"x" * ((1 << 20) - 1000): "x"}) for _ in range(20))
    flood(call("Explain", "a{sv}", {f"key{n}": "x" for n in range(20_000)}) for _ in range(20))
elif WHAT == "wrong-types":
    deep = dbus.Int32(1)
    for _ in range(30):
        deep = dbus.Array([deep], signature="v", variant_level=1)
    values = [
        dbus.Byte(1), dbus.UInt64(2**64 - 1), dbus.Double(float("nan")), dbus.ObjectPath("/x"),
        dbus.Signature("a{sv}"), dbus.Array([], signature="(ss)"), dbus.Struct((1, 2)), deep, "",
        "\u202e\ufdd0\U0010ffff", "../../etc/passwd", "a/b", "%n%s", "' OR 1=1", "-", "\u0001\u0007\n",
        dbus.Boolean(True), dbus.Int16(-1),
    ]
    keys = [
        "vip", "port", "protocol", "vips", "clients", "timeouts", "nat-timeout", "pmask", "rule", "state",
        "source", "flags", "length", "message", "weight", "", "\u0000".strip("\u0000") + "x" * 1000,
    ]
    def every():
        for key in keys:
            for value in values:
                yield call("ListConnections", "a{sv}uu", {key: value}, 0, 1)
                yield call("Explain", "a{sv}", {key: value})
        for member in ("Describe", "GetStatistics", "ListConnections", "Explain", "Nothing", "CreateRule"):
            for signature, arguments in (
                ("v", [deep]), ("s", ["x"]), ("a{sv}", [{}]), ("ay", [b"x" * 1000]), ("(ss)", [("a", "b")]),
            ):
                yield call(member, signature, *arguments)
        for path in ("/", "/org", ROOT + "/rule", ROOT + "/rule/x", ROOT + "/server/_00", "/x" * 500):
            for interface in (MANAGER, "org.ilb.Ilb1.Rule", "org.freedesktop.DBus.Properties", "x.y"):
                yield call("Describe", path=path, interface=interface)
                yield call("Get", "ss", MANAGER, "\u00e4", path=path, interface=interface)
                yield call("Set", "ssv", MANAGER, "State", "ok", path=path, interface=interface)
    flood(every())
elif WHAT == "disconnect":
    # Goes away between a call and its answer, and in the middle of a message.
    for number in range(300):
        connection = raw()
        hello(connection)
        whole = message(2, NAME, ROOT, MANAGER, "Describe")
        connection.sendall(whole * (1 + number % 5))
        connection.sendall(whole[: number % len(whole)])
        connection.close()
    answers["answered"] += 1
elif WHAT == "no-answers-read":
    # Asks for much, and never reads what it gets.
    connections = []
    for _ in range(5):
        connection = raw()
        hello(connection)
        connection.settimeout(1)
        try:
            for number in range(100):
                connection.sendall(message(2 + number, NAME, ROOT, MANAGER, "Describe"))
        except OSError:
            pass
        connections.append(connection)
    answers["answered"] += 1
elif WHAT == "garbage":
    # What is no D-Bus message costs its sender the connection to the bus.
    whole = message(2, NAME, ROOT, MANAGER, "ListConnections", "a{sv}uu", b"\0" * 16)
    for at in range(len(whole)):
        connection = raw()
        hello(connection)
        connection.sendall(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1:])
        connection.close()
    for name in ("a\0b", "\ud800", "a" * 255):
        body = text("a\0b") if name == "a\0b" else struct.pack("<I", 3) + b"\xff\xfe\x80\0"
        body += b"\0" * (-len(body) % 4) + struct.pack("<I", 0)
        connection = raw()
        hello(connection)
        connection.sendall(message(2, NAME, ROOT, MANAGER, "CreateServerGroup", "sas", body))
        connection.close()
    answers["answered"] += 1
elif WHAT == "matches":
    # Rules that want everything of everybody, and signals that nobody asked for.
    for number in range(5_000):
        rule = f"type='signal',sender='{NAME}',arg0='{number}',path_namespace='{ROOT}'"
        bus.add_match_string_non_blocking(rule)
    for _ in range(2_000):
        signal = dbus.lowlevel.SignalMessage(ROOT, MANAGER, "PropertiesChanged")
        signal.set_destination(NAME)
        signal.append("x" * 100_000, signature="s")
        bus.send_message(signal)
    bus.flush()
    answers["answered"] += 1
else:
    sys.exit(f"{WHAT} is not known")
print("over")
for word, count in sorted(answers.items()):
    print(word, count)
