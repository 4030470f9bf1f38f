//! When to listen, when to dial, and which connection is the one that counts.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ilb_pair::{Door, Identity, Link, Token, Trust};
use libilb::pair::NodeDescription;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Event;
use super::join::dial;
use super::keep::Membership;
use super::listener::{self, Guest, Place, ends};
use super::session::{self, Arrived, News};
use super::wire::Frame;

/// Pauses between tries to reach the other node: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Frames that were heard and wait for the manager; a session that has more waits.
const WAITING: usize = 64;
/// How long the other node may take to hear that we leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the network is told.
enum Order {
    /// With whom to be in a pair; nobody ends everything.
    Be(Option<(Arc<Identity>, Membership)>),
    /// Until when to let somebody in who has the token, or nobody.
    Open(Option<Invited>),
    /// Say something about the configuration, in the session of this number.
    Send(u64, Vec<u8>),
    /// Answer when everything before is done.
    Done(oneshot::Sender<()>),
    /// Tell the other node that we have left, and whether it has heard it.
    Leave(oneshot::Sender<bool>),
}

/// Who may join.
struct Invited {
    identity: Arc<Identity>,
    token: Arc<Token>,
    place: Place,
    until: Instant,
    /// Whether the port could be opened.
    reply: oneshot::Sender<io::Result<()>>,
}

/// The manager's end of the pair.
pub struct PairLink {
    orders: mpsc::UnboundedSender<Order>,
    events: mpsc::UnboundedReceiver<Event>,
    beat: watch::Sender<NodeDescription>,
    door: Arc<Door>,
    /// Which session the manager knows of: what it has said in an earlier one is not said in the next.
    session: u64,
}

impl PairLink {
    /// Starts the network, which does nothing yet. Needs a running tokio runtime.
    pub fn start() -> PairLink {
        let (orders, order_receiver) = mpsc::unbounded_channel();
        let (event_sender, events) = mpsc::unbounded_channel();
        let (beat, beat_receiver) = watch::channel(NodeDescription::default());
        let door = Arc::new(Door::new());
        let (arrived, arrivals) = mpsc::channel(1);
        let network = Network {
            door: door.clone(),
            orders: order_receiver,
            events: event_sender,
            beat: beat_receiver,
            arrived,
            arrivals,
            way: None,
            open: None,
            session: None,
            sessions: 0,
        };
        tokio::spawn(network.run());
        PairLink {
            orders,
            events,
            beat,
            door,
            session: 0,
        }
    }

    /// Says with whom we are in a pair.
    pub fn be(&self, membership: Option<(Arc<Identity>, Membership)>) {
        self.order(Order::Be(membership));
    }

    /// Returns when everything that was said before is done: who is told something then, and dials, meets the right listener.
    pub async fn done(&self) {
        let (reply, done) = oneshot::channel();
        self.order(Order::Done(reply));
        // A network that has ended does nothing any more.
        drop(done.await);
    }

    /// Lets somebody in who has the token, until then.
    ///
    /// # Errors
    /// Why the port cannot be opened.
    pub async fn open(
        &self,
        identity: Arc<Identity>,
        token: Token,
        place: Place,
        until: Instant,
    ) -> io::Result<()> {
        let (reply, opened) = oneshot::channel();
        self.order(Order::Open(Some(Invited {
            identity,
            token: Arc::new(token),
            place,
            until,
            reply,
        })));
        opened.await.map_err(io::Error::other)?
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.order(Order::Open(None));
    }

    /// Says how this node stands, now and again and again.
    pub fn stand(&self, beat: NodeDescription) {
        self.beat.send_if_modified(|known| {
            let other = *known != beat;
            *known = beat;
            other
        });
    }

    /// Says something about the configuration, if the link is up.
    pub fn send(&self, frame: Vec<u8>) {
        self.order(Order::Send(self.session, frame));
    }

