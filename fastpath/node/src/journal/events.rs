//! What may happen that somebody may wait for, each with a number of its own that never changes (`journalctl --new-id128`
//! makes one). They are the same for both daemons, and for every version: what one means may be said better, but not become
//! something else.

/// Something that happens.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name in the documentation.
    pub name: &'static str,
    /// The field `MESSAGE_ID`: 128 bits in hexadecimal digits.
    pub id: &'static str,
    /// In a few words; `@FIELD@` stands for what a field says.
    pub subject: &'static str,
    /// The fields that its entries have besides `MESSAGE_ID`.
    pub fields: &'static [&'static str],
    /// What it means, and what to do.
    pub text: &'static str,
}

macro_rules! events {
    ($($name:ident = $label:literal $id:literal [$($field:literal)*] $subject:literal $text:literal;)+) => {
        $(#[doc = $subject] pub const $name: Event = Event {
            name: $label,
            id: $id,
            subject: $subject,
            fields: &[$($field),*],
            text: $text,
        };)+

        /// All of them.
        pub const ALL: &[&Event] = &[$(&$name),+];
    };
}

events! {
    SERVER_DOWN = "server-down" "2c9f01d245574945acae693b034fdcbd"
        ["ILB_RULE" "ILB_SERVER" "ILB_GROUP" "ILB_STATE" "ILB_CODE"]
        "Server @ILB_SERVER@ of rule @ILB_RULE@ is down"
        "As many tests in a row as the health check asks for have failed, so the rule gives the server no new connections. \
         What happens to those that it has is the rule's setting `orphans`. The message says how the last test failed; \
         `lbadm show-hc-result` has more, and `lbadm explain server` says what that means for the others.";
    SERVER_UP = "server-up" "0a099b766795443ab2042d52dd3d3955"
        ["ILB_RULE" "ILB_SERVER" "ILB_GROUP" "ILB_STATE" "ILB_CODE"]
        "Server @ILB_SERVER@ of rule @ILB_RULE@ is up"
        "As many tests in a row as the health check asks for have passed, so the rule gives the server new connections. With \
         `slow-start` its share grows slowly.";
    PANIC_BEGAN = "panic-began" "70cf5bbe0b5c47258ad8b9de48790960"
        ["ILB_RULE" "ILB_GROUP" "ILB_MODE"]
        "Most servers of rule @ILB_RULE@ look dead at once: panic mode @ILB_MODE@ holds"
        "Fewer servers look alive than `panic-threshold` of the rule asks for, so what health checks say is not followed: \
         the rule's `panic-mode` says what is done. Look first whether this node can reach its servers: a cable, a switch, \
         a firewall, a route. `lbadm show-hc-result` says how the tests fail.";
    PANIC_OVER = "panic-over" "d008fc540bbc46f8a5e73b6c835dd7bc"
        ["ILB_RULE" "ILB_GROUP" "ILB_MODE"]
        "Enough servers of rule @ILB_RULE@ are alive: panic mode @ILB_MODE@ is over"
        "From now on the rule's servers get connections by what health checks say of each.";
    QUORUM_LOST = "quorum-lost" "5367419bfd0b4c999997f33e651e8fee"
        ["ILB_RULE" "ILB_GROUP"]
        "Rule @ILB_RULE@ has lost its quorum"
        "The weight of its servers that are enabled and not found dead has fallen below `quorum` (less `hysteresis`). Sorry \
         servers serve if the group has any, otherwise whoever is left.";
    QUORUM_MET = "quorum-met" "f095bee0bc374f3b8aaedf9f34113d42"
        ["ILB_RULE" "ILB_GROUP"]
        "Rule @ILB_RULE@ has its quorum again"
        "Enough of its servers are alive. Nothing is to be done.";
    NOTIFY_RAN = "notify-ran" "64cbbd44da164750890289d2a52f84b2"
        ["ILB_RULE" "ILB_SERVER" "ILB_EVENT"]
        "A command for @ILB_EVENT@ of rule @ILB_RULE@ was run"
        "It is one of those of the rule's `notify`. The message has the first line that it wrote.";
    NOTIFY_FAILED = "notify-failed" "b244490c3a24493caeb285f8ae37fd28"
        ["ILB_RULE" "ILB_SERVER" "ILB_EVENT"]
        "A command for @ILB_EVENT@ of rule @ILB_RULE@ has failed"
        "It could not be run, ended with another exit code than 0, or took longer than 30 seconds and was killed with its children: \
         the message says which, and the first line that it wrote. It is not run again. It runs as the manager's user, without \
         privileges, and sees its file system: `systemctl show -p User,ProtectSystem ilb`.";
    CONFIGURATION_CHANGED = "configuration-changed" "917f2ddb6fb3478e942d7868be076241"
        ["ILB_GENERATION" "ILB_USER" "ILB_WHAT"]
        "The configuration was changed: generation @ILB_GENERATION@, by @ILB_USER@"
        "The change is stored durably. `lbadm history` lists it, and `lbadm rollback` takes it back.";
    RULE_CREATED = "rule-created" "0b2f8eb112994fbebab69ad6e17d307c"
        ["ILB_RULE" "ILB_GROUP" "ILB_GENERATION" "ILB_USER"]
        "Rule @ILB_RULE@ was created"
        "It is part of the change with the same generation, which may have brought more. One change says this of at most a \
         hundred rules.";
    RULE_CHANGED = "rule-changed" "ecea099ba7a94d5989e66d783f51841f"
        ["ILB_RULE" "ILB_GROUP" "ILB_GENERATION" "ILB_USER"]
        "Rule @ILB_RULE@ was changed"
        "It is part of the change with the same generation, which may have brought more. One change says this of at most a \
         hundred rules.";
    RULE_DELETED = "rule-deleted" "93c50e73c8ac4abc9072a5f01eb8b603"
        ["ILB_RULE" "ILB_GROUP" "ILB_GENERATION" "ILB_USER"]
        "Rule @ILB_RULE@ was deleted"
        "It takes no new connections. Those that it has finish; `conn-drain` limits how long. `lbadm show-rule --deleted` shows \
         it until then, and `lbadm rollback` brings it back. One change says this of at most a hundred rules.";
    GENERATION_APPLIED = "generation-applied" "36e43ec8367e4675905741a282fcc4c3"
        ["ILB_GENERATION"]
        "The fast path forwards by generation @ILB_GENERATION@"
        "All workers have taken up the configuration, and the XDP program steers by it. What health checks find is applied \
         under the generation that is in force.";
    GENERATION_REFUSED = "generation-refused" "16434fd72cdc45d6b5cbc5c6f8dc3156"
        ["ILB_GENERATION"]
        "The fast path refuses generation @ILB_GENERATION@"
        "It goes on forwarding by the generation before. If a change brought this about, the change has been taken back and \
         its author was told. If it is the stored configuration, `lbadm status` says so until it has been corrected.";
    CHANGE_UNDONE = "change-undone" "6d90b2c0bf7b47ad9183446be1f734e5"
        ["ILB_GENERATION" "ILB_USER"]
        "A change was taken back, because it was not confirmed"
        "It was applied with `--confirm`, and nobody has confirmed it in time, perhaps because it cut off the one who made it. \
         Everything is as before it.";
    DEGRADED = "degraded" "b043b6f3b3c44d3b9b2b516a86b67b86"
        ["ILB_GENERATION"]
        "The configuration cannot be stored"
        "From now on nothing can be changed; forwarding and health checks go on. The disk is full or fails, or the file system is \
         read-only: the message says which. It is tried again every ten seconds, and when somebody wants to change something.";
    RECOVERED = "recovered" "9f0248915d9e47c19e4643c9393da372"
        ["ILB_GENERATION"]
        "The configuration can be stored again"
        "A new database was made from the configuration in memory, which is what was acknowledged last. Nothing is to be done.";
    DATABASE_DAMAGED = "database-damaged" "a70626d7232b426fbe2905b0f14365cc"
        ["ILB_DATABASE"]
        "The database @ILB_DATABASE@ was damaged"
        "It was not as it was written last. If there was something to rebuild it from, that has been done, and the message says \
         from which file or generation and where the damaged one is kept: compare `lbadm show-rule` with what you expect. \
         Otherwise nothing was touched, nothing can be changed, and the message says what to do.";
    FASTPATH_LOST = "fastpath-lost" "c02ec27ccd1f4cd68d88714aa208a4d8"
        []
        "The fast path does not answer"
        "While it is away, packets for our services are dropped, so that clients try again, and connections wait for it. \
         `systemctl status ilb-fastpath` says why it has ended; it is started anew by itself.";
    FASTPATH_FOUND = "fastpath-found" "d13b87c6d6b94e658c56ddc9ee9c9030"
        ["ILB_GENERATION"]
        "The fast path answers; it forwards by generation @ILB_GENERATION@"
        "If that is not the present generation, it gets that now.";
    DRIFT_FOUND = "drift-found" "2ac50b89d0a54fc7a3071ae8210b187d"
        ["ILB_DRIFT" "ILB_ITEM" "ILB_WANTED" "ILB_ACTUAL"]
        "@ILB_ITEM@ is not as it should be: @ILB_ACTUAL@ instead of @ILB_WANTED@"
        "Somebody or something has changed what ilb had put into the kernel, or the fast path has another configuration than the \
         manager. It is being repaired; `lbadm status` shows it until that is done. If it comes again and again, something \
         else on this machine manages the same thing.";
    DRIFT_REPAIRED = "drift-repaired" "05e1fe5034914a74b7d5f2b230a3aa8b"
        ["ILB_DRIFT" "ILB_ITEM" "ILB_WANTED"]
        "@ILB_ITEM@ is as it should be again"
        "What was found before has been put right. Nothing is to be done.";
    SERVERS_FOLLOWED = "servers-followed" "bbdeb8684c4e8206c9e1dfdc8f47e915"
        ["ILB_GROUP" "ILB_ADDED" "ILB_REMOVED"]
        "Server group @ILB_GROUP@ follows its source: @ILB_ADDED@ added, @ILB_REMOVED@ removed"
        "The name or subnet of the group has given other servers than before. The change is in `lbadm history`; removed servers keep \
         their connections until these end or `conn-drain` is over.";
    CANDIDATE_FOUND = "candidate-found" "751a63aaeb460fbaa898e89350a43506"
        ["ILB_GROUP" "ILB_SERVER"]
        "Server @ILB_SERVER@ waits to be approved for server group @ILB_GROUP@"
        "The group's source has found it, and its policy is `approve=ask`. `lbadm show-candidate` lists who waits, `lbadm \
         approve-server` takes them in, and `except=` leaves them out for good.";
    SOURCE_FAILED = "source-failed" "5548ef625fbe4beb0219ac10193669bd"
        ["ILB_GROUP" "ILB_REASON"]
        "The servers of group @ILB_GROUP@ cannot be followed: @ILB_REASON@"
        "The name did not resolve, nobody in the subnet answered, or what was found cannot be used. The servers that the group has stay, \
         and it is tried again. `lbadm show-servergroup` says how it stands.";
    SOURCE_ANSWERS = "source-answers" "ce96d3ca237592ac773e775e6eb7c1cb"
        ["ILB_GROUP"]
        "The servers of group @ILB_GROUP@ are followed again"
        "What kept the group's source from being followed is over. Nothing is to be done.";
    VRRP_ACTIVE = "vrrp-active" "91c92e6bd1b2456a9628bdb79dc6ad5d"
        ["ILB_VRRP"]
        "VRRP instance @ILB_VRRP@ is active: this node has its addresses"
        "The message says why: no other node was heard, the priority is the highest, another one has given up. The addresses have been put \
         on the interface and announced. Unless it was planned (`lbadm disable-vrrp` on the other node), look there.";
    VRRP_BACKUP = "vrrp-backup" "de9bdb164cb04dd28447884cac4c271b"
        ["ILB_VRRP"]
        "VRRP instance @ILB_VRRP@ is a backup"
        "Another node has the addresses, or will have them in a moment. The message says which, and why.";
    VRRP_FAULT = "vrrp-fault" "ab03939bf62d4f5e80792eef6e9bd105"
        ["ILB_VRRP"]
        "VRRP instance @ILB_VRRP@ takes no part"
        "What it depends on fails: its interface is down, the fast path does not answer, something that it tracks is not well. The message \
         says what. Another node takes over; this one takes part again by itself when that is over.";
    PEER_FOUND = "peer-found" "20882ebbb8a54718902806a475e195c0"
        ["ILB_PEER"]
        "The fast path of the peer @ILB_PEER@ answers"
        "Connections follow from now on. What the two do not know of each other is told first.";
    PEER_LOST = "peer-lost" "8b61d4e60c1549ff83bd48e19358227a"
        ["ILB_PEER"]
        "The fast path of the peer @ILB_PEER@ does not answer any more"
        "Nothing came from it for five seconds. Forwarding goes on; what changes meanwhile is noted, and told when it is back. Were this \
         node to fail now, connections that began since would break.";
    PEER_COMPLETE = "peer-complete" "ac66e3da665b47cfa2d399a893116067"
        ["ILB_PEER"]
        "The peer @ILB_PEER@ has told all of its connections"
        "If it fails now, its connections go on here.";
    PAIR_JOINED = "pair-joined" "af47617146ab4a2f8a9b77587d32a21d"
        ["ILB_PEER"]
        "This node and @ILB_PEER@ are a pair"
        "One has joined the other with its token. From now on what is changed on one is changed on the other, and connections follow. \
         `lbadm show-pair` shows how it stands. If nobody wanted that: `lbadm pair leave`.";
    PAIR_LEFT = "pair-left" "5170770c29104cf5a9b274de8e820aff"
        ["ILB_PEER"]
        "This node has left the pair with @ILB_PEER@"
        "Each node keeps its configuration and goes on by itself. The other one was told if it was heard; the message says so. If not, \
         it has to leave, too, before it can be in another pair.";
    PAIR_PEER_LEFT = "pair-peer-left" "92d1c41c3c4f4d5ab18ec4bd3e9a4d0e"
        ["ILB_PEER"]
        "The other node of the pair, @ILB_PEER@, has left it"
        "Somebody has said `lbadm pair leave` there. This node stands alone and keeps its configuration and addresses; nothing \
         follows any more, and it may be in another pair at once. `lbadm pair leave` takes note of it.";
    PAIR_LINK_UP = "pair-link-up" "2fcf1ab3cd2547008fb01715b9b4a7f9"
        ["ILB_PEER"]
        "The managers of the pair hear each other: @ILB_PEER@"
        "What one has missed of the other's configuration follows now.";
    PAIR_LINK_LOST = "pair-link-lost" "508b27024b0a4688ac677ff99a23a140"
        []
        "The other manager of the pair is not heard any more"
        "The message says why. Addresses and connections do not depend on it. What is changed on either node follows when they hear each \
         other again; changed on both, one of them wins by a rule and says so. See whether the other node is up, and whether TCP port \
         49281 gets through.";
    PAIR_FAILOVER = "pair-failover" "09438c31da5547b5a5b04828f965eb18"
        []
        "This node gives its addresses to the other node of the pair"
        "Somebody has said `lbadm failover`. This node does not take them back by itself while the other one has them.";
    MAINTENANCE_BEGAN = "maintenance-began" "e6240eb59af2467eb24c11c2b0ad6165"
        []
        "This node is in maintenance"
        "It takes no addresses by VRRP until `lbadm maintenance off`, also after a restart.";
    MAINTENANCE_OVER = "maintenance-over" "5334f309f92242c889feb36fb361a33f"
        []
        "This node is not in maintenance any more"
        "It takes part by VRRP again, as its instances are configured.";
    PAIR_FORKED = "pair-forked" "37e120bdb6da43008348b09831f8b984"
        ["ILB_GENERATION"]
        "Conflicting histories: the configuration of one node of the pair gave way"
        "Both nodes were changed while they did not hear each other. The configuration of the active node is in force on both now, or, \
         if both or neither were active, that of the node with more changes. The message says how many changes gave way. They are in \
         the history of the node on which they were made (`lbadm history`), and `lbadm rollback` brings them back. `lbadm pair \
         acknowledge` clears the notice in `lbadm show-pair`.";
    PAIR_OUT_OF_STEP = "pair-out-of-step" "50687de25e46480b9fbb7754e2993703"
        []
        "A change was made without the other node of the pair"
        "The other node is connected and did not answer in time. It gets the change when it answers. If that happens often, see what \
         keeps it busy.";
    PAIR_REFUSED = "pair-refused" "ac14a74671454da6bdbd97cb6b386c8f"
        ["ILB_REASON"]
        "The configuration does not follow in the pair"
        "One node does not take what the other one has: @ILB_REASON@. It goes on with the configuration that it had, and is asked \
         again every few seconds. `lbadm show-pair` shows how far it is behind.";
}
