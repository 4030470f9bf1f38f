#!/bin/bash
# Installs the Debian packages that building and testing ilb needs and that are missing; says which. Quick and silent
# about the network when nothing is missing. Needs root only when something is.
set -euo pipefail

packages=(
    # build: the XDP program and the AF_XDP libraries
    clang llvm libelf-dev libpcap-dev zlib1g-dev linux-libc-dev pkg-config m4 gcc g++ make libc6-dev shellcheck
    # (libpcap: the AF_XDP library's configure insists on its headers)
    # lab: networks, clients, servers, a bus, eyes
    iproute2 iputils-ping ethtool tcpdump curl nginx-light vsftpd dbus systemd util-linux jq
    # health checks are made of them: a name server, certificates, an agent that knows the load
    dnsmasq-base openssl ca-certificates snmpd
    # a mail server that falls sick
    python3-aiosmtpd
    # D-Bus as others speak it: polkit, and clients that are not ours
    polkitd libglib2.0-bin python3-dbus python3-gi
    # VRRP: the stranger that we have to get along with; clocks that jump
    keepalived faketime
    # command line: the shells that complete it
    zsh fish
    # the package, and who looks through it
    debhelper lintian
    # metrics as others read them (promtool, too: see below)
    python3-prometheus-client
    # benchmarks: the competition, and a counter of instructions
    nftables valgrind
)

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=absent
    if [ "$state" != installed ]; then
        missing+=("$package")
    fi
done

if [ ${#missing[@]} -gt 0 ]; then
    echo "missing Debian packages: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        echo "run \`sudo make deps\`, or: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    # Installing nginx, vsftpd, snmpd, keepalived or dbus must not start a service on this machine: for the length of this installation a
    # policy-rc.d says so, unless the machine has one of its own, which we leave alone.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\n# made by ilb tests/deps.sh for one installation\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
    fi
    services=()
    for service in nginx vsftpd snmpd keepalived; do
        if [ ! -e "/lib/systemd/system/$service.service" ]; then services+=("$service.service"); fi
    done
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
    # Nor at the next boot: the lab starts its own processes.
    if [ ${#services[@]} -gt 0 ] && [ -d /run/systemd/system ]; then
        systemctl disable "${services[@]}"
    fi
fi

# Prometheus's own judgement of metrics and alerts is one program of its package, whose service nobody wants here.
tools=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/tools
if [ ! -x "$tools/promtool" ]; then
    echo "fetching promtool from the Debian package prometheus"
    scratch=$(mktemp -d)
    (cd "$scratch" && apt-get download -q prometheus && dpkg --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool)
    mkdir -p "$tools"
    mv "$scratch/usr/bin/promtool" "$tools/promtool"
    rm -rf "$scratch"
fi

if ! command -v cargo >/dev/null; then
    cat >&2 <<'MESSAGE'
cargo is not in PATH, nor in ~/.cargo/bin of root or of the user who called sudo.
ilb needs Rust 1.89 or newer; Debian bookworm's is older. Install it as https://rustup.rs says:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
MESSAGE
    exit 1
fi
echo "dependencies are complete ($(cargo --version))"
