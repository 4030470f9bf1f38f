//! Who may do what, by the real polkitd with the packaged actions on a private bus.

mod common;

use std::collections::HashMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{Bus, NOBODY, Node, Polkit, as_user, need_root, rule, until};
use libilb::client::Client;
use libilb::dbus::{BUS_NAME, ROOT_PATH, rule_path, server_path};
use zbus::{OwnedVariant, Variant, interface, proxy};

/// Users that every Debian has, named in [`RULES`].
const DAEMON: u32 = 1;
const GAMES: u32 = 5;
const MAIL: u32 = 8;

const RULES: &str = r#"
polkit.addRule(function(action, subject) {
    if (subject.user == "daemon" && action.id == "org.ilb.Ilb1.manage-state") return polkit.Result.YES;
    if (subject.user == "mail" && action.id == "org.ilb.Ilb1.manage") return polkit.Result.YES;
    if (subject.user == "games" && action.lookup("method") == "AddServers") return polkit.Result.YES;
    if (subject.user == "games") return polkit.Result.NO;
});
"#;

/// `busctl call` of this user, as far as its arguments.
fn call(bus: &Bus, uid: u32, path: &str, arguments: &[&str]) -> Command {
    let mut command = as_user(uid, "busctl");
    command
        .arg(format!("--address={}", bus.address()))
        .args(["call", BUS_NAME, path])
        .args(arguments);
    command
}

/// A user calls a method of an object, and is let in, or reads words.
type Case<'a> = (u32, &'a str, &'a [&'a str], Result<(), &'a str>);

/// What the user was answered: nothing, or the error.
fn answer(command: &mut Command) -> Result<(), String> {
    let output = command.output().expect("busctl can be run");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8(output.stderr).expect("busctl prints text")),
    }
}

async fn filled(client: &Client) {
    client.create_group("web", &["192.0.2.10"]).await.unwrap();
    let shop = rule("198.51.100.1", "web");
    client.create_rule("shop", &shop).await.unwrap();
}

#[tokio::test]
async fn each_user_may_do_what_polkits_rules_say() {
    need_root();
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    let _polkit = Polkit::start(&bus, RULES);

    let (shop, server) = (rule_path("shop"), server_path("_web.0"));
    let manager = "org.ilb.Ilb1.Manager";
    let describe = [manager, "Describe"];
    let disable_rules = [manager, "DisableRules", "as", "1", "shop"];
    let enable_servers = [manager, "EnableServers", "as", "1", "_web.0"];
    let add = [manager, "AddServers", "sas", "web", "1", "192.0.2.11"];
    let create = [manager, "CreateServerGroup", "sas", "more", "0"];
    let disable_rule = ["org.ilb.Ilb1.Rule", "Disable"];
    let delete_rule = ["org.ilb.Ilb1.Rule", "Delete"];
    let disable_server = ["org.ilb.Ilb1.Server", "Disable"];
    let manage = "polkit action org.ilb.Ilb1.manage";
    let rules = "polkit's rules do not allow it";
    let password = "polkit wants authentication";
    let cases: &[Case] = &[
        // Everybody reads.
        (NOBODY, ROOT_PATH, &describe, Ok(())),
        (GAMES, ROOT_PATH, &describe, Ok(())),
        // Whom no rule knows is asked for a password, and there is no agent here.
        (NOBODY, ROOT_PATH, &disable_rules, Err(password)),
        (NOBODY, ROOT_PATH, &create, Err(password)),
        (NOBODY, &shop, &delete_rule, Err(manage)),
        // A rule lets in to one action, to both, by the method, and keeps out.
        (DAEMON, ROOT_PATH, &disable_rules, Ok(())),
        (DAEMON, ROOT_PATH, &enable_servers, Ok(())),
        (DAEMON, &shop, &disable_rule, Ok(())),
        (DAEMON, &server, &disable_server, Ok(())),
        (DAEMON, ROOT_PATH, &create, Err(password)),
        (DAEMON, &shop, &delete_rule, Err(password)),
        (GAMES, ROOT_PATH, &disable_rules, Err(rules)),
        (GAMES, ROOT_PATH, &create, Err(rules)),
        (GAMES, ROOT_PATH, &add, Ok(())),
        (MAIL, ROOT_PATH, &disable_rules, Ok(())),
        (MAIL, ROOT_PATH, &create, Ok(())),
        (MAIL, &shop, &delete_rule, Ok(())),
    ];
    for (uid, path, arguments, then) in cases {
        let before = client.describe().await.unwrap();
        let got = answer(&mut call(&bus, *uid, path, arguments));
        match (then, got) {
            (Ok(()), Ok(())) => {}
            (Err(words), Err(error)) => {
                assert!(error.contains(words), "{uid} {arguments:?}: {error}");
                let after = client.describe().await.unwrap();
                assert_eq!(after, before, "{uid} {arguments:?}");
            }
            (then, got) => panic!("{uid} {arguments:?}: {got:?}, not {then:?}"),
        }
    }
}

