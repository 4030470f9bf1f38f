//! The way by which calls come in: the connection to the bus, with a gate where every user's calls take [`Turns`].
//!
//! ```text
//!  bus ──bytes──▶ read task ──replies, signals of the bus──────────▶ ┌──────┐
//!                     │ └──calls──▶ Turns ──whose turn it is──┬─Peer─▶ │ zbus │ ◀──answers──┐
//!                     └──too much──▶ answer task ─┐           │        └──────┘             │
//!                                                 │           └──all others──▶ objects ─────┘
//!  bus ◀──────────────────────────────────────────┴── Writer (tells Turns what is answered) ◀─ zbus
//! ```
//!
//! zbus itself takes whatever comes and gives each call a task of its own, without a limit.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as std_unix;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use zbus::address::transport::{Transport, UnixSocket};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header, Type};
use zbus::names::{BusName, UniqueName};
use zbus::{Address, Connection, Message, connection};

use super::access;
use super::objects;
use super::turns::{Call, Id, Refused, SLOTS, Turns, largest_call};
use crate::manager::ManagerHandle;

/// Replies and signals on their way to zbus, and answers of our own to the bus.
const ON_THE_WAY: usize = 256;
/// Names whose users are remembered.
const NAMES: usize = 1_024;
/// How long the bus may take to say who a name is.
const WHO: Duration = Duration::from_secs(5);
/// Those of whom the bus does not know who they are; the highest number is no user's.
const STRANGER: u32 = u32::MAX;
/// Calls whose answers are as large as the configuration.
const HEAVY: [&str; 6] = [
    "Describe",
    "GetManagedObjects",
    "GetStatistics",
    "History",
    "ListHealthResults",
    "PreviewRollback",
];
/// From here on a call is a user's only one at a time, and is read off the async thread.
const LARGE: usize = 64 << 10;
/// Largest answer: the system bus takes no larger message, and who sends one is thrown off it.
pub const LARGEST_ANSWER: usize = (32 << 20) - 4096;

/// What both halves of the connection and the tasks share.
#[derive(Debug)]
struct Shared {
    turns: Mutex<Turns<Message>>,
    /// Somebody can go on.
    wake: Notify,
    /// To the bus, past zbus.
    answers: mpsc::Sender<Message>,
    served: OnceLock<Served>,
    /// Calls whose answers were too large to be sent, and how large they were.
    too_large: Mutex<HashMap<Id, usize>>,
}

/// What is served, as soon as it is.
#[derive(Debug)]
struct Served {
    connection: Connection,
    handle: ManagerHandle,
}

impl Shared {
    fn turns(&self) -> MutexGuard<'_, Turns<Message>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn too_large(&self) -> MutexGuard<'_, HashMap<Id, usize>> {
        self.too_large
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers past zbus.
    async fn answer(&self, answer: zbus::Result<Message>) {
        match answer {
            // The receiver ends with the connection, and then nobody waits for an answer.
            Ok(message) => drop(self.answers.send(message).await),
            Err(error) => tracing::debug!("no answer: {error}"),
        }
    }
}

/// A handle on the gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Shared>);

impl Gate {
    /// From now on objects are found.
    pub fn serves(&self, connection: &Connection, handle: &ManagerHandle) {
        let served = Served {
            connection: connection.clone(),
            handle: handle.clone(),
        };
        if self.0.served.set(served).is_err() {
            tracing::error!("two managers at one gate");
        }
    }
}

/// Connects to the system bus, with a gate.
///
/// # Errors
/// Those of the connection.
pub async fn connect() -> zbus::Result<(Connection, Gate)> {
    let stream = open(&Address::system()?).await?;
    let (read, write) = stream.into_split();
    let write = Arc::new(tokio::sync::Mutex::new(write));
    // Asks who a name is; on a connection of its own, because the other cannot wait for itself.
    let asking = connection::Builder::system()
        .method_timeout(WHO)
        .build()
        .await?;
    let bus = DBusProxy::new(&asking).await?;
    let (answers, to_send) = mpsc::channel(ON_THE_WAY);
    let (others_in, others) = mpsc::channel(ON_THE_WAY);
    let shared = Arc::new(Shared {
        turns: Mutex::default(),
        wake: Notify::new(),
        answers,
        served: OnceLock::new(),
        too_large: Mutex::default(),
    });
    tokio::spawn(send_answers(to_send, write.clone()));
    let door = Door {
        reader: Reader {
            start: Some(ReadTask {
                socket: Plain(read),
                shared: shared.clone(),
                others: others_in,
                users: Users {
                    bus,
                    known: HashMap::new(),
                    order: VecDeque::new(),
                },
            }),
            shared: shared.clone(),
            others,
        },
        writer: Writer {
            socket: write,
            shared: shared.clone(),
        },
    };
    let connection = connection::Builder::socket(door).build().await?;
    Ok((connection, Gate(shared)))
}

async fn open(address: &Address) -> zbus::Result<UnixStream> {
    let failed = |error: io::Error| zbus::Error::Address(format!("{address}: {error}"));
    let stream = match address.transport() {
        Transport::Unix(unix) => match unix.path() {
            UnixSocket::File(path) => UnixStream::connect(path).await,
            UnixSocket::Abstract(name) => abstract_socket(name.as_encoded_bytes()),
            other => Err(io::Error::other(format!("{other} is none to connect to"))),
        },
        _ => Err(io::Error::other("the system bus is a Unix socket")),
    };
    stream.map_err(failed)
}

fn abstract_socket(name: &[u8]) -> io::Result<UnixStream> {
    let address = std_unix::SocketAddr::from_abstract_name(name)?;
    let stream = std_unix::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn send_answers(
    mut answers: mpsc::Receiver<Message>,
    socket: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
) {
    while let Some(answer) = answers.recv().await {
        if socket.lock().await.write_all(answer.data()).await.is_err() {
            // The reader finds out, too, and ends the connection.
            return;
        }
    }
}

struct Door {
    reader: Reader,
    writer: Writer,
}

impl Socket for Door {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        Split::new(self.reader, self.writer)
    }
}

/// Reads as zbus does by itself. No file descriptors: no method takes any.
#[derive(Debug)]
struct Plain(OwnedReadHalf);

#[async_trait]
impl ReadHalf for Plain {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        Ok((self.0.read(buffer).await?, Vec::new()))
    }
}

