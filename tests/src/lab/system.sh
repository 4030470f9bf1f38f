#!/bin/bash
# Becomes the first process of a small system: a systemd on a copy-on-write view of this machine's root, in the network
# namespace that it is started in. Started by system.rs in new mount, pid, ipc, uts and cgroup namespaces, with which
# everything here vanishes.
#   system.sh DIRECTORY [command...]     the command runs before systemd, with $ROOT for the new root
set -euo pipefail
directory=$1; shift

mount --make-rprivate /
mkdir -p "$directory/layers" "$directory/root"
mount -t tmpfs tmpfs "$directory/layers"
mkdir "$directory/layers/upper" "$directory/layers/work"
mount -t overlay -o "lowerdir=/,upperdir=$directory/layers/upper,workdir=$directory/layers/work" overlay "$directory/root"
export ROOT=$directory/root

# What this machine has of ilb and of users is not what is tested.
rm -rf "$ROOT/etc/ilb" "$ROOT/var/lib/ilb" "$ROOT/usr/lib/ilb" "$ROOT/run/ilb"
# A machine that builds may forbid packages to start services; here they shall.
rm -f "$ROOT/usr/sbin/policy-rc.d"
if [ $# -gt 0 ]; then "$@"; fi

# Nothing that would touch the machine: its clock, its devices, its other networks, its sysctls.
for unit in sysctl modules-load udevd udev-trigger random-seed binfmt hwdb-update timesyncd networkd resolved logind \
        update-utmp firstboot machine-id-commit; do
    ln -sf /dev/null "$ROOT/etc/systemd/system/systemd-$unit.service"
done
cat >"$ROOT/etc/systemd/system/lab.target" <<'UNIT'
[Unit]
Requires=basic.target dbus.socket
After=basic.target dbus.socket
AllowIsolate=yes
UNIT
rm -rf "$ROOT/etc/machine-id" "$ROOT/var/log/journal"
echo 0123456789abcdef0123456789abcdef >"$ROOT/etc/machine-id"

cd "$ROOT"
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# As systemd mounts it on a machine; in a container it leaves that to others.
mount -t bpf -o mode=700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/net dev/pts dev/shm
# For everybody, as udev makes it.
mknod -m 0666 dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
# The kernel asks per network whether a process may write here, and it is the balancer's.
mount --bind /proc/sys/net proc/sys/net

mkdir -p oldroot
pivot_root . oldroot
umount -l /oldroot
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=lab.target --log-target=journal \
    --show-status=no