/// Polkit's side of an agent: whom to ask, and with what.
#[proxy(
    interface = "org.freedesktop.PolicyKit1.Authority",
    default_service = "org.freedesktop.PolicyKit1",
    default_path = "/org/freedesktop/PolicyKit1/Authority"
)]
trait Authority {
    fn register_authentication_agent(
        &self,
        subject: &(&str, HashMap<&str, Variant<'_>>),
        locale: &str,
        path: &str,
    ) -> zbus::Result<()>;

    fn authentication_agent_response2(
        &self,
        uid: u32,
        cookie: &str,
        identity: &(&str, HashMap<&str, Variant<'_>>),
    ) -> zbus::Result<()>;
}

/// An agent as a desktop or pkttyagent(1) has one; its user knows the password as soon as the test says so.
struct Agent {
    asked: Arc<Mutex<Vec<String>>>,
    cancelled: Arc<Mutex<u32>>,
    knows: Arc<tokio::sync::Notify>,
}

#[interface(name = "org.freedesktop.PolicyKit1.AuthenticationAgent")]
impl Agent {
    #[expect(clippy::too_many_arguments, reason = "polkit's interface")]
    async fn begin_authentication(
        &self,
        action: String,
        message: String,
        _icon: String,
        _details: HashMap<String, String>,
        cookie: String,
        _identities: Vec<(String, HashMap<String, OwnedVariant>)>,
        #[zbus(connection)] connection: &zbus::Connection,
    ) {
        self.asked
            .lock()
            .unwrap()
            .push(format!("{action}: {message}"));
        self.knows.notified().await;
        let root = ("unix-user", HashMap::from([("uid", Variant::from(0_u32))]));
        let authority = AuthorityProxy::new(connection).await.unwrap();
        authority
            .authentication_agent_response2(0, &cookie, &root)
            .await
            .unwrap();
    }

    async fn cancel_authentication(&self, _cookie: String) {
        *self.cancelled.lock().unwrap() += 1;
    }
}

impl Agent {
    /// Serves the process of this number.
    async fn serve(&self, bus: &Bus, pid: u32) -> zbus::Connection {
        let connection = bus.connection().await;
        let object = Agent {
            asked: self.asked.clone(),
            cancelled: self.cancelled.clone(),
            knows: self.knows.clone(),
        };
        let path = "/agent";
        connection.object_server().at(path, object).await.unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name in parentheses, which may hold anything, it is the twentieth.
        let start: u64 = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(19))
            .unwrap()
            .parse()
            .unwrap();
        let process = (
            "unix-process",
            HashMap::from([
                ("pid", Variant::from(pid)),
                ("start-time", Variant::from(start)),
            ]),
        );
        let authority = AuthorityProxy::new(&connection).await.unwrap();
        authority
            .register_authentication_agent(&process, "C", path)
            .await
            .unwrap();
        connection
    }
}

/// A call of nobody that is made when [`go`] says so, so that an agent can serve its process first.
fn waiting_call(bus: &Bus, arguments: &[&str]) -> Child {
    as_user(NOBODY, "sh")
        .args(["-c", "read go && exec busctl \"$@\"", "busctl"])
        .arg(format!("--address={}", bus.address()))
        .args(["call", BUS_NAME, ROOT_PATH, "org.ilb.Ilb1.Manager"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("setpriv can be run")
}

fn go(child: &mut Child) {
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"go\n").expect("the shell reads");
}

#[tokio::test]
async fn a_password_prompt_keeps_nobody_waiting_and_goes_when_its_caller_goes() {
    need_root();
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    let _polkit = Polkit::start(&bus, "");
    let agent = Agent {
        asked: Arc::default(),
        cancelled: Arc::default(),
        knows: Arc::default(),
    };

    // Given a user at a prompt,
    let mut first = waiting_call(&bus, &["CreateServerGroup", "sas", "asked", "0"]);
    let _first_agent = agent.serve(&bus, first.id()).await;
    go(&mut first);
    until("the agent is asked", || {
        agent.asked.lock().unwrap().len() == 1
    })
    .await;
    // when others call, they are served.
    client.create_group("other", &[]).await.unwrap();
    assert!(client.describe().await.unwrap().group("asked").is_none());
    // When the password is right, then the call is done.
    agent.knows.notify_one();
    until("the call is answered", || {
        first.try_wait().unwrap().is_some()
    })
    .await;
    assert!(first.wait().unwrap().success());
    assert!(client.describe().await.unwrap().group("asked").is_some());

    // Given another at a prompt, when it goes away, then the prompt does, and nothing is done.
    let mut second = waiting_call(&bus, &["CreateServerGroup", "sas", "gone", "0"]);
    let _second_agent = agent.serve(&bus, second.id()).await;
    go(&mut second);
    until("the agent is asked again", || {
        agent.asked.lock().unwrap().len() == 2
    })
    .await;
    second.kill().unwrap();
    second.wait().unwrap();
    until("the prompt is called off", || {
        *agent.cancelled.lock().unwrap() == 1
    })
    .await;
    assert!(client.describe().await.unwrap().group("gone").is_none());

    assert_eq!(
        agent.asked.lock().unwrap()[0],
        "org.ilb.Ilb1.manage: Authentication is required to change the configuration of the load balancer"
    );
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    need_root();
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, _client) = node.start_sim(&bus).await;
    let _polkit = Polkit::start(&bus, RULES);
    let delete = ["org.ilb.Ilb1.Manager", "DeleteAllRules"];
    let error = answer(&mut call(&bus, GAMES, ROOT_PATH, &delete)).unwrap_err();
    assert!(
        error.contains(
            "user 5 may not change the load balancer: polkit's rules do not allow it; run it as root, for example with \
             sudo, or have an administrator allow the polkit action org.ilb.Ilb1.manage"
        ),
        "{error}"
    );
}