/// What zbus reads from: while it makes itself known, the bus; afterwards, what the gate lets in.
#[derive(Debug)]
struct Reader {
    start: Option<ReadTask>,
    shared: Arc<Shared>,
    others: mpsc::Receiver<zbus::Result<Message>>,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        match &mut self.start {
            Some(task) => task.socket.recvmsg(buffer).await,
            None => Err(io::Error::other("messages are read by the gate")),
        }
    }

    async fn receive_message(
        &mut self,
        _seq: u64,
        bytes: &mut Vec<u8>,
        fds: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        if let Some(task) = self.start.take() {
            tokio::spawn(task.run(std::mem::take(bytes), std::mem::take(fds)));
        }
        loop {
            // What zbus itself waits for, before what others want of it.
            if let Ok(other) = self.others.try_recv() {
                return other;
            }
            let next = self.shared.turns().next(Instant::now());
            match next {
                Some(call) if objects::is_for(&call.header()) => self.serve(call),
                Some(call) => {
                    let header = call.header();
                    if header.primary().flags().contains(Flags::NO_REPLY_EXPECTED) {
                        // Nobody will say when it is done.
                        Turn::of(&self.shared, &header);
                    }
                    return Ok(call);
                }
                None => tokio::select! {
                    other = self.others.recv() => {
                        return other.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                    }
                    () = self.shared.wake.notified() => {}
                },
            }
        }
    }
}

impl Reader {
    /// Has a call answered by its object.
    fn serve(&self, call: Message) {
        let shared = self.shared.clone();
        match call.data().len() {
            // To make values of so many bytes takes a while, in which everybody else would wait.
            LARGE.. => {
                let runtime = Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(serve(&shared, &call)));
            }
            _ => drop(tokio::spawn(async move { serve(&shared, &call).await })),
        }
    }
}

async fn serve(shared: &Shared, call: &Message) {
    let header = call.header();
    let turn = Turn::of(shared, &header);
    let Some(served) = shared.served.get() else {
        let name = "org.freedesktop.DBus.Error.UnknownObject";
        let text = "nothing is served yet".to_owned();
        return shared
            .answer(Message::error(&header, name).build(&text))
            .await;
    };
    objects::answer(&served.connection, &served.handle, call).await;
    let unsent = turn.id().and_then(|id| shared.too_large().remove(&id));
    if let Some(length) = unsent {
        let text = objects::too_large(length);
        let name = "org.freedesktop.DBus.Error.LimitsExceeded";
        shared
            .answer(Message::error(&header, name).build(&text))
            .await;
    }
}

/// A call that is being answered. When it is over, in whatever way, its user may have another.
struct Turn<'a> {
    shared: &'a Shared,
    sender: Option<String>,
    serial: u32,
}

impl Turn<'_> {
    fn of<'a>(shared: &'a Shared, header: &Header<'_>) -> Turn<'a> {
        Turn {
            shared,
            sender: header.sender().map(ToString::to_string),
            serial: header.primary().serial_num().get(),
        }
    }
}