    /// Tells the other node that we have left the pair. Returns whether it has heard it: then it has ended the connection.
    pub async fn leave(&self) -> bool {
        let (reply, heard) = oneshot::channel();
        self.order(Order::Leave(reply));
        heard.await.unwrap_or(false)
    }

    /// The next that happens. May be dropped and called again.
    pub async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => {
                if matches!(event, Event::Up { .. }) {
                    self.session += 1;
                }
                event
            }
            None => pending().await,
        }
    }

    /// Who was not let in, by reason.
    pub fn refused(&self) -> std::collections::BTreeMap<String, u64> {
        let counted = self.door.counters().refused.into_iter();
        let some = counted.filter(|(_, count)| *count > 0);
        some.map(|(reason, count)| (reason.label().to_owned(), count))
            .collect()
    }

    fn order(&self, order: Order) {
        // It ends with us.
        drop(self.orders.send(order));
    }
}

/// A task that ends with its owner.
struct Task(AbortHandle);

impl Task {
    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(future).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Session {
    _task: Task,
    news: mpsc::Receiver<News>,
    frames: mpsc::UnboundedSender<Frame>,
    over: Option<oneshot::Sender<bool>>,
    local: std::net::IpAddr,
    remote: std::net::IpAddr,
    /// Its number, once the other node was heard.
    up: Option<u64>,
}

struct Network {
    door: Arc<Door>,
    orders: mpsc::UnboundedReceiver<Order>,
    events: mpsc::UnboundedSender<Event>,
    beat: watch::Receiver<NodeDescription>,
    arrived: mpsc::Sender<Arrived>,
    arrivals: mpsc::Receiver<Arrived>,
    /// The listener or the dialer of the pair.
    way: Option<Task>,
    /// The listener for whoever has the token, and until when.
    open: Option<(Task, Instant)>,
    session: Option<Session>,
    /// How many were up.
    sessions: u64,
}

impl Network {
    /// Ends when the [`PairLink`] is dropped.
    async fn run(mut self) {
        loop {
            let until = self.open.as_ref().map(|(_, until)| *until);
            let heard = async {
                match &mut self.session {
                    Some(session) => session.news.recv().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                Some(arrived) = self.arrivals.recv() => self.begin(arrived),
                news = heard => self.hear(news),
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    self.open = None;
                }
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Be(membership) => {
                self.way = None;
                self.end("the pair is another one now");
                // What has arrived meanwhile belongs to the former one.
                while self.arrivals.try_recv().is_ok() {}
                let Some((identity, membership)) = membership else {
                    return;
                };
                self.open = None;
                let trust = Arc::new(Trust {
                    identity,
                    peer: membership.peer,
                    secret: membership.secret.clone(),
                });
                let (arrived, events) = (self.arrived.clone(), self.events.clone());
                self.way = Some(match membership.node {
                    0 => {
                        let place = Place {
                            address: membership.listen,
                            port: membership.port,
                        };
                        let (door, guest) = (self.door.clone(), Guest::Peer(trust));
                        let run = listener::run(place, None, guest, door, arrived, events);
                        Task::spawn(run)
                    }
                    _ => Task::spawn(keep_dialing(membership, trust, arrived, events)),
                });
            }
            Order::Open(None) => self.open = None,
            Order::Open(Some(invited)) => {
                // First of all the port is given free.
                self.open = None;
                tokio::task::yield_now().await;
                let Invited {
                    identity,
                    token,
                    place,
                    until,
                    reply,
                } = invited;
                let opened = listener::bind(place).await.map(|port| {
                    let guest = Guest::Joiner(identity, token);
                    let (arrived, events) = (self.arrived.clone(), self.events.clone());
                    let door = self.door.clone();
                    let run = listener::run(place, Some(port), guest, door, arrived, events);
                    self.open = Some((Task::spawn(run), until));
                });
                // Who asked may have gone away.
                let _ = reply.send(opened);
            }
            Order::Done(reply) => {
                // Who asked may have gone away.
                let _ = reply.send(());
            }
            Order::Send(number, frame) => {
                if let Some(session) = &self.session
                    && session.up == Some(number)
                {
                    // One that is over says so itself.
                    let _ = session.frames.send(Frame::Follow(frame));
                }
            }
            Order::Leave(reply) => {
                // Who asked may have gone away.
                let _ = reply.send(self.leave().await);
            }
        }
    }

    /// A connection is there: it counts from now on. One that was there before is over, whatever it believes: the other node has
    /// begun anew.
    fn begin(&mut self, arrived: Arrived) {
        self.end("the other node has connected anew");
        let (news_sender, news) = mpsc::channel(WAITING);
        let (frames, frame_receiver) = mpsc::unbounded_channel();
        let run = session::run(arrived.link, self.beat.clone(), frame_receiver, news_sender);
        self.session = Some(Session {
            _task: Task::spawn(run),
            news,
            frames,
            over: Some(arrived.over),
            local: arrived.local,
            remote: arrived.remote,
            up: None,
        });
    }

    /// Says farewell, and waits for the other node to end the connection. One of an earlier version does not understand it.
    async fn leave(&mut self) -> bool {
        let Some(session) = self.session.as_mut().filter(|it| it.up.is_some()) else {
            return false;
        };
        if session.frames.send(Frame::Leave).is_err() {
            return false;
        }
        let over = async {
            while let Some(news) = session.news.recv().await {
                if matches!(news, News::Over(_)) {
                    break;
                }
            }
        };
        timeout(FAREWELL, over).await.is_ok()
    }

    fn hear(&mut self, news: Option<News>) {
        let Some(session) = &mut self.session else {
            return;
        };
        match news {
            Some(News::Heard(Frame::Beat(beat))) => {
                let event = match session.up {
                    Some(_) => Event::Heard(beat),
                    None => {
                        self.sessions += 1;
                        session.up = Some(self.sessions);
                        Event::Up {
                            software: beat.software.clone(),
                            beat,
                            local: session.local,
                            remote: session.remote,
                        }
                    }
                };
                self.tell(event);
            }
            // The first word of each is a beat.
            Some(News::Heard(Frame::Follow(message))) if session.up.is_some() => {
                self.tell(Event::Message(message));
            }
            Some(News::Heard(Frame::Leave)) if session.up.is_some() => {
                self.tell(Event::Left);
                self.end("the other node has left the pair");
            }
            Some(News::Heard(_)) => {}
            Some(News::Over(why)) => self.end(&why),
            None => self.end("the connection has ended"),
        }
    }

    fn end(&mut self, why: &str) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        if let Some(over) = session.over.take() {
            // Only who dials wants to know.
            let _ = over.send(session.up.is_some());
        }
        self.tell(match session.up {
            Some(_) => Event::Down(why.to_owned()),
            None => Event::Trouble(why.to_owned()),
        });
    }

    fn tell(&self, event: Event) {
        // It ends with the manager.
        drop(self.events.send(event));
    }
}

/// Tries to reach the other node, again and again, whenever there is no connection.
async fn keep_dialing(
    membership: Membership,
    trust: Arc<Trust>,
    arrived: mpsc::Sender<Arrived>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        match reach(&membership, &trust).await {
            Ok((link, local, remote)) => {
                let (over, ended) = oneshot::channel();
                let it = Arrived {
                    link,
                    local,
                    remote,
                    over,
                };
                if arrived.send(it).await.is_err() {
                    return;
                }
                if ended.await == Ok(true) {
                    pause = FIRST_PAUSE;
                }
            }
            // It ends with the manager.
            Err(why) => drop(events.send(Event::Trouble(why))),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn reach(
    membership: &Membership,
    trust: &Trust,
) -> Result<(Link, std::net::IpAddr, std::net::IpAddr), String> {
    let stream = dial(membership.address, membership.port).await?;
    let (local, remote) = ends(&stream).map_err(|error| error.to_string())?;
    let link = ilb_pair::connect(stream, trust).await;
    let link = link.map_err(|error| error.to_string())?;
    Ok((link, local, remote))
}
