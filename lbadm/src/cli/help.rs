//! What `lbadm` says without a command, and what its help has after the options.

/// What `lbadm` alone says.
pub const OVERVIEW: &str = "\
lbadm administers the ilb load balancer. To balance a web site over two servers:

  lbadm create-servergroup -s server=192.0.2.11:80,server=192.0.2.12:80 web
  lbadm create-rule -e -i vip=192.0.2.80,port=80 -m lbalg=rr,type=HALF-NAT \\
        -o servergroup=web www

  lbadm show-rule               what is configured, and whether it works
  lbadm show-server             the servers of every rule
  lbadm show-statistics 1       traffic, every second
  lbadm show-connections        who is connected to which server
  lbadm disable-server _web.0   no new connections; those that live go on
  lbadm status                  manager and fast path

All commands: lbadm help        One of them: lbadm help create-rule
";

pub const AFTER_HELP: &str = "\
Every command has its own help with examples: lbadm help create-rule
Commands have short forms: -rule is -rl, -servergroup is -sg, -server is -srv,
-healthcheck is -hc, -statistics is -stats, -config is -cf.
Names, keys and values are the same in upper and lower case.

Exit codes: 0 done; 1 failed, nothing changed; 2 wrong command line;
3 the manager is not running; 4 not authorised; 5 degraded, nothing can be
stored.";

pub const CREATE_RULE_HELP: &str = "\
Keys:
  -i vip=ADDRESS              address that clients connect to; the manager puts
                              it on an interface; -i may be repeated for
                              further vips
     port=PORT                a number, a range a-b, a service name, or any
     protocol=PROTOCOL        tcp if not given, udp, sctp, icmp or any (alias
                              prot); icmp and any have no port
     client=NETWORK,...       only these clients (alias src)
     manage-addresses=yes|no  no: you put the addresses on an interface
  -m lbalg=ALGORITHM          how a server is chosen (alias algo), see below
     flags=FLAG,...           sh-fallback sh-port mh-fallback mh-port
     type=TOPOLOGY            DSR (d), NAT (n), HALF-NAT (h) or TUN (t)
                              (alias topo)
     proxy-src=ADDRESS,...    NAT, TUN: 1 to 10 source addresses towards the
                              servers, or ranges a-b (alias nat-src)
     tunnel=ipip|gre|gue      TUN: how packets are wrapped; ipip if not given
     gue-port=PORT            UDP port of gue; 6080 if not given
     tunnel-checksum=KIND     none, full, or with gue remote
     pmask=/N                 persistence: clients whose first N bits are the
                              same come back to their server; -p is all bits
                              (alias persist)
     one-packet=yes           udp under DSR or TUN: choose for each packet
                              (alias ops)
     orphans=WHAT             connections whose server is dead or gone:
                              reschedule (default), reset or drop
     max-new-flows=N          new flows a second
  -t conn-drain=SECONDS       how long connections may live on after disabling
                              or removal; not given: until they end
     nat-timeout=SECONDS      idle time after which a connection is forgotten;
                              0 or not given: 120 (tcp), 60 (udp);
                              under DSR and TUN 900 and 300
     persist-timeout=SECONDS  persistence after the last connection; 60
     slow-start=SECONDS       in which a new server comes up to its share
     STATE=SECONDS            idle time of one state: tcp-established
                              syn-received fin-wait time-wait close close-wait
                              last-ack udp sctp icmp other
  -o servergroup=NAME         where it goes (alias sg)

Algorithms: roundrobin (rr), hash-ip (hip), hash-ip-port (hipp), hash-ip-vip
(hipv); and those of LVS: wrr weighted round robin, lc and wlc (weighted) least
connections, sed shortest expected delay, nq never queue, lblc and lblcr
locality-based, dh and sh destination and source hash, mh Maglev, fo failover,
ovf overflow, twos the better of two.

Topologies:
  DSR       the servers hold the VIP on lo and answer clients themselves
  HALF-NAT  the servers' route to the clients leads through the balancer
  NAT       the servers see a proxy-src address as client; nothing to set up
  TUN       the servers unwrap packets, hold the VIP, answer themselves

Two rules may claim the same traffic if one is more specific: first the longer
client network counts, then the narrower port range, then the protocol rather
than any. A rule is created disabled unless -e is given.

Examples:
  lbadm create-rule -e -i vip=192.0.2.80,port=80 -m lbalg=rr,type=HALF-NAT \\
        -o servergroup=web www
  lbadm create-rule -e -i vip=192.0.2.80,port=443 \\
        -m lbalg=hash-ip,type=NAT,proxy-src=192.0.2.90-192.0.2.91 \\
        -t conn-drain=60 -o servergroup=web www-tls
  lbadm create-rule -i vip=2001:db8::53,port=domain,prot=udp \\
        -m algo=hipp,topo=d -o sg=dns6 dns
  lbadm create-rule -e -p -i vip=192.0.2.21,port=any -m lbalg=wlc,type=h \\
        -t persist-timeout=300 -o servergroup=ftp ftp
  lbadm create-rule -e -i vip=192.0.2.80,port=80 -i vip=192.0.2.80,port=443 \\
        -m lbalg=mh,flags=mh-port,type=TUN,tunnel=gue,proxy-src=192.0.2.9 \\
        -o servergroup=far far";

