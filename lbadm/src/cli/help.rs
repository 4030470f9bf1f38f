//! What `lbadm` says without a command, and what its help has after the options.

/// What `lbadm` alone says.
pub const OVERVIEW: &str = "\
lbadm administers the ilb load balancer. To balance a web site over two servers:

  lbadm create-servergroup -s server=192.0.2.11:80,server=192.0.2.12:80 web
  lbadm create-rule -e -i vip=192.0.2.80,port=80 -m lbalg=rr,type=HALF-NAT \\
        -o servergroup=web www

  lbadm status                  is all well, and if not, what to do
  lbadm show-rule               what is configured, and whether it works
  lbadm show-server             the servers of every rule
  lbadm explain server _web.0   why a server gets connections, or does not
  lbadm top                     traffic, live; show-statistics for scripts
  lbadm show-connections        who is connected to which server
  lbadm disable-server _web.0   no new connections; those that live go on
  lbadm history                 what was changed; 'lbadm rollback' undoes it

All commands: lbadm help        One of them: lbadm help create-rule
";

pub const AFTER_HELP: &str = "\
Every command has its own help with examples: lbadm help create-rule
Commands have short forms: -rule is -rl, -servergroup is -sg, -server is -srv,
-healthcheck is -hc, -statistics is -stats, -config is -cf.
Names, keys and values are the same in upper and lower case.
Who is not root may be asked for a password, as polkit's rules say; scripts
that shall fail instead have --no-ask-password.

Exit codes: 0 done; 1 failed, nothing changed; 2 wrong command line;
3 the manager is not running; 4 not authorised; 5 degraded, nothing can be
stored.";