impl Turn<'_> {
    fn id(&self) -> Option<Id> {
        Some((self.sender.clone()?, self.serial))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        answered(self.shared, &self.sender, self.serial);
    }
}

/// A call is answered: its user may have another.
fn answered(shared: &Shared, sender: &Option<String>, serial: u32) {
    if let Some(sender) = sender
        && shared.turns().finished(&(sender.clone(), serial))
    {
        shared.wake.notify_one();
    }
}

/// Reads from the bus, and waits for nobody but the bus.
#[derive(Debug)]
struct ReadTask {
    socket: Plain,
    shared: Arc<Shared>,
    others: mpsc::Sender<zbus::Result<Message>>,
    users: Users,
}

impl ReadTask {
    async fn run(mut self, mut bytes: Vec<u8>, mut fds: Vec<OwnedFd>) {
        for sequence in 1.. {
            let message = self
                .socket
                .receive_message(sequence, &mut bytes, &mut fds)
                .await;
            let ended = message.is_err();
            match message {
                Ok(message) if message.message_type() == Type::MethodCall => {
                    self.call(message).await
                }
                // We listen to nobody but the bus; who sends us signals all the same shall not fill our memory.
                Ok(message) if message.message_type() == Type::Signal && !of_the_bus(&message) => {}
                other => drop(self.others.send(other).await),
            }
            if ended {
                return;
            }
        }
    }

    async fn call(&mut self, message: Message) {
        let header = message.header();
        let Some(sender) = header.sender() else {
            return;
        };
        let user = self.users.of(sender).await;
        let member = header.member().map_or("", |member| member.as_str());
        let bytes = message.data().len();
        let heavy = bytes >= LARGE || HEAVY.contains(&member);
        let call = Call {
            id: (sender.to_string(), header.primary().serial_num().get()),
            weight: if heavy { SLOTS } else { 1 },
            bytes,
            item: message.clone(),
        };
        let most = match access::is_trusted(user) {
            true => usize::MAX,
            false => largest_call(member),
        };
        let admitted = match bytes <= most {
            true => self.shared.turns().admit(user, call, Instant::now()),
            false => Err(Refused::Large { bytes, most }),
        };
        match admitted {
            Ok(()) => self.shared.wake.notify_one(),
            Err(refused) => {
                tracing::debug!("user {user}: {refused}");
                if header.primary().flags().contains(Flags::NO_REPLY_EXPECTED) {
                    return;
                }
                let name = "org.freedesktop.DBus.Error.LimitsExceeded";
                // As fast as the bus takes it: so no caller waits in vain.
                let answer = Message::error(&header, name).build(&refused.to_string());
                self.shared.answer(answer).await;
            }
        }
    }
}

fn of_the_bus(message: &Message) -> bool {
    let header = message.header();
    header
        .sender()
        .is_some_and(|sender| sender.as_str() == "org.freedesktop.DBus")
}

/// Who has which name on the bus. The bus gives no name twice.
#[derive(Debug)]
struct Users {
    bus: DBusProxy<'static>,
    known: HashMap<String, u32>,
    order: VecDeque<String>,
}

impl Users {
    async fn of(&mut self, name: &UniqueName<'_>) -> u32 {
        if let Some(user) = self.known.get(name.as_str()) {
            return *user;
        }
        let asked = self
            .bus
            .get_connection_unix_user(BusName::Unique(name.to_owned()))
            .await;
        let user = asked.unwrap_or(STRANGER);
        if self.order.len() >= NAMES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(name.to_string(), user);
        self.order.push_back(name.to_string());
        user
    }
}

/// What zbus writes to.
#[derive(Debug)]
struct Writer {
    socket: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    shared: Arc<Shared>,
}

#[async_trait]
impl WriteHalf for Writer {
    async fn send_message(&mut self, message: &Message) -> zbus::Result<()> {
        let length = message.data().len();
        if length > LARGEST_ANSWER {
            let header = message.header();
            if let (Some(caller), Some(serial)) = (header.destination(), header.reply_serial()) {
                let id = (caller.to_string(), serial.get());
                self.shared.too_large().insert(id, length);
            }
            return Ok(());
        }
        let sent = self.socket.lock().await.write_all(message.data()).await;
        if matches!(message.message_type(), Type::MethodReturn | Type::Error) {
            let header: Header<'_> = message.header();
            let caller = header.destination().map(ToString::to_string);
            if let Some(serial) = header.reply_serial() {
                answered(&self.shared, &caller, serial.get());
            }
        }
        Ok(sent?)
    }

    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.socket.lock().await.write(buffer).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.socket.lock().await.shutdown().await
    }
}