pub const MODIFY_RULE_HELP: &str = "\
'lbadm help create-rule' explains the keys. Algorithm, flags, persistence,
times, limits, orphans and clients can be changed; vips, type, tunnel, proxy-src
and servergroup are what connections depend on and stay. pmask=none ends
persistence, client=any opens the rule for all, a time of 0 is the default.

Examples:
  lbadm modify-rule -m lbalg=wlc www
  lbadm modify-rule -p -t persist-timeout=600 www
  lbadm modify-rule -m max-new-flows=1000,orphans=reset -t fin-wait=30 www";

pub const SERVER_SPEC_HELP: &str = "\
A server is written host[:port], address[:port] or first-last[:port], an IPv6
address in brackets; the port may be a range. A range of addresses spans at
most 256. name=address keeps a name without looking it up.

Without port a server has the ports of the rule. One port takes all ports of
the rule; a range as large as the rule's shifts them.

Keys behind servers are for those before them: weight (0 to 65535, 1 if not
given; 0 takes no new connections), max-conn (connections at which it takes no
more) and min-conn (below which it does again).

Examples:
  lbadm create-servergroup -s server=192.0.2.11:80,server=192.0.2.12:80 web
  lbadm create-servergroup -s server=192.0.2.11,weight=3,server=192.0.2.12 two
  lbadm create-servergroup -s server=192.0.2.11-192.0.2.20 farm
  lbadm create-servergroup -s server=[2001:db8::11]:8080-8089 web6";

pub const ADD_SERVER_HELP: &str = "\
'lbadm help create-servergroup' explains how servers are written.

Examples:
  lbadm add-server -s server=192.0.2.13:80 web
  lbadm add-server -s server=192.0.2.13:80,weight=3,max-conn=1000 web
  lbadm add-server -s server=192.0.2.14-192.0.2.17:80 web
  lbadm add-server -s server=web5=192.0.2.18:80,server=192.0.2.19:80 web
  lbadm add-server -s server=[2001:db8::13] web6";

pub const STATISTICS_HELP: &str = "\
Columns: PKT_P BYTES_P forwarded, PKT_U BYTES_U left to the kernel, PKT_D
BYTES_D dropped. -v adds ICMP_P ICMP_D (ICMP errors), ICMP2BIG_P ICMP2BIG_D
(too-big ones), NOMEMP_D NOPORTP_D (drops because there was no room in the
connection table, no NAT port), ADMISSION_D (drops of new flows over a limit),
REPLACED (half-open connections that made way for others), NEWCONN (connections
begun) and CONNECTIONS (living now). --drops has every reason for drops.

With an interval the first line counts from the start of the fast path, the
others are per second; -d shows what was added in the interval instead, -A
what there is in all.

Examples:
  lbadm show-statistics
  lbadm show-statistics 1
  lbadm show-statistics -t -r www 5 12
  lbadm show-statistics -i -r www
  lbadm show-statistics -p -o pkt_p,bytes_p -r www
  lbadm show-statistics --drops";

pub const CONNECTIONS_HELP: &str = "\
What is given must all hold. Fields: rulename protocol client vip serverid
server state idle expires, and source (what the server sees under NAT). IDLE is
seconds since the last packet; EXPIRES seconds until the connection is forgotten
if no more come. Looking does not disturb forwarding; a connection that begins
or ends meanwhile may be missed.

States: syn-received established fin-wait close-wait last-ack time-wait close
for tcp; fresh (first packets only) and flowing for others. With --persistence
persistence and offered (the client has not shown yet that it is real).

Examples:
  lbadm show-connections
  lbadm show-connections -r www --state established --limit 1000
  lbadm show-connections --client 203.0.113.0/24 --protocol udp
  lbadm show-connections -s _web.0 -p -o client,server
  lbadm show-connections --persistence -r ftp";

pub const EXPLAIN_HELP: &str = "\
The fast path answers by the code that forwards, and nothing changes: which
connection or rule the packet is for, or which come near; which server the
client is kept on, which could take it and which one would; how it would leave,
or why it is dropped.

PROTOCOL is tcp, udp, sctp, icmp or a number. SOURCE and DESTINATION are
address:port, an IPv6 address in brackets. Packets of icmp have an identifier
in place of a port: queries at the source, replies at the destination.
A tcp packet is a syn, one of sctp begins an association, one of icmp is an
echo request, unless said otherwise.

Examples:
  lbadm explain tcp 203.0.113.9:40000 192.0.2.80:80
  lbadm explain --flags ack tcp 203.0.113.9:40000 192.0.2.80:80
  lbadm explain udp [2001:db8::9]:5353 [2001:db8::53]:53
  lbadm explain icmp 203.0.113.9:77 192.0.2.80";
