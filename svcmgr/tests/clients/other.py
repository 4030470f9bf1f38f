#!/usr/bin/python3
"""The manager as python3-dbus sees it: create, modify, watch, delete. Prints one line for each step."""

import json
import sys

import dbus
import dbus.mainloop.glib
from gi.repository import GLib

NAME = "org.ilb.Ilb1"
ROOT = "/org/ilb/Ilb1"
MANAGER = "org.ilb.Ilb1.Manager"
RULE = "org.ilb.Ilb1.Rule"
PROPERTIES = "org.freedesktop.DBus.Properties"

dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(sys.argv[1])
root = bus.get_object(NAME, ROOT)
manager = dbus.Interface(root, MANAGER)
loop = GLib.MainLoop()
seen = []


def signal(*arguments, member=None, path=None):
    seen.append((member, path, arguments))


for member in ("InterfacesAdded", "InterfacesRemoved", "PropertiesChanged"):
    bus.add_signal_receiver(
        signal, signal_name=member, bus_name=NAME, member_keyword="member", path_keyword="path"
    )


def wait_for(condition):
    """Runs the main loop until a signal fits."""
    def look():
        if any(condition(*one) for one in seen):
            loop.quit()
            return False
        return True

    timeout = GLib.timeout_add_seconds(30, lambda: sys.exit(f"no such signal, only {seen}"))
    GLib.timeout_add(10, look)
    loop.run()
    GLib.source_remove(timeout)


group = manager.CreateServerGroup("python", ["192.0.2.30", "192.0.2.31:8080"])
settings = {
    "vip": "198.51.100.30",
    "port": "80",
    "algorithm": "rr",
    "topology": "half-nat",
    "servergroup": "python",
    "enabled": True,
    # Nested dictionaries and numbers have to be given their types, as D-Bus wants it.
    "timeouts": dbus.Dictionary({"udp": dbus.UInt32(30)}, signature="su"),
}
path = manager.CreateRule("python", dbus.Dictionary(settings, signature="sv"))
wait_for(lambda member, at, arguments: member == "InterfacesAdded" and arguments[0] == path)
print("created", group, path)

rule = bus.get_object(NAME, path)
changes = dbus.Dictionary({"algorithm": "wlc", "slow-start": dbus.UInt32(10)}, signature="sv")
assert manager.ModifyRule("python", changes)
assert not manager.ModifyRule("python", changes)
wait_for(lambda member, at, arguments: at == path and arguments[1].get("SlowStart") == 10)
wait_for(lambda member, at, arguments: at == path and "Algorithm" in arguments[1])
print("modified", rule.Get(RULE, "Algorithm", dbus_interface=PROPERTIES))

assert rule.Disable(dbus_interface=RULE)
assert not rule.Disable(dbus_interface=RULE)
wait_for(lambda member, at, arguments: at == path and arguments[1].get("Enabled") == False)
objects = dbus.Interface(root, "org.freedesktop.DBus.ObjectManager").GetManagedObjects()
print("disabled", bool(objects[path][RULE]["Enabled"]))

try:
    manager.CreateRule("python", dbus.Dictionary(settings, signature="sv"))
except dbus.exceptions.DBusException as error:
    print("refused", error.get_dbus_name(), error.get_dbus_message())

description = json.loads(manager.Describe())
print("described", [rule["name"] for rule in description["rules"]])

rule.Delete(dbus_interface=RULE)
manager.DeleteServerGroups(["python"])
wait_for(lambda member, at, arguments: member == "InterfacesRemoved" and arguments[0] == path)
print("deleted")
